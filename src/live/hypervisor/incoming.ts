/** The destination's side of a migration: a QEMU that waits, paused, and disks that are written through NBD. */
import { appendFile, rm } from "node:fs/promises"
import { Clock, Effect, Queue } from "effect"
import type { Channel } from "../../events/requests.ts"
import type { HypervisorError } from "../../kernel/ports/hypervisor.ts"
import { diskNode } from "./command-line.ts"
import { readRecord, writeRecord } from "./folder.ts"
import { asHypervisorError, endProcess, fail, look, lookToEnd, runState } from "./machine.ts"
import type { Machine, Supervisor } from "./machine.ts"
import { migrationInfo } from "./progress.ts"
import type { Qmp, QmpArguments } from "./qmp.ts"
import { openRescue } from "./rescue.ts"
import type { Rescue } from "./rescue.ts"
import type { VmSpec } from "../../events/vm.ts"

/** The guest stands still meanwhile. */
const POLL_MS = 1
const ACTIVE = "postcopy-active"
const PAUSED = "postcopy-paused"
/** Of the migration of a guest that runs: all of it is here. */
export const OVER: ReadonlyArray<string> = ["none", "completed", "failed", "cancelled"]
/** Its link is not there. */
export const AWAY: ReadonlyArray<string> = [PAUSED, "postcopy-recover"]
const POST_COPY_POLL_MS = 250
/** From "the source has sent everything" to "everything is loaded". */
const ARRIVAL_MS = 60_000

const ask = (qmp: Qmp, vm: string, command: string, args?: QmpArguments) =>
  qmp.execute(command, args).pipe(Effect.mapError(asHypervisorError("prepareIncoming", vm)))

/** Where the channels lead: memory to QEMU's own socket, every local disk to the one NBD server. */
export const incomingChannels = (machine: Machine, spec: VmSpec): ReadonlyArray<Channel> => [
  { name: "ram", path: machine.paths.incoming },
  ...spec.disks
    .filter((disk) => disk.storage === "local")
    .map((disk) => ({ name: disk.name, path: machine.paths.nbd }))
]

/**
 * Tell a QEMU that was just started with `-incoming defer` what to wait for. All is said at once, and QEMU takes it in
 * order: an answer takes a millisecond, and nothing here depends on one. After a failure the QEMU is of no use.
 */
export const openIncoming = Effect.fn("openIncoming")(function* (
  machine: Machine,
  qmp: Qmp,
  spec: VmSpec
): Effect.fn.Return<void, HypervisorError> {
  const say = (command: string, args: QmpArguments) => ask(qmp, machine.vm, command, args)
  const capabilities = (...names: ReadonlyArray<string>) =>
    say("migrate-set-capabilities", {
      capabilities: names.map((name) => ({ capability: name, state: true }))
    })
  const disks = spec.disks.flatMap((disk, index) =>
    disk.storage === "local" ? [{ name: disk.name, node: diskNode(index) }] : []
  )
  const server = { addr: { type: "unix", data: { path: machine.paths.nbd } } }
  const exported = disks.map(({ name, node }) =>
    say("block-export-add", { type: "nbd", id: `in-${node}`, "node-name": node, name, writable: true })
  )
  const all = [
    // Disks are taken over when the machine is resumed, not before: until then the source may be rolled back.
    capabilities("events", "return-path", "late-block-activate"),
    // Needs userfaultfd, which a system may forbid; without it only post-copy is not possible.
    Effect.ignore(capabilities("postcopy-ram")),
    ...(disks.length > 0 ? [say("nbd-server-start", server), ...exported] : []),
    say("migrate-incoming", { uri: `unix:${machine.paths.incoming}` })
  ]
  yield* Effect.all(all, { concurrency: "unbounded", discard: true })
})

