/**
 * The source's side of a migration.
 *
 *   mirror disks ──ready──▶ pre-copy ──converged──▶ guest stands still ──disks equal──▶ last pages ──▶ handed over
 *        │                     │  throttle, then post-copy if allowed           │
 *        └──── cancel, failure, time-out: everything is taken back, the guest goes on here ◀┘
 *
 * QEMU keeps the state; every step asks it first. So a driver that was started again joins what is under way.
 */
import { Cause, Clock, Effect, Exit, PubSub } from "effect"
import type { Scope } from "effect"
import type { Channel, MigrationPolicy, Progress } from "../../events/requests.ts"
import type { HypervisorError } from "../../kernel/ports/hypervisor.ts"
import { writeRecord } from "./folder.ts"
import type { MachineRecord } from "./folder.ts"
import { asHypervisorError, fail, look, runState } from "./machine.ts"
import type { Machine, Observed, Supervisor } from "./machine.ts"
import { dropMirrors, finishMirrors, mirrorState, startMirrors } from "./mirror.ts"
import type { Moved } from "./mirror.ts"
import { handedOver, settle, tell } from "./outgoing-reports.ts"
import type { Migrated, Outgoing } from "./outgoing-reports.ts"
import { memoryProgress, migrationInfo, mirrorProgress } from "./progress.ts"
import type { MigrationInfo, MirrorInfo } from "./progress.ts"
import type { Qmp, QmpArguments } from "./qmp.ts"

type Failure = HypervisorError

const POLL_MS = 100
const SWITCH_POLL_MS = 2
const SETTLE_POLLS_MAX = 100
const CANCEL_POLLS_MAX = 1_000
const RECOVER_PAUSE_MS = 500
const UNCONFIRMED_MS = 10_000
/** The end of the copies takes some round trips, whatever the budget. */
const DRAIN_FLOOR_MS = 250
/** Of the budget, for what QEMU's own estimate leaves out: stopping, device state, delivery. */
const BUDGET_SHARE = 0.75
/**
 * The share of the budget that a switch-over may take, by passes over the memory: a guest that converges is not kept
 * waiting for as long as it may be, one that does not gets all of it.
 */
const SHARE_BY_PASS = [0.125, 0.125, 0.125, 0.25, 0.5]
/** No limit, in a parameter that wants a number: 1 TiB/s. */
const UNLIMITED = 2 ** 40
/** Passes over the memory before post-copy, when that is allowed and pre-copy does not converge. */
const PRECOPY_PASSES = 4
const UNDER_WAY: ReadonlyArray<string> = [
  "setup",
  "wait-unplug",
  "active",
  "pre-switchover",
  "device",
  "cancelling",
  "postcopy-active",
  "postcopy-paused",
  "postcopy-recover"
]

/** What one run of a migration works with. */
interface Run {
  readonly supervisor: Supervisor
  readonly machine: Machine
  readonly outgoing: Outgoing
  readonly qmp: Qmp
  readonly policy: MigrationPolicy
  readonly channels: ReadonlyArray<Channel>
  readonly disks: ReadonlyArray<Moved>
  readonly memoryBytes: number
  readonly startedMs: number
  /** What QEMU was last told that the switch-over may take; null before. */
  downtimeLimitMs: number | null
  /** Since when a post-copy waits for its link; null while it does not. */
  pausedMs: number | null
  /** Since when all of a post-copy is sent; null while it is not. */
  sentMs: number | null
  /** QEMU was told to go on with the switch-over, and may say for a moment yet that it waits to be. */
  isGoingOn?: true
}

const ask = (qmp: Qmp, vm: string, command: string, args?: QmpArguments) =>
  qmp.execute(command, args).pipe(Effect.mapError(asHypervisorError("migrate", vm)))

const query = (qmp: Qmp, vm: string) => Effect.map(ask(qmp, vm, "query-migrate"), migrationInfo)

const progressed = (run: Run, progress: Progress) =>
  Effect.sync(() => {
    run.outgoing.progress = progress
    tell(run.outgoing, { type: "hypervisor.progressed", progress })
  })

/** Fails when it was cancelled or its time is over; asked for at every step before the hand-over. */
const mayGoOn = Effect.fn("mayGoOn")(function* (run: Run): Effect.fn.Return<void, Failure> {
  if (run.outgoing.cancelRequested) {
    return yield* fail("migrate", run.machine.vm, "failed", "cancelled; the guest goes on at the source")
  }
  const elapsedMs = (yield* Clock.currentTimeMillis) - run.startedMs
  if (elapsedMs > run.policy.timeoutMs) {
    const reason = `not done within ${run.policy.timeoutMs} ms with a downtime budget of ${run.policy.downtimeBudgetMs} ms`
    return yield* fail("migrate", run.machine.vm, "timeout", reason)
  }
})

