/**
 * What runs on each host: takes the requests for its machines, and performs them through the hypervisor and the
 * transport. Work belongs to the agent and not to who asked for it: when the link to the kernel breaks it goes on,
 * and asking again with the same key joins it, or gets the answer it had.
 */
import { Clock, Context, Effect, Exit, FiberSet, Layer, Schedule, Stream } from "effect"
import type { HypervisorReport, HypervisorRequest } from "../events/requests.ts"
import type { VmCommand } from "../events/vm.ts"
import { Hypervisor } from "./ports/hypervisor.ts"
import type { Arriving, HypervisorError } from "./ports/hypervisor.ts"
import { SharedWork } from "./shared-work.ts"
import { Transport } from "./ports/transport.ts"
import type { TransportError } from "./ports/transport.ts"

export interface Ended {
  readonly vm: string
  readonly command: Extract<VmCommand, { type: "vm.reportEnded" }>
}

export class HostAgent extends Context.Service<
  HostAgent,
  {
    /** The reports of this request, from the first; the last one concludes it. Never fails. */
    readonly perform: (key: string, request: HypervisorRequest) => Stream.Stream<HypervisorReport>
    /** What to tell the actors of machines whose guest ended by itself. */
    readonly ended: Stream.Stream<Ended>
  }
>()("novacron/kernel/HostAgent") {
  static readonly layer = (host: string) => Layer.effect(HostAgent, makeAgent(host))
}

const reopenPauseMs = 500
/** Finished requests whose answer is kept, for who asks again. */
const finished_max = 512
type Job = SharedWork<HypervisorReport, never>
type Failure = HypervisorError | TransportError
type Work = Stream.Stream<HypervisorReport, Failure>

const makeAgent = Effect.fn("HostAgent.make")(function* (host: string) {
  const hypervisor = yield* Hypervisor
  const transport = yield* Transport
  const run = yield* FiberSet.makeRuntime<never, void, never>()
  const jobs = new Map<string, Job>()

  /** Transfers into this host, by machine, until the machine runs here and the last byte has come. */
  const arriving = new Map<string, string>()

  // Of before a restart: the source goes on as soon as it is let in.
  const letIn = Effect.fnUntraced(function* ({ vm, migration, from, channels }: Arriving) {
    arriving.set(vm, migration)
    yield* transport.accept(migration, from, channels)
    run(closedWhenQuiet({ hypervisor, transport }, migration))
  })
  yield* Effect.flatMap(hypervisor.arriving, (all) => Effect.forEach(all, letIn, { discard: true })).pipe(
    Effect.catch((error) => Effect.logWarning(`what arrives is not let in again: ${error.message}`))
  )

  const begin = (key: string, request: HypervisorRequest): Job => {
    const job: Job = new SharedWork((report) => report.type === "hypervisor.progressed")
    jobs.set(key, job)
    if (request.op === "prepareIncoming") arriving.set(request.vm, request.migration)
    const arrived = request.op === "resume" ? arriving.get(request.vm) : undefined
    const work = workOf(request, { hypervisor, transport }).pipe(
      Stream.filterEffect(worthTelling()),
      Stream.runForEach((report) => Effect.sync(() => job.say(report))),
      Effect.tap(() =>
        Effect.sync(() => {
          if (arrived !== undefined) run(closedWhenQuiet({ hypervisor, transport }, arrived))
          if (arrived !== undefined || request.op === "remove") arriving.delete(request.vm)
        })
      ),
      Effect.catch((error) => Effect.sync(() => job.say(failureOf(request, error)))),
      Effect.catchDefect((defect) =>
        Effect.gen(function* () {
          yield* Effect.logError(`${request.op} of ${request.vm} met a defect`, defect)
          const reason = "the agent met a defect; its log has it"
          job.say({ type: "hypervisor.failed", op: request.op, code: "failed", reason })
        })
      ),
      Effect.ensuring(
        Effect.sync(() => {
          job.end(Exit.void)
          forget(jobs)
        })
      )
    )
    run(work)
    return job
  }

  return HostAgent.of({
    perform: (key, request) =>
      Stream.unwrap(Effect.sync(() => (jobs.get(key) ?? begin(key, request)).read())),
    ended: Stream.map(hypervisor.ended, ({ vm, cause, reason }) => ({
      vm,
      command: { type: "vm.reportEnded", host, cause, reason: reason.slice(0, 2000) }
    }))
  })
})

