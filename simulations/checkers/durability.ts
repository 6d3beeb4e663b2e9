/**
 * No answer before it can't be lost: what is applied lies on the disks of a majority, and with the disks as they are nobody
 * who lacks it would be elected. Both outlive a crash of everyone.
 */
import type { Members } from "../../src/events/raft.ts"
import type { Durable } from "../../src/actors/raft/step.ts"
import { isAmong, isMajority } from "./group.ts"
import type { Group } from "./group.ts"
import { Violation } from "./violation.ts"

export function durability(group: Group, index: number, term: number): void {
  const disks = new Map<string, Durable>()
  for (const [id, member] of group.members) disks.set(id, group.onDisk(member))
  const has = (id: string) => {
    const log = disks.get(id)?.log
    return log !== undefined && (log.base >= index || log.termAt(index) === term)
  }
  const isOut = (id: string) => group.members.get(id)?.isOut === true
  if (!possible(group, index).some((members) => isMajority(members, has)))
    throw new Violation(
      "durability",
      `${index} of term ${term} is applied, and not on the disks of a majority`
    )
  for (const [id, { log, history }] of disks) {
    const members = history.at(-1)?.members
    if (members === undefined || isOut(id) || has(id) || !history.some((one) => isAmong(one.members, id)))
      continue
    const votes = (voter: string) =>
      !isOut(voter) && disks.get(voter)?.log.isUpToDate(log.last, log.lastTerm) === true
    if (isMajority(members, votes))
      throw new Violation("durability", `${index} of term ${term} is applied, and ${id} may lead without it`)
  }
}

/**
 * Members count from the moment in which they are in the log, so those of a later entry may have decided an earlier one. Where joint
 * consensus is decided that may be those who are left after it, by an entry which another leader has cut off again since (seed 20009):
 * a majority of them is in every later one.
 */
const possible = (group: Group, index: number): ReadonlyArray<Members> =>
  [...group.members.values()].flatMap(({ context: { history, commit } }) => {
    const first = history.findLastIndex((one) => one.index <= index)
    return history.slice(Math.max(0, first)).flatMap(({ index: at, members }) => {
      const isSettled = members.outgoing.length === 0 || at > commit
      return isSettled ? [members] : [members, { ...members, outgoing: [] }]
    })
  })
