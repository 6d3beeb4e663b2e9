/**
 * The Consensus port of one node, in any world: its member of the group, and what nodes say to one another beside the protocol.
 * A follower forwards what is proposed and asked to its leader, under numbers that the leader takes in order only.
 */
import { Effect } from "effect"
import type { Message, Recorded } from "../events/envelope.ts"
import type { RaftMessage, RaftSettings } from "../events/raft.ts"
import { GroupMember } from "./group-member.ts"
import type { Answer, Protocol } from "./group-member.ts"
import { stampedText } from "./ordered.ts"
import { Consensus, Unavailable } from "./ports/consensus.ts"
import type { Follower, Proposed } from "./ports/consensus.ts"

/** What is asked of a leader and answered at once, without a place in the log of its own. */
export type Ask =
  | { readonly what: "read" }
  | {
      readonly what: "change"
      readonly voters: ReadonlyArray<string>
      readonly learners: ReadonlyArray<string>
    }
  | { readonly what: "transfer"; readonly to: string }

/** What one node says to another. */
export type GroupMessage =
  | { readonly kind: "raft"; readonly message: RaftMessage }
  /** To be placed by the leader of this term; `life` and `id` count this sender's. */
  | {
      readonly kind: "propose"
      readonly id: number
      readonly life: string
      readonly term: number
      readonly data: string
    }
  | { readonly kind: "ask"; readonly id: number; readonly ask: Ask }
  | { readonly kind: "told"; readonly id: number; readonly answer: Answer }
  | { readonly kind: "facts"; readonly id: number; readonly after: number; readonly limit: number }
  | {
      readonly kind: "journal"
      readonly id: number
      readonly facts: ReadonlyArray<Recorded>
      /** Why there are none; null when there are, or the journal ends there. */
      readonly problem: string | null
    }

export interface GroupWorld {
  /** A clock that never goes back; where it begins does not matter. */
  readonly nowMs: () => number
  /** The time of day. */
  readonly timeMs: () => number
  readonly chance: () => number
  /** False when that node can't be reached now. What is sent may be lost all the same. */
  readonly send: (to: string, message: GroupMessage) => boolean
  /** See `GroupPorts`. */
  readonly keep: (facts: ReadonlyArray<Message>, stored: () => void) => void
  readonly wake: (atMs: number) => void
  /** Of the own journal; `done` is told once. */
  readonly readFacts: (
    after: number,
    limit: number,
    done: (facts: ReadonlyArray<Recorded> | null, problem: string | null) => void
  ) => void
  /** The log may forget what is before: members, and those who are a little behind, get the rest. */
  readonly keepEntries: number
  readonly halt: (reason: string) => void
}

interface Waiting {
  readonly to: string
  readonly told: (answer: Answer | null) => void
}

/** Who waits is bounded by the callers' own limits; these are for what can't be. */
const waiting_max = 100_000

export class GroupNode {
  readonly id: string
  readonly member: GroupMember
  readonly #world: GroupWorld
  readonly #life: string
  #follower: Follower | null = null
  #numbers = 0
  readonly #waiting = new Map<number, Waiting>()
  readonly #fetching = new Map<number, (message: Extract<GroupMessage, { kind: "journal" }> | null) => void>()
  readonly #fetchingFrom = new Map<number, string>()
  /** Of each sender the last number that was taken, in the term in which this node leads. */
  #taken = new Map<string, { readonly life: string; readonly id: number }>()
  #takenTerm = 0

  constructor(id: string, life: string, settings: RaftSettings, protocol: Protocol, world: GroupWorld) {
    this.id = id
    this.#life = life
    this.#world = world
    this.member = new GroupMember(id, settings, protocol, {
      nowMs: world.nowMs,
      chance: world.chance,
      send: (to, message) => void world.send(to, { kind: "raft", message }),
      keep: world.keep,
      wake: world.wake,
      decided: (entries) => this.#followed.decided(entries),
      snapshot: () => this.#followed.snapshot(),
      install: (from, place, done) => this.#followed.install(from, place, done),
      offers: (from) => this.#followed.offers(from),
      leads: (isLeading) => this.#followed.leads(isLeading)
    })
  }

