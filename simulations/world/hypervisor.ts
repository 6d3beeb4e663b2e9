/**
 * The Hypervisor port in a simulated world: machines are counters that grow with virtual time, disks are the highest
 * count that was written to them. The fleet outlives the drivers, as QEMU outlives its agent; a new driver over the
 * same host finds the machines as they are. The driver's name is `sim`, everywhere.
 */
import { Clock, Effect, Exit, FiberSet, Latch, Layer, Semaphore, Stream } from "effect"
import type { HostFacts } from "../../src/events/host.ts"
import type { Channel } from "../../src/events/requests.ts"
import { staysWithHost } from "../../src/events/vm.ts"
import type { VmSpec } from "../../src/events/vm.ts"
import { always } from "../../src/kernel/lease.ts"
import type { MayRun } from "../../src/kernel/lease.ts"
import { Hypervisor, HypervisorError } from "../../src/kernel/ports/hypervisor.ts"
import type { Arrival, MigrationReport, VmEnded } from "../../src/kernel/ports/hypervisor.ts"
import { SharedWork } from "../../src/kernel/shared-work.ts"
import { consolePath } from "./hypervisor/console.ts"
import { runMigration } from "./hypervisor/migration.ts"
import {
  advance,
  bootedCounter,
  died,
  digests,
  fail,
  machineOf,
  neverRan,
  noFaults,
  persist,
  startRunning,
  stopRunning
} from "./hypervisor/machine.ts"
import type { Faults, Fleet, Machine, SimHost } from "./hypervisor/machine.ts"
import { makeRandom } from "./random.ts"

export type { Faults, Fleet, SimHost } from "./hypervisor/machine.ts"

export interface FleetOptions {
  readonly seed: number
  /** Bytes per second between any two hosts; 1 Gbit/s unless told. */
  readonly bandwidthBytesPerSecond?: number
  readonly faults?: Partial<Faults>
}

export function makeFleet(options: FleetOptions): Fleet {
  return {
    random: makeRandom(options.seed),
    bandwidthBytesPerSecond: options.bandwidthBytesPerSecond ?? 125_000_000,
    faults: { ...noFaults, ...options.faults },
    injected: { operationFails: 0, answerLost: 0, slow: 0, linkCut: 0, crash: 0 },
    linkDown: false,
    hosts: new Map(),
    shared: new Map()
  }
}

/** The host of this name, made on first use. */
export function hostOf(fleet: Fleet, name: string): SimHost {
  const known = fleet.hosts.get(name)
  if (known) return known
  const host: SimHost = { name, machines: new Map(), ended: [], told: Latch.makeUnsafe(false) }
  fleet.hosts.set(name, host)
  return host
}

/** The machine's process dies, as by kill -9. */
export const killMachine = (fleet: Fleet, host: string, vm: string): Effect.Effect<void> =>
  Effect.map(Clock.currentTimeMillis, (now) => died(fleet, hostOf(fleet, host), vm, now, "crash"))

/** The host loses its power: what ran there does not, what never ran there is gone, and disks stay. Nobody is told. */
export function crashHost(fleet: Fleet, host: SimHost, nowMs: number): void {
  for (const machine of host.machines.values()) {
    if (machine.state === "incoming") neverRan(host, machine)
    else if (machine.state !== "defined") stopRunning(fleet, machine, nowMs, "defined")
    machine.outgoing = null
  }
  host.ended.length = 0
}

/** The watcher ends what may be restarted elsewhere, in whatever state it is; gives their names. */
export function endLeased(fleet: Fleet, host: SimHost, nowMs: number): ReadonlyArray<string> {
  const running = [...host.machines.values()].filter(
    ({ state, spec }) => state !== "defined" && staysWithHost(spec) === null
  )
  for (const { vm } of running) died(fleet, host, vm, nowMs, "crash")
  return running.map(({ vm }) => vm)
}

