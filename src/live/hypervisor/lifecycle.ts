/** Making, starting, stopping and removing machines. Every operation runs under the machine's lock, once. */
import { writeFile } from "node:fs/promises"
import { Effect } from "effect"
import { staysWithHost } from "../../events/vm.ts"
import type { Platform, VmSpec } from "../../events/vm.ts"
import { always } from "../../kernel/lease.ts"
import type { MayRun } from "../../kernel/lease.ts"
import type { HypervisorError } from "../../kernel/ports/hypervisor.ts"
import { commandLine } from "./command-line.ts"
import type { DiskFile } from "./command-line.ts"
import { copyDisk, createDisk, diskFiles, imageFile, removeDisk } from "./disks.ts"
import type { DiskStore } from "./disks.ts"
import { makeFolders, removeFolders, writeRecord } from "./folder.ts"
import type { MachineRecord } from "./folder.ts"
import { finishIncoming, keepPostCopy } from "./incoming.ts"
import {
  asHypervisorError,
  clearSockets,
  connect,
  endProcess,
  fail,
  look,
  lookToEnd,
  machineOf
} from "./machine.ts"
import { runState, vmState } from "./machine.ts"
import type { Machine, Observed, Supervisor } from "./machine.ts"
import { rollBack } from "./outgoing.ts"
import type { Outgoing } from "./outgoing-reports.ts"
import type { Probe } from "./probe.ts"
import { spawnProcess } from "./process.ts"
import { makeRescue } from "./rescue.ts"
import type { QemuProcess } from "./process.ts"
import { seedImage } from "./seed.ts"
import type { Qmp } from "./qmp.ts"

type Failure = HypervisorError

export interface Host extends Supervisor {
  readonly store: DiskStore
  readonly binary: string
  /** How long a guest may take to power off when asked to. */
  readonly stopGraceMs: number
  readonly probed: Effect.Effect<Probe, Failure>
  /** The latest migration of each machine that was sent from here. */
  readonly outgoing: Map<string, Outgoing>
  readonly mayRun: MayRun
}

export interface Present extends Observed {
  readonly machine: Machine
  readonly record: MachineRecord
}

const STOP_POLL_MS = 50
const STATE_POLLS_MAX = 500

/** Run `operation` on a machine that exists, alone. `not-found` when it does not. */
export const withMachine = <A>(
  host: Host,
  op: string,
  vm: string,
  operation: (present: Present) => Effect.Effect<A, Failure>,
  looking: typeof look = look
): Effect.Effect<A, Failure> =>
  Effect.gen(function* () {
    const machine = yield* machineOf(host, vm)
    const guarded = Effect.gen(function* () {
      const observed = yield* looking(host, machine)
      const { record } = observed
      if (record === null) return yield* fail(op, vm, "not-found", `no machine "${vm}" on this host`)
      return yield* operation({ ...observed, record, machine })
    })
    return yield* machine.lock.withPermit(guarded)
  })

export const ask = (op: string, vm: string, qmp: Qmp, command: string, args?: Record<string, unknown>) =>
  qmp.execute(command, args).pipe(Effect.mapError(asHypervisorError(op, vm)))

const wrongState = (op: string, present: Present, allowed: string) =>
  fail(op, present.machine.vm, "wrong-state", `the machine is ${vmState(present)}; it must be ${allowed}`)

/** While a machine is being sent away only its migration may touch it. */
export const notMoving = (op: string, present: Present): Effect.Effect<void, Failure> => {
  const moving = present.record.outgoing
  return moving === null || moving.handedOver || present.qmp === null
    ? Effect.void
    : fail(op, present.machine.vm, "wrong-state", `migration ${moving.migration} is under way`)
}

/** Not when the lease of this host has run out since it was asked for. Whoever may be restarted elsewhere may run there by now. */
const mayRunNow = (
  op: string,
  { vm, spec }: MachineRecord,
  may: () => boolean
): Effect.Effect<void, Failure> =>
  Effect.suspend(() =>
    staysWithHost(spec) !== null || may()
      ? Effect.void
      : fail(op, vm, "failed", "the lease of this host has run out: it can't reach a node that leads")
  )

export const newRecord = (vm: string, spec: VmSpec): MachineRecord => ({
  version: 1,
  vm,
  spec,
  wanted: "stopped",
  accelerator: null,
  process: null,
  incoming: null,
  outgoing: null,
  ended: null
})

