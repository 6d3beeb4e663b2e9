/**
 * A simulated live migration: mirror of the local disks, pre-copy until what is left fits the downtime budget, the
 * hand-over. The ladder is the live driver's: slow the guest down, then post-copy where allowed, then give up in time.
 */
import { Clock, Effect } from "effect"
import type { MigrationPolicy, Progress } from "../../../src/events/requests.ts"
import type { HypervisorError } from "../../../src/kernel/ports/hypervisor.ts"
import { died, fail, stopRunning } from "./machine.ts"
import type { Fleet, Machine, SimHost } from "./machine.ts"

const mib = 1024 * 1024
const stepMs = 50
const throttleStep = 20
const throttle_max = 99
/** Passes that may leave as much as they found before the guest is slowed down. */
const patientPasses = 2
const pagesUsedShare = 0.4

interface Sending {
  readonly fleet: Fleet
  readonly host: SimHost
  readonly machine: Machine
  readonly path: string
  readonly policy: MigrationPolicy
  readonly beganMs: number
  readonly rate: number
  readonly totalBytes: number
  sentBytes: number
  passes: number
  throttle: number
  percent: number
}

/** `path` is the destination's memory channel, `sim:<host>/<migration>/ram`. Reports go to the machine's outgoing work. */
export const runMigration = Effect.fnUntraced(function* (
  fleet: Fleet,
  host: SimHost,
  machine: Machine,
  path: string,
  policy: MigrationPolicy
): Effect.fn.Return<void, HypervisorError> {
  const memory = machine.spec.memoryMib * mib * pagesUsedShare
  const disks = machine.spec.disks
    .filter((disk) => disk.storage === "local")
    .reduce((sum, disk) => sum + disk.sizeMib * mib, 0)
  const limit = policy.bandwidthBytesPerSecond || Number.POSITIVE_INFINITY
  const sending: Sending = {
    fleet,
    host,
    machine,
    path,
    policy,
    beganMs: yield* Clock.currentTimeMillis,
    rate: Math.min(fleet.bandwidthBytesPerSecond, limit),
    totalBytes: Math.round(memory + disks),
    sentBytes: 0,
    passes: 0,
    throttle: 0,
    percent: 0
  }
  // The disks are limited by the link only, as the live driver's mirror is.
  yield* send(sending, "mirroring", disks, fleet.bandwidthBytesPerSecond)
  let left = memory
  for (;;) {
    sending.passes++
    yield* send(sending, "pre-copy", left, sending.rate)
    const dirty = Math.min(memory, (dirtyRate(sending) * left) / sending.rate)
    if ((dirty / sending.rate) * 1000 <= policy.downtimeBudgetMs) return yield* handOver(sending, dirty)
    if (dirty >= left && sending.passes >= patientPasses) {
      if (policy.throttle && sending.throttle < throttle_max) {
        sending.throttle = Math.min(throttle_max, sending.throttle + throttleStep)
      } else if (policy.postCopy) return yield* postCopy(sending, dirty)
    }
    left = Math.max(dirty, 1)
  }
})

const labelledDirtyRate = (machine: Machine) => Number(machine.spec.labels["dirty-mib-per-second"] ?? 1) * mib
const dirtyRate = ({ machine, throttle }: Sending) => labelledDirtyRate(machine) * (1 - throttle / 100)

/** Whether it goes on, asked at each step: the other end, the guest, the operator and the time may each end it. */
const check = Effect.fnUntraced(function* (sending: Sending): Effect.fn.Return<Machine, HypervisorError> {
  const { fleet, host, machine, path, policy, beganMs } = sending
  const now = yield* Clock.currentTimeMillis
  const { random, faults, injected } = fleet
  if (random.chance(faults.crash)) {
    injected.crash++
    died(fleet, host, machine.vm, now, "crash")
  }
  if (machine.state === "defined") return yield* fail("migrate", machine.vm, "lost", "the machine ended")
  if (machine.outgoing?.cancelled) return yield* fail("migrate", machine.vm, "failed", "cancelled")
  if (now - beganMs > policy.timeoutMs) {
    const reason = `not converged within ${policy.timeoutMs} ms`
    return yield* fail("migrate", machine.vm, "timeout", reason)
  }
  const [, name = "", migration = ""] = /^sim:([^/]+)\/([^/]+)\/ram$/.exec(path) ?? []
  const other = fleet.hosts.get(name)?.machines.get(machine.vm)
  const drawn = random.chance(faults.linkCut)
  if (drawn) injected.linkCut++
  const cut = drawn || fleet.linkDown
  if (cut || !other || (other.incoming?.migration !== migration && other.state !== "running")) {
    return yield* fail("migrate", machine.vm, "lost", "the connection to the destination broke")
  }
  return other
})