/** From now until QEMU ends: it listens for its source when its link broke, and only then. Null when it has no FIFOs. */
const holdRescue = Effect.fnUntraced(function* <A>(
  supervisor: Supervisor,
  machine: Machine,
  atFirst: (rescue: Rescue) => Effect.Effect<A>
) {
  const opened = yield* openRescue(machine.paths, supervisor.scope)
  machine.rescue = opened?.rescue ?? null
  if (opened === null) return null
  const { rescue, scope } = opened
  const first = yield* atFirst(rescue)
  const keeping = Effect.gen(function* () {
    for (;;) yield* heed(machine, rescue, yield* Queue.take(rescue.statuses))
  })
  yield* Effect.forkIn(keeping, scope)
  return first
})

/** Negotiate with the second monitor of a QEMU that was just started, for good: nobody can later. */
export const negotiateRescue = Effect.fnUntraced(function* (supervisor: Supervisor, machine: Machine) {
  // What is still held is an earlier QEMU's.
  machine.rescue?.end()
  const isAble = yield* holdRescue(supervisor, machine, (rescue) =>
    rescue.execute("execute", "qmp_capabilities", { enable: ["oob"] })
  )
  if (isAble === true) return
  yield* Effect.logWarning(
    `${machine.vm}: a post-copy whose link breaks can't be taken up again by this QEMU`
  )
})

/**
 * After a restart of this driver, which had the link of a post-copy: have QEMU listen for its source again. That comes
 * before anything else is asked, because QEMU may not answer until the rest of the memory comes. The second monitor of a
 * machine that has come whole is read too, for as long as its QEMU runs.
 */
export const takeUpArrival = Effect.fnUntraced(function* (supervisor: Supervisor, machine: Machine) {
  // When it is held already nothing was missed.
  if (machine.rescue?.isClosed() === false) return
  const record = yield* readRecord(machine.paths, machine.vm)
  const isArriving = record?.arriving !== undefined
  yield* holdRescue(supervisor, machine, (rescue) => (isArriving ? catchUp(machine, rescue) : Effect.void))
})

/** What was told while nobody read comes before the answer, and is of the past: it would end the new listening. */
const catchUp = Effect.fnUntraced(function* (machine: Machine, rescue: Rescue) {
  yield* listenAgain(machine, rescue)
  yield* Queue.clear(rescue.statuses)
  yield* heed(machine, rescue, rescue.status)
})

const heed = (machine: Machine, rescue: Rescue, status: string | null): Effect.Effect<void> =>
  status === PAUSED ? listenAgain(machine, rescue) : status === ACTIVE ? listenNoMore(machine) : Effect.void

/**
 * While memory still comes by post-copy: end the guest when its link is away for longer than the move may take. Ends with
 * the post-copy, or with QEMU. What has come whole no longer has a sender in its record.
 */
export const keepPostCopy = (supervisor: Supervisor, machine: Machine, qmp: Qmp): Effect.Effect<void> =>
  Effect.gen(function* () {
    const record = yield* machine.lock.withPermit(readRecord(machine.paths, machine.vm))
    if (record?.arriving === undefined || record.incoming !== null) return
    const { timeoutMs } = record.arriving
    const isWhole = yield* untilWhole(machine, qmp, timeoutMs)
    yield* machine.lock.withPermit(
      isWhole ? forgetSender(supervisor, machine) : giveUp(supervisor, machine, timeoutMs)
    )
  }).pipe(
    Effect.catch(({ reason }) => Effect.logWarning(`${machine.vm}: its post-copy is not watched: ${reason}`))
  )

const forgetSender = Effect.fnUntraced(function* (supervisor: Supervisor, machine: Machine) {
  const { record } = yield* look(supervisor, machine)
  if (record?.arriving === undefined || record.incoming !== null) return
  const { arriving: _, ...kept } = record
  yield* writeRecord(machine.paths, kept)
})