/** The guest powers off by itself. */
export const powerOff = (fleet: Fleet, host: string, vm: string): Effect.Effect<void> =>
  Effect.map(Clock.currentTimeMillis, (now) => died(fleet, hostOf(fleet, host), vm, now, "guest-shutdown"))

/** Hosts on which the machine runs at this moment; more than one is what must never be. */
export const runningOn = (fleet: Fleet, vm: string): ReadonlyArray<string> =>
  [...fleet.hosts.values()]
    .filter((host) => host.machines.get(vm)?.state === "running")
    .map((host) => host.name)

/** The guest's counter on this host now; null where it is not. */
export const counterOf = (fleet: Fleet, host: string, vm: string): Effect.Effect<number | null> =>
  Effect.map(Clock.currentTimeMillis, (now) => {
    const machine = hostOf(fleet, host).machines.get(vm)
    return machine ? advance(machine, now) : null
  })

/** A digest of each disk's content. */
export const diskDigests = (fleet: Fleet, host: string, vm: string): Effect.Effect<ReadonlyArray<string>> =>
  Effect.map(Clock.currentTimeMillis, (now) => {
    const machine = hostOf(fleet, host).machines.get(vm)
    if (!machine) return []
    advance(machine, now)
    persist(fleet, machine)
    return digests(fleet, machine)
  })

type Operation<A> = Effect.Effect<A, HypervisorError>

/** Faults come between the question and the work, and between the work and the answer. */
const withFaults = <A>({ fleet, alone }: Driver, op: string, vm: string, work: Operation<A>): Operation<A> =>
  Effect.gen(function* () {
    const { random, faults, injected } = fleet
    if (random.chance(faults.slow)) {
      injected.slow++
      yield* Effect.sleep(random.int(10, 2000))
    }
    if (random.chance(faults.operationFails)) {
      injected.operationFails++
      return yield* fail(op, vm, "failed", "simulated: it did not work")
    }
    const result = yield* work
    if (random.chance(faults.answerLost)) {
      injected.answerLost++
      return yield* fail(op, vm, "lost", "simulated: done, but the answer was lost")
    }
    return result
  }).pipe((operation) => alone(vm, operation))

const channelsOf = (host: string, migration: string, spec: VmSpec): ReadonlyArray<Channel> =>
  ["ram", ...spec.disks.filter((disk) => disk.storage === "local").map((disk) => disk.name)].map((name) => ({
    name,
    path: `sim:${host}/${migration}/${name}`
  }))

const newMachine = (vm: string, spec: VmSpec): Machine => ({
  vm,
  spec,
  state: "defined",
  counter: 0,
  since: null,
  disk: spec.disks.length > 0 ? 0 : null,
  snapshots: new Map(),
  incoming: null,
  arrived: false,
  gone: false,
  outgoing: null
})

const busy = (op: string, machine: Machine): Operation<void> =>
  machine.outgoing && !machine.outgoing.work.done
    ? fail(op, machine.vm, "wrong-state", `it is being migrated by ${machine.outgoing.migration}`)
    : Effect.void

const wrongState = (op: string, machine: Machine) =>
  fail(op, machine.vm, "wrong-state", `it is ${machine.state}`)

class Driver {
  readonly #locks = new Map<string, Semaphore.Semaphore>()
  readonly fleet: Fleet
  readonly host: SimHost
  readonly mayRun: MayRun
  readonly run: (work: Effect.Effect<void>) => unknown

  constructor(fleet: Fleet, host: SimHost, mayRun: MayRun, run: (work: Effect.Effect<void>) => unknown) {
    this.fleet = fleet
    this.host = host
    this.mayRun = mayRun
    this.run = run
  }