  get #followed(): Follower {
    if (this.#follower === null) throw new Error("consensus: something is decided, and nobody follows")
    return this.#follower
  }

  receive(from: string, message: GroupMessage): void {
    switch (message.kind) {
      case "raft":
        return this.member.receive(from, message.message)
      case "propose":
        return this.#place(from, message)
      case "ask":
        return this.#ask(message.ask, (answer) => this.#tell(from, message.id, answer))
      case "told":
        return this.#told(from, message.id, message.answer)
      case "facts":
        return this.#readFacts(from, message)
      case "journal": {
        if (this.#fetchingFrom.get(message.id) !== from) return
        const done = this.#fetching.get(message.id)
        this.#forgetFetch(message.id)
        return done?.(message)
      }
    }
  }

  /** The connection with that node has ended, and there is no other. */
  lost(peer: string): void {
    this.unanswered(peer)
    this.member.lost(peer)
  }

  /** What was asked of that node may not be answered any more: a connection with it has ended. */
  unanswered(peer: string): void {
    for (const [id, { to, told }] of this.#waiting) {
      if (to !== peer) continue
      this.#waiting.delete(id)
      told(null)
    }
    for (const [id, from] of this.#fetchingFrom) {
      if (from !== peer) continue
      const done = this.#fetching.get(id)
      this.#forgetFetch(id)
      done?.(null)
    }
  }

  #forgetFetch(id: number): void {
    this.#fetching.delete(id)
    this.#fetchingFrom.delete(id)
  }

