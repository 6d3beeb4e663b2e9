/**
 * The hypervisor port on QEMU. A host is one state folder; its machines are QEMU processes that outlive this
 * driver, and are found again by the next one over the same folder.
 */
import { mkdir } from "node:fs/promises"
import os from "node:os"
import { Clock, Deferred, Effect, Layer, Queue, Stream } from "effect"
import type { HostFacts } from "../../events/host.ts"
import type { Channel, MigrationPolicy } from "../../events/requests.ts"
import type { Platform, VmSpec } from "../../events/vm.ts"
import { always } from "../../kernel/lease.ts"
import type { MayRun } from "../../kernel/lease.ts"
import { Hypervisor } from "../../kernel/ports/hypervisor.ts"
import type { Arrival, HypervisorError, MigrationReport, VmEnded } from "../../kernel/ports/hypervisor.ts"
import { createDisk, diskFiles, diskRoom, imageFile, isFile } from "./disks.ts"
import { machineNames, makeFolders, readRecord, writeRecord } from "./folder.ts"
import {
  AWAY,
  OVER,
  arrivalStatus,
  incomingChannels,
  keepPostCopy,
  negotiateRescue,
  openIncoming,
  statusOf,
  takeUpArrival
} from "./incoming.ts"
import * as lifecycle from "./lifecycle.ts"
import type { Host } from "./lifecycle.ts"
import { endProcess, fail, inspect, look, lookToEnd, machineOf, UNRESPONSIVE_MS, vmState } from "./machine.ts"
import { rollBack, runOutgoing } from "./outgoing.ts"
import { newOutgoing, outcomeOf, reports } from "./outgoing-reports.ts"
import { probe } from "./probe.ts"
import type { Probe } from "./probe.ts"
import { restore, snapshot } from "./snapshots.ts"

export interface QemuOptions {
  /** Holds `vms/`; made when it is not there. */
  readonly dataDir: string
  /** Base images, kernels and ramdisks, by name. */
  readonly imageDir: string
  /** Storage that the other hosts see too, for disks with `storage: "shared"`. */
  readonly sharedDir?: string | undefined
  /** For sockets when `dataDir` is too long a path for them. */
  readonly runDir?: string | undefined
  readonly binary?: string | undefined
  readonly qemuImg?: string | undefined
  /** Those that may be used, when they work; all of them unless told. */
  readonly accelerators?: ReadonlyArray<"kvm" | "tcg"> | undefined
  readonly stopGraceMs?: number | undefined
  /** Of the host's lease; machines that may be restarted elsewhere always run unless told. */
  readonly mayRun?: MayRun | undefined
}

type Failure = HypervisorError

const STOP_GRACE_MS = 30_000
const ENDED_MAX = 4_096
const ATTACHED_AT_ONCE = 8
const SETTLE_POLL_MS = 250
const ATTACH_PAUSE_MS = 5_000
/** Some hours of a QEMU that gives no answer. */
const ATTACHES_MAX = 1_000
const FACTS_MAX = { machines: 256, cpuModels: 512 }
const MIB = 1024 * 1024

const facts = (host: Host, options: QemuOptions) =>
  Effect.gen(function* () {
    const found: Probe = yield* host.probed
    const room = yield* diskRoom(options.dataDir)
    const result: HostFacts = {
      cpus: os.availableParallelism(),
      memoryMib: Math.max(1, Math.floor(os.totalmem() / MIB)),
      diskMib: room.totalMib,
      driver: "qemu",
      driverVersion: found.version.slice(0, 64),
      accelerators: found.accelerators,
      machines: found.machines.slice(0, FACTS_MAX.machines),
      cpuModels: found.cpuModels.slice(0, FACTS_MAX.cpuModels),
      capabilities: [
        ...["live-migration", "storage-migration", "snapshot", "clone", "cloud-init", "console"],
        ...(options.sharedDir === undefined ? [] : ["shared-storage"]),
        ...(found.postCopy ? ["post-copy"] : []),
        ...(found.sandbox ? ["sandbox"] : [])
      ],
      labels: {}
    }
    return result
  })

