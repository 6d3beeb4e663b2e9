/** What there is: every machine with where and how it is, and every host with what it offers and has promised. */
import type { Recorded } from "../events/envelope.ts"
import type { HostFact, HostFacts, Needs } from "../events/host.ts"
import type { HostView } from "../events/placement.ts"
import type { VmFact, VmSpec } from "../events/vm.ts"
import { changeOf, foldOf, nameOf } from "./projection.ts"
import type { Change, Projection } from "./projection.ts"
import { Table } from "./table.ts"

export type VmState =
  | "placing"
  | "unplaced"
  | "defining"
  | "stopped"
  | "starting"
  | "running"
  | "pausing"
  | "paused"
  | "resuming"
  | "rebooting"
  | "stopping"
  | "migrating"
  | "deleting"

/** The whole specification but for what a guest is told at its first boot: that may hold secrets. */
export type SpecSummary = Omit<VmSpec, "cloudInit"> & { readonly cloudInit: boolean }

export interface Because {
  readonly reason: string
  readonly position: number
  readonly timeMs: number
}

export interface VmRow {
  readonly name: string
  readonly state: VmState
  /** What is being done that leaves the state as it is: `snapshot`, `restore`. */
  readonly operation: string | null
  /** Where it is again when what is under way fails. */
  readonly fallback: VmState
  readonly host: string | null
  /** The placement that chose the host. */
  readonly decision: string | null
  readonly spec: SpecSummary
  readonly snapshots: ReadonlyArray<{
    readonly name: string
    readonly sizeBytes: number
    readonly takenMs: number
  }>
  /** The migration that has it locked. */
  readonly migration: string | null
  readonly accelerator: string | null
  /** Crashes since an operator last started it. */
  readonly crashes: number
  /** Why it does not run; null while it runs. */
  readonly notRunning: Because | null
  /** The last operation that did not happen; null again after one that did. */
  readonly failure: (Because & { readonly operation: string }) | null
  readonly createdMs: number
  readonly change: Change
}

export interface HostRow {
  readonly name: string
  readonly state: "up" | "draining" | "lost" | "fenced"
  readonly address: string
  readonly facts: HostFacts
  readonly total: Needs
  readonly used: Needs
  readonly reservations: Readonly<Record<string, { readonly vm: string; readonly needs: Needs }>>
  /** Machines that could not be removed from here yet, and why. */
  readonly leftovers: Readonly<Record<string, string>>
  /** Machines that room is reserved for, in the order of their names. */
  readonly vms: ReadonlyArray<string>
  /** Why it is draining, lost or fenced, in the words of who said so. */
  readonly reason: string
  /** Why it is lost and not fenced; null when nothing keeps it from being fenced. */
  readonly fencingHeld: string | null
  /** When it came into this state, milliseconds since the Unix epoch. */
  readonly sinceMs: number
  readonly change: Change
}

export interface Inventory {
  readonly vms: Table<VmRow>
  readonly hosts: Table<HostRow>
}

const because = (reason: string, { position, timeMs }: Recorded): Because => ({ reason, position, timeMs })

const byWhom = ({ principal }: Recorded): string => `${principal.kind} ${principal.name}`

function summaryOf(spec: VmSpec): SpecSummary {
  const { cloudInit, ...rest } = spec
  return { ...rest, cloudInit: cloudInit !== undefined }
}

/** What these facts change of a machine's row, beside noting themselves as its last change. */
type VmChange = Partial<Omit<VmRow, "name" | "change" | "createdMs">>

const vmChange =
  <D>(change: (vm: VmRow, data: D, fact: Recorded) => VmChange) =>
  ({ vms }: Inventory, data: D, fact: Recorded) =>
    vms.update(nameOf(fact.stream), (vm) => ({ ...vm, ...change(vm, data, fact), change: changeOf(fact) }))

const runs: VmChange = { state: "running", operation: null, notRunning: null, failure: null }
const underWay = (state: VmState, fallback: VmState) => vmChange(() => ({ state, fallback }))

function stopped(vm: VmRow, _: object, fact: Recorded): VmChange {
  // Whoever asked for the stop, or the crash during a migration, is in the reason already.
  const known = vm.state === "stopping" || vm.state === "running" ? vm.notRunning : null
  const reason = known ?? because("the guest powered off by itself", fact)
  return { state: "stopped", operation: null, migration: null, notRunning: reason, failure: null }
}

function operationFailed(
  vm: VmRow,
  data: { readonly operation: string; readonly reason: string },
  fact: Recorded
): VmChange {
  // The host could not say how the machine is; nothing that anybody asked for has failed.
  if (data.operation === "observe") return {}
  const failure = { operation: data.operation, ...because(data.reason, fact) }
  const said = because(`${data.operation} failed: ${data.reason}`, fact)
  if (data.operation === "create")
    return { state: "unplaced", host: null, decision: null, notRunning: said, failure }
  if (vm.operation !== null) return { operation: null, failure }
  const state = vm.fallback
  if (state === "running") return { state, failure, notRunning: null }
  return { state, failure, ...(data.operation === "start" ? { notRunning: said } : {}) }
}

