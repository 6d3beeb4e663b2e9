/**
 * What Raft promises (Ongaro, 2014, figure 3.2, and what follows from it), looked at after every step of every member. Each
 * promise has a file beside this one; here is who is told of what.
 */
import type { Entry, RaftCommand, RaftMessage } from "../../src/events/raft.ts"
import type { Member, Watcher } from "../raft/member.ts"
import { bounded, nothingUnderWay } from "./bounded.ts"
import { durability } from "./durability.ts"
import { ElectionSafety } from "./election-safety.ts"
import { ExactlyOnce } from "./exactly-once.ts"
import { Group } from "./group.ts"
import { LeaderCompleteness } from "./leader-completeness.ts"
import { logMatching, matched, membersOfLog, termsOfLog } from "./log-matching.ts"
import { Monotone } from "./monotone.ts"
import { promised, readable } from "./reads.ts"
import { sameAfterReplay } from "./replay.ts"
import { Roles } from "./roles.ts"
import { Journal } from "./state-machine-safety.ts"

interface Seen {
  life: number
  term: number
  role: string
}

export class RaftChecker implements Watcher {
  readonly group: Group
  readonly #journal = new Journal()
  readonly #monotone: Monotone
  readonly #elections: ElectionSafety
  readonly #completeness = new LeaderCompleteness()
  readonly #effects = new ExactlyOnce()
  readonly #seen = new Map<string, Seen>()
  /** What the member that steps was given. */
  #input: RaftCommand | null = null
  readonly #roles = new Roles("follower")
  elections = 0

  readonly #onElected: (id: string) => void
  readonly #members: ReadonlyMap<string, Member>

  constructor(members: ReadonlyMap<string, Member>, onElected: (id: string) => void) {
    this.#members = members
    this.group = new Group(members)
    this.#monotone = new Monotone(this.group)
    this.#elections = new ElectionSafety(this.group)
    this.#onElected = onElected
  }

  get coverage(): ReadonlySet<string> {
    return this.#roles.coverage
  }

  get decided(): number {
    return this.#journal.decided
  }

  /** What was decided, in order. */
  journal(): ReadonlyArray<Entry> {
    return this.#journal.entries
  }

  takes(member: Member, input: RaftCommand): void {
    this.#input = input
    this.#roles.took(member.role, input.type === "raft.receive" ? input.message.type : input.type)
    promised(this.group, member, input)
  }

  stepped(member: Member): void {
    const { id, role, context, life } = member
    this.#monotone.stepped(member)
    this.#completeness.stepped(member)
    bounded(member)
    termsOfLog(member)
    if (this.#input !== null) matched(this.group, member, this.#input)
    this.#roles.stepped(member)
    const seen = this.#seen.get(id) ?? { life: 0, term: 0, role: "follower" }
    const isNew =
      role === "leader" && (seen.role !== role || seen.life !== life || seen.term !== context.term)
    Object.assign(seen, { life, term: context.term, role })
    this.#seen.set(id, seen)
    if (!isNew) return
    this.elections++
    membersOfLog(member)
    this.#elections.elected(member)
    this.#completeness.elected(member)
    this.#onElected(id)
  }

  readable(member: Member, index: number, decided: number): void {
    readable(member, index, decided)
  }

  sent(member: Member, message: RaftMessage): void {
    // A poll asks about a term that nobody is in yet.
    if ((message.type === "requestVote" || message.type === "vote") && message.poll) return
    this.#monotone.sent(member, message)
    this.#elections.sent(member, message)
  }

  applied(member: Member, entry: Entry, isNew: boolean): void {
    if (this.#journal.applied(member, entry)) durability(this.group, entry.index, entry.term)
    if (isNew) this.#effects.applied(entry)
  }

  finish(): void {
    const up = [...this.#members.values()].filter((one) => one.isUp)
    logMatching(up)
    for (const one of up) {
      if (one.role === "leader") nothingUnderWay(one)
      if (one.replica.pending === 0) sameAfterReplay(one)
    }
    this.#journal.finish(up)
  }
}
