/**
 * What Raft promises (Ongaro, 2014, figure 3.2, and what follows from it), looked at after every step of every member:
 * at most one leader a term; a leader has all that was committed before; the same index is the same entry for everyone;
 * terms and commits never go back; what is committed lies on the disks of a majority; each command takes effect once.
 */
import type { Entry, RaftCommand, RaftMessage } from "../../src/events/raft.ts"
import { hasQuorum } from "../../src/actors/raft/quorum.ts"
import { initialContext, keep } from "../../src/actors/raft/step.ts"
import type { Durable, RaftContext } from "../../src/actors/raft/step.ts"
import type { Member, Watcher } from "../raft/member.ts"
import type { Command } from "../raft/machine.ts"
import { Violation } from "./violation.ts"

interface Seen {
  life: number
  term: number
  commit: number
  role: string
}

/** More that wait in one member than any option allows. */
const held_max = 100_000

export class RaftChecker implements Watcher {
  readonly #members: ReadonlyMap<string, Member>
  readonly #leaders = new Map<number, string>()
  /** By index, as the first who applied it did. */
  readonly #decided: Array<Entry> = []
  readonly #effects = new Map<string, number>()
  readonly #seen = new Map<string, Seen>()
  readonly #spoken = new Map<string, number>()
  readonly #disks = new Map<string, { facts: number; durable: Durable }>()
  /** Which role took which input. */
  readonly coverage = new Set<string>()
  elections = 0

  readonly #onElected: (id: string) => void

  constructor(members: ReadonlyMap<string, Member>, onElected: (id: string) => void) {
    this.#members = members
    this.#onElected = onElected
  }

  /** Entries that anyone has applied. */
  get decided(): number {
    return this.#decided.length
  }

  takes(role: string, input: RaftCommand): void {
    this.coverage.add(`${role} ${input.type === "raft.receive" ? input.message.type : input.type}`)
  }

  /** What was decided, in order. */
  journal(): ReadonlyArray<Entry> {
    return this.#decided
  }

  stepped(member: Member): void {
    const { id, role, context, life } = member
    const seen = this.#seen.get(id) ?? { life: 0, term: 0, commit: 0, role: "follower" }
    if (life === seen.life && context.term < seen.term)
      throw new Violation("monotone", `${id} went from term ${seen.term} to ${context.term}`)
    if (life === seen.life && context.commit < seen.commit)
      throw new Violation("monotone", `${id} went from commit ${seen.commit} to ${context.commit}`)
    if (member.replica.held > held_max)
      throw new Violation("bounded", `${id} holds ${member.replica.held} requests`)
    const isNew =
      role === "leader" && (seen.role !== "leader" || seen.life !== life || seen.term !== context.term)
    Object.assign(seen, { life, term: context.term, commit: context.commit, role })
    this.#seen.set(id, seen)
    if (!isNew) return
    this.#elected(id, context)
    this.#onElected(id)
  }

