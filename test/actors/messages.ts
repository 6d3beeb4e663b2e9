/** Small messages of every type, decoded by their own Schemas, for specifications and for walks over the charts. */
import { Schema } from "effect"
import { AuthorityCommand } from "../../src/events/authority.ts"
import { ClusterCommand } from "../../src/events/cluster.ts"
import type { Message } from "../../src/events/envelope.ts"
import { HostCommand } from "../../src/events/host.ts"
import { MigrationCommand } from "../../src/events/migration.ts"
import { NodeCommand } from "../../src/events/node.ts"
import { KeyringCommand } from "../../src/events/keyring.ts"
import { PeerCommand } from "../../src/events/peer.ts"
import { PlacementCommand, PlacementReport } from "../../src/events/placement.ts"
import { RebalancerCommand, RebalancerReport } from "../../src/events/rebalancer.ts"
import { Report } from "../../src/events/requests.ts"
import { VmCommand, VmSpec } from "../../src/events/vm.ts"

export const spec = Schema.decodeUnknownSync(VmSpec)({ disks: [{ name: "root", sizeMib: 64 }] })

export const hostFacts = {
  cpus: 4,
  memoryMib: 4096,
  diskMib: 10_000,
  driver: "test",
  driverVersion: "1",
  accelerators: ["tcg"],
  machines: ["q35"],
  cpuModels: ["qemu64"],
  capabilities: [],
  labels: {}
}

export const hostView = (name: string, more: Record<string, unknown> = {}) => ({
  name,
  address: `${name}@127.0.0.1:1`,
  state: "up",
  total: { cpus: 4, memoryMib: 4096, diskMib: 10_000 },
  used: { cpus: 0, memoryMib: 0, diskMib: 0 },
  driver: "test",
  accelerators: ["tcg"],
  capabilities: [],
  machines: ["q35"],
  cpuModels: ["qemu64"],
  labels: {},
  vms: [],
  ...more
})

export const policy = {
  downtimeBudgetMs: 300,
  bandwidthBytesPerSecond: 0,
  postCopy: false,
  throttle: true,
  timeoutMs: 60_000
}

export const progress = {
  phase: "pre-copy",
  percent: 10,
  transferredBytes: 1,
  remainingBytes: 9,
  totalBytes: 10,
  rateBytesPerSecond: 1,
  dirtyBytesPerSecond: 0,
  iteration: 1,
  throttlePercent: 0,
  remainingMs: null
}

export const fencedByLease = { by: "lease", node: "n", term: 0, leaseMs: 30_000, waitedMs: 33_300 }

const needs = { cpus: 1, memoryMib: 512, diskMib: 64 }
const failed = (op: string, code = "failed") => ({ type: "hypervisor.failed", op, code, reason: "because" })
const told = (type: "actor.accepted" | "actor.refused", command: string) => ({
  type,
  to: "vm/web",
  command,
  ...(type === "actor.refused" ? { reason: "because" } : {})
})

const decode =
  <S extends Schema.ConstraintDecoder<unknown>>(schema: S) =>
  (raw: unknown): Message =>
    Schema.decodeUnknownSync(schema)(raw) as Message

const reports: ReadonlyArray<Message> = [
  ...["defined", "stopped", "paused", "resumed", "rebooted", "removed", "restored"].map((what) => ({
    type: `hypervisor.${what}`
  })),
  { type: "hypervisor.started", accelerator: "tcg" },
  ...["running", "paused", "defined", "absent"].map((state) => ({ type: "hypervisor.observed", state })),
  { type: "hypervisor.snapshotTaken", bytes: 10 },
  { type: "hypervisor.checked", blockers: [] },
  { type: "hypervisor.checked", blockers: ["no such machine type"] },
  { type: "hypervisor.incomingPrepared", channels: ["ram"] },
  { type: "hypervisor.progressed", progress },
  { type: "hypervisor.handedOver" },
  { type: "hypervisor.handedOver", postCopy: true },
  { type: "hypervisor.arrivalSettled", whole: true },
  { type: "hypervisor.arrivalSettled", whole: false },
  { type: "hypervisor.migrated", totalMs: 10, downtimeMs: 1, transferredBytes: 10 },
  { type: "hypervisor.migrationCancelled" },
  { type: "hypervisor.incomingAbandoned" },
  ...[
    "start",
    "stop",
    "observe",
    "migrate",
    "resume",
    "remove",
    "cancelMigration",
    "settleArrival",
    "abandonIncoming"
  ].map((op) => failed(op)),
  failed("resume", "not-found"),
  ...["vm.lock", "vm.unlock", "vm.handOver", "host.reserve", "vm.place"].flatMap((command) => [
    told("actor.accepted", command),
    told("actor.refused", command)
  ])
].map(decode(Report))