const percentSoFar = (run: Run): number => run.outgoing.progress?.percent ?? 0

/** QEMU's events wake us: what is copied need not wait for the next look. */
const mirrorDisks = (run: Run): Effect.Effect<MirrorInfo, Failure> =>
  Effect.gen(function* () {
    const { qmp, machine, disks, policy } = run
    let previous: MirrorInfo & { readonly atMs: number } = { doneBytes: 0, totalBytes: 0, atMs: 0 }
    if (disks.length === 0) return previous
    const events = yield* qmp.events
    yield* startMirrors(qmp, machine.vm, disks, policy.bandwidthBytesPerSecond)
    previous = { ...previous, atMs: yield* Clock.currentTimeMillis }
    for (;;) {
      yield* mayGoOn(run)
      const state = yield* mirrorState(qmp, machine.vm, disks)
      const atMs = yield* Clock.currentTimeMillis
      const rate = ((state.doneBytes - previous.doneBytes) * 1000) / Math.max(1, atMs - previous.atMs)
      yield* progressed(
        run,
        mirrorProgress(state, Math.max(0, rate), run.memoryBytes, policy.timeoutMs, percentSoFar(run))
      )
      if (state.ready) return state
      previous = { ...state, atMs }
      yield* Effect.raceFirst(PubSub.take(events), Effect.sleep(POLL_MS))
    }
  }).pipe(Effect.scoped)

const sendMemory = Effect.fn("sendMemory")(function* (run: Run): Effect.fn.Return<void, Failure> {
  const { qmp, machine, policy } = run
  const ram = run.channels.find((channel) => channel.name === "ram")
  const capability = (name: string, state: boolean) => ({ capability: name, state })
  run.downtimeLimitMs = downtimeLimitMs(run, 0)
  const capabilities = ask(qmp, machine.vm, "migrate-set-capabilities", {
    capabilities: [
      capability("events", true),
      capability("return-path", true),
      capability("pause-before-switchover", true),
      capability("auto-converge", policy.throttle),
      capability("postcopy-ram", policy.postCopy)
    ]
  })
  const parameters = ask(qmp, machine.vm, "migrate-set-parameters", {
    "max-bandwidth": policy.bandwidthBytesPerSecond === 0 ? UNLIMITED : policy.bandwidthBytesPerSecond,
    // What the guest asks for comes first and is not held back; this is for the rest.
    "max-postcopy-bandwidth": policy.bandwidthBytesPerSecond,
    "downtime-limit": run.downtimeLimitMs,
    "cpu-throttle-initial": 20,
    "cpu-throttle-increment": 20,
    "max-cpu-throttle": 95
  })
  yield* Effect.all([capabilities, parameters], { concurrency: 2, discard: true })
  yield* ask(qmp, machine.vm, "migrate", { uri: `unix:${ram?.path ?? ""}` })
})

const downtimeLimitMs = ({ policy }: Run, passes: number): number =>
  Math.max(1, Math.round(policy.downtimeBudgetMs * BUDGET_SHARE * (SHARE_BY_PASS[passes] ?? 1)))

/** Tell QEMU how long the switch-over may take in this pass, when that has changed. */
const limitDowntime = Effect.fn("limitDowntime")(function* (
  run: Run,
  passes: number
): Effect.fn.Return<void, Failure> {
  const limitMs = downtimeLimitMs(run, passes)
  if (limitMs === run.downtimeLimitMs) return
  run.downtimeLimitMs = limitMs
  yield* ask(run.qmp, run.machine.vm, "migrate-set-parameters", { "downtime-limit": limitMs })
})

const setHandedOver = Effect.fn("setHandedOver")(function* (
  run: Pick<Run, "machine" | "outgoing" | "supervisor">,
  postCopy: boolean
) {
  if (run.outgoing.handedOver) return
  yield* changeOutgoing(run.supervisor, run.machine, (record) => ({
    ...record,
    outgoing: record.outgoing === null ? null : { ...record.outgoing, handedOver: true, postCopy }
  }))
  run.outgoing.handedOver = true
  run.outgoing.postCopy = postCopy
  tell(run.outgoing, handedOver(run.outgoing))
})

const changeOutgoing = (
  supervisor: Supervisor,
  machine: Machine,
  change: (record: MachineRecord) => MachineRecord
): Effect.Effect<Observed, Failure> =>
  Effect.gen(function* () {
    const observed = yield* look(supervisor, machine)
    if (observed.record !== null) yield* writeRecord(machine.paths, change(observed.record))
    return observed
  }).pipe(machine.lock.withPermit)

