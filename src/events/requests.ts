/**
 * What actors ask of the ports, and the reports that answer. A request is performed under an idempotency key,
 * `stream@revision#n`; asking again with the same key is asking once.
 */
import { Schema } from "effect"
import { GroupReport, GroupRequest } from "./cluster.ts"
import { Bytes, int, Milliseconds, Name, Stream, text, withDefault } from "./fields.ts"
import { PlacementQuestion } from "./placement.ts"
import { ComponentReport, ComponentRequest } from "./node.ts"
import { Platform, VmSpec, VmState } from "./vm.ts"

const vm = { vm: Name }
const onHost = { port: Schema.tag("hypervisor"), host: Name, ...vm }
const migration = { migration: Name }
const platform = { platform: Schema.optionalKey(Platform) }

/** How far a migration may go to converge. */
export const MigrationPolicy = Schema.Struct({
  /** The guest may stand still for so long; never raised silently. */
  downtimeBudgetMs: withDefault(int(1, 600_000), 300),
  /** 0: as fast as the link goes. */
  bandwidthBytesPerSecond: withDefault(Schema.Int, 0),
  /** Allowed as the last step when pre-copy does not converge. */
  postCopy: withDefault(Schema.Boolean, false),
  /** Slow the guest down when pre-copy does not converge. */
  throttle: withDefault(Schema.Boolean, true),
  /** Give up, and stay at the source, after so long. */
  timeoutMs: withDefault(int(1000, 7 * 24 * 3600 * 1000), 3_600_000)
})
export type MigrationPolicy = typeof MigrationPolicy.Type

/** A byte stream of a migration: `ram`, or the name of a disk. */
export const Channel = Schema.Struct({ name: Name, path: text(108) })
export type Channel = typeof Channel.Type

export const HypervisorRequest = Schema.Union([
  Schema.Struct({
    ...onHost,
    op: Schema.tag("define"),
    spec: VmSpec,
    cloneOf: Schema.optionalKey(Schema.Struct({ vm: Name, snapshot: Schema.optionalKey(Name) }))
  }),
  Schema.Struct({ ...onHost, op: Schema.tag("start") }),
  Schema.Struct({ ...onHost, op: Schema.tag("stop"), force: Schema.Boolean }),
  Schema.Struct({ ...onHost, op: Schema.tag("pause") }),
  Schema.Struct({ ...onHost, op: Schema.tag("resume") }),
  Schema.Struct({ ...onHost, op: Schema.tag("reboot") }),
  /** `keepShared`: the machine may be elsewhere by now, with the disks that both hosts see. */
  Schema.Struct({ ...onHost, op: Schema.tag("remove"), keepShared: Schema.optionalKey(Schema.Boolean) }),
  Schema.Struct({ ...onHost, op: Schema.tag("snapshot"), snapshot: Name }),
  Schema.Struct({ ...onHost, op: Schema.tag("restore"), snapshot: Name }),
  /** What is there now? Asked after restarts, and when an answer was lost. */
  Schema.Struct({ ...onHost, op: Schema.tag("observe") }),
  Schema.Struct({ ...onHost, op: Schema.tag("checkIncoming"), spec: VmSpec, ...platform }),
  Schema.Struct({
    ...onHost,
    op: Schema.tag("prepareIncoming"),
    spec: VmSpec,
    ...platform,
    ...migration,
    from: Name,
    /** How long what arrives may wait for its source, when its link is away. */
    timeoutMs: withDefault(Milliseconds, 3_600_000),
    /** Whether the guest may go on there before all of its memory has come. */
    postCopy: withDefault(Schema.Boolean, true)
  }),
  Schema.Struct({
    ...onHost,
    op: Schema.tag("migrate"),
    ...migration,
    policy: MigrationPolicy,
    /** Where the destination's agent is to be reached, and the channels it prepared. */
    address: text(256),
    channels: Schema.Array(Name)
  }),
  Schema.Struct({ ...onHost, op: Schema.tag("cancelMigration"), ...migration }),
  Schema.Struct({ ...onHost, op: Schema.tag("settleArrival"), ...migration }),
  Schema.Struct({ ...onHost, op: Schema.tag("abandonIncoming"), ...migration })
])
export type HypervisorRequest = typeof HypervisorRequest.Type

