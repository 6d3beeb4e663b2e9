/** What can be asked of a virtual machine and what happened to it. */
import { Schema } from "effect"
import { Bytes, int, Labels, Milliseconds, Name, text, withDefault } from "./fields.ts"

export const Disk = Schema.Struct({
  name: Name,
  sizeMib: int(1, 64 * 1024 * 1024),
  /** A base image by name, from the host's image directory; the disk is a qcow2 overlay of it. */
  image: Schema.optionalKey(text(128)),
  /** `shared`: both hosts see the same file; `local`: it has to be moved with the machine. */
  storage: withDefault(Schema.Literals(["local", "shared"]), "local")
})

export const Network = Schema.Struct({
  mode: withDefault(Schema.Literals(["none", "user", "tap"]), "user"),
  /** Name of an existing tap device; needed in mode `tap`. */
  tap: Schema.optionalKey(text(15)),
  mac: Schema.optionalKey(
    Schema.String.check(
      Schema.isPattern(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/, { expected: "a MAC address, 52:54:00:12:34:56" })
    )
  )
})

export const CloudInit = Schema.Struct({
  userData: text(64 * 1024),
  metaData: withDefault(text(64 * 1024), "")
})

/** Boot a kernel directly; paths are names in the host's image directory. */
export const DirectBoot = Schema.Struct({
  kernel: text(128),
  initrd: Schema.optionalKey(text(128)),
  commandLine: withDefault(text(2048), "")
})

export const VmSpec = Schema.Struct({
  cpus: withDefault(int(1, 256), 1),
  memoryMib: withDefault(int(16, 4 * 1024 * 1024), 512),
  machine: withDefault(Schema.Literals(["pc", "q35"]), "q35"),
  cpuModel: withDefault(text(64), "qemu64"),
  disks: withDefault(Schema.Array(Disk).check(Schema.isMaxLength(16)), []),
  network: withDefault(Network, { mode: "user" }),
  boot: Schema.optionalKey(DirectBoot),
  cloudInit: Schema.optionalKey(CloudInit),
  labels: withDefault(Labels, {}),
  /** Labels that a host must carry. */
  hostLabels: withDefault(Labels, {}),
  /** Names of machines to be placed with, or away from. */
  affinity: withDefault(Schema.Array(Name).check(Schema.isMaxLength(64)), []),
  antiAffinity: withDefault(Schema.Array(Name).check(Schema.isMaxLength(64)), []),
  /** What to do when the guest is found dead: boot it again from its disk, or leave it stopped. */
  onCrash: withDefault(Schema.Literals(["restart", "stop"]), "restart"),
  /**
   * What to do when its host is fenced: start it on another one, where its disks allow that, or wait for the host. One that may be
   * restarted is ended when its host's lease runs out, one that waits is not.
   */
  onHostFailure: withDefault(Schema.Literals(["restart", "wait"]), "restart")
})
export type VmSpec = typeof VmSpec.Type

/** Why a machine can't be started on another host when its own has failed; null when it can. */
export function staysWithHost({ onHostFailure, disks }: VmSpec): string | null {
  if (onHostFailure === "wait") return "its specification says to wait for its host"
  const local = disks.filter(({ storage }) => storage === "local").map(({ name }) => name)
  if (local.length === 0) return null
  const names = local.slice(0, 4).join(", ")
  return local.length === 1
    ? `its disk ${names} lies on that host alone`
    : `its disks ${names} lie on that host alone`
}

/** What a running machine was started with. It can only go on with the very same. */
export const Platform = Schema.Struct({
  /** `kvm`, `tcg` */
  accelerator: text(16),
  /** With its version: `pc-q35-7.2`. What an alias means changes with the hypervisor's. */
  machine: text(64)
})
export type Platform = typeof Platform.Type

/** How a hypervisor has a machine. */
export const VmState = Schema.Literals([
  "absent",
  "defined",
  "running",
  "paused",
  "incoming",
  /** The source's machine after everything was sent: complete, stopped, and only to be resumed to roll back. */
  "handed-over"
])
export type VmState = typeof VmState.Type

const host = { host: Name }
/** Of its host, as that one's actor counts. */
const loss = { loss: Schema.Int }
const reason = { reason: text(2048) }
const console = {
  mode: Schema.Literals(["read", "write"]),
  /** From whom the right to type is taken; left out when nobody had it. */
  takenFrom: Schema.optionalKey(text(256))
}

