/** A machine's move from one host to another: asked, under way, and its one final state. */
import { Schema } from "effect"
import { Bytes, Milliseconds, Name, text } from "./fields.ts"
import { MigrationPolicy, Progress } from "./requests.ts"
import { Platform, VmSpec } from "./vm.ts"

const reason = { reason: text(4096) }
const platform = { platform: Schema.optionalKey(Platform) }

export const MigrationCommand = Schema.Union([
  Schema.Struct({
    type: Schema.tag("migration.request"),
    vm: Name,
    to: Schema.optionalKey(Name),
    policy: MigrationPolicy,
    /** Why it is moved, in the words of who asks. */
    ...reason
  }),
  /** `force`: also when the guest runs at the destination by post-copy; what has not come of it is given up. */
  Schema.Struct({
    type: Schema.tag("migration.cancel"),
    ...reason,
    force: Schema.optionalKey(Schema.Boolean)
  }),
  // Said by other actors.
  Schema.Struct({
    type: Schema.tag("migration.begin"),
    from: Name,
    /** The placement whose reservation holds its room there. */
    decision: Schema.String,
    spec: VmSpec,
    ...platform
  }),
  Schema.Struct({
    type: Schema.tag("migration.place"),
    host: Name,
    address: text(256),
    decision: Schema.String
  }),
  Schema.Struct({ type: Schema.tag("migration.refusePlacement"), decision: Schema.String, ...reason }),
  /** The guest ended by itself, on the host that the machine is on. */
  Schema.Struct({ type: Schema.tag("migration.reportCrash"), ...reason })
])
export type MigrationCommand = typeof MigrationCommand.Type

export const MigrationFact = Schema.Union([
  Schema.Struct({
    type: Schema.tag("migration.requested"),
    migration: Name,
    vm: Name,
    to: Schema.optionalKey(Name),
    policy: MigrationPolicy,
    ...reason
  }),
  /** The machine is locked for this migration; it was on `from`. */
  Schema.Struct({
    type: Schema.tag("migration.begun"),
    from: Name,
    decision: Schema.String,
    spec: VmSpec,
    ...platform
  }),
  Schema.Struct({
    type: Schema.tag("migration.placed"),
    to: Name,
    address: text(256),
    decision: Schema.String
  }),
  Schema.Struct({ type: Schema.tag("migration.checked") }),
  Schema.Struct({ type: Schema.tag("migration.prepared"), channels: Schema.Array(Name) }),
  Schema.Struct({ type: Schema.tag("migration.progressed"), progress: Progress }),
  /** The source stands still for good; from here the machine belongs to the destination. */
  Schema.Struct({ type: Schema.tag("migration.handedOver"), postCopy: Schema.optionalKey(Schema.Boolean) }),
  Schema.Struct({ type: Schema.tag("migration.resumed") }),
  Schema.Struct({
    type: Schema.tag("migration.measured"),
    totalMs: Milliseconds,
    downtimeMs: Milliseconds,
    transferredBytes: Bytes
  }),
  /** The source's side ended after the hand-over without saying how long it took. */
  Schema.Struct({ type: Schema.tag("migration.notMeasured"), ...reason }),
  /** It is not known whether the guest ran at the destination before it died there: it is not run at the source. */
  Schema.Struct({ type: Schema.tag("migration.destinationLost"), ...reason }),
  /** By post-copy: nothing more will be sent, or the guest ended. Whether all of it had come, the destination knows. */
  Schema.Struct({ type: Schema.tag("migration.arrivalDoubted"), ...reason }),
  Schema.Struct({ type: Schema.tag("migration.arrivalConfirmed") }),
  /** The rest of its memory did not come: it was ended, and starts again from its disks as its policy says. */
  Schema.Struct({ type: Schema.tag("migration.guestLost"), ...reason }),
  /** The machine knows its new host. */
  Schema.Struct({ type: Schema.tag("migration.ownerChanged") }),
  Schema.Struct({ type: Schema.tag("migration.sourceClearing") }),
  /** `leftover` says what could not be removed, empty when all was. */
  Schema.Struct({ type: Schema.tag("migration.sourceCleared"), leftover: text(2048) }),
  Schema.Struct({ type: Schema.tag("migration.cancelRequested"), ...reason }),
  Schema.Struct({
    type: Schema.tag("migration.rollingBack"),
    outcome: Schema.Literals(["cancelled", "failed"]),
    ...reason
  }),
  /** There was no destination yet, so there is nothing to take back but the lock. */
  Schema.Struct({
    type: Schema.tag("migration.givenUp"),
    outcome: Schema.Literals(["cancelled", "failed"]),
    ...reason
  }),
  Schema.Struct({ type: Schema.tag("migration.transferStopped") }),
  Schema.Struct({ type: Schema.tag("migration.destinationCleared"), leftover: text(2048) }),
  /** The guest runs at the source again; `trouble` says why not, empty when it does. */
  Schema.Struct({ type: Schema.tag("migration.sourceKept"), trouble: text(2048) }),
  Schema.Struct({ type: Schema.tag("migration.completed") }),
  Schema.Struct({ type: Schema.tag("migration.cancelled"), ...reason }),
  Schema.Struct({ type: Schema.tag("migration.failed"), ...reason })
])
export type MigrationFact = typeof MigrationFact.Type
