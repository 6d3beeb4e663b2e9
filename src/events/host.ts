/** Hosts: what they offer, what is promised to whom, and whether they take part. */
import { Schema } from "effect"
import { int, Labels, Name, text, withDefault } from "./fields.ts"

const leaseLengthMs = int(100, 3_600_000)

/** What an agent finds out about its machine and its hypervisor. */
export const HostFacts = Schema.Struct({
  cpus: int(1, 65_536),
  memoryMib: int(1, 1024 * 1024 * 1024),
  diskMib: int(0, 1024 * 1024 * 1024 * 1024),
  driver: text(32),
  driverVersion: text(64),
  accelerators: Schema.Array(text(16)),
  machines: Schema.Array(text(64)),
  cpuModels: Schema.Array(text(64)),
  capabilities: Schema.Array(text(64)),
  labels: withDefault(Labels, {}),
  /**
   * It runs machines that may be restarted elsewhere for so long after it last asked, and a watcher beside its node ends them
   * then. Missing where no watcher runs: such a host can't be fenced by waiting.
   */
  lease: Schema.optionalKey(Schema.Struct({ lengthMs: leaseLengthMs }))
})
export type HostFacts = typeof HostFacts.Type

export const Needs = Schema.Struct({ cpus: Schema.Int, memoryMib: Schema.Int, diskMib: Schema.Int })
export type Needs = typeof Needs.Type

/** Virtual CPUs promised per physical one; memory and disk are never promised twice. */
export const cpuOvercommit = 4

/** Why it is known that nothing runs there any more. */
export const FencingEvidence = Schema.Union([
  Schema.Struct({
    by: Schema.tag("lease"),
    /** The node whose kernel waited, and in which term of the group it led; 0 of a kernel that decides alone. */
    node: Name,
    term: int(0, Number.MAX_SAFE_INTEGER),
    leaseMs: leaseLengthMs,
    /** So long, by that node's own clock, no lease was given; more than the lease, for clocks drift. */
    waitedMs: int(0, Number.MAX_SAFE_INTEGER)
  }),
  /** Somebody has seen to it that the host is off. */
  Schema.Struct({ by: Schema.tag("operator") })
])
export type FencingEvidence = typeof FencingEvidence.Type

/** Counts the times that a host was lost: what is said of one loss does not hold for the next. */
const loss = { loss: int(1, Number.MAX_SAFE_INTEGER) }

const reservation = { reservation: text(128), vm: Name }

export const HostCommand = Schema.Union([
  /** Said by a node's agent at every start. */
  Schema.Struct({ type: Schema.tag("host.register"), address: text(256), facts: HostFacts }),
  Schema.Struct({ type: Schema.tag("host.reserve"), ...reservation, needs: Needs }),
  /** `leftover` says what of the machine could not be removed here; empty when nothing is left. */
  Schema.Struct({ type: Schema.tag("host.release"), ...reservation, leftover: withDefault(text(2048), "") }),
  Schema.Struct({ type: Schema.tag("host.drain"), reason: withDefault(text(256), "") }),
  Schema.Struct({ type: Schema.tag("host.activate") }),
  /** Said by the node that watches the links. */
  Schema.Struct({ type: Schema.tag("host.lose"), reason: text(256) }),
  /** Said by the node whose kernel performs, when every lease that was ever given has run out. */
  Schema.Struct({
    type: Schema.tag("host.fence"),
    ...loss,
    reason: text(512),
    evidence: FencingEvidence
  }),
  /** Said by the same: it is lost, and is not fenced by waiting. */
  Schema.Struct({ type: Schema.tag("host.holdFencing"), ...loss, reason: text(512) }),
  /** An operator has seen to it that a lost host is off: nothing runs there. */
  Schema.Struct({ type: Schema.tag("host.confirmOff"), reason: withDefault(text(256), "") }),
  /** Said by a node's agent: the watcher has ended these machines, because the lease had run out. */
  Schema.Struct({
    type: Schema.tag("host.reportLeaseEnd"),
    vms: Schema.Array(Name).check(Schema.isMaxLength(10_000))
  })
])
export type HostCommand = typeof HostCommand.Type

export const HostFact = Schema.Union([
  Schema.Struct({ type: Schema.tag("host.registered"), name: Name, address: text(256), facts: HostFacts }),
  Schema.Struct({ type: Schema.tag("host.reserved"), ...reservation, needs: Needs }),
  Schema.Struct({ type: Schema.tag("host.released"), ...reservation }),
  /** A machine that has no room here any more lies here still: it is to be removed. */
  Schema.Struct({ type: Schema.tag("host.leftoverFound"), vm: Name, reason: text(2048) }),
  Schema.Struct({ type: Schema.tag("host.leftoverRemoving"), vm: Name }),
  Schema.Struct({ type: Schema.tag("host.leftoverRemoved"), vm: Name }),
  /** It could not be removed now; the next registration tries again. */
  Schema.Struct({ type: Schema.tag("host.leftoverKept"), vm: Name, reason: text(2048) }),
  Schema.Struct({ type: Schema.tag("host.drained"), reason: text(256) }),
  Schema.Struct({ type: Schema.tag("host.activated") }),
  Schema.Struct({ type: Schema.tag("host.lost"), reason: text(256) }),
  /** Nothing runs there any more, and nothing will before it has registered again: its machines may start elsewhere. */
  Schema.Struct({ type: Schema.tag("host.fenced"), reason: text(512), evidence: FencingEvidence }),
  /** Why a lost host is not fenced. */
  Schema.Struct({ type: Schema.tag("host.fencingHeld"), reason: text(512) }),
  Schema.Struct({ type: Schema.tag("host.leaseRanOut"), vms: Schema.Array(Name) })
])
export type HostFact = typeof HostFact.Type
