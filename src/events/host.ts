/** Hosts: what they offer, what is promised to whom, and whether they take part. */
import { Schema } from "effect"
import { int, Labels, Name, text, withDefault } from "./fields.ts"

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
  labels: withDefault(Labels, {})
})
export type HostFacts = typeof HostFacts.Type

export const Needs = Schema.Struct({ cpus: Schema.Int, memoryMib: Schema.Int, diskMib: Schema.Int })
export type Needs = typeof Needs.Type

/** Virtual CPUs promised per physical one; memory and disk are never promised twice. */
export const cpuOvercommit = 4

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
  Schema.Struct({ type: Schema.tag("host.lose"), reason: text(256) })
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
  Schema.Struct({ type: Schema.tag("host.lost"), reason: text(256) })
])
export type HostFact = typeof HostFact.Type