/** The oldest finished ones go; what runs stays. */
function forget(jobs: Map<string, Job>): void {
  let surplus = jobs.size - finished_max
  for (const [key, job] of jobs) {
    if (surplus <= 0) return
    if (!job.done) continue
    jobs.delete(key)
    surplus--
  }
}

function failureOf(request: HypervisorRequest, error: Failure): HypervisorReport {
  const code = error._tag === "HypervisorError" ? error.code : "lost"
  const reason = error._tag === "HypervisorError" ? error.reason : `the transfer: ${error.reason}`
  return { type: "hypervisor.failed", op: request.op, code, reason: reason.slice(0, 2000) }
}

interface Ports {
  readonly hypervisor: Hypervisor["Service"]
  readonly transport: Transport["Service"]
}
type Of<Op extends HypervisorRequest["op"]> = Extract<HypervisorRequest, { readonly op: Op }>

/** Done, and then always the same answer. */
const then = (done: Effect.Effect<unknown, Failure>, report: HypervisorReport): Work =>
  Stream.fromEffect(Effect.as(done, report))

const answer = (report: Effect.Effect<HypervisorReport, Failure>): Work => Stream.fromEffect(report)

const operations: {
  readonly [Op in HypervisorRequest["op"]]: (request: Of<Op>, ports: Ports) => Work
} = {
  define: ({ vm, spec, cloneOf }, { hypervisor }) =>
    then(hypervisor.define(vm, spec, cloneOf), { type: "hypervisor.defined" }),
  start: ({ vm }, { hypervisor }) =>
    answer(Effect.map(hypervisor.start(vm), (started) => ({ type: "hypervisor.started", ...started }))),
  stop: ({ vm, force }, { hypervisor }) =>
    then(hypervisor.stop(vm, { force }), { type: "hypervisor.stopped" }),
  pause: ({ vm }, { hypervisor }) => then(hypervisor.pause(vm), { type: "hypervisor.paused" }),
  resume: ({ vm }, { hypervisor }) => then(hypervisor.resume(vm), { type: "hypervisor.resumed" }),
  reboot: ({ vm }, { hypervisor }) => then(hypervisor.reboot(vm), { type: "hypervisor.rebooted" }),
  remove: ({ vm, keepShared = false }, { hypervisor }) =>
    then(hypervisor.remove(vm, { keepShared }), { type: "hypervisor.removed" }),
  snapshot: ({ vm, snapshot }, { hypervisor }) =>
    answer(
      Effect.map(hypervisor.snapshot(vm, snapshot), (taken) => ({
        type: "hypervisor.snapshotTaken",
        ...taken
      }))
    ),
  restore: ({ vm, snapshot }, { hypervisor }) =>
    then(hypervisor.restore(vm, snapshot), { type: "hypervisor.restored" }),
  observe: ({ vm }, { hypervisor }) =>
    answer(Effect.map(hypervisor.observe(vm), (state) => ({ type: "hypervisor.observed", state }))),
  checkIncoming: ({ vm, spec, platform }, { hypervisor }) =>
    answer(
      Effect.map(hypervisor.checkIncoming(vm, spec, platform), (blockers) => ({
        type: "hypervisor.checked",
        blockers
      }))
    ),
  prepareIncoming: (request, { hypervisor, transport }) =>
    answer(
      Effect.gen(function* () {
        const { vm, spec, platform, migration, from, timeoutMs, postCopy } = request
        const arrival = { migration, from, timeoutMs, postCopy }
        const channels = yield* hypervisor.prepareIncoming(vm, spec, arrival, platform)
        yield* transport.accept(migration, from, channels)
        return { type: "hypervisor.incomingPrepared", channels: channels.map(({ name }) => name) } as const
      })
    ),
  migrate: ({ vm, migration, address, channels, policy }, { hypervisor, transport }) =>
    Stream.unwrap(
      Effect.gen(function* () {
        // Since before this agent was started: what is left here is the guest's memory, so its link is waited for.
        const isSending = hypervisor.isSending(vm, migration)
        const isResumed = yield* isSending
        const opened = yield* transport.open(migration, address, channels, isResumed).pipe(
          Effect.retry({
            while: () => Effect.orElseSucceed(isSending, () => false),
            schedule: Schedule.spaced(reopenPauseMs),
            times: Math.ceil(policy.timeoutMs / reopenPauseMs)
          })
        )
        return hypervisor.migrate(vm, migration, opened, policy)
      })
    ).pipe(Stream.ensuring(closed(transport, migration))),
  cancelMigration: ({ vm, migration }, { hypervisor, transport }) =>
    then(Effect.ensuring(hypervisor.cancelMigration(vm, migration), closed(transport, migration)), {
      type: "hypervisor.migrationCancelled"
    }),
  settleArrival: ({ vm, migration }, { hypervisor }) =>
    answer(
      Effect.map(hypervisor.settleArrival(vm, migration), (whole) => ({
        type: "hypervisor.arrivalSettled",
        whole
      }))
    ),
  abandonIncoming: ({ vm, migration }, { hypervisor, transport }) =>
    then(Effect.andThen(closed(transport, migration), hypervisor.abandonIncoming(vm, migration)), {
      type: "hypervisor.incomingAbandoned"
    })
}