export const writeSeed = (machine: Machine, spec: VmSpec): Effect.Effect<void, Failure> => {
  const { cloudInit } = spec
  if (cloudInit === undefined) return Effect.void
  const metaData =
    cloudInit.metaData === ""
      ? `instance-id: ${machine.vm}\nlocal-hostname: ${machine.vm}\n`
      : cloudInit.metaData
  return Effect.tryPromise({
    try: () => writeFile(machine.paths.seed, seedImage(cloudInit.userData, metaData), { mode: 0o600 }),
    catch: (cause) => fail("define", machine.vm, "failed", `${machine.paths.seed}: ${String(cause)}`)
  })
}

/** The disks to copy from, in the order of the copy's own specification. */
const cloneSources = (
  host: Host,
  vm: string,
  from: { readonly vm: string; readonly snapshot?: string | undefined }
) =>
  withMachine(host, "define", from.vm, (present) => {
    if (from.snapshot === undefined && present.qmp !== null) {
      return wrongState("define", present, "stopped, or one of its snapshots has to be named")
    }
    return from.vm === vm
      ? fail("define", vm, "wrong-state", "a machine can't be a clone of itself")
      : diskFiles(host.store, present.machine.paths, from.vm, present.record.spec)
  })

export const define = (
  host: Host,
  vm: string,
  spec: VmSpec,
  cloneOf?: { readonly vm: string; readonly snapshot?: string | undefined }
): Effect.Effect<void, Failure> =>
  Effect.gen(function* () {
    const machine = yield* machineOf(host, vm)
    const sources = cloneOf === undefined ? [] : yield* cloneSources(host, vm, cloneOf)
    const make = Effect.gen(function* () {
      const { record } = yield* look(host, machine)
      if (record !== null) return
      const files = yield* diskFiles(host.store, machine.paths, vm, spec)
      yield* bootFiles(host, vm, spec)
      yield* makeFolders(machine.paths, vm)
      for (const [index, disk] of spec.disks.entries()) {
        const file = files[index]?.path ?? ""
        const source = sources.find((each) => each.name === disk.name)
        yield* source === undefined
          ? createDisk(host.store, vm, disk, file, true)
          : copyDisk(host.store, vm, source.path, file, cloneOf?.snapshot)
      }
      yield* writeSeed(machine, spec)
      // Last: what has a record is whole.
      yield* writeRecord(machine.paths, newRecord(vm, spec))
    })
    yield* machine.lock.withPermit(make)
  })

export const bootFiles = Effect.fn("bootFiles")(function* (host: Host, vm: string, spec: VmSpec) {
  if (spec.boot === undefined) return null
  return {
    kernel: yield* imageFile(host.store, vm, spec.boot.kernel),
    initrd: spec.boot.initrd === undefined ? null : yield* imageFile(host.store, vm, spec.boot.initrd)
  }
})

/** What a machine is started with here: what it has been started with before, or the best there is. */
const platformOf = (probe: Probe, record: MachineRecord): Platform | null => {
  const accelerator = probe.accelerators[0]
  const machine = record.machine ?? probe.aliases[record.spec.machine] ?? record.spec.machine
  return accelerator === undefined ? null : { accelerator, machine }
}

/**
 * Start QEMU and connect to it; one that is to arrive is started with `arriving`. `note` is done while QEMU gets ready,
 * which takes it tens of milliseconds. On failure nothing is left running. Under the machine's lock.
 */
export const launch = Effect.fn("launch")(function* (
  host: Host,
  machine: Machine,
  record: MachineRecord,
  incoming: boolean,
  arriving?: Platform,
  note: (started: { readonly process: QemuProcess } & Platform) => Effect.Effect<void, Failure> = () =>
    Effect.void,
  may: () => boolean = always()
): Effect.fn.Return<{ qmp: Qmp; process: QemuProcess } & Platform, Failure> {
  const { vm, paths } = machine
  const probe = yield* host.probed
  const platform = arriving ?? platformOf(probe, record)
  if (platform === null || !probe.accelerators.includes(platform.accelerator)) {
    const with_ = platform === null ? "" : ` with ${platform.accelerator}`
    return yield* fail("start", vm, "unsupported", `${host.binary} can't run a machine${with_} on this host`)
  }
  const rescue = incoming && record.arriving?.postCopy === true
  const line = commandLine({
    ...{ vm, paths, ...platform, incoming, rescue },
    spec: record.spec,
    disks: yield* diskFiles(host.store, paths, vm, record.spec),
    boot: yield* bootFiles(host, vm, record.spec),
    sandbox: probe.sandbox
  })
  yield* clearSockets(paths)
  if (rescue) yield* makeRescue(paths, (reason) => fail("start", vm, "failed", reason))
  yield* mayRunNow("start", record, may)
  const process = yield* spawnProcess(paths, vm, host.binary, line)
  if (process === null) return yield* fail("start", vm, "failed", `QEMU ended at once: see ${paths.log}`)
  const started = { process, ...platform }
  // The note is not left half-way: who ends the machine next must not meet it.
  const both = [connect(host, machine, process), Effect.uninterruptible(note(started))] as const
  const [qmp] = yield* Effect.all(both, { concurrency: 2 }).pipe(
    Effect.onError(() => Effect.ignore(endProcess(machine, process)))
  )
  return { qmp, ...started }
})