const list = (host: Host) =>
  Effect.gen(function* () {
    const names = yield* machineNames(host.folders)
    const all = yield* Effect.forEach(
      names,
      (vm) => Effect.map(observeSoon(host, vm), (state) => ({ vm, state })),
      { concurrency: ATTACHED_AT_ONCE }
    )
    return all.filter((each) => each.state !== "absent")
  })

/** One that gives no answer must not hold up the others: it is told as what it was. */
const observeSoon = (host: Host, vm: string) =>
  observe(host, vm).pipe(
    Effect.timeoutOrElse({
      duration: UNRESPONSIVE_MS,
      orElse: () =>
        Effect.gen(function* () {
          const machine = yield* machineOf(host, vm)
          return vmState(yield* machine.lock.withPermit(lookToEnd(host, machine)))
        })
    })
  )

const observe = (host: Host, vm: string) =>
  Effect.gen(function* () {
    const machine = yield* machineOf(host, vm)
    // An end that was not noticed yet is noticed now.
    yield* inspect(host, machine)
    return vmState(yield* machine.lock.withPermit(look(host, machine)))
  })

/** What would only be found half-way, when the destination's QEMU reads the state of devices and CPUs. */
function platformBlockers(found: Probe, spec: VmSpec, platform?: Platform): ReadonlyArray<string> {
  const blockers: Array<string> = []
  const has = (names: ReadonlyArray<string>) => names.slice(0, 8).join(", ") || "none"
  const accelerators = has(found.accelerators)
  if (found.accelerators.length === 0) blockers.push("no accelerator works on this host")
  else if (platform !== undefined && !found.accelerators.includes(platform.accelerator)) {
    blockers.push(`the machine runs with ${platform.accelerator}; here works ${accelerators}`)
  }
  const machine = platform?.machine ?? spec.machine
  if (!found.machines.includes(machine)) {
    blockers.push(`machine type ${machine} is not known to the QEMU ${found.version} here`)
  }
  if (!found.cpuModels.includes(spec.cpuModel)) {
    const missing = found.cpuMissing[spec.cpuModel]
    const why = missing === undefined ? "is not known" : `can't be given, it needs ${has(missing)}`
    blockers.push(`CPU model ${spec.cpuModel} ${why} here`)
  }
  return blockers
}

/** Why this host can't take the machine; an image or a folder that is missing is one reason among others. */
const checkIncoming = (host: Host, options: QemuOptions, vm: string, spec: VmSpec, platform?: Platform) =>
  Effect.gen(function* () {
    const found = yield* host.probed
    const blockers: Array<string> = [...platformBlockers(found, spec, platform)]
    if (spec.memoryMib > os.totalmem() / MIB) {
      blockers.push(`needs ${spec.memoryMib} MiB of memory, the host has ${Math.floor(os.totalmem() / MIB)}`)
    }
    for (const image of [spec.boot?.kernel, spec.boot?.initrd]) {
      if (image === undefined) continue
      const missing = yield* Effect.match(imageFile(host.store, vm, image), {
        onFailure: (cause) => cause.reason,
        onSuccess: () => null
      })
      if (missing !== null) blockers.push(missing)
    }
    const local = spec.disks.filter((disk) => disk.storage === "local")
    const neededMib = local.reduce((sum, disk) => sum + disk.sizeMib, 0)
    const { freeMib } = yield* diskRoom(options.dataDir)
    if (neededMib > freeMib) blockers.push(`needs ${neededMib} MiB of disk, ${freeMib} are free`)
    for (const disk of spec.disks.filter((each) => each.storage === "shared")) {
      const file = options.sharedDir === undefined ? "" : `${options.sharedDir}/${vm}.${disk.name}.qcow2`
      if (!(yield* isFile(file)))
        blockers.push(`disk "${disk.name}" is on shared storage that is not seen here`)
    }
    if (spec.network.mode === "tap" && !(yield* hasInterface(spec.network.tap ?? ""))) {
      blockers.push(`there is no tap device "${spec.network.tap ?? ""}" here`)
    }
    const machine = yield* machineOf(host, vm)
    const record = yield* readRecord(machine.paths, vm)
    if (record !== null && record.incoming === null)
      blockers.push(`a machine "${vm}" is on this host already`)
    return blockers.map((blocker) => blocker.slice(0, 512))
  })

