/** A simulated machine: what it is, how its guest counts, and what dies with it. */
import { Effect } from "effect"
import type { Latch } from "effect"

import type { VmSpec, VmState } from "../../../src/events/vm.ts"
import { HypervisorError } from "../../../src/kernel/ports/hypervisor.ts"
import type { Arrival, MigrationReport, VmEnded } from "../../../src/kernel/ports/hypervisor.ts"
import type { SharedWork } from "../../../src/kernel/shared-work.ts"
import type { Random } from "../random.ts"

/** Probabilities from 0 to 1; of each operation, or of each step of a migration. */
export interface Faults {
  readonly operationFails: number
  readonly answerLost: number
  readonly slow: number
  readonly linkCut: number
  readonly crash: number
}

export const noFaults: Faults = { operationFails: 0, answerLost: 0, slow: 0, linkCut: 0, crash: 0 }

const countedAs = (fault: string): string => `hypervisor ${fault}`
/** What these are called among the counts of a run, where processes crash too. */
export const hypervisorFaults = Object.keys(noFaults).map(countedAs)
export const hypervisorCounts = ({ injected }: Pick<Fleet, "injected">): Record<string, number> =>
  Object.fromEntries(Object.entries(injected).map(([fault, count]) => [countedAs(fault), count]))

export interface Machine {
  readonly vm: string
  readonly spec: VmSpec
  state: VmState
  /** The guest's count when `since` was; it grows by one each 10 ms while it runs. */
  counter: number
  since: number | null
  /** The count on its disks; null without any. */
  disk: number | null
  readonly snapshots: Map<string, number | null>
  /** The migration it waits for. */
  incoming: Arrival | null
  arrived: boolean
  /** It had arrived, whole, and its process ended before it ran: what is left are its disks, from which it may start. */
  gone: boolean
  outgoing: {
    readonly migration: string
    readonly work: SharedWork<MigrationReport, HypervisorError>
    cancelled: boolean
  } | null
}

export interface SimHost {
  readonly name: string
  readonly machines: Map<string, Machine>
  /** Ends that no driver has told yet. */
  readonly ended: Array<VmEnded>
  readonly told: Latch.Latch
}

export interface Fleet {
  readonly random: Random
  readonly bandwidthBytesPerSecond: number
  faults: Faults
  /** How often each fault came. */
  readonly injected: { -readonly [K in keyof Faults]: number }
  readonly hosts: Map<string, SimHost>
  /** While set, nothing gets from one host to another. */
  linkDown: boolean
  /** Content of shared disks, by machine. */
  readonly shared: Map<string, number>
}

const tickMs = 10
/** The guest stores a bound ahead of its count, so that a crash never takes it back. */
const lead = 200

export const fail = (op: string, vm: string, code: HypervisorError["code"], reason: string) =>
  Effect.fail(new HypervisorError({ op, vm, code, reason }))

export const machineOf = (host: SimHost, op: string, vm: string): Effect.Effect<Machine, HypervisorError> =>
  Effect.suspend(() => {
    const machine = host.machines.get(vm)
    return machine
      ? Effect.succeed(machine)
      : fail(op, vm, "not-found", `there is no machine ${vm} on ${host.name}`)
  })

/** The count now. */
export function advance(machine: Machine, nowMs: number): number {
  if (machine.since !== null) {
    const ticks = Math.floor((nowMs - machine.since) / tickMs)
    machine.counter += ticks
    machine.since += ticks * tickMs
  }
  return machine.counter
}

const isShared = ({ spec }: Machine) => spec.disks.some((disk) => disk.storage === "shared")

/** What the guest has written is on its disks. */
export function persist(fleet: Fleet, machine: Machine): void {
  if (machine.disk === null || machine.since === null) return
  machine.disk = machine.counter + lead
  if (isShared(machine)) fleet.shared.set(machine.vm, machine.disk)
}

/** From the disks when there are any; a machine without forgets. */
export const bootedCounter = (fleet: Fleet, machine: Machine): number =>
  (isShared(machine) ? fleet.shared.get(machine.vm) : machine.disk) ?? 0

export const digests = (fleet: Fleet, machine: Machine): ReadonlyArray<string> =>
  machine.spec.disks.map((disk) => `${disk.name}:${bootedCounter(fleet, machine)}`)

export function startRunning(machine: Machine, nowMs: number): void {
  machine.state = "running"
  machine.since = nowMs
}

export function stopRunning(fleet: Fleet, machine: Machine, nowMs: number, state: VmState): void {
  advance(machine, nowMs)
  persist(fleet, machine)
  machine.since = null
  machine.state = state
}

/** What only waited leaves nothing; what had arrived leaves its disks, as the live driver's folder does. */
export function neverRan(host: SimHost, machine: Machine): void {
  if (!machine.arrived) return void host.machines.delete(machine.vm)
  machine.state = "defined"
  machine.gone = true
}

/** The process ended by itself. One that never ran here leaves nothing; one that did is told about. */
export function died(fleet: Fleet, host: SimHost, vm: string, nowMs: number, cause: VmEnded["cause"]): void {
  const machine = host.machines.get(vm)
  if (!machine || machine.state === "defined") return
  if (machine.state === "incoming") return neverRan(host, machine)
  const ran = machine.state !== "handed-over"
  stopRunning(fleet, machine, nowMs, "defined")
  machine.outgoing = null
  if (!ran) return
  host.ended.push({ vm, cause, reason: `simulated: ${cause}` })
  host.told.openUnsafe()
  host.told.closeUnsafe()
}
