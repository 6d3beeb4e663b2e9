/** Each crash is noticed by everybody in time: a round of probes, a suspicion, and the time in which news spreads. */
import type { SwimSettings } from "../../../src/events/swim.ts"
import type { Member } from "../../swim/member.ts"

/** From a crash, while nothing else happens, until all of `members` that are left know of it; for clocks that are a little slow. */
export function noticedWithinMs(settings: SwimSettings, members: number): number {
  const { periodMs, suspicion, suspicionMax, lifeguard, compareEveryMs } = settings
  // Two rounds, in which it may have been the first and then the last.
  const probeMs = (2 * members + 2) * periodMs
  const longest = lifeguard.suspicion ? suspicionMax : 1
  const suspicionMs = suspicion * Math.max(1, Math.log10(members)) * periodMs * longest
  // News that missed somebody comes with a comparison.
  return 1.3 * (probeMs + suspicionMs + 2 * compareEveryMs + 4 * periodMs)
}

/** Of these, which are up, those that don't know yet that it is gone. */
export const unaware = (members: Iterable<Member>, gone: string): ReadonlyArray<string> =>
  [...members].flatMap(({ id, context }) => {
    const status = context.table.get(gone)?.status
    return status === "alive" || status === "suspect" ? [id] : []
  })
