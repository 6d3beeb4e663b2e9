/** Facts for tests: recorded ones from (stream, fact), and whole random histories of a small fleet. */
import { array, constantFrom, integer, oneof, record } from "fast-check"
import type { Arbitrary } from "fast-check"
import type { Draft, Recorded } from "../../src/events/envelope.ts"
import { typePrefix } from "../../src/events/envelope.ts"
import type { HostFact } from "../../src/events/host.ts"
import type { MigrationFact } from "../../src/events/migration.ts"
import type { PlacementFact } from "../../src/events/placement.ts"
import type { VmFact } from "../../src/events/vm.ts"
import { hostFacts as smallHostFacts, policy as shortPolicy } from "../actors/messages.ts"

export type Said = readonly [
  stream: string,
  fact: VmFact | HostFact | PlacementFact | MigrationFact | { type: string }
]

export const spec = {
  cpus: 2,
  memoryMib: 512,
  machine: "q35" as const,
  cpuModel: "qemu64",
  disks: [],
  network: { mode: "user" as const },
  labels: {},
  hostLabels: {},
  affinity: [],
  antiAffinity: [],
  onCrash: "restart" as const,
  onHostFailure: "restart" as const
}

export const hostFacts = {
  ...smallHostFacts,
  cpus: 8,
  memoryMib: 16_384,
  diskMib: 100_000,
  driver: "sim",
  labels: { zone: "a" }
}

export const policy = { ...shortPolicy, timeoutMs: 3_600_000 }

export const progress = (percent: number, transferredBytes: number) => ({
  phase: "pre-copy" as const,
  percent,
  transferredBytes,
  remainingBytes: 1000,
  totalBytes: 2000,
  rateBytesPerSecond: 100,
  dirtyBytesPerSecond: 10,
  iteration: 1,
  throttlePercent: 0,
  remainingMs: { low: 10, high: 20 }
})

export const draftOf = (
  [, { type, ...data }]: Said,
  number: number,
  stamp: Partial<Pick<Draft, "causation" | "correlation" | "principal">> = {}
): Draft => ({
  id: `fact-${number}`,
  type: typePrefix + type,
  version: 1,
  timeMs: 1_000_000 + number,
  correlation: `correlation-${number % 7}`,
  causation: `command-${number}`,
  principal: { kind: "operator", name: "ada" },
  node: "a",
  answers: null,
  data,
  ...stamp
})

/** As a store would have recorded them, but for the hashes. */
export function recorded(history: ReadonlyArray<Said>): ReadonlyArray<Recorded> {
  const revisions = new Map<string, number>()
  return history.map((said, index) => {
    const [stream] = said
    const revision = (revisions.get(stream) ?? -1) + 1
    revisions.set(stream, revision)
    const hash = String(index + 1).padStart(64, "0")
    return { position: index + 1, stream, revision, ...draftOf(said, index), previousHash: "", hash }
  })
}

const names = ["web-1", "web-2", "db"] as const
const hosts = ["h1", "h2"] as const
const ids = ["m1", "m2", "m3"] as const

const reason = { reason: "because" }
const needs = { cpus: 2, memoryMib: 512, diskMib: 0 }