const hasInterface = (name: string): Effect.Effect<boolean> =>
  isFile(`/sys/class/net/${name}/ifindex`).pipe(Effect.map((found) => found && name !== ""))

const prepareIncoming = (host: Host, vm: string, spec: VmSpec, arrival: Arrival, platform?: Platform) =>
  Effect.gen(function* () {
    const machine = yield* machineOf(host, vm)
    const { migration } = arrival
    const prepare = Effect.gen(function* () {
      const observed = yield* look(host, machine)
      const { record, state } = observed
      const channels: ReadonlyArray<Channel> = incomingChannels(machine, spec)
      if (record !== null) {
        if (record.incoming === null) {
          const reason = `a machine "${vm}" is ${vmState(observed)} on this host`
          return yield* fail("prepareIncoming", vm, "wrong-state", reason)
        }
        if (record.incoming.migration === migration && state === "inmigrate") return channels
        // An earlier one that never arrived, or broke off: its disks are worth nothing.
        yield* lifecycle.erase(host, { ...observed, record, machine })
      }
      const made = {
        ...lifecycle.newRecord(vm, spec),
        incoming: { migration },
        arriving: arrival
      }
      const files = yield* diskFiles(host.store, machine.paths, vm, spec)
      yield* lifecycle.bootFiles(host, vm, spec)
      yield* makeFolders(machine.paths, vm)
      // First: what is made after it is known to be a part of something that has not arrived.
      yield* writeRecord(machine.paths, made)
      for (const [index, disk] of spec.disks.entries()) {
        if (disk.storage === "shared") continue
        yield* createDisk(host.store, vm, disk, files[index]?.path ?? "", false)
      }
      yield* lifecycle.writeSeed(machine, spec)
      const { qmp, process } = yield* lifecycle.launch(host, machine, made, true, platform, (started) =>
        writeRecord(machine.paths, { ...made, ...started })
      )
      if (arrival.postCopy) yield* negotiateRescue(host, machine)
      yield* openIncoming(machine, qmp, spec).pipe(
        Effect.onError(() => Effect.ignore(endProcess(machine, process)))
      )
      return channels
    })
    return yield* machine.lock.withPermit(prepare)
  })

const arriving = (host: Host) =>
  Effect.gen(function* () {
    const names = yield* machineNames(host.folders)
    const all = yield* Effect.forEach(names, (vm) => arrivingOf(host, vm), { concurrency: ATTACHED_AT_ONCE })
    return all.flat()
  })

const arrivingOf = Effect.fnUntraced(function* (host: Host, vm: string) {
  const machine = yield* machineOf(host, vm)
  const { record, process } = yield* machine.lock.withPermit(lookToEnd(host, machine))
  if (record?.arriving === undefined || process === null) return []
  return [{ vm, ...record.arriving, channels: incomingChannels(machine, record.spec) }]
})

/** What is on its way is waited for, as long as its link holds. */
const settleArrival = (host: Host, vm: string, migration: string): Effect.Effect<boolean, Failure> =>
  Effect.gen(function* () {
    const beganMs = yield* Clock.currentTimeMillis
    for (;;) {
      const waitedMs = (yield* Clock.currentTimeMillis) - beganMs
      const settled = yield* lifecycle.withMachine(
        host,
        "settleArrival",
        vm,
        (present) => settle(present, migration, waitedMs),
        lookToEnd
      )
      if (settled !== null) return settled
      yield* Effect.sleep(SETTLE_POLL_MS)
    }
  })

/** Null while it still comes. */
const settle = (present: lifecycle.Present, migration: string, waitedMs: number) =>
  Effect.gen(function* () {
    const { record, machine, process, qmp } = present
    const { arriving } = record
    if (arriving?.migration !== migration) return true
    const status = yield* arrivalStatus(machine, qmp)
    if (status !== null && OVER.includes(status)) return true
    const isAway = status === null || AWAY.includes(status)
    if (!isAway && waitedMs < arriving.timeoutMs) return null
    yield* lifecycle.endTorn(machine, record, process)
    return false
  })