export const Request = Schema.Union([
  HypervisorRequest,
  ComponentRequest,
  GroupRequest,
  Schema.Struct({
    port: Schema.tag("actor"),
    to: Stream,
    command: Schema.StructWithRest(Schema.Struct({ type: Schema.String }), [
      Schema.Record(Schema.String, Schema.Unknown)
    ])
  }),
  Schema.Struct({
    port: Schema.tag("view"),
    op: Schema.tag("hosts"),
    /** Of many hosts only those are told that could take the machine, in an order that `draw` says. */
    question: Schema.optionalKey(PlacementQuestion),
    draw: Schema.optionalKey(text(160))
  }),
  /** What the hosts have promised; those that have promised most are told with their machines. */
  Schema.Struct({ port: Schema.tag("view"), op: Schema.tag("loads"), most: int(1, 64) }),
  Schema.Struct({ port: Schema.tag("timer"), op: Schema.tag("start"), name: Name, afterMs: Milliseconds }),
  Schema.Struct({ port: Schema.tag("timer"), op: Schema.tag("stop"), name: Name }),
  /** Nothing that this actor has asked of the host and not heard about is wanted any more, nor an answer to it. */
  Schema.Struct({ port: Schema.tag("agents"), op: Schema.tag("forget"), host: Name })
])
export type Request = typeof Request.Type

/** How a migration stands. `percent` never goes back; `remainingMs` is a range, null while nothing is known. */
export const Progress = Schema.Struct({
  phase: Schema.Literals(["connecting", "mirroring", "pre-copy", "switch-over", "post-copy"]),
  percent: Schema.Number,
  transferredBytes: Bytes,
  remainingBytes: Bytes,
  totalBytes: Bytes,
  rateBytesPerSecond: Schema.Number,
  dirtyBytesPerSecond: Schema.Number,
  iteration: Schema.Int,
  throttlePercent: Schema.Number,
  remainingMs: Schema.NullOr(Schema.Struct({ low: Schema.Number, high: Schema.Number }))
})
export type Progress = typeof Progress.Type

export const HypervisorReport = Schema.Union([
  Schema.Struct({ type: Schema.tag("hypervisor.defined") }),
  Schema.Struct({
    type: Schema.tag("hypervisor.started"),
    accelerator: Schema.String,
    machine: Schema.optionalKey(Schema.String)
  }),
  Schema.Struct({ type: Schema.tag("hypervisor.stopped") }),
  Schema.Struct({ type: Schema.tag("hypervisor.paused") }),
  Schema.Struct({ type: Schema.tag("hypervisor.resumed") }),
  Schema.Struct({ type: Schema.tag("hypervisor.rebooted") }),
  Schema.Struct({ type: Schema.tag("hypervisor.removed") }),
  Schema.Struct({ type: Schema.tag("hypervisor.snapshotTaken"), bytes: Bytes }),
  Schema.Struct({ type: Schema.tag("hypervisor.restored") }),
  Schema.Struct({ type: Schema.tag("hypervisor.observed"), state: VmState }),
  Schema.Struct({ type: Schema.tag("hypervisor.checked"), blockers: Schema.Array(text(512)) }),
  Schema.Struct({ type: Schema.tag("hypervisor.incomingPrepared"), channels: Schema.Array(Name) }),
  Schema.Struct({ type: Schema.tag("hypervisor.progressed"), progress: Progress }),
  /** After the end of what was sent: whether all of it has come; when it has not, the guest was ended. */
  Schema.Struct({ type: Schema.tag("hypervisor.arrivalSettled"), whole: Schema.Boolean }),
  /** The source stands still for good and the destination has, or in post-copy will get, every byte. */
  Schema.Struct({ type: Schema.tag("hypervisor.handedOver"), postCopy: Schema.optionalKey(Schema.Boolean) }),
  Schema.Struct({
    type: Schema.tag("hypervisor.migrated"),
    totalMs: Milliseconds,
    /** As the hypervisor tells it; what the guest saw is measured in the guest. */
    downtimeMs: Milliseconds,
    transferredBytes: Bytes
  }),
  Schema.Struct({ type: Schema.tag("hypervisor.migrationCancelled") }),
  Schema.Struct({ type: Schema.tag("hypervisor.incomingAbandoned") }),
  Schema.Struct({
    type: Schema.tag("hypervisor.failed"),
    op: Schema.String,
    code: Schema.Literals([
      "not-found",
      "wrong-state",
      "unsupported",
      "no-room",
      "timeout",
      "lost",
      "failed"
    ]),
    reason: text(2048)
  })
])
export type HypervisorReport = typeof HypervisorReport.Type

export const Report = Schema.Union([
  HypervisorReport,
  ComponentReport,
  GroupReport,
  Schema.Struct({ type: Schema.tag("actor.accepted"), to: Stream, command: Schema.String }),
  Schema.Struct({
    type: Schema.tag("actor.refused"),
    to: Stream,
    command: Schema.String,
    reason: text(2048)
  }),
  Schema.Struct({ type: Schema.tag("timer.fired"), name: Name })
])
export type Report = typeof Report.Type