/** The source gives up after as long, or is gone: what it had of the memory will not come. */
const giveUp = Effect.fnUntraced(function* (supervisor: Supervisor, machine: Machine, timeoutMs: number) {
  const { process } = yield* lookToEnd(supervisor, machine)
  const why = `the rest of its memory did not come within ${timeoutMs} ms`
  yield* Effect.logError(`${machine.vm}: ${why}; it is ended`)
  // Where the reason of its end is looked for.
  yield* Effect.promise(() => appendFile(machine.paths.log, `${why}\n`))
  if (process !== null) yield* endProcess(machine, process, "none")
})

/** False when its link was away for too long. */
const untilWhole = Effect.fnUntraced(function* (machine: Machine, qmp: Qmp, timeoutMs: number) {
  let pausedMs: number | null = null
  for (;;) {
    const status = (yield* arrivalStatus(machine, qmp)) ?? ACTIVE
    if (OVER.includes(status)) return true
    const nowMs = yield* Clock.currentTimeMillis
    pausedMs = AWAY.includes(status) ? (pausedMs ?? nowMs) : null
    if (pausedMs !== null && nowMs - pausedMs > timeoutMs) return false
    yield* Effect.sleep(POST_COPY_POLL_MS)
  }
})

/** While QEMU's main loop waits for memory itself it does not answer, but it tells. Null when it does neither. */
export const arrivalStatus = (machine: Machine, qmp: Qmp | null) => {
  const told = machine.rescue?.status ?? null
  return told !== null || qmp === null ? Effect.succeed(told) : statusOf(qmp, machine)
}

/** Null when QEMU does not answer for now. */
export const statusOf = (qmp: Qmp, { vm }: Machine): Effect.Effect<string | null, HypervisorError> =>
  ask(qmp, vm, "query-migrate").pipe(
    Effect.map((answer) => migrationInfo(answer).status),
    Effect.catchIf(
      ({ code }) => code === "timeout",
      () => Effect.succeed(null)
    )
  )

/**
 * QEMU 7.2 keeps the socket it listened at while the link holds, and throws out whoever connects to it when it is told to
 * listen again. One that comes too early must find nobody there: it is held until somebody is.
 */
const listenNoMore = ({ paths }: Machine) =>
  // One that can't be removed is as it was before: nothing else must end by it.
  Effect.ignore(Effect.tryPromise(() => rm(paths.incoming, { force: true })))

/** Refused while the link holds. */
const listenAgain = Effect.fnUntraced(function* ({ vm, paths }: Machine, rescue: Rescue) {
  const isListening = yield* rescue.execute("exec-oob", "migrate-recover", { uri: `unix:${paths.incoming}` })
  if (isListening) yield* Effect.logWarning(`${vm}: the link of its post-copy broke; it waits for the source`)
})

/** Wait until everything is loaded, then let go of the exports, so that the guest's disks are its own. */
export const finishIncoming = Effect.fn("finishIncoming")(function* (
  machine: Machine,
  qmp: Qmp
): Effect.fn.Return<void, HypervisorError> {
  const vm = machine.vm
  for (let waitedMs = 0; ; waitedMs += POLL_MS) {
    const info = migrationInfo(yield* ask(qmp, vm, "query-migrate"))
    if (info.status === "failed") {
      return yield* fail(
        "resume",
        vm,
        "lost",
        `the machine did not arrive: ${info.error ?? "no reason told"}`
      )
    }
    if ((yield* runState(qmp, vm)) !== "inmigrate") break
    if (info.status === "none" || info.status === "setup") {
      return yield* fail("resume", vm, "wrong-state", "nothing has arrived yet")
    }
    if (waitedMs > ARRIVAL_MS) {
      return yield* fail("resume", vm, "timeout", `the machine has not arrived after ${ARRIVAL_MS} ms`)
    }
    yield* Effect.sleep(POLL_MS)
  }
  const exports = (yield* ask(qmp, vm, "query-block-exports")) as ReadonlyArray<unknown>
  if (exports.length === 0) return
  yield* ask(qmp, vm, "nbd-server-stop")
  // The end of the copies was written, not synced, and the guest may have synced it at the source. It stands already:
  // what `stop` does then is to flush every disk.
  yield* ask(qmp, vm, "stop")
})
