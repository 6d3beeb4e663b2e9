/**
 * A process's member of a group that agrees by Raft: the replica (`replica.ts`), its one timer, and who waits for what. It
 * is told of messages, of the disk and of time, and does nothing by itself; the ports around it are the world's.
 */
import type { Message } from "../events/envelope.ts"
import type {
  Entry,
  Members,
  RaftCommand,
  RaftMessage,
  RaftMessageOf,
  RaftRequest,
  RaftSettings
} from "../events/raft.ts"
import type { ActorKind } from "./actor.ts"
import type { GroupStatus, SnapshotPlace } from "./ports/consensus.ts"
import { Replica } from "./replica.ts"

/** What of the actor's state is looked at here; `src/actors/raft/step.ts` has all of it. */
export interface MemberState {
  readonly term: number
  readonly leader: string | null
  readonly commit: number
  readonly applied: number
  readonly began: number
  /** When a leader looks again whether it hears from a majority. */
  readonly quorumMs: number
  readonly log: { readonly base: number; readonly last: number; termAt(index: number): number | null }
  readonly history: ReadonlyArray<{ readonly index: number; readonly members: Members }>
}

/** The protocol, as its folder gives it. */
export interface Protocol {
  readonly kind: ActorKind
  readonly stateOf: (context: unknown) => MemberState
  readonly wakesAtMs: (role: string, context: unknown) => number
  /** Few facts that stand for all that were kept: folded, they give the same. */
  readonly keptAs: (context: unknown) => ReadonlyArray<Message>
}

export interface GroupPorts {
  /** A clock that never goes back; where it begins does not matter. */
  readonly nowMs: () => number
  /** From 0 up to 1. */
  readonly chance: () => number
  /** Best effort; what is lost is sent again by the protocol. */
  readonly send: (to: string, message: RaftMessage) => void
  /** Keep these facts; `stored` is told when they are on the disk, in the order of asking. */
  readonly keep: (facts: ReadonlyArray<Message>, stored: () => void) => void
  /** Call `tick` then; a later call takes this one's place. */
  readonly wake: (atMs: number) => void
  readonly decided: (entries: ReadonlyArray<Entry>) => void
  readonly snapshot: () => SnapshotPlace | null
  readonly install: (from: string, place: SnapshotPlace, done: (problem: string | null) => void) => void
  /** While one is installed. */
  readonly offers: (from: string) => void
  readonly leads: (isLeading: boolean) => void
}

/** How something that was asked has ended. */
export type Answer =
  | { readonly answer: "placed"; readonly index: number; readonly term: number }
  | { readonly answer: "readable"; readonly index: number }
  | { readonly answer: "declined"; readonly reason: string; readonly leader: string | null }

/** Who asks is bounded by its own limits; these are for what can't be. */
const asking_max = 100_000

export class GroupMember {
  readonly #id: string
  readonly #settings: RaftSettings
  readonly #protocol: Protocol
  readonly #ports: GroupPorts
  readonly #replica: Replica<RaftRequest>
  readonly #asking = new Map<string, (answer: Answer) => void>()
  #tickets = 0
  #isLeading = false
  #due: Array<RaftRequest> = []
  #isPerforming = false
  /** Up to here what was decided was handed over; what is applied beyond it waits for the disk. */
  #handed = 0
  /** The snapshot that is being installed, so that its parts are not begun again. */
  #installing: number | null = null

  constructor(id: string, settings: RaftSettings, protocol: Protocol, ports: GroupPorts) {
    this.#id = id
    this.#settings = settings
    this.#protocol = protocol
    this.#ports = ports
    this.#replica = new Replica<RaftRequest>(protocol.kind, `${protocol.kind.kind}/${id}`)
  }

  /** With what was kept before. First of all. */
  start(facts: Iterable<Message>): void {
    this.#replica.restore(facts)
    this.#take({ type: "raft.begin", id: this.#id, settings: this.#settings, chance: this.#ports.chance() })
  }

  get state(): MemberState {
    return this.#protocol.stateOf(this.#replica.state.context)
  }

  get role(): GroupStatus["role"] {
    return this.#replica.state.value as GroupStatus["role"]
  }

  get members(): Members {
    return this.state.history.at(-1)?.members ?? nobody
  }

  /** What stands for everything that was given to `keep`. */
  kept(): ReadonlyArray<Message> {
    return this.#protocol.keptAs(this.#replica.state.context)
  }

  /** Requests that wait for the disk. */
  get held(): number {
    return this.#replica.held
  }

