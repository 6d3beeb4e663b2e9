/**
 * A read sees all that was decided before it was asked. (Clients may ask for less, what they were answered; but whoever
 * leads, by whatever right it reads, has all of it.) While a lease is relied on, a majority keeps the promise that it is
 * made of.
 */
import type { RaftCommand } from "../../src/events/raft.ts"
import { isMajority } from "./group.ts"
import type { Group, GroupMember } from "./group.ts"
import { Violation } from "./violation.ts"

export function readable({ id }: GroupMember, index: number, decided: number): void {
  if (index < decided)
    throw new Violation(
      "linearizability",
      `${id} reads what ${index} made, and ${decided} was decided before`
    )
}

/**
 * Whoever is down will promise when it starts; whoever leads gives no vote either. Others may decide by the members that are
 * committed, or by any later ones.
 */
export function promised(group: Group, leader: GroupMember, input: RaftCommand): void {
  if (input.type !== "raft.read" || leader.role !== "leader") return
  const { id, nowMs, context } = leader
  const { settings, wasTransferred, leaseMs, commit, began, history } = context
  if (!settings?.leaseDriftPercent || wasTransferred || nowMs >= leaseMs || commit < began) return
  const isFree = (voter: string) => {
    const member = group.members.get(voter)
    if (voter === id || member === undefined || !member.isUp || member.role === "leader") return false
    return member.nowMs >= member.context.promisedMs
  }
  const committed = history.findLastIndex(({ index }) => index <= commit)
  if (history.slice(Math.max(0, committed)).some(({ members }) => isMajority(members, isFree)))
    throw new Violation("lease", `${id} reads by a lease, and a majority may vote for another`)
}
