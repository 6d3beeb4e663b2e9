/**
 * One machine on this host: its record, its QEMU and the connection to it, and the watch that tells when the guest
 * ended unasked. Operations on one machine run one after the other under its lock.
 */
import { rm } from "node:fs/promises"
import { Clock, Effect, Exit, PubSub, Queue, Scope, Semaphore } from "effect"
import type { VmState } from "../../events/vm.ts"
import { HypervisorError } from "../../kernel/ports/hypervisor.ts"
import { machinePaths, readRecord, writeRecord } from "./folder.ts"
import type { Folders, MachinePaths, MachineRecord } from "./folder.ts"
import { findProcess, killProcess, logTail, waitGone } from "./process.ts"
import type { QemuProcess } from "./process.ts"
import { connectQmp } from "./qmp.ts"
import type { Qmp, QmpError } from "./qmp.ts"
import type { Rescue } from "./rescue.ts"

const CONNECT_MS = 15_000
const CONNECT_PAUSE_MS = 5
const QUIT_MS = 5_000
const KILL_MS = 10_000
const VANISH_MS = 3_000
/** QEMU answers within a few milliseconds, unless its main loop stands still. */
export const UNRESPONSIVE_MS = 3_000

export interface Machine {
  readonly vm: string
  readonly paths: MachinePaths
  readonly lock: Semaphore.Semaphore
  connection: { readonly qmp: Qmp; readonly scope: Scope.Closeable } | null
  /** Of a machine that arrives by post-copy. */
  rescue: Rescue | null
}

/** What all machines of a host share. */
export interface Supervisor {
  readonly folders: Folders
  readonly machines: Map<string, Machine>
  /** Names of machines whose record has an `ended` to be told. */
  readonly ended: Queue.Queue<string>
  /** Ends with this driver: the watches live in it. */
  readonly scope: Scope.Scope
}

/** What QEMU is doing; `off` when there is no process, `absent` when there is no machine. */
export type RunState = string

export const fail = (op: string, vm: string, code: HypervisorError["code"], reason: string) =>
  new HypervisorError({ op, vm, code, reason })

/** A QMP failure as the port tells it: a broken connection means that QEMU went away. */
export const asHypervisorError = (op: string, vm: string) => (cause: QmpError) =>
  fail(
    op,
    vm,
    cause.code === "timeout" ? "timeout" : cause.code === "refused" ? "failed" : "lost",
    `QEMU ${cause.command}: ${cause.reason}`
  )

export const machineOf = Effect.fn("machineOf")(function* (
  supervisor: Supervisor,
  vm: string
): Effect.fn.Return<Machine, HypervisorError> {
  const known = supervisor.machines.get(vm)
  if (known !== undefined) return known
  const paths = yield* machinePaths(supervisor.folders, vm)
  const machine: Machine = { vm, paths, lock: Semaphore.makeUnsafe(1), connection: null, rescue: null }
  supervisor.machines.set(vm, machine)
  return machine
})

export const disconnect = (machine: Machine) =>
  Effect.suspend(() => {
    const scope = machine.connection?.scope
    machine.connection = null
    return scope === undefined ? Effect.void : Scope.close(scope, Exit.void)
  })

/** One attempt; its scope is closed again when it fails. */
const tryConnect = Effect.fn("tryConnect")(function* (supervisor: Supervisor, machine: Machine) {
  const scope = yield* Scope.fork(supervisor.scope)
  const qmp = yield* Scope.provide(connectQmp(machine.paths.qmp), scope).pipe(
    Effect.onError(() => Scope.close(scope, Exit.void))
  )
  return { qmp, scope }
})