export const start = (host: Host, vm: string) => Effect.suspend(() => startWhile(host, vm, host.mayRun()))

const startWhile = (host: Host, vm: string, may: () => boolean) =>
  withMachine(host, "start", vm, (present) =>
    Effect.gen(function* () {
      const { machine, state } = present
      const { arriving: _, ...record } = present.record
      const wanted = { ...record, wanted: "running" as const, incoming: null, ended: null }
      if (state === "running") {
        // The driver that started it may have ended before it wrote that down.
        const known = platformOf(yield* host.probed, record)
        const accelerator = record.accelerator ?? known?.accelerator ?? "unknown"
        const platform = { accelerator, machine: known?.machine ?? record.machine ?? record.spec.machine }
        const { process } = present
        if (record.wanted !== "running")
          yield* writeRecord(machine.paths, { ...wanted, process, ...platform })
        return platform
      }
      if (present.qmp !== null) return yield* wrongState("start", present, "defined or running")
      const { process, ...launched } = yield* launch(host, machine, record, false, undefined, undefined, may)
      const platform = { accelerator: launched.accelerator, machine: launched.machine }
      yield* writeRecord(machine.paths, { ...wanted, outgoing: null, process, ...platform })
      return platform
    })
  )

/** Ask the guest to power off, and wait for it within the grace time. */
const powerOff = (host: Host, machine: Machine, qmp: Qmp) =>
  Effect.gen(function* () {
    yield* ask("stop", machine.vm, qmp, "system_powerdown")
    for (let waitedMs = 0; waitedMs < host.stopGraceMs; waitedMs += STOP_POLL_MS) {
      if (qmp.isClosed() || (yield* runState(qmp, machine.vm)) === "shutdown") return
      yield* Effect.sleep(STOP_POLL_MS)
    }
  }).pipe(Effect.ignore)

export const stop = (host: Host, vm: string, force: boolean) => {
  const end = (present: Present) =>
    Effect.gen(function* () {
      const { record, machine, qmp, process, state } = present
      if (record.incoming !== null && process !== null) {
        return yield* wrongState(
          "stop",
          present,
          "running, paused or stopped (abandonIncoming ends this one)"
        )
      }
      if (!force) yield* notMoving("stop", present)
      const stopped = { ...record, wanted: "stopped" as const, outgoing: null, ended: null }
      yield* writeRecord(machine.paths, stopped)
      if (process === null) return
      if (!force && state === "running" && qmp !== null) yield* powerOff(host, machine, qmp)
      // One whose memory has not come whole can't quit.
      yield* endProcess(machine, process, record.arriving === undefined ? "its own" : "none")
      yield* writeRecord(machine.paths, { ...stopped, process: null })
    })
  return withMachine(host, "stop", vm, end, force ? lookToEnd : look)
}

/** A guest whose memory did not come whole: it can't even quit. Under the machine's lock. */
export const endTorn = Effect.fnUntraced(function* (
  machine: Machine,
  { arriving: _, ...record }: MachineRecord,
  process: QemuProcess | null
) {
  const stopped = { ...record, wanted: "stopped" as const, outgoing: null, ended: null }
  yield* writeRecord(machine.paths, { ...stopped, process })
  if (process !== null) yield* endProcess(machine, process, "none")
  yield* writeRecord(machine.paths, { ...stopped, process: null })
})

const waitForState = (qmp: Qmp, op: string, vm: string, wanted: string) =>
  Effect.gen(function* () {
    for (let polls = 0; polls < STATE_POLLS_MAX; polls += 1) {
      const state = yield* runState(qmp, vm)
      if (state === wanted) return
      yield* Effect.sleep(10)
    }
    return yield* fail(op, vm, "timeout", `the machine did not become ${wanted}`)
  })

export const pause = (host: Host, vm: string) =>
  withMachine(host, "pause", vm, (present) =>
    Effect.gen(function* () {
      const { record, machine, qmp } = present
      yield* notMoving("pause", present)
      const state = vmState(present)
      if (qmp === null || (state !== "running" && state !== "paused")) {
        return yield* wrongState("pause", present, "running or paused")
      }
      yield* ask("pause", vm, qmp, "stop")
      yield* waitForState(qmp, "pause", vm, "paused")
      yield* writeRecord(machine.paths, { ...record, wanted: "paused" })
    })
  )