/**
 * The link of a post-copy broke. The guest runs at the destination and half of its memory is only here, so this is never
 * given up lightly: it is tried again and again, as long as a migration may take. See QEMU's docs/devel/migration.rst,
 * "Postcopy recovery"; the destination does its part in `rescue.ts`.
 */
const takeUpAgain = Effect.fn("takeUpAgain")(function* (run: Run): Effect.fn.Return<"go on", Failure> {
  const { qmp, machine, channels } = run
  yield* mayWait(run)
  yield* setHandedOver(run, true)
  yield* Effect.sleep(RECOVER_PAUSE_MS)
  const ram = channels.find((channel) => channel.name === "ram")
  // Refused while it is already being tried.
  yield* Effect.ignore(ask(qmp, machine.vm, "migrate", { uri: `unix:${ram?.path ?? ""}`, resume: true }))
  return "go on"
})

/** Fails when the link of a post-copy was away for too long. */
const mayWait = Effect.fn("mayWait")(function* (run: Run): Effect.fn.Return<void, Failure> {
  const { machine, policy, outgoing } = run
  const nowMs = yield* Clock.currentTimeMillis
  run.pausedMs ??= nowMs
  // Nobody cancels a post-copy but who knows that its destination is gone.
  if (outgoing.cancelRequested) return yield* fail("migrate", machine.vm, "lost", "the destination is gone")
  if (nowMs - run.pausedMs <= policy.timeoutMs) return
  const reason = `the link was away for ${policy.timeoutMs} ms, and the guest's memory was not whole at the destination`
  return yield* fail("migrate", machine.vm, "lost", reason)
})

/**
 * Everything was sent, and the destination has to say that it came. When the link breaks just then, QEMU (7.2 for one)
 * waits for that word for ever: the destination is asked by others then.
 */
const mayBeUnconfirmed = Effect.fn("mayBeUnconfirmed")(function* (
  run: Run,
  isSent: boolean
): Effect.fn.Return<void, Failure> {
  const nowMs = yield* Clock.currentTimeMillis
  run.sentMs = isSent ? (run.sentMs ?? nowMs) : null
  if (run.sentMs === null || nowMs - run.sentMs <= UNCONFIRMED_MS) return
  const reason = `all was sent, and the destination did not confirm it within ${UNCONFIRMED_MS} ms`
  return yield* fail("migrate", run.machine.vm, "lost", reason)
})

/** One look at a running migration: what to do next is QEMU's status alone. */
const step = Effect.fn("step")(function* (
  run: Run,
  info: MigrationInfo
): Effect.fn.Return<"go on" | "quickly" | "done", Failure> {
  const { qmp, machine } = run
  switch (info.status) {
    case "pre-switchover":
      if (run.isGoingOn) return "quickly"
      yield* mayGoOn(run)
      yield* finishMirrors(qmp, machine.vm, run.disks, Math.max(DRAIN_FLOOR_MS, run.policy.downtimeBudgetMs))
      yield* ask(qmp, machine.vm, "migrate-continue", { state: "pre-switchover" })
      run.isGoingOn = true
      return "quickly"
    case "device":
      return "quickly"
    case "completed":
      yield* setHandedOver(run, false)
      return "done"
    case "postcopy-active":
      yield* setHandedOver(run, true)
      run.pausedMs = null
      yield* mayBeUnconfirmed(run, info.ram?.remainingBytes === 0)
      return "go on"
    case "postcopy-paused":
      return yield* takeUpAgain(run)
    case "postcopy-recover":
      // QEMU before 8.2 may stay so for ever.
      yield* mayWait(run)
      return "go on"
    case "none":
    case "failed":
    case "cancelled":
      return yield* fail(
        "migrate",
        machine.vm,
        "lost",
        `QEMU's migration is ${info.status}${info.error === null ? "" : `: ${info.error}`}`
      )
    default: {
      yield* mayGoOn(run)
      const passes = info.ram?.iteration ?? 0
      if (info.status === "active") yield* limitDowntime(run, passes)
      if (run.policy.postCopy && info.status === "active" && passes > PRECOPY_PASSES) {
        // Refused when it was begun already.
        yield* Effect.ignore(ask(qmp, machine.vm, "migrate-start-postcopy"))
      }
      return "go on"
    }
  }
})

