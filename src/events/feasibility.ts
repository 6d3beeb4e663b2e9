/**
 * Whether a host can take a machine: hard filters over the host as the view knows it. The view looks for hosts with them,
 * the placement's actor decides with them, so both agree.
 */
import { cpuOvercommit } from "./host.ts"
import type { Needs } from "./host.ts"
import type { HostView, PlacementQuestion } from "./placement.ts"
import type { VmSpec } from "./vm.ts"

/** CPUs in physical ones, memory and disk in MiB. Local disks need room at the host; shared ones don't. */
export function needsOf(spec: VmSpec): Needs {
  const local = spec.disks.filter((disk) => disk.storage === "local")
  return {
    cpus: spec.cpus,
    memoryMib: spec.memoryMib,
    diskMib: local.reduce((sum, disk) => sum + disk.sizeMib, 0)
  }
}

interface Filter {
  readonly name: string
  readonly passes: (host: HostView, question: PlacementQuestion, needs: Needs) => boolean
  /** Of a host that does not pass. */
  readonly reason: (host: HostView, question: PlacementQuestion, needs: Needs) => string
}

/** What may be promised of it: as the host's own actor reckons. */
export const capacity = (what: keyof Needs, { total }: Pick<HostView, "total">): number =>
  what === "cpus" ? total.cpus * cpuOvercommit : total[what]

const room = (name: string, what: keyof Needs): Filter => ({
  name,
  passes: (host, _, needs) => needs[what] <= capacity(what, host) - host.used[what],
  reason: (host, _, needs) => {
    const all = capacity(what, host)
    return `${needs[what]} ${what} needed, ${all - host.used[what]} of ${all} free`
  }
})

const machineOf = ({ platform, spec }: PlacementQuestion) => platform?.machine ?? spec.machine
const near = ({ vms }: HostView, { antiAffinity }: VmSpec) => vms.filter((vm) => antiAffinity.includes(vm))
const missing = ({ capabilities }: HostView, question: PlacementQuestion) =>
  question.capabilities.filter((one) => !capabilities.includes(one))
const missingLabel = ({ labels }: HostView, { hostLabels }: VmSpec) =>
  Object.entries(hostLabels).find(([key, value]) => labels[key] !== value)

export const list = (names: ReadonlyArray<string>) => names.slice(0, 8).join(", ") || "none"

/** In the order in which they are tried. */
export const filters: ReadonlyArray<Filter> = [
  {
    name: "pinned",
    passes: (host, { pinned }) => pinned === null || pinned === host.name,
    reason: (_, { pinned }) => `only ${pinned} was asked for`
  },
  {
    name: "source",
    passes: (host, { from }) => from !== host.name,
    reason: () => "the machine is on it now"
  },
  { name: "state", passes: ({ state }) => state === "up", reason: ({ state }) => `it is ${state}` },
  room("cpus", "cpus"),
  room("memory", "memoryMib"),
  room("disk", "diskMib"),
  {
    name: "machine-type",
    passes: ({ machines }, question) => machines.includes(machineOf(question)),
    reason: ({ machines }, question) => `it has no machine type ${machineOf(question)}: ${list(machines)}`
  },
  {
    name: "accelerator",
    passes: ({ accelerators }, { platform }) =>
      platform === null || accelerators.includes(platform.accelerator),
    reason: ({ accelerators }, { platform }) =>
      `the machine runs with ${platform?.accelerator}, this host has ${list(accelerators)}`
  },
  {
    name: "capability",
    passes: (host, question) => missing(host, question).length === 0,
    reason: (host, question) => `it can't do ${missing(host, question).join(", ")}`
  },
  {
    name: "cpu-model",
    passes: ({ cpuModels }, { spec }) => cpuModels.includes(spec.cpuModel),
    reason: (_, { spec }) => `it can't give the CPU model ${spec.cpuModel}`
  },
  {
    name: "labels",
    passes: (host, { spec }) => missingLabel(host, spec) === undefined,
    reason: (host, { spec }) => {
      const [key, value] = missingLabel(host, spec) ?? ["", ""]
      return `label ${key} is ${host.labels[key] ?? "not set"}, not ${value}`
    }
  },
  {
    name: "anti-affinity",
    passes: (host, { spec }) => spec.antiAffinity.length === 0 || near(host, spec).length === 0,
    reason: (host, { spec }) => `${near(host, spec).join(", ")} is on it, to be kept away from`
  }
]

/** The first filter that it does not pass; undefined where it can take the machine. */
export const firstOut = (host: HostView, question: PlacementQuestion, needs: Needs): Filter | undefined => {
  for (const filter of filters) if (!filter.passes(host, question, needs)) return filter
  return undefined
}
