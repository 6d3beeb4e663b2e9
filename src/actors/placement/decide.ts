/**
 * Where a machine may go and where it goes best: hard filters, then a weighted score. A function of the request
 * and of the view, so that the same two always give the same decision, and the fact that holds them explains it.
 */
import { cpuOvercommit } from "../../events/host.ts"
import type { Needs } from "../../events/host.ts"
import type { Candidate, HostView } from "../../events/placement.ts"
import type { Platform, VmSpec } from "../../events/vm.ts"

export interface Question {
  readonly vm: string
  readonly spec: VmSpec
  readonly platform: Platform | null
  readonly capabilities: ReadonlyArray<string>
  readonly purpose: "create" | "migrate" | "recover"
  readonly from: string | null
  readonly pinned: string | null
}

export interface Decision {
  readonly policy: string
  readonly weights: Readonly<Record<string, number>>
  readonly candidates: ReadonlyArray<Candidate>
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

/** CPUs in physical ones, memory and disk in MiB. Local disks need room at the host; shared ones don't. */
export function needsOf(spec: VmSpec): Needs {
  const local = spec.disks.filter((disk) => disk.storage === "local")
  return {
    cpus: spec.cpus,
    memoryMib: spec.memoryMib,
    diskMib: local.reduce((sum, disk) => sum + disk.sizeMib, 0)
  }
}

type Filter = readonly [
  name: string,
  reason: (host: HostView, question: Question, needs: Needs) => string | null
]

const filters: ReadonlyArray<Filter> = [
  [
    "pinned",
    (host, { pinned }) => (pinned === null || pinned === host.name ? null : `only ${pinned} was asked for`)
  ],
  ["source", (host, { from }) => (from === host.name ? "the machine is on it now" : null)],
  ["state", (host) => (host.state === "up" ? null : `it is ${host.state}`)],
  ["cpus", (host, _, needs) => lacking("cpus", host, needs.cpus)],
  ["memory", (host, _, needs) => lacking("memoryMib", host, needs.memoryMib)],
  ["disk", (host, _, needs) => lacking("diskMib", host, needs.diskMib)],
  [
    "machine-type",
    (host, { spec, platform }) => {
      const machine = platform?.machine ?? spec.machine
      return host.machines.includes(machine)
        ? null
        : `it has no machine type ${machine}: ${list(host.machines)}`
    }
  ],
  [
    "accelerator",
    (host, { platform }) =>
      platform === null || host.accelerators.includes(platform.accelerator)
        ? null
        : `the machine runs with ${platform.accelerator}, this host has ${list(host.accelerators)}`
  ],
  [
    "capability",
    (host, { capabilities }) => {
      const missing = capabilities.filter((one) => !host.capabilities.includes(one))
      return missing.length === 0 ? null : `it can't do ${missing.join(", ")}`
    }
  ],
  [
    "cpu-model",
    (host, { spec }) =>
      host.cpuModels.includes(spec.cpuModel) ? null : `it can't give the CPU model ${spec.cpuModel}`
  ],
  ["labels", (host, { spec }) => missingLabel(host, spec)],
  [
    "anti-affinity",
    (host, { spec }) => {
      const near = host.vms.filter((vm) => spec.antiAffinity.includes(vm))
      return near.length === 0 ? null : `${near.join(", ")} is on it, to be kept away from`
    }
  ]
]

/** What may be promised of it: as the host's own actor reckons. */
const capacity = (what: keyof Needs, { total }: HostView): number =>
  what === "cpus" ? total.cpus * cpuOvercommit : total[what]

function lacking(what: keyof Needs, host: HostView, need: number): string | null {
  const all = capacity(what, host)
  const free = all - host.used[what]
  return need <= free ? null : `${need} ${what} needed, ${free} of ${all} free`
}

function missingLabel(host: HostView, spec: VmSpec): string | null {
  for (const [key, value] of Object.entries(spec.hostLabels)) {
    if (host.labels[key] !== value) return `label ${key} is ${host.labels[key] ?? "not set"}, not ${value}`
  }
  return null
}

const list = (names: ReadonlyArray<string>) => names.slice(0, 8).join(", ") || "none"

/** Every host in the view appears among the candidates. Ties go to the name that sorts first. */
export function decidePlacement(question: Question, hosts: ReadonlyArray<HostView>): Decision {
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
    chosen: best?.host ?? null,
    reason: best
      ? `${best.host} scores highest of ${inside.length} of ${hosts.length} hosts`
      : whyNone(candidates, question)
  }
}

function candidate(
  host: HostView,
  question: Question,
  needs: Needs,
  weights: Readonly<Record<string, number>>
): Candidate {
  const excluded: Array<{ filter: string; reason: string }> = []
  for (const [filter, test] of filters) {
    const reason = test(host, question, needs)
    if (reason !== null) excluded.push({ filter, reason })
  }
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

/** "No destination found" is never said without the cause: each host with its first reason. */
function whyNone(candidates: ReadonlyArray<Candidate>, question: Question): string {
  if (candidates.length === 0) return "there is no host: none has registered"
  if (question.pinned !== null && !candidates.some((one) => one.host === question.pinned)) {
    return `there is no host ${question.pinned}; hosts: ${list(candidates.map((one) => one.host))}`
  }
  const relevant = candidates.filter((one) => question.pinned === null || one.host === question.pinned)
  const causes = relevant
    .slice(0, 16)
    .map((one) => `${one.host}: ${one.excluded.map((e) => e.reason).join("; ")}`)
  const more = relevant.length > 16 ? ` (and ${relevant.length - 16} more)` : ""
  return `no host can take ${question.vm}: ${causes.join(" | ")}${more}`.slice(0, 4000)
}