  status(): GroupStatus {
    const { term, leader, commit, log } = this.state
    const { role, members } = this
    return { node: this.#id, role, term, leader, commit, last: log.last, base: log.base, members }
  }

  /** A process that stood still may have been followed by another leader, and does not know. */
  leadsNow(): boolean {
    return this.role === "leader" && this.#ports.nowMs() < this.state.quorumMs
  }

  tick(): void {
    this.#take({ type: "raft.tick", chance: this.#ports.chance() })
  }

  receive(from: string, message: RaftMessage): void {
    this.#take({ type: "raft.receive", from, message, chance: this.#ports.chance() })
  }

  /** The connection with that one has ended. */
  lost(peer: string): void {
    this.#take({ type: "raft.lost", peer })
  }

  propose(data: string, told: (answer: Answer) => void): void {
    const ticket = this.#ask(told)
    if (ticket !== null) this.#take({ type: "raft.propose", proposals: [{ ticket, data }] })
  }

  read(told: (answer: Answer) => void): void {
    const ticket = this.#ask(told)
    if (ticket !== null) this.#take({ type: "raft.read", ticket })
  }

  change(
    voters: ReadonlyArray<string>,
    learners: ReadonlyArray<string>,
    told: (answer: Answer) => void
  ): void {
    const ticket = this.#ask(told)
    if (ticket !== null) this.#take({ type: "raft.change", ticket, voters, learners })
  }

  transfer(to: string, told: (answer: Answer) => void): void {
    const ticket = this.#ask(told)
    if (ticket !== null) this.#take({ type: "raft.transfer", ticket, to })
  }

  /** The log may forget what is applied and on the disk up to here. */
  compact(index: number): void {
    this.#take({ type: "raft.compact", index })
  }

  #ask(told: (answer: Answer) => void): string | null {
    if (this.#asking.size >= asking_max) {
      told({ answer: "declined", reason: "full", leader: null })
      return null
    }
    const ticket = String(++this.#tickets)
    this.#asking.set(ticket, told)
    return ticket
  }

  #take(input: RaftCommand): void {
    const { now, facts } = this.#replica.take(input, Math.floor(this.#ports.nowMs()))
    if (facts.length > 0) this.#keep(facts)
    this.#performAll(now)
    this.#tellLeading()
    this.#ports.wake(this.#protocol.wakesAtMs(this.role, this.#replica.state.context))
  }

  /** It leads when its own first entry was handed over: then it has seen everything that was decided before. */
  #tellLeading(): void {
    const { began } = this.state
    const isLeading = this.role === "leader" && this.#handed >= began
    if (isLeading === this.#isLeading) return
    this.#isLeading = isLeading
    this.#ports.leads(isLeading)
  }

  #keep(facts: ReadonlyArray<Message>): void {
    const appended = facts.findLast(({ type }) => type === "raft.appended")
    const last = (appended?.["entries"] as ReadonlyArray<Entry> | undefined)?.at(-1)
    this.#ports.keep(facts, () => {
      this.#performAll(this.#replica.stored(facts.length))
      if (last === undefined) return this.#tellLeading()
      const { index, term } = last
      this.#take({ type: "raft.stored", index, term, chance: this.#ports.chance() })
    })
  }

  /** Who is told may ask at once, which must not overtake what is still to be done. */
  #performAll(requests: ReadonlyArray<RaftRequest>): void {
    this.#due.push(...requests)
    if (this.#isPerforming) return
    this.#isPerforming = true
    for (let at = 0; at < this.#due.length; at++) this.#perform(this.#due[at] as RaftRequest)
    this.#due = []
    this.#isPerforming = false
  }

  #perform(request: RaftRequest): void {
    switch (request.port) {
      case "peer":
        return this.#ports.send(request.to, request.message)
      case "caller":
        return this.#answer(request)
      case "machine":
        // What was received is there already when this is asked.
        if (request.op !== "apply" || request.entries.length === 0) return
        this.#handed = request.entries.at(-1)?.index ?? this.#handed
        return this.#ports.decided(request.entries)
      case "snapshots":
        return request.op === "read" ? this.#readSnapshot(request.to) : this.#writeSnapshot(request)
    }
  }

  #answer(request: Extract<RaftRequest, { readonly port: "caller" }>): void {
    const told = this.#asking.get(request.ticket)
    if (told === undefined) return
    this.#asking.delete(request.ticket)
    const { op } = request
    if (op === "placed") told({ answer: op, index: request.index, term: request.term })
    else if (op === "readable") told({ answer: op, index: request.index })
    else told({ answer: op, reason: request.reason, leader: request.leader })
  }

  /** One part: what it stands for is told by its name, and its receiver gets it from the sender's journal. */
  #readSnapshot(to: string): void {
    const place = this.#ports.snapshot()
    if (place === null) return
    const members = this.state.history.findLast(({ index }) => index <= place.index)?.members
    if (members === undefined) return
    const { index, term: indexTerm, state: data } = place
    this.#take({ type: "raft.snapshotRead", to, index, indexTerm, members, offset: 0, data, last: true })
  }

  #writeSnapshot({
    from,
    message
  }: {
    readonly from: string
    readonly message: RaftMessageOf<"snapshot">
  }): void {
    const { index, indexTerm, members, data, round } = message
    if (this.#installing !== null) return this.#ports.offers(from)
    this.#installing = index
    this.#ports.install(from, { index, term: indexTerm, state: data }, (problem) => {
      this.#installing = null
      if (problem !== null) return
      const written = { from, index, indexTerm, members, offset: data.length, whole: true, round }
      this.#take({ type: "raft.snapshotWritten", ...written })
    })
  }
}

const nobody: Members = { voters: [], outgoing: [], learners: [], learnersNext: [] }