  #elected(id: string, context: RaftContext): void {
    const { term, log } = context
    this.elections++
    membersOfLog(id, context)
    // A leader of an old term that wakes up late is no leader of what was decided after it.
    for (let index = this.#decided.length; index > log.base; index--) {
      const decided = this.#decided[index - 1] as Entry
      if (decided.term >= term) continue
      if (log.termAt(index) !== decided.term)
        throw new Violation(
          "leader-completeness",
          `${id} leads term ${term} without ${index} of ${decided.term}`
        )
    }
  }

  /**
   * A read sees all that was decided before it was asked. (Clients may ask for less, what they were answered; but whoever
   * leads, by whatever right it reads, has all of it.)
   */
  readable({ id }: Member, index: number, decided: number): void {
    if (index < decided)
      throw new Violation(
        "linearizability",
        `${id} reads what ${index} made, and ${decided} was decided before`
      )
  }

  /** A term that was spoken in outlives a crash. */
  sent({ id }: Member, message: RaftMessage): void {
    const isPoll = (message.type === "requestVote" || message.type === "vote") && message.poll
    if (isPoll) return
    const before = this.#spoken.get(id) ?? 0
    if (message.term < before)
      throw new Violation("monotone", `${id} spoke in term ${before} and then in ${message.term}`)
    this.#spoken.set(id, message.term)
    if (message.type === "append" || message.type === "snapshot") this.#led(id, message.term)
  }

  /** Who has not spoken as a leader yet may still forget that it was one. */
  #led(id: string, term: number): void {
    const other = this.#leaders.get(term)
    if (other !== undefined && other !== id)
      throw new Violation("election-safety", `${other} and ${id} lead in term ${term}`)
    this.#leaders.set(term, id)
  }

  applied(member: Member, entry: Entry, isNew: boolean): void {
    const { index, term, data } = entry
    const decided = this.#decided[index - 1]
    if (decided === undefined) {
      if (index !== this.#decided.length + 1)
        throw new Violation("state-machine-safety", `${member.id} applied ${index} before the one before it`)
      this.#decided.push(entry)
      this.#onDisks(index, term)
    } else if (decided.term !== term || decided.data !== data)
      throw new Violation(
        "state-machine-safety",
        `${index} is of term ${decided.term}, and ${term} at ${member.id}`
      )
    if (isNew && data !== null) this.#tookEffect(index, JSON.parse(data) as Command)
  }

  #tookEffect(index: number, { session, sequence }: Command): void {
    const key = `${session} ${sequence}`
    const before = this.#effects.get(key)
    if (before !== undefined && before !== index)
      throw new Violation("exactly-once", `${key} took effect at ${before} and ${index}`)
    this.#effects.set(key, index)
  }

  /**
   * A majority would find this entry after a crash of everyone. Members count from the moment in which they are in the log,
   * so those of a later entry may have decided an earlier one.
   */
  #onDisks(index: number, term: number): void {
    const has = (id: string) => {
      const member = this.#members.get(id)
      if (member === undefined) return false
      const { log } = this.#onDisk(member)
      return log.base >= index || log.termAt(index) === term
    }
    for (const { context } of this.#members.values()) {
      const { history } = context
      const first = history.findLastIndex((one) => one.index <= index)
      if (history.slice(Math.max(0, first)).some(({ members }) => hasQuorum(members, has))) return
    }
    throw new Violation(
      "durability",
      `${index} of term ${term} is applied, and not on the disks of a majority`
    )
  }

  /** What a restart of this member would find, folded as it grows. */
  #onDisk({ id, disk }: Member): Durable {
    const found = this.#disks.get(id) ?? { facts: 0, durable: initialContext }
    for (; found.facts < disk.facts.length; found.facts++)
      found.durable = keep(found.durable, disk.facts[found.facts] as unknown as Parameters<typeof keep>[1])
    this.#disks.set(id, found)
    return found.durable
  }

  /** At the end: logs that agree somewhere agree before it, and what a restart would find is what is there. */
  finish(): void {
    const up = [...this.#members.values()].filter((one) => one.isUp)
    for (const [at, one] of up.entries())
      for (const other of up.slice(at + 1)) matching(one.id, one.context, other.id, other.context)
    for (const one of up) membersOfLog(one.id, one.context)
    for (const one of up) if (one.role === "leader") nothingUnderWay(one.context)
    for (const one of up) if (one.replica.pending === 0) sameAfterReplay(one)
  }
}

/** Whoever has answered for everything holds up nothing. */
function nothingUnderWay({ progress, log }: RaftContext): void {
  for (const [id, { match, state, inflightBytes }] of Object.entries(progress))
    if (state === "replicate" && match === log.last && inflightBytes !== 0)
      throw new Violation("bounded", `${inflightBytes} bytes to ${id} are under way for ever`)
}

/** Who decides is what the log says, also after a part of it was cut off. */
function membersOfLog(id: string, { log, history }: RaftContext): void {
  for (const { index, members } of history.slice(1))
    if (log.at(index)?.members !== members)
      throw new Violation("log-matching", `${id} has members of ${index}, and its log has none there`)
}

function matching(one: string, { log: a }: RaftContext, other: string, { log: b }: RaftContext): void {
  let agrees = false
  for (let index = Math.min(a.last, b.last); index > Math.max(a.base, b.base); index--) {
    const isSame = a.termAt(index) === b.termAt(index)
    if (agrees && !isSame)
      throw new Violation("log-matching", `${one} and ${other} agree after ${index} and not there`)
    agrees ||= isSame
  }
}

function sameAfterReplay(member: Member): void {
  const of = ({ term, vote, log, history }: RaftContext) =>
    JSON.stringify([term, vote, log.base, log.baseTerm, log.slice(log.base + 1), history])
  if (of(member.context) !== of(member.replayed()))
    throw new Violation("replay", `${member.id} would come back as another`)
}