const send = Effect.fnUntraced(function* (
  sending: Sending,
  phase: Progress["phase"],
  bytes: number,
  rate: number
): Effect.fn.Return<void, HypervisorError> {
  let left = bytes
  while (left > 0) {
    yield* check(sending)
    tell(sending, phase, left, rate)
    const ms = Math.min(stepMs, (left / rate) * 1000)
    yield* Effect.sleep(ms)
    const sent = Math.min(left, (rate * ms) / 1000)
    sending.sentBytes += sent
    left = left - sent < 1 ? 0 : left - sent
  }
})

function tell(sending: Sending, phase: Progress["phase"], left: number, rate: number): void {
  sending.percent = Math.max(sending.percent, Math.min(99, (sending.sentBytes / sending.totalBytes) * 100))
  const etaMs = (left / rate) * 1000
  sending.machine.outgoing?.work.say({
    type: "hypervisor.progressed",
    progress: {
      phase,
      percent: sending.percent,
      transferredBytes: Math.round(sending.sentBytes),
      remainingBytes: Math.round(left),
      totalBytes: sending.totalBytes,
      rateBytesPerSecond: rate,
      dirtyBytesPerSecond: dirtyRate(sending),
      iteration: sending.passes,
      throttlePercent: sending.throttle,
      remainingMs: { low: etaMs, high: etaMs * 4 }
    }
  })
}

/** The guest stands still, the rest is sent, and the destination has everything. */
const handOver = Effect.fnUntraced(function* (sending: Sending, rest: number) {
  const { fleet, machine } = sending
  yield* check(sending)
  const stoppedMs = yield* Clock.currentTimeMillis
  stopRunning(fleet, machine, stoppedMs, "paused")
  yield* send(sending, "switch-over", Math.max(rest, 1), sending.rate).pipe(
    // The guest goes on here when its last bytes did not arrive.
    Effect.tapError(() =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        if (machine.state !== "paused") return
        machine.state = "running"
        machine.since = now
      })
    )
  )
  yield* arrive(sending)
  yield* finish(sending, (yield* Clock.currentTimeMillis) - stoppedMs)
})

const arrive = Effect.fnUntraced(function* (sending: Sending) {
  const { machine } = sending
  const other = yield* check(sending)
  other.counter = machine.counter
  if (other.disk !== null) other.disk = machine.disk
  for (const [name, content] of machine.snapshots) other.snapshots.set(name, content)
  other.arrived = true
  machine.state = "handed-over"
  machine.outgoing?.work.say({ type: "hypervisor.handedOver" })
})

/** The destination may run first, and gets the rest while it does. */
const postCopy = Effect.fnUntraced(function* (sending: Sending, rest: number) {
  const now = yield* Clock.currentTimeMillis
  stopRunning(sending.fleet, sending.machine, now, "paused")
  yield* arrive(sending)
  yield* send(sending, "post-copy", rest, sending.rate)
  yield* finish(sending, stepMs)
})

const finish = Effect.fnUntraced(function* (sending: Sending, downtimeMs: number) {
  const totalMs = (yield* Clock.currentTimeMillis) - sending.beganMs
  const transferredBytes = Math.round(sending.sentBytes)
  sending.machine.outgoing?.work.say({ type: "hypervisor.migrated", totalMs, downtimeMs, transferredBytes })
})