  /** As `on`, of what makes a machine run: not once its host's lease has run out since it was asked for. */
  private running<A>(
    op: string,
    vm: string,
    work: (machine: Machine, now: number) => Operation<A>
  ): Operation<A> {
    return Effect.suspend(() => {
      const may = this.mayRun()
      return this.on(op, vm, (machine, now) =>
        staysWithHost(machine.spec) === null && !may()
          ? fail(op, vm, "failed", "the lease of this host has run out")
          : work(machine, now)
      )
    })
  }

  /** One operation of a machine at a time, in the order in which they were asked for, as the live driver does it. */
  readonly alone = <A>(vm: string, operation: Operation<A>): Operation<A> =>
    Effect.suspend(() => {
      const lock = this.#locks.get(vm) ?? Semaphore.makeUnsafe(1)
      this.#locks.set(vm, lock)
      return lock.withPermit(operation)
    })

  /** Do something to a machine that is there, now, with the faults of this world. */
  private on<A>(op: string, vm: string, work: (machine: Machine, now: number) => Operation<A>): Operation<A> {
    return withFaults(
      this,
      op,
      vm,
      Effect.gen({ self: this }, function* () {
        const machine = yield* machineOf(this.host, op, vm)
        return yield* work(machine, yield* Clock.currentTimeMillis)
      })
    )
  }

  define(
    vm: string,
    spec: VmSpec,
    cloneOf?: { readonly vm: string; readonly snapshot?: string | undefined }
  ) {
    return withFaults(
      this,
      "define",
      vm,
      Effect.gen({ self: this }, function* () {
        if (this.host.machines.has(vm)) return
        const machine = newMachine(vm, spec)
        if (cloneOf !== undefined) {
          const other = yield* machineOf(this.host, "define", cloneOf.vm)
          const from = cloneOf.snapshot === undefined ? other.disk : other.snapshots.get(cloneOf.snapshot)
          if (from === undefined)
            return yield* fail("define", vm, "not-found", `no snapshot ${cloneOf.snapshot}`)
          machine.disk = from
        }
        this.host.machines.set(vm, machine)
      })
    )
  }

  start(vm: string) {
    return this.running("start", vm, (machine, now) => {
      const platform = { accelerator: "sim", machine: machine.spec.machine }
      if (machine.state === "running") return Effect.succeed(platform)
      if (machine.state !== "defined") return wrongState("start", machine)
      machine.counter = bootedCounter(this.fleet, machine)
      machine.incoming = null
      machine.gone = false
      startRunning(machine, now)
      return Effect.succeed(platform)
    })
  }

  stop(vm: string) {
    return this.on("stop", vm, (machine, now) => {
      if (machine.state === "defined") return Effect.void
      if (machine.state !== "running" && machine.state !== "paused") return wrongState("stop", machine)
      return Effect.andThen(
        busy("stop", machine),
        Effect.sync(() => stopRunning(this.fleet, machine, now, "defined"))
      )
    })
  }

  pause(vm: string) {
    return this.on("pause", vm, (machine, now) => {
      if (machine.state === "paused") return Effect.void
      if (machine.state !== "running") return wrongState("pause", machine)
      return Effect.andThen(
        busy("pause", machine),
        Effect.sync(() => stopRunning(this.fleet, machine, now, "paused"))
      )
    })
  }

  resume(vm: string) {
    return this.running("resume", vm, (machine, now) => {
      if (machine.state === "running") return Effect.void
      if (machine.gone) return fail("resume", vm, "not-found", "the machine that arrived here is gone")
      const arrived = machine.state === "incoming" && machine.arrived
      if (!arrived && machine.state !== "paused" && machine.state !== "handed-over") {
        return wrongState("resume", machine)
      }
      machine.incoming = null
      machine.outgoing = null
      startRunning(machine, now)
      return Effect.void
    })
  }

  reboot(vm: string) {
    return this.running("reboot", vm, (machine, now) => {
      if (machine.state !== "running") return wrongState("reboot", machine)
      return Effect.andThen(
        busy("reboot", machine),
        Effect.sync(() => {
          stopRunning(this.fleet, machine, now, "defined")
          machine.counter = bootedCounter(this.fleet, machine)
          startRunning(machine, now)
        })
      )
    })
  }