/** Everything a machine's stream may hold, in any order: a fold has to stand whatever was recorded. */
const vmFacts = (name: string): ReadonlyArray<VmFact> => [
  { type: "vm.created", name, spec, start: true },
  { type: "vm.placed", host: "h1", decision: "d1" },
  { type: "vm.notPlaced", decision: "d1", ...reason },
  { type: "vm.defined" },
  { type: "vm.startRequested", automatic: false },
  { type: "vm.started", accelerator: "tcg" },
  { type: "vm.stopRequested", force: true },
  { type: "vm.stopped" },
  { type: "vm.pauseRequested" },
  { type: "vm.paused" },
  { type: "vm.resumeRequested" },
  { type: "vm.resumed" },
  { type: "vm.rebootRequested" },
  { type: "vm.rebooted" },
  { type: "vm.snapshotRequested", snapshot: "s" },
  { type: "vm.snapshotTaken", snapshot: "s", bytes: 7 },
  { type: "vm.deleteRequested" },
  { type: "vm.deleted" },
  { type: "vm.operationFailed", operation: "start", ...reason },
  { type: "vm.crashed", ...reason },
  { type: "vm.doubted", state: "paused" },
  { type: "vm.foundRunning" },
  { type: "vm.foundPaused" },
  { type: "vm.foundStopped" },
  { type: "vm.locked", migration: "m1" },
  { type: "vm.unlocked", migration: "m1" },
  { type: "vm.handedOver", migration: "m1", from: "h1", to: "h2", decision: "d2" }
]

const hostFactsOf = (name: string, vm: string): ReadonlyArray<HostFact> => [
  { type: "host.registered", name, address: `${name}:1`, facts: hostFacts },
  { type: "host.reserved", reservation: `r-${vm}`, vm, needs },
  { type: "host.released", reservation: `r-${vm}`, vm },
  { type: "host.leftoverFound", vm: "web", ...reason },
  { type: "host.leftoverRemoving", vm: "web" },
  { type: "host.leftoverKept", vm: "web", ...reason },
  { type: "host.leftoverRemoved", vm: "web" },
  { type: "host.drained", ...reason },
  { type: "host.activated" },
  { type: "host.lost", ...reason }
]

const decision = {
  attempt: 1,
  policy: "weighted-1",
  weights: {},
  viewPosition: 1,
  candidates: [{ host: "h1", excluded: [], scores: {}, total: 1 }],
  ...reason
}

const placementFacts = (id: string, vm: string): ReadonlyArray<PlacementFact | { type: string }> => [
  { type: "placement.requested", decision: id, vm, spec, purpose: "create", replyTo: `vm/${vm}` },
  { type: "placement.decided", ...decision, chosen: "h1" },
  { type: "placement.noHost", ...decision, chosen: null },
  { type: "placement.contested", host: "h1", ...reason },
  { type: "placement.settled", host: "h1" },
  { type: "placement.replied" },
  { type: "placement.unheardOf" }
]

const migrationFacts = (vm: string, percent: number): ReadonlyArray<MigrationFact | { type: string }> => [
  { type: "migration.requested", migration: "m", vm, policy, ...reason },
  { type: "migration.begun", from: "h1", decision: "d0", spec },
  { type: "migration.placed", to: "h2", address: "h2:1", decision: "d2" },
  { type: "migration.progressed", progress: progress(percent, percent * 10) },
  { type: "migration.handedOver" },
  { type: "migration.measured", totalMs: 10, downtimeMs: 1, transferredBytes: 5000 },
  { type: "migration.rollingBack", outcome: "failed", ...reason },
  { type: "migration.completed" },
  { type: "migration.failed", ...reason },
  { type: "migration.unheardOf" }
]

/** Histories of up to `lengthMax` facts in which anything may follow anything. */
export const histories = (lengthMax: number): Arbitrary<ReadonlyArray<Said>> =>
  array(
    record({
      vm: constantFrom(...names),
      host: constantFrom(...hosts),
      id: constantFrom(...ids),
      percent: integer({ min: 0, max: 100 })
    }).chain(({ vm, host, id, percent }) =>
      oneof(
        constantFrom(...vmFacts(vm)).map((fact): Said => [`vm/${vm}`, fact]),
        constantFrom(...hostFactsOf(host, vm)).map((fact): Said => [`host/${host}`, fact]),
        constantFrom(...placementFacts(`d-${id}`, vm)).map((fact): Said => [`placement/d-${id}`, fact]),
        constantFrom(...migrationFacts(vm, percent)).map((fact): Said => [`migration/${id}`, fact])
      )
    ),
    { maxLength: lengthMax, size: "max" }
  )