/** Follow the migration to its end. QEMU's events wake us, so that a guest that stands still is not kept waiting. */
const follow = (run: Run, mirror: MirrorInfo): Effect.Effect<Migrated, Failure, Scope.Scope> =>
  Effect.gen(function* () {
    const { qmp, machine } = run
    const events = yield* qmp.events
    for (;;) {
      const info = yield* query(qmp, machine.vm)
      const next = yield* step(run, info)
      if (info.ram !== null) {
        const { progress } = run.outgoing
        yield* progressed(run, memoryProgress(info, mirror, run.policy.timeoutMs, progress))
      }
      if (next === "done") return yield* statistics(qmp, machine.vm, mirror)
      if (next === "quickly") yield* Effect.sleep(SWITCH_POLL_MS)
      else yield* Effect.raceFirst(PubSub.take(events), Effect.sleep(POLL_MS))
    }
  })

/** `completed` may be told before the times are, and the total as nothing for a moment: ask until they are there. */
const statistics = Effect.fn("statistics")(function* (
  qmp: Qmp,
  vm: string,
  mirror: MirrorInfo
): Effect.fn.Return<Migrated, Failure> {
  let info = yield* query(qmp, vm)
  for (let polls = 0; polls < SETTLE_POLLS_MAX; polls += 1) {
    if ((info.totalMs ?? 0) > 0 && info.downtimeMs !== null) break
    yield* Effect.sleep(10)
    info = yield* query(qmp, vm)
  }
  return {
    type: "hypervisor.migrated",
    totalMs: info.totalMs ?? 0,
    downtimeMs: info.downtimeMs ?? 0,
    transferredBytes: (info.ram?.transferredBytes ?? 0) + mirror.doneBytes
  }
})

/**
 * Take everything back: the guest goes on here. "handed-over" when it was too late for that. Under the machine's
 * lock. What was said to QEMU before may still be under way, so each step is asked for until it is so.
 */
export const rollBack = Effect.fn("rollBack")(function* (
  machine: Machine,
  observed: Observed
): Effect.fn.Return<"rolled back" | "handed-over", Failure> {
  const { record, qmp } = observed
  if (record === null || qmp === null) return "rolled back"
  for (let polls = 0; ; polls += 1) {
    const { status } = yield* query(qmp, machine.vm)
    if (status === "completed" && (yield* runState(qmp, machine.vm)) === "postmigrate") return "handed-over"
    if (status.startsWith("postcopy")) return "handed-over"
    if (!UNDER_WAY.includes(status)) break
    if (polls > CANCEL_POLLS_MAX) {
      return yield* fail("cancelMigration", machine.vm, "timeout", `QEMU's migration stays ${status}`)
    }
    if (status !== "cancelling") yield* ask(qmp, machine.vm, "migrate_cancel")
    yield* Effect.sleep(10)
  }
  yield* dropMirrors(qmp, machine.vm)
  if (record.wanted === "running" && (yield* runState(qmp, machine.vm)) !== "running") {
    yield* ask(qmp, machine.vm, "cont")
  }
  yield* writeRecord(machine.paths, { ...record, outgoing: null })
  return "rolled back"
})

/** Where a migration that is asked for stands in QEMU. */
type Begin =
  | { readonly at: "start" | "memory"; readonly run: Run }
  | { readonly at: "completed"; readonly migrated: Migrated }

const movedDisks = Effect.fn("movedDisks")(function* (
  vm: string,
  record: MachineRecord,
  channels: ReadonlyArray<Channel>
): Effect.fn.Return<ReadonlyArray<Moved>, Failure> {
  const moved: Array<Moved> = []
  const missing = channels.some((channel) => channel.name === "ram") ? [] : ["ram"]
  record.spec.disks.forEach((disk, index) => {
    if (disk.storage !== "local") return
    const channel = channels.find((each) => each.name === disk.name)
    if (channel === undefined) missing.push(disk.name)
    else moved.push({ index, channel })
  })
  if (missing.length === 0) return moved
  return yield* fail("migrate", vm, "failed", `no channel for ${missing.join(", ")}`)
})

