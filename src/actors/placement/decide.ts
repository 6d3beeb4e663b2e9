/**
 * Where a machine may go and where it goes best: hard filters, then a weighted score. A function of the request
 * and of the view, so that the same two always give the same decision, and the fact that holds them explains it.
 */
import { capacity, filters, list, needsOf } from "../../events/feasibility.ts"
import type { Needs } from "../../events/host.ts"
import type { Candidate, HostView, Others, PlacementQuestion } from "../../events/placement.ts"
import type { VmSpec } from "../../events/vm.ts"

export type Question = PlacementQuestion

export interface Decision {
  readonly policy: string
  readonly weights: Readonly<Record<string, number>>
  readonly candidates: ReadonlyArray<Candidate>
  readonly others?: Others
  readonly chosen: string | null
  readonly reason: string
}

export const policy = "weighted-1"

/** New machines are packed; a machine that moves is given air, or it would have to move again soon. */
const weightsFor: Record<Question["purpose"], Record<string, number>> = {
  create: { packing: 0.5, balance: 0.2, affinity: 0.3 },
  migrate: { headroom: 0.5, balance: 0.2, affinity: 0.3 },
  recover: { headroom: 0.5, balance: 0.2, affinity: 0.3 }
}

/**
 * Every host that the view names appears among the candidates; of very many it names those that could take the machine, and
 * says of the `others` how many are out and why. Ties go to the name that sorts first.
 */
export function decidePlacement(
  question: Question,
  hosts: ReadonlyArray<HostView>,
  others?: Others
): Decision {
  const weights = weightsFor[question.purpose]
  const needs = needsOf(question.spec)
  const candidates = [...hosts]
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map((host) => candidate(host, question, needs, weights))
  const inside = candidates.filter((one) => one.excluded.length === 0)
  const best = inside.reduce<Candidate | null>(
    (top, one) => (top === null || one.total > top.total ? one : top),
    null
  )
  return {
    policy,
    weights,
    candidates,
    ...(others === undefined ? {} : { others }),
    chosen: best?.host ?? null,
    reason: best
      ? `${best.host} scores highest of ${inside.length} of ${lookedAt(others, hosts.length)}`
      : whyNone(candidates, question, others)
  }
}

const lookedAt = (others: Others | undefined, named: number): string =>
  others === undefined
    ? `${named} hosts`
    : `the ${others.looked} hosts that were looked at until enough could take it; there are ${others.hosts}`

function candidate(
  host: HostView,
  question: Question,
  needs: Needs,
  weights: Readonly<Record<string, number>>
): Candidate {
  const excluded: Array<{ filter: string; reason: string }> = []
  for (const { name: filter, passes, reason } of filters)
    if (!passes(host, question, needs)) excluded.push({ filter, reason: reason(host, question, needs) })
  if (excluded.length > 0) return { host: host.name, excluded, scores: {}, total: 0 }
  const all = score(host, question.spec, needs)
  const scores: Record<string, number> = {}
  let total = 0
  for (const [name, weight] of Object.entries(weights)) {
    scores[name] = round(all[name] ?? 0)
    total += weight * (all[name] ?? 0)
  }
  return { host: host.name, excluded, scores, total: round(total) }
}

function score(host: HostView, spec: VmSpec, needs: Needs): Record<string, number> {
  const share = (what: "cpus" | "memoryMib") =>
    (host.used[what] + needs[what]) / Math.max(1, capacity(what, host))
  const fullness = (share("cpus") + share("memoryMib")) / 2
  const wanted = spec.affinity.length
  return {
    packing: fullness,
    headroom: 1 - fullness,
    balance: 1 - Math.abs(share("cpus") - share("memoryMib")),
    affinity: wanted === 0 ? 1 : host.vms.filter((vm) => spec.affinity.includes(vm)).length / wanted
  }
}

const round = (value: number) => Math.round(value * 10_000) / 10_000

/** "No destination found" is never said without the cause: each host with its first reason, or how many have which. */
function whyNone(candidates: ReadonlyArray<Candidate>, question: Question, others?: Others): string {
  const { pinned, vm } = question
  if (candidates.length === 0 && others === undefined) return "there is no host: none has registered"
  if (pinned !== null && !candidates.some((one) => one.host === pinned)) {
    const known = others === undefined ? list(candidates.map((one) => one.host)) : `${others.hosts} others`
    return `there is no host ${pinned}; hosts: ${known}`
  }
  const relevant = candidates.filter((one) => pinned === null || one.host === pinned)
  const causes = [
    ...relevant.slice(0, 16).map((one) => `${one.host}: ${one.excluded.map((e) => e.reason).join("; ")}`),
    ...(pinned === null ? (others?.out ?? []) : []).map(outOf)
  ]
  const more = relevant.length > 16 ? ` (and ${relevant.length - 16} more)` : ""
  return `no host can take ${vm}: ${causes.join(" | ")}${more}`.slice(0, 4000)
}

const outOf = ({ filter, hosts, examples: [example] }: Others["out"][number]): string =>
  `${filter} leaves ${hosts} hosts out${example === undefined ? "" : `, ${example.host} for one: ${example.reason}`}`