/**
 * After `pause`; of a machine that arrived; of one that was handed over, or stands still after a migration that
 * failed, to take it back.
 */
export const resume = (host: Host, vm: string) => Effect.suspend(() => resumeWhile(host, vm, host.mayRun()))

const resumeWhile = (host: Host, vm: string, may: () => boolean) =>
  withMachine(host, "resume", vm, (present) =>
    Effect.gen(function* () {
      const { record, machine, qmp } = present
      if (qmp !== null) yield* mayRunNow("resume", record, may)
      if (qmp === null) {
        return record.incoming === null
          ? yield* wrongState("resume", present, "paused, incoming or handed over")
          : // It is told to run only after that was written down: it never ran here.
            yield* fail("resume", vm, "not-found", "the machine that arrived here is gone")
      }
      if (record.outgoing?.postCopy === true) {
        const reason = "the guest went on at the destination by post-copy: what is here is no longer whole"
        return yield* fail("resume", vm, "wrong-state", reason)
      }
      const moving = host.outgoing.get(vm)
      if (moving !== undefined && moving.outcome === null) yield* notMoving("resume", present)
      if (record.incoming !== null) yield* finishIncoming(machine, qmp)
      if (record.outgoing !== null && present.state !== "postmigrate") {
        // Its driver did not see it to its end.
        const result = yield* rollBack(machine, present)
        if (result === "handed-over")
          return yield* fail("resume", vm, "wrong-state", "the guest runs elsewhere")
      }
      // Before the guest runs: its end, from here on, has to be told.
      const wanted = { ...record, wanted: "running" as const, incoming: null, outgoing: null }
      yield* writeRecord(machine.paths, wanted)
      // It waits for us; QEMU may give no answer from here on.
      if (record.incoming !== null) yield* Effect.forkIn(keepPostCopy(host, machine, qmp), host.scope)
      yield* ask("resume", vm, qmp, "cont")
      yield* waitForState(qmp, "resume", vm, "running")
      host.outgoing.delete(vm)
    })
  )

export const reboot = (host: Host, vm: string) =>
  withMachine(host, "reboot", vm, (present) =>
    Effect.gen(function* () {
      const { qmp } = present
      yield* notMoving("reboot", present)
      if (qmp === null || vmState(present) !== "running")
        return yield* wrongState("reboot", present, "running")
      yield* ask("reboot", vm, qmp, "system_reset")
    })
  )

/** Files on shared storage belong to the host where the machine runs; the others keep their hands off. */
const ownsShared = ({ record, state }: Present): boolean =>
  record.incoming === null &&
  record.outgoing?.handedOver !== true &&
  state !== "postmigrate" &&
  // Of one that is being sent away and gives no answer, nobody knows.
  (state !== "unresponsive" || record.outgoing === null)

const removeDisks = (vm: string, files: ReadonlyArray<DiskFile>, spec: VmSpec, shared: boolean) =>
  Effect.gen(function* () {
    for (const [index, file] of files.entries()) {
      if (shared || spec.disks[index]?.storage === "local") yield* removeDisk(vm, file.path)
    }
  })

/** End it and remove its files. Under the machine's lock. */
export const erase = (host: Host, present: Present, keepShared = false): Effect.Effect<void, Failure> =>
  Effect.gen(function* () {
    const { record, machine, process, state } = present
    const { vm, paths } = machine
    const shared = !keepShared && ownsShared(present)
    // Neither does one that waits for the end of a post-copy come to its own end when it is asked to.
    const disks = state === "postmigrate" || record.outgoing?.handedOver === true ? "none" : "its own"
    yield* writeRecord(paths, { ...record, wanted: "stopped", ended: null })
    if (process !== null) yield* endProcess(machine, process, disks)
    const files = yield* diskFiles(host.store, paths, vm, record.spec)
    yield* removeDisks(vm, files, record.spec, shared)
    yield* removeFolders(paths, vm)
    host.outgoing.delete(vm)
  })

export const remove = (host: Host, vm: string, keepShared: boolean): Effect.Effect<void, Failure> =>
  Effect.gen(function* () {
    const machine = yield* machineOf(host, vm)
    const all = Effect.gen(function* () {
      const observed = yield* lookToEnd(host, machine)
      const { record } = observed
      // A folder without a record is what was left of a machine that was never whole.
      if (record === null) return yield* removeFolders(machine.paths, vm)
      yield* erase(host, { ...observed, record, machine }, keepShared)
    })
    yield* machine.lock.withPermit(all)
  })