  remove(vm: string) {
    return withFaults(
      this,
      "remove",
      vm,
      Effect.sync(() => {
        this.host.machines.delete(vm)
      })
    )
  }

  snapshot(vm: string, name: string) {
    return this.on("snapshot", vm, (machine, now) => {
      advance(machine, now)
      persist(this.fleet, machine)
      if (!machine.snapshots.has(name)) machine.snapshots.set(name, machine.disk)
      return Effect.succeed({
        bytes: machine.spec.disks.reduce((sum, disk) => sum + disk.sizeMib * 1024 * 1024, 0)
      })
    })
  }

  restore(vm: string, name: string) {
    return this.on("restore", vm, (machine) => {
      if (machine.state !== "defined") return wrongState("restore", machine)
      const kept = machine.snapshots.get(name)
      if (kept === undefined) return fail("restore", vm, "not-found", `no snapshot ${name}`)
      machine.disk = kept
      return Effect.void
    })
  }

  /** A machine whose guest runs has all of its memory here: there is no post-copy in this world. */
  arriving() {
    return Effect.sync(() =>
      [...this.host.machines.values()].flatMap(({ vm, spec, incoming, gone }) =>
        incoming === null || gone
          ? []
          : [{ vm, ...incoming, channels: channelsOf(this.host.name, incoming.migration, spec) }]
      )
    )
  }

  prepareIncoming(vm: string, spec: VmSpec, arrival: Arrival) {
    const { migration } = arrival
    return withFaults(
      this,
      "prepareIncoming",
      vm,
      Effect.suspend((): Operation<ReadonlyArray<Channel>> => {
        const known = this.host.machines.get(vm)
        if (known && known.incoming?.migration !== migration) return wrongState("prepareIncoming", known)
        if (!known) {
          this.host.machines.set(vm, { ...newMachine(vm, spec), state: "incoming", incoming: arrival })
        }
        return Effect.succeed(channelsOf(this.host.name, migration, spec))
      })
    )
  }

  abandonIncoming(vm: string, migration: string) {
    return withFaults(
      this,
      "abandonIncoming",
      vm,
      Effect.suspend((): Operation<void> => {
        const machine = this.host.machines.get(vm)
        if (!machine) return Effect.void
        const waits = machine.state === "incoming" || machine.gone
        if (!waits || machine.incoming?.migration !== migration) {
          return wrongState("abandonIncoming", machine)
        }
        this.host.machines.delete(vm)
        return Effect.void
      })
    )
  }

  cancelMigration(vm: string, migration: string) {
    return this.on("cancelMigration", vm, (machine) => {
      const { outgoing } = machine
      if (machine.state === "handed-over") return wrongState("cancelMigration", machine)
      if (outgoing?.migration === migration && !outgoing.work.done) outgoing.cancelled = true
      return outgoing ? Effect.ignore(Stream.runDrain(outgoing.work.read())) : Effect.void
    })
  }

  migrate: Hypervisor["Service"]["migrate"] = (vm, migration, channels, policy) =>
    Stream.unwrap(
      Effect.map(machineOf(this.host, "migrate", vm), (machine) => {
        const before = machine.outgoing
        const joins =
          before?.migration === migration && (!before.work.done || machine.state === "handed-over")
        if (joins) return before.work.read()
        if (machine.state !== "running") return Stream.fromEffect(wrongState("migrate", machine))
        const work = new SharedWork<MigrationReport, HypervisorError>(
          (report) => report.type === "hypervisor.progressed"
        )
        machine.outgoing = { migration, work, cancelled: false }
        const path = channels.find((channel) => channel.name === "ram")?.path ?? ""
        this.run(
          runMigration(this.fleet, this.host, machine, path, policy).pipe(
            Effect.onExit((exit) =>
              Effect.sync(() => {
                const lost = Exit.isFailure(exit) && Exit.hasInterrupts(exit)
                work.end(lost ? Exit.fail(lostDriver(vm)) : Exit.asVoid(exit))
              })
            ),
            Effect.ignore
          )
        )
        return work.read()
      })
    )