const foldVm = foldOf<Inventory, VmFact>({
  "vm.created": ({ vms }, data, fact) =>
    vms.set(data.name, {
      name: data.name,
      state: "placing",
      operation: null,
      fallback: "unplaced",
      host: null,
      decision: null,
      spec: summaryOf(data.spec),
      snapshots: [],
      migration: null,
      accelerator: null,
      crashes: 0,
      notRunning: because(data.start ? "it is being placed" : "it was created without being started", fact),
      failure: null,
      createdMs: fact.timeMs,
      change: changeOf(fact)
    }),
  "vm.placed": vmChange((_, { host, decision }) => ({ state: "defining", host, decision })),
  "vm.notPlaced": vmChange((_, { reason, decision }, fact) => ({
    state: "unplaced",
    host: null,
    decision,
    notRunning: because(`no host could take it: ${reason}`, fact)
  })),
  "vm.defined": vmChange(() => ({ state: "stopped", fallback: "stopped" })),
  "vm.startRequested": vmChange((vm, { automatic }, fact) =>
    vm.state === "unplaced"
      ? { state: "placing", notRunning: because("it is being placed", fact) }
      : {
          state: "starting",
          fallback: "stopped",
          crashes: automatic ? vm.crashes : 0,
          notRunning: because(automatic ? "it is being started again" : "it is being started", fact)
        }
  ),
  "vm.started": vmChange((_, { accelerator }) => ({ ...runs, accelerator })),
  "vm.stopRequested": vmChange((_, { force }, fact) => ({
    state: "stopping",
    fallback: "running",
    notRunning: because(`${force ? "ended at once" : "stopped"} at the request of ${byWhom(fact)}`, fact)
  })),
  "vm.stopped": vmChange(stopped),
  "vm.pauseRequested": underWay("pausing", "running"),
  "vm.paused": vmChange((_, _data, fact) => ({
    state: "paused",
    failure: null,
    notRunning: because(`paused at the request of ${byWhom(fact)}`, fact)
  })),
  "vm.resumeRequested": underWay("resuming", "paused"),
  "vm.resumed": vmChange(() => runs),
  "vm.rebootRequested": underWay("rebooting", "running"),
  "vm.rebooted": vmChange(() => runs),
  "vm.snapshotRequested": vmChange(() => ({ operation: "snapshot" })),
  "vm.snapshotTaken": vmChange((vm, { snapshot, bytes }, fact) => ({
    operation: null,
    failure: null,
    snapshots: [...vm.snapshots, { name: snapshot, sizeBytes: bytes, takenMs: fact.timeMs }]
  })),
  "vm.restoreRequested": vmChange(() => ({ operation: "restore" })),
  "vm.restored": vmChange(() => ({ operation: null, failure: null })),
  "vm.deleteRequested": underWay("deleting", "stopped"),
  "vm.deleted": ({ vms }, _, fact) => vms.delete(nameOf(fact.stream)),
  "vm.operationFailed": vmChange(operationFailed),
  "vm.crashed": vmChange((vm, { reason }, fact) => ({
    // A locked machine stays with its migration, which says where it ends.
    state: vm.migration === null ? "stopped" : vm.state,
    operation: null,
    crashes: vm.crashes + 1,
    notRunning: because(`the guest crashed: ${reason}`, fact)
  })),
  "vm.doubted": vmChange(() => ({})),
  // What failed before its host was asked has failed.
  "vm.foundRunning": vmChange(({ failure }) => ({ ...runs, failure })),
  "vm.foundPaused": vmChange((vm, _data, fact) => ({
    state: "paused",
    notRunning: vm.notRunning ?? because("its host found it paused", fact)
  })),
  "vm.foundStopped": vmChange((vm, _data, fact) => ({
    state: "stopped",
    notRunning: vm.notRunning ?? because("its host found it stopped", fact)
  })),
  "vm.fenced": vmChange((_, { host, reason }, fact) => ({
    state: "placing",
    operation: null,
    host: null,
    decision: null,
    accelerator: null,
    notRunning: because(`${reason}: it is to start on another host than ${host}`, fact)
  })),
  "vm.waitsForHost": vmChange((_, { host, reason }, fact) => ({
    notRunning: because(`${host} was fenced, and it waits for it: ${reason}`, fact)
  })),
  "vm.recoveryDelayed": vmChange(({ notRunning }, { attempt, afterMs }, fact) => ({
    notRunning: because(
      `${notRunning?.reason ?? "it could not be started elsewhere"}; tried again in ${seconds(afterMs)}, after attempt ${attempt}`,
      fact
    )
  })),
  "vm.locked": vmChange((_, { migration }) => ({ state: "migrating", migration, failure: null })),
  "vm.unlocked": vmChange(() => ({ state: "running", migration: null })),
  "vm.handedOver": vmChange((_, { to, decision }) => ({ host: to, decision }))
})