const workOf = <Op extends HypervisorRequest["op"]>(request: Of<Op>, ports: Ports): Work =>
  (operations[request.op] as (request: Of<Op>, ports: Ports) => Work)(request, ports)

const closed = (transport: Transport["Service"], transfer: string) => Effect.ignore(transport.close(transfer))

/** Each report becomes a fact: progress is told when the phase changes, and twice a second while there is any. */
const progressEveryMs = 500

function worthTelling(): (report: HypervisorReport) => Effect.Effect<boolean> {
  let told = { phase: "", reached: "", atMs: 0 }
  return (report) =>
    Effect.map(Clock.currentTimeMillis, (atMs) => {
      if (report.type !== "hypervisor.progressed") return true
      const { phase, iteration, transferredBytes, remainingBytes } = report.progress
      const reached = `${iteration} ${transferredBytes} ${remainingBytes}`
      // One that stands still, as a post-copy without its link, has nothing to tell.
      if (phase === told.phase && (reached === told.reached || atMs - told.atMs < progressEveryMs))
        return false
      told = { phase, reached, atMs }
      return true
    })
}

const quietMs = 300_000
const quietChecks_max = 2016

/**
 * The destination can't see that the source has sent its last byte, so it waits until nothing has come for a while. A
 * machine that has not come whole, because the link of its post-copy is away, is waited for as long as its hypervisor does.
 */
const closedWhenQuiet = Effect.fnUntraced(function* ({ hypervisor, transport }: Ports, transfer: string) {
  const isArriving = Effect.map(hypervisor.arriving, (all) =>
    all.some(({ migration }) => migration === transfer)
  ).pipe(Effect.orElseSucceed(() => false))
  let before = -1
  for (let check = 0; check < quietChecks_max; check++) {
    const statistics = yield* Effect.option(transport.statistics(transfer))
    if (statistics._tag === "None") break
    const { receivedBytes } = statistics.value
    if (receivedBytes === before && !(yield* isArriving)) break
    before = receivedBytes
    yield* Effect.sleep(quietMs)
  }
  yield* closed(transport, transfer)
})
