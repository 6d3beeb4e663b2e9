/** Placement decisions in words. */
import type { Others } from "../events/placement.ts"

/** What there is to say of the hosts that a decision does not name. */
export function othersOf(others: Others | undefined): ReadonlyArray<string> {
  if (others === undefined) return []
  const unseen = others.hosts - others.looked
  return [
    ...others.out.map(({ filter, hosts, examples }) => {
      const named = examples.map(({ host, reason }) => `${host}: ${reason}`)
      return `${hosts} others: out, ${filter}${named.length === 0 ? "" : `; ${named.join("; ")}`}`
    }),
    ...(unseen === 0 ? [] : [`${unseen} of ${others.hosts}: not looked at, enough could take it`])
  ]
}
