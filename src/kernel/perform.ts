/**
 * Requests go to ports, their answers come back as reports. Every request runs in a fiber of its own under its
 * idempotency key; after a restart the outstanding ones are performed again with the same keys.
 */
import { Clock, Effect, FiberSet, Option, Schedule, Semaphore, Stream } from "effect"
import type { Fiber } from "effect"
import type { Message } from "../events/envelope.ts"
import type { HypervisorReport, Report, Request } from "../events/requests.ts"
import { changeGroup } from "./group-change.ts"
import type { Mailbox } from "./mailbox.ts"
import { Agents, AgentUnreachable } from "./ports/agents.ts"
import { Components } from "./ports/components.ts"
import { Consensus } from "./ports/consensus.ts"
import { Views } from "./ports/views.ts"
import type { SubmitError } from "./refusals.ts"
import type { Outstanding } from "./turn.ts"

export interface PerformOptions {
  /** How long a host may be out of reach before its request is answered with `lost`. */
  readonly unreachableMs?: number
  /** Requests at hosts at the same time; more wait. */
  readonly concurrent_max?: number
}

type Of<Port extends Request["port"]> = Extract<Request, { readonly port: Port }>

const retryPause = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("2 seconds")])

interface Running {
  readonly fiber: Fiber.Fiber<void>
  readonly stream: string
  /** Whom it asks; null for what asks no host. */
  readonly host: string | null
}

interface Performing {
  readonly mailbox: Mailbox["Service"]
  readonly agents: Agents["Service"]
  readonly components: Components
  readonly views: Views["Service"]
  /** Null where this kernel decides alone. */
  readonly order: Consensus["Service"] | null
  readonly places: Semaphore.Semaphore
  readonly unreachableMs: number
}

const mayPass = ({ _tag }: SubmitError) =>
  _tag === "StoreFailure" || _tag === "Overloaded" || _tag === "Unavailable"

/** Submit a report until the mailbox has it: an answer that is lost would leave its request open for ever. */
const report = (
  { mailbox }: Performing,
  stream: string,
  asked: Outstanding,
  message: Message,
  final: boolean
): Effect.Effect<void> =>
  mailbox
    .submit({
      stream,
      message,
      id: asked.key,
      correlation: asked.correlation,
      principal: { kind: "system", name: asked.request.port },
      answers: { key: asked.key, final }
    })
    .pipe(Effect.retry({ schedule: retryPause, while: mayPass }), Effect.ignore)

/** Tell another actor; its acceptance or refusal is the answer. */
const tell = (
  { mailbox }: Performing,
  stream: string,
  asked: Outstanding,
  { to, command }: Of<"actor">
): Effect.Effect<Report> =>
  mailbox
    .submit({
      stream: to,
      message: command as Message,
      id: asked.key,
      correlation: asked.correlation,
      principal: { kind: "actor", name: stream },
      answers: null
    })
    .pipe(
      Effect.retry({ schedule: retryPause, while: mayPass }),
      Effect.match({
        onSuccess: (): Report => ({ type: "actor.accepted", to, command: command.type }),
        onFailure: (error): Report => ({
          type: "actor.refused",
          to,
          command: command.type,
          reason: error.message.slice(0, 2000)
        })
      })
    )

/** What is read here of a host's actor. */
interface Fenced {
  readonly fencedMs?: number | null
}

/**
 * Of a fenced host nothing is asked. When it is back it is asked for what is newer than that: what is older may be under way
 * elsewhere by now.
 */
function isOverAt({ mailbox }: Performing, { askedMs }: Outstanding, host: string): boolean {
  const chart = mailbox.resident().get(`host/${host}`)?.chart
  const { fencedMs = null } = (chart?.context ?? {}) as Fenced
  return fencedMs !== null && (chart?.value === "fenced" || askedMs <= fencedMs)
}

/**
 * Ask the host's agent, again and again while it is out of reach, until `unreachableMs` have gone by, or the host is fenced.
 */
const askHost = (
  performing: Performing,
  stream: string,
  asked: Outstanding,
  request: Of<"hypervisor">
): Effect.Effect<void> => {
  let firstFailureMs: number | null = null
  const { agents, order } = performing
  const perform = Stream.suspend(() => {
    if (isOverAt(performing, asked, request.host))
      return Stream.fail(new AgentUnreachable({ host: request.host, reason: "the host was fenced" }))
    if (order === null || order.leadsNow()) return agents.perform(asked.key, request)
    // Whoever leads now asks under the same key. This node stood still, or hears from no majority: it may know old things only.
    const reason = `${order.node} has not heard from a majority, and asks nobody`
    return Stream.fail(new AgentUnreachable({ host: request.host, reason }))
  })
  return perform.pipe(
    Stream.runForEach((message) => {
      firstFailureMs = null
      return report(performing, stream, asked, message, concludes(message))
    }),
    Effect.catchTag("AgentUnreachable", (error) =>
      Effect.gen(function* () {
        // Of the clock that nobody sets.
        const now = Number((yield* Clock.monotonicTimeNanos) / 1_000_000n)
        firstFailureMs ??= now
        const isOver = isOverAt(performing, asked, request.host)
        if (!isOver && now - firstFailureMs < performing.unreachableMs) return yield* error
        const reason = error.reason.slice(0, 2000)
        const lost: Report = { type: "hypervisor.failed", op: request.op, code: "lost", reason }
        yield* report(performing, stream, asked, lost, true)
      })
    ),
    Effect.retry({ schedule: retryPause }),
    performing.places.withPermit,
    Effect.ignore
  )
}