  #tell(to: string, id: number, answer: Answer): void {
    this.#world.send(to, { kind: "told", id, answer })
  }

  #told(from: string, id: number, answer: Answer): void {
    const waiting = this.#waiting.get(id)
    if (waiting?.to !== from) return
    this.#waiting.delete(id)
    waiting.told(answer)
  }

  /** A forwarded proposal. One that a later one of its sender has overtaken is not placed any more. */
  #place(from: string, { id, life, term, data }: Extract<GroupMessage, { kind: "propose" }>): void {
    const decline = (reason: string) =>
      this.#tell(from, id, { answer: "declined", reason, leader: this.member.state.leader })
    if (this.member.role !== "leader" || this.member.state.term !== term) return decline("not-leader")
    if (this.#takenTerm !== term) {
      this.#taken = new Map()
      this.#takenTerm = term
    }
    const last = this.#taken.get(from)
    if (last !== undefined && last.life === life && id <= last.id) return decline("overtaken")
    this.#taken.set(from, { life, id })
    this.member.propose(stampedText(this.#world.timeMs(), data), (answer) => this.#tell(from, id, answer))
  }

  #ask(ask: Ask, told: (answer: Answer) => void): void {
    if (ask.what === "read") this.member.read(told)
    else if (ask.what === "change") this.member.change(ask.voters, ask.learners, told)
    else this.member.transfer(ask.to, told)
  }

  #readFacts(from: string, { id, after, limit }: Extract<GroupMessage, { kind: "facts" }>): void {
    this.#world.readFacts(after, Math.min(limit, facts_max), (facts, problem) => {
      this.#world.send(from, { kind: "journal", id, facts: facts ?? [], problem })
    })
  }

  /** Sends it to the leader, and gives its number; null when there is nobody to send it to. */
  #forward(make: (id: number) => GroupMessage, told: (answer: Answer | null) => void): number | null {
    const { leader } = this.member.state
    if (leader === null || leader === this.id || this.#waiting.size >= waiting_max) return null
    const id = ++this.#numbers
    this.#waiting.set(id, { to: leader, told })
    if (this.#world.send(leader, make(id))) return id
    this.#waiting.delete(id)
    return null
  }

  propose(data: string, told: (proposed: Proposed) => void): number {
    const { term } = this.member.state
    const reached = (answer: Answer | null) => told(proposedOf(answer))
    if (this.member.role === "leader") this.member.propose(stampedText(this.#world.timeMs(), data), reached)
    else if (this.#forward((id) => ({ kind: "propose", id, life: this.#life, term, data }), reached) === null)
      told({ outcome: "declined", reason: "no leader is known, or it can't be reached" })
    return term
  }

  /** Gives the number under which it was sent to another node. */
  #askLeader(ask: Ask, told: (answer: Answer | null) => void): number | null {
    if (this.member.role === "leader") {
      this.#ask(ask, told)
      return null
    }
    const id = this.#forward((number) => ({ kind: "ask", id: number, ask }), told)
    if (id === null)
      told({ answer: "declined", reason: "no leader is known, or it can't be reached", leader: null })
    return id
  }

  #asked(ask: Ask): Effect.Effect<Answer, Unavailable> {
    const asked = Effect.callback<Answer, Unavailable>((resume) => {
      const id = this.#askLeader(ask, (answer) => {
        const reason = answer === null ? "the leader can't be heard any more" : null
        if (answer !== null && answer.answer !== "declined") return resume(Effect.succeed(answer))
        const declined = reason ?? (answer?.answer === "declined" ? answer.reason : "")
        const error = { node: this.id, mayHappen: answer === null, reason: declined }
        resume(Effect.fail(new Unavailable(error)))
      })
      return Effect.sync(() => {
        if (id !== null) this.#waiting.delete(id)
      })
    })
    return asked.pipe(this.#inTime(this.id, ask.what !== "read"))
  }

  /** Who does not know this node as a member hears nothing that it asks, and says nothing. */
  #inTime(node: string, mayHappen: boolean) {
    const reason = `it was not answered within ${answer_maxMs} ms`
    return <A>(work: Effect.Effect<A, Unavailable>): Effect.Effect<A, Unavailable> =>
      work.pipe(
        Effect.timeoutOrElse({
          duration: answer_maxMs,
          orElse: () => Effect.fail(new Unavailable({ node, mayHappen, reason }))
        })
      )
  }

  #fetch(from: string, after: number, limit: number): Effect.Effect<ReadonlyArray<Recorded>, Unavailable> {
    const fetched = Effect.callback<ReadonlyArray<Recorded>, Unavailable>((resume) => {
      const failed = (reason: string) =>
        resume(Effect.fail(new Unavailable({ node: from, mayHappen: false, reason })))
      const id = ++this.#numbers
      this.#fetchingFrom.set(id, from)
      this.#fetching.set(id, (message) => {
        if (message === null) failed("it can't be reached any more")
        else if (message.problem !== null) failed(message.problem)
        else resume(Effect.succeed(message.facts))
      })
      if (this.#world.send(from, { kind: "facts", id, after, limit }))
        return Effect.sync(() => this.#forgetFetch(id))
      this.#forgetFetch(id)
      failed("it can't be reached")
    })
    return fetched.pipe(this.#inTime(from, false))
  }

  service(): Consensus["Service"] {
    return Consensus.of({
      node: this.id,
      follow: (follower) => {
        this.#follower = follower
      },
      propose: (data, told) => this.propose(data, told),
      readIndex: Effect.flatMap(this.#asked({ what: "read" }), (answer) =>
        answer.answer === "readable"
          ? Effect.succeed(answer.index)
          : Effect.fail(new Unavailable({ node: this.id, mayHappen: false, reason: answer.answer }))
      ),
      status: () => this.member.status(),
      leadsNow: () => this.member.leadsNow(),
      change: (voters, learners) => Effect.asVoid(this.#asked({ what: "change", voters, learners })),
      factsAfter: (node, position, limit) => this.#fetch(node, position, limit),
      transfer: (to) => Effect.asVoid(this.#asked({ what: "transfer", to })),
      halt: (reason) => this.#world.halt(reason),
      applied: (index) => {
        const before = index - this.#world.keepEntries
        if (before > this.member.state.log.base) this.member.compact(before)
      }
    })
  }
}

/** What another node is asked for is answered within a round of the group, and a page of its journal. */
const answer_maxMs = 5000
/** Of one page of another node's journal. */
const facts_max = 1000

function proposedOf(answer: Answer | null): Proposed {
  if (answer === null) return { outcome: "unknown", reason: "the leader can't be heard any more" }
  if (answer.answer === "declined") return { outcome: "declined", reason: answer.reason }
  return { outcome: "placed", index: answer.index, term: answer.answer === "placed" ? answer.term : 0 }
}