/** One component of each level, the last two in need of the first. */
export const nodePlan = [
  { name: "store", phase: "core", level: "critical", needs: [] },
  { name: "links", phase: "core", level: "degraded", needs: ["store"] },
  { name: "mdns", phase: "post-init", level: "warning", needs: ["store"] }
] as const

/** By the node's chart: a start, and what the process says of its components. */
export const begin = (more: Record<string, unknown> = {}) => ({
  type: "node.begin",
  start: "s1",
  version: "1",
  limitMs: 30_000,
  components: nodePlan,
  ...more
})
/** By one whose start is in no journal of its own. */
export const reportOf = (start: string) => ({
  type: "node.report",
  start,
  version: "1",
  phases: [{ phase: "core", durationMs: 5 }],
  bootMs: 600,
  leftOut: ["mdns"]
})
export const initialised = (component: string, attempt = 1, start = "s1") => ({
  type: "component.initialised",
  start,
  component,
  attempt,
  durationMs: 3
})
export const componentFailed = (component: string, attempt = 1, start = "s1") => ({
  ...initialised(component, attempt, start),
  type: "component.failed",
  reason: "no port"
})

/** One host that has promised so much, beside one at 20 %. */
export const loads = (percent: number) => ({
  type: "view.loads",
  hosts: 2,
  meanPercent: (percent + 20) / 2,
  most: [
    { host: "a", percent, machines: [{ vm: "web", percent: 30, memoryMib: 1024 }] },
    { host: "b", percent: 20, machines: [] }
  ],
  position: 9
})