const awaitTimer = Effect.fnUntraced(function* (
  performing: Performing,
  stream: string,
  asked: Outstanding,
  request: Extract<Of<"timer">, { op: "start" }>
) {
  const now = yield* Clock.currentTimeMillis
  // The clock by which it was asked may have been ahead of this one: that makes no timer longer than it is.
  const leftMs = asked.askedMs + request.afterMs - now
  yield* Effect.sleep(Math.min(request.afterMs, Math.max(0, leftMs)))
  yield* report(performing, stream, asked, { type: "timer.fired", name: request.name }, true)
})

/** The work of a request, and under which name it runs: a new timer of a name takes the old one's place. */
function workOf(
  performing: Performing,
  stream: string,
  asked: Outstanding
): readonly [string, Effect.Effect<void>] {
  const { request, key } = asked
  switch (request.port) {
    case "timer":
      return [
        `${stream}!${request.name}`,
        request.op === "start" ? awaitTimer(performing, stream, asked, request) : Effect.void
      ]
    case "actor":
      return [
        key,
        Effect.flatMap(tell(performing, stream, asked, request), (answer) =>
          report(performing, stream, asked, answer, true)
        )
      ]
    case "view": {
      const position = performing.mailbox.resident().get(stream)?.position ?? 0
      const { views } = performing
      const looked: Effect.Effect<Message> =
        request.op === "hosts"
          ? Effect.map(views.hosts(position, request), (view) => ({ type: "view.hosts", ...view }))
          : Effect.map(views.loads(position, request), (view) => ({ type: "view.loads", ...view }))
      return [key, Effect.flatMap(looked, (told) => report(performing, stream, asked, told, true))]
    }
    case "hypervisor":
      return [key, askHost(performing, stream, asked, request)]
    case "group":
      return [
        key,
        Effect.flatMap(changeGroup(performing.order, request), (answer) =>
          report(performing, stream, asked, answer, true)
        )
      ]
    // Only ends others, before there is any work.
    case "agents":
      return [key, Effect.void]
    case "component":
      return [
        key,
        Effect.flatMap(performing.components.perform(request), (answer) =>
          report(performing, stream, asked, answer, true)
        )
      ]
  }
}

/**
 * Performs what the mailbox hands on, from `start` on, with what was outstanding then, until `stop`. What hosts were asked for goes on
 * there; whoever performs next asks again under the same keys.
 */
export const makePerformer = Effect.fn("Performer.make")(function* (
  mailbox: Mailbox["Service"],
  options: PerformOptions = {}
) {
  const performing: Performing = {
    mailbox,
    agents: yield* Agents,
    components: yield* Components,
    views: yield* Views,
    order: Option.getOrNull(yield* Effect.serviceOption(Consensus)),
    places: Semaphore.makeUnsafe(options.concurrent_max ?? 256),
    unreachableMs: options.unreachableMs ?? 30_000
  }
  const fork = yield* FiberSet.makeRuntime<never, void, never>()
  const running = new Map<string, Running>()
  let isPerforming = false
  const perform = (stream: string, asked: Outstanding): void => {
    const { request } = asked
    if (request.port === "agents") {
      for (const one of running.values())
        if (one.stream === stream && one.host === request.host) one.fiber.interruptUnsafe()
      return
    }
    const [name, work] = workOf(performing, stream, asked)
    running.get(name)?.fiber.interruptUnsafe()
    const fiber = fork(work)
    running.set(name, { fiber, stream, host: request.port === "hypervisor" ? request.host : null })
    fiber.addObserver(() => {
      if (running.get(name)?.fiber === fiber) running.delete(name)
    })
  }
  mailbox.onRequests((stream, asked) => {
    if (isPerforming) for (const one of asked) perform(stream, one)
  })
  return {
    isPerforming: () => isPerforming,
    start: () => {
      isPerforming = true
      for (const actor of mailbox.resident().values()) {
        for (const asked of actor.outstanding) perform(actor.stream, asked)
      }
    },
    stop: () => {
      isPerforming = false
      const all = [...running.values()]
      running.clear()
      for (const { fiber } of all) fiber.interruptUnsafe()
    }
  }
})

/** Progress and the hand-over are followed by more; everything else is the last word. */
function concludes(report: HypervisorReport): boolean {
  return report.type !== "hypervisor.progressed" && report.type !== "hypervisor.handedOver"
}