const totalOf = ({ cpus, memoryMib, diskMib }: HostFacts): Needs => ({ cpus, memoryMib, diskMib })

function promised(reservations: HostRow["reservations"]): Pick<HostRow, "reservations" | "used" | "vms"> {
  const used = { cpus: 0, memoryMib: 0, diskMib: 0 }
  const vms = new Set<string>()
  for (const { vm, needs } of Object.values(reservations)) {
    used.cpus += needs.cpus
    used.memoryMib += needs.memoryMib
    used.diskMib += needs.diskMib
    vms.add(vm)
  }
  return { reservations, used, vms: [...vms].sort() }
}

const hostChange =
  <D>(change: (host: HostRow, data: D, fact: Recorded) => Partial<HostRow>) =>
  ({ hosts }: Inventory, data: D, fact: Recorded) =>
    hosts.update(nameOf(fact.stream), (host) => ({
      ...host,
      ...change(host, data, fact),
      change: changeOf(fact)
    }))

const enters =
  (state: HostRow["state"]) =>
  (_: HostRow, data: { readonly reason?: string }, { timeMs }: Recorded) => ({
    state,
    reason: data.reason ?? "",
    sinceMs: timeMs
  })

const seconds = (ms: number) => `${Math.round(ms / 100) / 10} s`

const foldHost = foldOf<Inventory, HostFact>({
  "host.registered": ({ hosts }, { name, address, facts }, fact) => {
    const known = hosts.get(name)
    const total = totalOf(facts)
    const change = changeOf(fact)
    // A draining host that registers again, after a restart say, goes on draining.
    if (known !== undefined && known.state !== "lost" && known.state !== "fenced") {
      hosts.set(name, { ...known, address, facts, total, change })
      return
    }
    const promises = promised(known?.reservations ?? {})
    // Each member by its name: V8 copies what was made so at a quarter of the price, and a row is copied at each change.
    hosts.set(name, {
      name,
      state: "up",
      reason: "",
      fencingHeld: null,
      sinceMs: fact.timeMs,
      address,
      facts,
      total,
      reservations: promises.reservations,
      used: promises.used,
      vms: promises.vms,
      leftovers: known?.leftovers ?? {},
      change
    })
  },
  "host.reserved": hostChange((host, { reservation, vm, needs }) =>
    promised({ ...host.reservations, [reservation]: { vm, needs } })
  ),
  "host.released": hostChange((host, { reservation }) => {
    const { [reservation]: _, ...rest } = host.reservations
    return promised(rest)
  }),
  "host.leftoverFound": hostChange(({ leftovers }, { vm, reason }) => ({
    leftovers: { ...leftovers, [vm]: reason }
  })),
  "host.leftoverRemoving": hostChange(() => ({})),
  "host.leftoverRemoved": hostChange(({ leftovers }, { vm }) => {
    const { [vm]: _, ...rest } = leftovers
    return { leftovers: rest }
  }),
  "host.leftoverKept": hostChange(({ leftovers }, { vm, reason }) => ({
    leftovers: { ...leftovers, [vm]: reason }
  })),
  "host.drained": hostChange(enters("draining")),
  "host.activated": hostChange(enters("up")),
  "host.lost": hostChange(enters("lost")),
  "host.fenced": hostChange((host, data, fact) => ({
    ...enters("fenced")(host, data, fact),
    fencingHeld: null
  })),
  "host.fencingHeld": hostChange((_, { reason }) => ({ fencingHeld: reason })),
  "host.leaseRanOut": hostChange(() => ({}))
})

export const inventory: Projection<Inventory> = {
  name: "inventory",
  version: 3,
  continues: [],
  initial: () => ({ vms: new Table(), hosts: new Table() }),
  apply: (state, fact) => foldHost(foldVm(state, fact), fact),
  tables: ({ vms, hosts }) => ({ vms, hosts })
}

/** A host as the placement actor is told of it. */
export const hostViewOf = (host: HostRow): HostView => ({
  name: host.name,
  address: host.address,
  state: host.state,
  total: host.total,
  used: host.used,
  driver: host.facts.driver,
  accelerators: host.facts.accelerators,
  capabilities: host.facts.capabilities,
  machines: host.facts.machines,
  cpuModels: host.facts.cpuModels,
  labels: host.facts.labels,
  vms: host.vms
})

/** All hosts by name; the same inventory gives the same list. */
export const hostViewsOf = ({ hosts }: Inventory): ReadonlyArray<HostView> =>
  [...hosts.values()].map(hostViewOf).sort((a, b) => (a.name < b.name ? -1 : 1))
