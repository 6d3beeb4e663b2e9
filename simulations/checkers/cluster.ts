/**
 * What a cluster promises, looked at while it lives: its members are those of Raft, what is decided is the same for all, and an actor
 * at a revision is the same wherever it is.
 */
import type { Entry, RaftMessage } from "../../src/events/raft.ts"
import { serialize } from "../../src/kernel/turn.ts"
import type { ActorState } from "../../src/kernel/turn.ts"
import { durability } from "./durability.ts"
import { ElectionSafety } from "./election-safety.ts"
import { Group } from "./group.ts"
import type { GroupMember } from "./group.ts"
import { LeaderCompleteness } from "./leader-completeness.ts"
import { logMatching, membersOfLog, termsOfLog } from "./log-matching.ts"
import { Monotone } from "./monotone.ts"
import { Roles } from "./roles.ts"
import { Violation } from "./violation.ts"

/** Of a follower's requests that wait for its disk. */
const held_max = 10_000

export class ClusterChecker {
  readonly group: Group
  readonly #monotone: Monotone
  readonly #elections: ElectionSafety
  readonly #completeness = new LeaderCompleteness()
  readonly #seen = new Map<string, { life: number; term: number; role: string }>()
  /** By index, as the first who was told of it was. */
  readonly #decided = new Map<number, Entry>()
  /** By node: the last that its kernel was told of, in this life. */
  readonly #handed = new Map<string, { readonly life: number; readonly index: number }>()
  #last = 0
  elections = 0
  readonly #roles = new Roles("follower")

  constructor(members: ReadonlyMap<string, GroupMember>) {
    this.group = new Group(members)
    this.#monotone = new Monotone(this.group)
    this.#elections = new ElectionSafety(this.group)
  }

  get coverage(): ReadonlySet<string> {
    return this.#roles.coverage
  }

  get decided(): number {
    return this.#last
  }

  stepped(member: GroupMember & { readonly held: number }): void {
    const { id, role, context, life, held } = member
    this.#monotone.stepped(member)
    this.#completeness.stepped(member)
    termsOfLog(member)
    if (held > held_max) throw new Violation("bounded", `${id} holds ${held} requests`)
    const seen = this.#seen.get(id) ?? { life: 0, term: 0, role: "follower" }
    const isNew =
      role === "leader" && (seen.role !== role || seen.life !== life || seen.term !== context.term)
    this.#roles.stepped(member)
    this.#seen.set(id, { life, term: context.term, role })
    if (!isNew) return
    this.elections++
    membersOfLog(member)
    this.#elections.elected(member)
    this.#completeness.elected(member)
  }

  sent(member: GroupMember, message: RaftMessage): void {
    // A poll asks about a term that nobody is in yet.
    if ((message.type === "requestVote" || message.type === "vote") && message.poll) return
    this.#monotone.sent(member, message)
    this.#elections.sent(member, message)
  }

  told({ id, life }: GroupMember, entries: ReadonlyArray<Entry>): void {
    this.#handed.set(id, { life, index: entries.at(-1)?.index ?? 0 })
    for (const entry of entries) {
      const { index, term, data } = entry
      const before = this.#decided.get(index)
      if (before === undefined) {
        this.#decided.set(index, entry)
        this.#last = Math.max(this.#last, index)
        durability(this.group, index, term)
      } else if (before.term !== term || before.data !== data)
        throw new Violation(
          "state-machine-safety",
          `${index} is of term ${before.term}, and of ${term} at ${id}`
        )
    }
  }

  /** Its kernel is told to perform: what others were told in the terms before, it was told too. */
  leads({ id, life, context: { term } }: GroupMember): void {
    let index = this.#last
    while (index > 0 && !((this.#decided.get(index)?.term ?? term) < term)) index--
    const handed = this.#handed.get(id)
    const known = handed?.life === life ? handed.index : 0
    if (known < index)
      throw new Violation(
        "leader-completeness",
        `${id} performs in term ${term} and was told of what is decided up to ${known}: others of all up to ${index}`
      )
  }

  finish(up: ReadonlyArray<GroupMember>): void {
    logMatching(up)
  }
}

/** An actor at a revision is the same, byte for byte, on whatever node and however it came there. */
export class States {
  readonly #texts = new Map<string, string>()

  look(id: string, actor: ActorState): void {
    if (actor.revision < 0) return
    const key = `${actor.stream}@${actor.revision}`
    const text = serialize(actor)
    const before = this.#texts.get(key)
    if (before === undefined) this.#texts.set(key, text)
    else if (before !== text)
      throw new Violation("state-machine-safety", `${key} is ${text} at ${id}, and was ${before}`)
  }
}

interface Observed {
  readonly atMs: number
  readonly revision: number
}

/**
 * Linearizable, for actors whose revisions only grow: what is answered shows all that was answered, for that actor, before it was asked.
 */
export class Revisions {
  /** By stream: the latest that was told of, in the order in which it was told. */
  readonly #told = new Map<string, Array<Observed>>()
  looked = 0

  /** The latest revision that anybody knew of at this time. */
  #knownAt(stream: string, atMs: number): number {
    const told = this.#told.get(stream) ?? []
    let latest = -1
    for (let at = told.length - 1; at >= 0; at--) {
      const one = told[at] as Observed
      if (one.atMs < atMs) {
        latest = one.revision
        break
      }
    }
    return latest
  }

  /** An answer that was asked for at `calledMs` and is here now. */
  answered(what: string, stream: string, revision: number, calledMs: number, nowMs: number): void {
    this.looked++
    const known = this.#knownAt(stream, calledMs)
    if (revision < known)
      throw new Violation(
        "linearizability",
        `${what} of ${stream} says revision ${revision}, and ${known} was told before it was asked`
      )
    const told = this.#told.get(stream) ?? []
    const latest = told.at(-1)?.revision ?? -1
    if (told.length === 0) this.#told.set(stream, told)
    if (revision > latest) told.push({ atMs: nowMs, revision })
  }
}