const migrate = (
  host: Host,
  vm: string,
  migration: string,
  channels: ReadonlyArray<Channel>,
  policy: MigrationPolicy
): Stream.Stream<MigrationReport, Failure> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const machine = yield* machineOf(host, vm)
      const known = host.outgoing.get(vm)
      if (known !== undefined && known.outcome === null && known.migration !== migration) {
        return yield* fail("migrate", vm, "wrong-state", `migration ${known.migration} is under way`)
      }
      // One that failed may be tried again; one that runs, or is done, is joined.
      if (known?.migration === migration && known.outcome?._tag !== "Failure") return reports(known)
      const outgoing = newOutgoing(migration)
      host.outgoing.set(vm, outgoing)
      yield* runOutgoing(host, machine, outgoing, channels, policy).pipe(Effect.forkIn(host.scope))
      return reports(outgoing)
    })
  )

const isSending = Effect.fnUntraced(function* (host: Host, vm: string, migration: string) {
  const machine = yield* machineOf(host, vm)
  const record = yield* readRecord(machine.paths, vm)
  if (record?.outgoing?.migration !== migration) return false
  const { qmp } = yield* machine.lock.withPermit(look(host, machine))
  return qmp !== null && (yield* statusOf(qmp, machine))?.startsWith("postcopy") === true
})

const cancelMigration = (host: Host, vm: string, migration: string) =>
  Effect.gen(function* () {
    const known = host.outgoing.get(vm)
    const own = known?.migration === migration ? known : undefined
    if (own !== undefined && own.outcome === null) {
      own.cancelRequested = true
      yield* outcomeOf(own)
    }
    yield* lifecycle.withMachine(host, "cancelMigration", vm, (present) =>
      Effect.gen(function* () {
        const { record, machine } = present
        if (record.outgoing?.migration !== migration) return
        const gone = record.outgoing.handedOver || vmState(present) === "handed-over"
        if (!gone && (yield* rollBack(machine, present)) === "rolled back") return
        return yield* fail("cancelMigration", vm, "wrong-state", "the machine was handed over already")
      })
    )
  })

const abandonIncoming = (host: Host, vm: string, migration: string) => {
  const abandon = (present: lifecycle.Present) => {
    const { incoming } = present.record
    if (incoming?.migration === migration) return lifecycle.erase(host, present)
    const what = incoming === null ? vmState(present) : `arriving by migration ${incoming.migration}`
    return fail("abandonIncoming", vm, "wrong-state", `the machine is ${what}`)
  }
  return lifecycle.withMachine(host, "abandonIncoming", vm, abandon, lookToEnd).pipe(
    Effect.catchIf(
      (cause) => cause.code === "not-found",
      () => Effect.void
    )
  )
}

const consoleOf = (host: Host, vm: string) =>
  lifecycle.withMachine(host, "console", vm, ({ machine, qmp }) =>
    qmp === null
      ? fail("console", vm, "wrong-state", "the machine does not run")
      : Effect.succeed(machine.paths.console)
  )

/** Ends in the order they were found. What is told is struck off first: it is told once. */
const ended = (host: Host): Stream.Stream<VmEnded> =>
  Stream.fromQueue(host.ended).pipe(
    Stream.mapEffect((vm) =>
      lifecycle
        .withMachine(host, "ended", vm, ({ record, machine }) =>
          record.ended === null
            ? Effect.succeed([])
            : Effect.as(writeRecord(machine.paths, { ...record, ended: null }), [{ vm, ...record.ended }])
        )
        .pipe(Effect.orElseSucceed((): ReadonlyArray<VmEnded> => []))
    ),
    Stream.flatMap((found) => Stream.fromIterable(found))
  )

/** Find the machines that are there, connect to those that run, and find out which ended meanwhile. */
const attach = (host: Host) =>
  Effect.gen(function* () {
    const names = yield* machineNames(host.folders)
    yield* Effect.forEach(names, (vm) => attachSoon(host, vm), {
      concurrency: ATTACHED_AT_ONCE,
      discard: true
    })
  })

const attachTo = Effect.fnUntraced(function* (host: Host, vm: string) {
  const machine = yield* machineOf(host, vm)
  yield* takeUpArrival(host, machine)
  yield* inspect(host, machine)
  const qmp = machine.connection?.qmp
  if (qmp !== undefined) yield* Effect.forkIn(keepPostCopy(host, machine, qmp), host.scope)
})