/** By kind: its commands and reports, some of them in more than one way. */
export const inputs: Readonly<Record<string, ReadonlyArray<Message>>> = {
  vm: [
    ...[
      { type: "vm.create", spec },
      { type: "vm.create", spec, start: true, host: "a" },
      { type: "vm.create", spec: { ...spec, disks: [] }, start: true },
      ...[1, 2].map((runs) => ({ type: "vm.fence", host: "a", loss: 1, runs, reason: "a was fenced" })),
      { type: "vm.fence", host: "b", loss: 1, runs: 1, reason: "b was fenced" },
      { type: "vm.start" },
      { type: "vm.stop" },
      { type: "vm.pause" },
      { type: "vm.resume" },
      { type: "vm.reboot" },
      { type: "vm.delete" },
      { type: "vm.snapshot", snapshot: "s" },
      { type: "vm.restore", snapshot: "s" },
      { type: "vm.openConsole", mode: "read" },
      { type: "vm.openConsole", mode: "write", takenFrom: "somebody" },
      { type: "vm.place", host: "a", address: "a@127.0.0.1:1", decision: "web.1" },
      { type: "vm.refusePlacement", decision: "web.1", reason: "no host" },
      { type: "vm.reportEnded", host: "a", cause: "crash", reason: "killed" },
      { type: "vm.reportEnded", host: "a", cause: "guest-shutdown", reason: "" },
      { type: "vm.reportEnded", host: "b", cause: "crash", reason: "killed" },
      { type: "vm.lock", migration: "m" },
      { type: "vm.handOver", migration: "m", host: "b", decision: "m" },
      { type: "vm.handOver", migration: "other", host: "b", decision: "other" },
      { type: "vm.unlock", migration: "m" },
      { type: "vm.unlock", migration: "m", doubtful: true },
      ...["running", "paused", "defined"].map((state) => ({ type: "vm.observe", host: "a", state })),
      { type: "vm.observe", host: "b", state: "defined" }
    ].map(decode(VmCommand)),
    decode(Report)({ type: "timer.fired", name: "recover" }),
    ...reports
  ],
  host: [
    { type: "host.register", address: "a@127.0.0.1:1", facts: hostFacts },
    { type: "host.reserve", reservation: "r1", vm: "web", needs },
    { type: "host.reserve", reservation: "r2", vm: "big", needs: { ...needs, memoryMib: 4000 } },
    { type: "host.release", reservation: "r1", vm: "web" },
    { type: "host.release", reservation: "r1", vm: "web", leftover: "it could not be reached" },
    { type: "host.release", reservation: "r2", vm: "big", leftover: "it could not be reached" },
    { type: "host.drain", reason: "maintenance" },
    { type: "host.activate" },
    { type: "host.lose", reason: "no link" },
    { type: "host.fence", loss: 1, reason: "it ran out", evidence: fencedByLease },
    { type: "host.fence", loss: 9, reason: "it ran out", evidence: fencedByLease },
    { type: "host.holdFencing", loss: 1, reason: "no watcher" },
    { type: "host.confirmOff", reason: "it is in my hands" },
    { type: "host.reportLeaseEnd", vms: ["web"] }
  ]
    .map(decode(HostCommand))
    .concat(reports),
  placement: [
    ...[
      { type: "placement.request", vm: "web", spec, purpose: "create", replyTo: "vm/web" },
      { type: "placement.request", vm: "web", spec, purpose: "migrate", from: "a", replyTo: "migration/m" }
    ].map(decode(PlacementCommand)),
    ...[
      { type: "view.hosts", hosts: [hostView("a"), hostView("b")], position: 1 },
      { type: "view.hosts", hosts: [], position: 1 }
    ].map(decode(PlacementReport)),
    ...reports
  ],
  node: [
    ...[
      begin(),
      begin({ components: [{ ...nodePlan[0], needs: ["nothing"] }] }),
      { type: "node.stop", reason: "SIGTERM" },
      reportOf("s2"),
      { type: "node.reportStop", start: "s2", reason: "SIGTERM" }
    ].map(decode(NodeCommand)),
    ...[
      ...nodePlan.flatMap(({ name, level }) =>
        (level === "degraded" ? [1, 2, 3, 4] : [1]).flatMap((attempt) => [
          initialised(name, attempt),
          componentFailed(name, attempt)
        ])
      ),
      initialised("store", 1, "another"),
      { type: "timer.fired", name: "limit" },
      { type: "timer.fired", name: "retry-links" },
      { type: "component.announced", start: "s1", bootMs: 600 },
      { type: "component.stopped", start: "s1", durationMs: 5 },
      { type: "component.over", start: "s1" }
    ].map(decode(Report))
  ],
  peer: [1, 2].flatMap((incarnation) =>
    [
      {
        type: "peer.noticeAlive",
        incarnation,
        by: "web",
        address: "10.0.0.1:7946",
        description: { capacity: null, mode: null, sample: null }
      },
      { type: "peer.noticeSuspect", incarnation, by: "b" },
      { type: "peer.noticeFailed", incarnation, by: "b" },
      { type: "peer.noticeLeft", incarnation, by: "web" }
    ].map(decode(PeerCommand))
  ),
  cluster: [
    ...["cluster.admit", "cluster.remove", "cluster.lead"]
      .map((type) => ({ type, node: "n2" }))
      .map(decode(ClusterCommand)),
    ...[
      { type: "group.changed", op: "admit", node: "n2", voters: ["n1", "n2"] },
      { type: "group.unchanged", op: "lead", node: "n2", reason: "n2 is no voter" }
    ].map(decode(Report))
  ],
  rebalancer: [
    ...[{ hold: 2 }, { hold: 1, shadow: true }].map((policy) => ({ type: "rebalancer.start", policy })),
    { type: "rebalancer.stop", reason: "enough" }
  ]
    .map(decode(RebalancerCommand))
    .concat(
      decode(Report)({ type: "timer.fired", name: "look" }),
      ...[loads(40), loads(90)].map(decode(RebalancerReport)),
      decode(Report)({ ...told("actor.refused", "migration.request"), to: "migration/rebalance-1" })
    ),
  keyring: [
    { type: "keyring.rotate", reason: "somebody left" },
    ...[1, 2].map((rotation) => ({ type: "keyring.noticeRotated", rotation, key: "0123abcd" }))
  ].map(decode(KeyringCommand)),
  authority: [
    ...["1", "2"].flatMap((digit) => {
      const token = digit.repeat(64)
      const issued = { node: digit === "1" ? "web" : "db", spki: digit.repeat(43), notAfterMs: 90_000 }
      return [
        { type: "authority.makeToken", token, node: null, votes: digit === "1", lifetimeMs: 60_000 },
        { type: "authority.admit", token, serial: `A${digit}`, ...issued }
      ]
    }),
    ...[
      {
        type: "authority.renew",
        present: "A1",
        node: "web",
        serial: "B1",
        spki: "3".repeat(43),
        notAfterMs: 95_000
      },
      { type: "authority.revoke", node: "web", reason: "lost" },
      { type: "authority.handKey", to: "web", serial: "A1" },
      {
        type: "authority.claim",
        node: "k",
        serial: "C1",
        spki: "4".repeat(43),
        notAfterMs: 90_000,
        votes: true
      },
      {
        type: "authority.takeOver",
        names: [{ node: "old", serial: "D1", spki: "5".repeat(43), notAfterMs: 90_000, votes: false }],
        tokens: [{ token: "6".repeat(64), node: null, votes: false, expiresMs: 60_000, isUsed: true }]
      }
    ]
  ].map(decode(AuthorityCommand)),
  migration: [
    ...[
      { type: "migration.request", vm: "web", policy, reason: "test" },
      { type: "migration.cancel", reason: "changed my mind" },
      { type: "migration.cancel", reason: "changed my mind", force: true },
      { type: "migration.begin", from: "a", decision: "web.1", spec },
      { type: "migration.place", host: "b", address: "b@127.0.0.1:1", decision: "m" },
      { type: "migration.refusePlacement", decision: "m", reason: "no host" }
    ].map(decode(MigrationCommand)),
    ...reports
  ]
}