/** The connection to the machine's QEMU, which is known to run; made, and watched, when there is none. */
export const connect = Effect.fn("connect")(function* (
  supervisor: Supervisor,
  machine: Machine,
  process: QemuProcess
): Effect.fn.Return<Qmp, HypervisorError> {
  const existing = machine.connection
  if (existing !== null && !existing.qmp.isClosed()) return existing.qmp
  yield* disconnect(machine)
  const deadline = (yield* Clock.currentTimeMillis) + CONNECT_MS
  for (;;) {
    const result = yield* Effect.exit(tryConnect(supervisor, machine))
    if (Exit.isSuccess(result)) {
      machine.connection = result.value
      yield* watch(supervisor, machine, result.value.qmp).pipe(
        Effect.forkIn(result.value.scope, { startImmediately: true })
      )
      return result.value.qmp
    }
    const gone = (yield* findProcess(machine.paths, process)) === null
    if (gone || (yield* Clock.currentTimeMillis) > deadline) {
      const said = yield* logTail(machine.paths)
      const reason = gone ? `QEMU ended: ${said}` : `no answer at ${machine.paths.qmp}: ${said}`
      return yield* fail("connect", machine.vm, gone ? "failed" : "timeout", reason)
    }
    yield* Effect.sleep(CONNECT_PAUSE_MS)
  }
})

/** Look again whenever the guest may have ended. Each look is under the lock, so it sees finished operations only. */
const watch = (supervisor: Supervisor, machine: Machine, qmp: Qmp) =>
  Effect.gen(function* () {
    const events = yield* qmp.events
    const shutdowns = Effect.gen(function* () {
      for (;;) {
        const event = yield* PubSub.take(events)
        if (event.name === "SHUTDOWN" || event.name === "GUEST_PANICKED") break
      }
    })
    yield* Effect.raceFirst(shutdowns, qmp.closed)
    // Not in the connection's scope: looking may close that.
    yield* inspect(supervisor, machine).pipe(Effect.ignore, Effect.forkIn(supervisor.scope))
  }).pipe(Effect.scoped)

export const runState = Effect.fn("runState")(function* (
  qmp: Qmp,
  vm: string
): Effect.fn.Return<RunState, HypervisorError> {
  const status = yield* qmp
    .execute("query-status")
    .pipe(Effect.mapError(asHypervisorError("query-status", vm)))
  return String((status as { readonly status?: unknown }).status)
})

export interface Observed {
  readonly record: MachineRecord | null
  readonly process: QemuProcess | null
  readonly qmp: Qmp | null
  readonly state: RunState
}

const lookOnce = Effect.fn("lookOnce")(function* (
  supervisor: Supervisor,
  machine: Machine
): Effect.fn.Return<Observed, HypervisorError> {
  const record = yield* readRecord(machine.paths, machine.vm)
  if (record === null) return { record, process: null, qmp: null, state: "absent" }
  // A connection that just ended announces the process's end.
  const closed = machine.connection?.qmp.isClosed() === true
  let process = yield* findProcess(machine.paths, record.process)
  if (closed && process !== null && (yield* waitGone(machine.paths, process, VANISH_MS))) process = null
  if (process === null) {
    // The watch ends with its connection, and may not have seen yet that the guest ended.
    if (machine.connection !== null) {
      yield* inspect(supervisor, machine).pipe(Effect.ignore, Effect.forkIn(supervisor.scope))
    }
    yield* disconnect(machine)
    return { record, process, qmp: null, state: "off" }
  }
  const qmp = yield* connect(supervisor, machine, process)
  return { record, process, qmp, state: yield* runState(qmp, machine.vm) }
})

/** The record and what QEMU does right now. Under the machine's lock. */
export const look = (supervisor: Supervisor, machine: Machine): Effect.Effect<Observed, HypervisorError> =>
  lookOnce(supervisor, machine).pipe(
    // It may end while it is asked; then it is gone at the second look.
    Effect.retry({ times: 1, while: (cause) => cause.code === "lost" || cause.op === "connect" })
  )

/**
 * The same for an operation that only ends the machine, and so needs no answer from QEMU: one that gives none is
 * `unresponsive`, without a connection.
 */
export const lookToEnd = (
  supervisor: Supervisor,
  machine: Machine
): Effect.Effect<Observed, HypervisorError> =>
  look(supervisor, machine).pipe(
    Effect.timeoutOrElse({
      duration: UNRESPONSIVE_MS,
      orElse: () => Effect.fail(fail("look", machine.vm, "timeout", "QEMU gives no answer"))
    }),
    Effect.catchIf(
      ({ code }) => code === "timeout",
      () =>
        Effect.gen(function* () {
          const record = yield* readRecord(machine.paths, machine.vm)
          if (record === null) return { record, process: null, qmp: null, state: "absent" }
          yield* disconnect(machine)
          const process = yield* findProcess(machine.paths, record.process)
          return { record, process, qmp: null, state: process === null ? "off" : "unresponsive" }
        })
    )
  )