/** A QEMU that gives no answer must not hold up the node: it is tried again beside it. */
const attachSoon = (host: Host, vm: string) => {
  const warn = (reason: string) => Effect.logWarning(`machine ${vm}: ${reason}`)
  const again = Effect.sleep(ATTACH_PAUSE_MS).pipe(
    // Not longer: meanwhile nobody else may end it.
    Effect.andThen(Effect.timeout(attachTo(host, vm), UNRESPONSIVE_MS)),
    Effect.retry({ times: ATTACHES_MAX }),
    Effect.ignore,
    Effect.forkIn(host.scope)
  )
  return attachTo(host, vm).pipe(
    Effect.timeoutOrElse({
      duration: UNRESPONSIVE_MS,
      orElse: () => Effect.andThen(warn("its QEMU gives no answer; it is asked again"), again)
    }),
    Effect.catch((cause) => Effect.andThen(warn(cause.reason), again)),
    Effect.asVoid
  )
}

const makeHost = Effect.fn("makeHost")(function* (options: QemuOptions) {
  const scope = yield* Effect.scope
  const binary = options.binary ?? "qemu-system-x86_64"
  const probed = yield* Deferred.make<Probe, Failure>()
  // Beside everything else: a start waits for it, an attach need not.
  yield* probe(binary, options.accelerators ?? ["kvm", "tcg"]).pipe(
    Deferred.into(probed),
    Effect.forkIn(scope)
  )
  const host: Host = {
    folders: { dataDir: options.dataDir, runDir: options.runDir },
    machines: new Map(),
    ended: yield* Queue.bounded<string>(ENDED_MAX),
    scope,
    store: {
      qemuImg: options.qemuImg ?? "qemu-img",
      imageDir: options.imageDir,
      sharedDir: options.sharedDir
    },
    binary,
    stopGraceMs: options.stopGraceMs ?? STOP_GRACE_MS,
    probed: Deferred.await(probed),
    outgoing: new Map(),
    mayRun: options.mayRun ?? always
  }
  return host
})

/** Attaches to what runs under `dataDir` when it is built; closing it leaves the machines running. */
export const qemuLayer = (options: QemuOptions): Layer.Layer<Hypervisor, HypervisorError> =>
  Layer.effect(
    Hypervisor,
    Effect.gen(function* () {
      yield* Effect.tryPromise({
        try: () => mkdir(options.dataDir, { recursive: true, mode: 0o700 }),
        catch: (cause) => fail("attach", "", "failed", `${options.dataDir}: ${String(cause)}`)
      })
      const host = yield* makeHost(options)
      yield* attach(host)
      return Hypervisor.of({
        facts: facts(host, options),
        list: list(host),
        observe: (vm) => observe(host, vm),
        define: (vm, spec, cloneOf) => lifecycle.define(host, vm, spec, cloneOf),
        start: (vm) => lifecycle.start(host, vm),
        stop: (vm, { force }) => lifecycle.stop(host, vm, force),
        pause: (vm) => lifecycle.pause(host, vm),
        resume: (vm) => lifecycle.resume(host, vm),
        reboot: (vm) => lifecycle.reboot(host, vm),
        remove: (vm, { keepShared } = { keepShared: false }) => lifecycle.remove(host, vm, keepShared),
        snapshot: (vm, name) => snapshot(host, vm, name),
        restore: (vm, name) => restore(host, vm, name),
        checkIncoming: (vm, spec, platform) => checkIncoming(host, options, vm, spec, platform),
        prepareIncoming: (vm, spec, arrival, platform) => prepareIncoming(host, vm, spec, arrival, platform),
        arriving: arriving(host),
        settleArrival: (vm, migration) => settleArrival(host, vm, migration),
        migrate: (vm, migration, channels, policy) => migrate(host, vm, migration, channels, policy),
        isSending: (vm, migration) => isSending(host, vm, migration),
        cancelMigration: (vm, migration) => cancelMigration(host, vm, migration),
        abandonIncoming: (vm, migration) => abandonIncoming(host, vm, migration),
        console: (vm) => consoleOf(host, vm),
        ended: ended(host)
      })
    })
  )