  readonly ended: Stream.Stream<VmEnded> = Stream.fromEffectRepeat(
    Effect.suspend((): Effect.Effect<VmEnded> => {
      const next = (): Effect.Effect<VmEnded> => {
        const one = this.host.ended.shift()
        return one ? Effect.succeed(one) : Effect.flatMap(this.host.told.await, next)
      }
      return next()
    })
  )
}

const lostDriver = (vm: string) =>
  new HypervisorError({ op: "migrate", vm, code: "lost", reason: "the driver ended while it sent" })

export const simFacts: HostFacts = {
  cpus: 64,
  memoryMib: 262_144,
  diskMib: 16_777_216,
  driver: "sim",
  driverVersion: "1",
  accelerators: ["sim"],
  machines: ["pc", "q35"],
  cpuModels: ["qemu64", "max"],
  capabilities: ["post-copy", "console"],
  labels: {}
}

/** A driver for this host of the fleet; closing it leaves the machines as they are. */
export const simLayer = (
  fleet: Fleet,
  name: string,
  facts: HostFacts = simFacts,
  mayRun: MayRun = always
): Layer.Layer<Hypervisor> =>
  Layer.effect(
    Hypervisor,
    Effect.gen(function* () {
      const host = hostOf(fleet, name)
      const driver = new Driver(fleet, host, mayRun, yield* FiberSet.makeRuntime<never, void, never>())
      return Hypervisor.of({
        facts: Effect.succeed(facts),
        list: Effect.sync(() => [...host.machines.values()].map(({ vm, state }) => ({ vm, state }))),
        observe: (vm) => Effect.sync(() => host.machines.get(vm)?.state ?? "absent"),
        define: (vm, spec, cloneOf) => driver.define(vm, spec, cloneOf),
        start: (vm) => driver.start(vm),
        stop: (vm) => driver.stop(vm),
        pause: (vm) => driver.pause(vm),
        resume: (vm) => driver.resume(vm),
        reboot: (vm) => driver.reboot(vm),
        remove: (vm) => driver.remove(vm),
        snapshot: (vm, snapshot) => driver.snapshot(vm, snapshot),
        restore: (vm, snapshot) => driver.restore(vm, snapshot),
        checkIncoming: (vm, spec, { accelerator, machine } = { accelerator: "sim", machine: spec.machine }) =>
          Effect.sync(() => {
            if (!simFacts.machines.includes(machine)) return [`no machine type ${machine}`]
            if (!simFacts.cpuModels.includes(spec.cpuModel)) return [`no CPU model ${spec.cpuModel}`]
            if (!simFacts.accelerators.includes(accelerator)) return [`no accelerator ${accelerator}`]
            return host.machines.has(vm) ? [`a machine ${vm} is here already`] : []
          }),
        prepareIncoming: (vm, spec, arrival) => driver.prepareIncoming(vm, spec, arrival),
        arriving: driver.arriving(),
        // Its post-copy is over with the hand-over.
        isSending: () => Effect.succeed(false),
        settleArrival: () => Effect.succeed(true),
        migrate: driver.migrate,
        cancelMigration: (vm, migration) => driver.cancelMigration(vm, migration),
        abandonIncoming: (vm, migration) => driver.abandonIncoming(vm, migration),
        console: (vm) =>
          Effect.flatMap(machineOf(host, "console", vm), (machine) =>
            machine.state === "defined"
              ? wrongState("console", machine)
              : Effect.succeed(consolePath(name, vm))
          ),
        ended: driver.ended
      })
    })
  )