/** Check that it may begin, or find out how far it is, and write down that it is under way. */
const begin = (
  supervisor: Supervisor,
  machine: Machine,
  outgoing: Outgoing,
  channels: ReadonlyArray<Channel>,
  policy: MigrationPolicy
): Effect.Effect<Begin, Failure> =>
  Effect.gen(function* () {
    const { record, qmp, state } = yield* look(supervisor, machine)
    const vm = machine.vm
    if (record === null) return yield* fail("migrate", vm, "not-found", "no such machine on this host")
    if (qmp === null || record.incoming !== null) {
      return yield* fail(
        "migrate",
        vm,
        "wrong-state",
        `the machine is ${record.incoming ? "incoming" : "off"} here`
      )
    }
    const known = record.outgoing
    if (known !== null && known.migration !== outgoing.migration) {
      return yield* fail("migrate", vm, "wrong-state", `migration ${known.migration} is under way`)
    }
    const info = yield* query(qmp, vm)
    if (known !== null && (known.handedOver || state === "postmigrate")) {
      if (!info.status.startsWith("postcopy")) {
        yield* setHandedOverRecord(machine, record)
        outgoing.handedOver = true
        tell(outgoing, handedOver(outgoing))
        const migrated = yield* statistics(qmp, vm, { doneBytes: 0, totalBytes: 0 })
        return { at: "completed", migrated } satisfies Begin
      }
    } else if (state !== "running" && state !== "paused" && state !== "finish-migrate") {
      return yield* fail("migrate", vm, "wrong-state", `the machine is ${state} here`)
    }
    const disks = yield* movedDisks(vm, record, channels)
    const run: Run = {
      ...{ supervisor, machine, outgoing, qmp, policy, channels, disks },
      memoryBytes: record.spec.memoryMib * 1024 * 1024,
      startedMs: yield* Clock.currentTimeMillis,
      downtimeLimitMs: null,
      pausedMs: null,
      sentMs: null
    }
    if (known !== null) {
      if (UNDER_WAY.includes(info.status)) return { at: "memory", run } satisfies Begin
      if (info.status === "failed" || info.status === "cancelled") {
        return yield* fail("migrate", vm, "lost", `QEMU's migration is ${info.status}: ${info.error ?? ""}`)
      }
    } else {
      yield* writeRecord(machine.paths, {
        ...record,
        outgoing: { migration: outgoing.migration, policy, handedOver: false }
      })
    }
    return { at: "start", run } satisfies Begin
  }).pipe(machine.lock.withPermit)

const setHandedOverRecord = (machine: Machine, record: MachineRecord) =>
  record.outgoing === null
    ? Effect.void
    : writeRecord(machine.paths, { ...record, outgoing: { ...record.outgoing, handedOver: true } })

/** Run, or join, the migration to its end; `outgoing` tells it. Never fails itself. */
export const runOutgoing = (
  supervisor: Supervisor,
  machine: Machine,
  outgoing: Outgoing,
  channels: ReadonlyArray<Channel>,
  policy: MigrationPolicy
): Effect.Effect<void> =>
  Effect.gen(function* () {
    const began = yield* begin(supervisor, machine, outgoing, channels, policy).pipe(
      Effect.tapError((cause) => afterFailure(supervisor, machine, outgoing, cause))
    )
    if (began.at === "completed") return began.migrated
    const { run } = began
    let mirror: MirrorInfo = { doneBytes: 0, totalBytes: 0 }
    const send = Effect.gen(function* () {
      if (began.at === "start") {
        mirror = yield* mirrorDisks(run)
        yield* mayGoOn(run)
        yield* sendMemory(run)
      }
      return yield* follow(run, mirror)
    })
    const migrated = yield* send.pipe(
      Effect.catch((cause) =>
        // A failure that came too late is none: what was handed over meanwhile is seen to its end.
        Effect.andThen(afterFailure(supervisor, machine, outgoing, cause), () => follow(run, mirror))
      )
    )
    // The guest has left; that its copies' connections linger would not matter.
    yield* Effect.ignore(dropMirrors(run.qmp, machine.vm))
    return migrated
  }).pipe(
    Effect.scoped,
    Effect.onExit((outcome) =>
      Effect.sync(() => {
        const interrupted = Exit.isFailure(outcome) && Cause.hasInterrupts(outcome.cause)
        const left = fail("migrate", machine.vm, "lost", "the driver ended; ask again to join the migration")
        settle(outgoing, interrupted ? Exit.fail(left) : outcome)
      })
    ),
    Effect.ignore
  )

/** A failure before the hand-over leaves the guest running here; succeeds when it came after it, and so is none. */
const afterFailure = (
  supervisor: Supervisor,
  machine: Machine,
  outgoing: Outgoing,
  cause: Failure
): Effect.Effect<void, Failure> =>
  Effect.gen(function* () {
    const observed = yield* look(supervisor, machine)
    const own = observed.record?.outgoing?.migration === outgoing.migration
    if (!own || outgoing.handedOver) return yield* cause
    if (observed.qmp === null || (yield* rollBack(machine, observed)) === "rolled back") return yield* cause
    outgoing.cancelRequested = false
  }).pipe(machine.lock.withPermit)