export const VmCommand = Schema.Union([
  Schema.Struct({
    type: Schema.tag("vm.create"),
    spec: VmSpec,
    /** Place it on this host and no other. */
    host: Schema.optionalKey(Name),
    start: withDefault(Schema.Boolean, false),
    /** Copy the disks of this stopped machine, or of this snapshot of it. */
    cloneOf: Schema.optionalKey(Schema.Struct({ vm: Name, snapshot: Schema.optionalKey(Name) }))
  }),
  Schema.Struct({ type: Schema.tag("vm.start") }),
  Schema.Struct({ type: Schema.tag("vm.stop"), force: withDefault(Schema.Boolean, false) }),
  Schema.Struct({ type: Schema.tag("vm.pause") }),
  Schema.Struct({ type: Schema.tag("vm.resume") }),
  Schema.Struct({ type: Schema.tag("vm.reboot") }),
  Schema.Struct({ type: Schema.tag("vm.delete") }),
  Schema.Struct({ type: Schema.tag("vm.snapshot"), snapshot: Name }),
  Schema.Struct({ type: Schema.tag("vm.restore"), snapshot: Name }),
  Schema.Struct({ type: Schema.tag("vm.openConsole"), ...console }),
  // Said by other actors.
  Schema.Struct({ type: Schema.tag("vm.place"), ...host, address: text(256), decision: Schema.String }),
  Schema.Struct({ type: Schema.tag("vm.refusePlacement"), decision: Schema.String, ...reason }),
  /** A node's agent found the guest ended without having been asked to end it. */
  Schema.Struct({
    type: Schema.tag("vm.reportEnded"),
    ...host,
    cause: Schema.Literals(["guest-shutdown", "crash"]),
    ...reason
  }),
  /** How a host that took part again has it. A hint: the machine is asked for before anything follows from it. */
  Schema.Struct({ type: Schema.tag("vm.observe"), ...host, state: VmState }),
  Schema.Struct({ type: Schema.tag("vm.lock"), migration: Name }),
  Schema.Struct({ type: Schema.tag("vm.handOver"), migration: Name, ...host, decision: Schema.String }),
  /**
   * Its host is fenced. `runs` is how often it had been asked to run when that was seen: one that was asked again since is left
   * alone.
   */
  Schema.Struct({ type: Schema.tag("vm.fence"), ...host, ...loss, runs: Schema.Int, ...reason }),
  /** `doubtful`: the migration could not see to it that the guest runs. */
  Schema.Struct({
    type: Schema.tag("vm.unlock"),
    migration: Name,
    doubtful: withDefault(Schema.Boolean, false)
  })
])
export type VmCommand = typeof VmCommand.Type

export const VmFact = Schema.Union([
  Schema.Struct({
    type: Schema.tag("vm.created"),
    name: Name,
    spec: VmSpec,
    host: Schema.optionalKey(Name),
    start: Schema.Boolean,
    cloneOf: Schema.optionalKey(Schema.Struct({ vm: Name, snapshot: Schema.optionalKey(Name) }))
  }),
  Schema.Struct({ type: Schema.tag("vm.placed"), ...host, decision: Schema.String }),
  Schema.Struct({ type: Schema.tag("vm.notPlaced"), decision: Schema.String, ...reason }),
  Schema.Struct({ type: Schema.tag("vm.defined") }),
  Schema.Struct({ type: Schema.tag("vm.startRequested"), automatic: Schema.Boolean }),
  /** `machine` is missing in facts of before it was told. */
  Schema.Struct({
    type: Schema.tag("vm.started"),
    accelerator: Schema.String,
    machine: Schema.optionalKey(Schema.String)
  }),
  Schema.Struct({ type: Schema.tag("vm.stopRequested"), force: Schema.Boolean }),
  Schema.Struct({ type: Schema.tag("vm.stopped") }),
  Schema.Struct({ type: Schema.tag("vm.pauseRequested") }),
  Schema.Struct({ type: Schema.tag("vm.paused") }),
  Schema.Struct({ type: Schema.tag("vm.resumeRequested") }),
  Schema.Struct({ type: Schema.tag("vm.resumed") }),
  Schema.Struct({ type: Schema.tag("vm.rebootRequested") }),
  Schema.Struct({ type: Schema.tag("vm.rebooted") }),
  Schema.Struct({ type: Schema.tag("vm.snapshotRequested"), snapshot: Name }),
  Schema.Struct({ type: Schema.tag("vm.snapshotTaken"), snapshot: Name, bytes: Bytes }),
  Schema.Struct({ type: Schema.tag("vm.restoreRequested"), snapshot: Name }),
  Schema.Struct({ type: Schema.tag("vm.restored"), snapshot: Name }),
  /** Somebody may see, or with `write` also type at, the guest's console from here on. */
  Schema.Struct({ type: Schema.tag("vm.consoleOpened"), ...console }),
  Schema.Struct({ type: Schema.tag("vm.deleteRequested") }),
  Schema.Struct({ type: Schema.tag("vm.deleted") }),
  /** An operation did not happen; the machine is where it was before it. */
  Schema.Struct({ type: Schema.tag("vm.operationFailed"), operation: Schema.String, ...reason }),
  Schema.Struct({ type: Schema.tag("vm.crashed"), ...reason }),
  /** Its host has it otherwise than the journal, or has failed at something; the host is asked how it is now. */
  Schema.Struct({ type: Schema.tag("vm.doubted"), state: Schema.optionalKey(VmState) }),
  Schema.Struct({ type: Schema.tag("vm.foundRunning") }),
  Schema.Struct({ type: Schema.tag("vm.foundPaused") }),
  Schema.Struct({ type: Schema.tag("vm.foundStopped") }),
  /** Its host is fenced: it has no place any more, and is placed again. */
  Schema.Struct({ type: Schema.tag("vm.fenced"), ...host, ...reason }),
  /** Its host is fenced, and it waits for it all the same. */
  Schema.Struct({ type: Schema.tag("vm.waitsForHost"), ...host, ...loss, ...reason }),
  /** Nowhere could it be started now: it is tried again. `attempt` counts from 1. */
  Schema.Struct({ type: Schema.tag("vm.recoveryDelayed"), attempt: Schema.Int, afterMs: Milliseconds }),
  Schema.Struct({ type: Schema.tag("vm.locked"), migration: Name }),
  Schema.Struct({ type: Schema.tag("vm.unlocked"), migration: Name }),
  Schema.Struct({
    type: Schema.tag("vm.handedOver"),
    migration: Name,
    from: Name,
    to: Name,
    decision: Schema.String
  })
])
export type VmFact = typeof VmFact.Type
