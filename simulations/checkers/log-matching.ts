/**
 * Logs that agree somewhere agree before it; who decides is what the log says; and what a leader takes a member to have is
 * on that member's disk, unless a later leader has replaced it.
 */
import type { RaftCommand } from "../../src/events/raft.ts"
import type { RaftContext } from "../../src/actors/raft/step.ts"
import type { Group, GroupMember } from "./group.ts"
import { Violation } from "./violation.ts"

/** After an answer. */
export function matched(group: Group, leader: GroupMember, input: RaftCommand): void {
  if (input.type !== "raft.receive" || input.message.type !== "appended" || leader.role !== "leader") return
  const { from } = input
  const { term, log, progress } = leader.context
  const member = group.members.get(from)
  const match = progress[from]?.match ?? 0
  if (member === undefined || match < log.base) return
  const found = group.onDisk(member)
  if (found.term > term || found.log.base > match || found.log.termAt(match) === log.termAt(match)) return
  throw new Violation(
    "log-matching",
    `${leader.id} takes ${from} to have ${match} of term ${log.termAt(match)}`
  )
}

/** Terms in a log never go back, also where a snapshot has taken the place of its beginning. */
export function termsOfLog({ id, context: { log } }: GroupMember): void {
  if (log.lastTerm < log.baseTerm)
    throw new Violation(
      "log-matching",
      `${id} has an entry of term ${log.lastTerm} after one of ${log.baseTerm}`
    )
}

/** Also after a part of the log was cut off. */
export function membersOfLog({ id, context: { log, history } }: GroupMember): void {
  for (const { index, members } of history.slice(1))
    if (log.at(index)?.members !== members)
      throw new Violation("log-matching", `${id} has members of ${index}, and its log has none there`)
}

export function logMatching(up: ReadonlyArray<GroupMember>): void {
  for (const [at, one] of up.entries())
    for (const other of up.slice(at + 1)) compare(one.id, one.context, other.id, other.context)
  for (const one of up) membersOfLog(one)
}

function compare(one: string, { log: a }: RaftContext, other: string, { log: b }: RaftContext): void {
  let agrees = false
  for (let index = Math.min(a.last, b.last); index > Math.max(a.base, b.base); index--) {
    const isSame = a.termAt(index) === b.termAt(index)
    if (agrees && !isSame)
      throw new Violation("log-matching", `${one} and ${other} agree after ${index} and not there`)
    agrees ||= isSame
  }
}