const ENDED_STATES: ReadonlyArray<RunState> = ["shutdown", "internal-error", "guest-panicked"]

/** Whether an end would be the guest's own: not a machine that is only arriving, nor one that has moved away. */
const isGuest = (record: MachineRecord): boolean =>
  record.wanted !== "stopped" && record.incoming === null && record.outgoing?.handedOver !== true

/** Find out whether the guest ended unasked; write it down and tell it, once. Takes the machine's lock. */
export const inspect = (supervisor: Supervisor, machine: Machine): Effect.Effect<void, HypervisorError> =>
  Effect.gen(function* () {
    const { record, process, state } = yield* look(supervisor, machine)
    if (record === null) return
    const over = ENDED_STATES.includes(state)
    if (process !== null && !over) return
    if (record.ended !== null && record.wanted === "stopped") yield* Queue.offer(supervisor.ended, machine.vm)
    if (isGuest(record)) {
      const said = yield* logTail(machine.paths)
      const ended =
        state === "shutdown"
          ? { cause: "guest-shutdown" as const, reason: "the guest powered off" }
          : {
              cause: "crash" as const,
              reason: `QEMU ${over ? `stopped in state ${state}` : "ended"}${said === "" ? "" : `: ${said}`}`
            }
      yield* writeRecord(machine.paths, {
        ...record,
        wanted: "stopped",
        process,
        outgoing: null,
        ended
      })
      yield* Queue.offer(supervisor.ended, machine.vm)
    }
    if (process !== null) yield* endProcess(machine, process)
  }).pipe(machine.lock.withPermit)

/**
 * End QEMU, whatever the guest does, and wait for it; its sockets go with it. Asked to quit it closes its disks in good
 * order; one that has `none` any more, because they were handed over, or can't, is not asked. Under the machine's lock.
 */
export const endProcess = Effect.fn("endProcess")(function* (
  machine: Machine,
  process: QemuProcess,
  disks: "its own" | "none" = "its own"
): Effect.fn.Return<void, HypervisorError> {
  const qmp = disks === "none" ? undefined : machine.connection?.qmp
  if (qmp !== undefined && !qmp.isClosed()) yield* Effect.ignore(qmp.execute("quit"))
  const gone = qmp !== undefined && (yield* waitGone(machine.paths, process, QUIT_MS))
  if (!gone) {
    yield* killProcess(machine.paths, process)
    if (!(yield* waitGone(machine.paths, process, KILL_MS))) {
      const reason = `process ${process.pid} did not end within ${KILL_MS} ms of SIGKILL`
      return yield* fail("stop", machine.vm, "timeout", reason)
    }
  }
  yield* disconnect(machine)
  yield* clearSockets(machine.paths)
})

/** A killed QEMU leaves its sockets behind. */
export const clearSockets = (paths: MachinePaths) =>
  Effect.promise(async () => {
    const files = [
      paths.qmp,
      paths.console,
      paths.heartbeat,
      paths.incoming,
      `${paths.rescue}.in`,
      `${paths.rescue}.out`,
      paths.nbd,
      paths.pidFile
    ]
    await Promise.all(files.map((file) => rm(file, { force: true })))
  })

/** QEMU's state, in the port's words. */
export const vmState = ({ record, state }: Pick<Observed, "record" | "state">): VmState => {
  if (record === null) return "absent"
  if (state === "off" || ENDED_STATES.includes(state)) return "defined"
  if (state === "running") return "running"
  if (state === "unresponsive" && record.incoming === null && record.outgoing?.handedOver !== true) {
    return record.wanted === "paused" ? "paused" : "running"
  }
  if (record.incoming !== null) return "incoming"
  if (state === "postmigrate" || record.outgoing?.handedOver === true) return "handed-over"
  // While the guest stands still for its switch-over it is still this host's.
  return state === "finish-migrate" ? "running" : "paused"
}
