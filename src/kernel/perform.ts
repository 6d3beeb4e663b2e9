/**
 * Requests go to ports, their answers come back as reports. Every request runs in a fiber of its own under its
 * idempotency key; after a restart the outstanding ones are performed again with the same keys.
 */
import { Clock, Effect, FiberMap, Schedule, Semaphore, Stream } from "effect"
import type { Message } from "../events/envelope.ts"
import type { HypervisorReport, Report, Request } from "../events/requests.ts"
import type { Mailbox } from "./mailbox.ts"
import { Agents } from "./ports/agents.ts"
import { Views } from "./ports/views.ts"
import type { Outstanding } from "./turn.ts"

export interface PerformOptions {
  /** How long a host may be out of reach before its request is answered with `lost`. */
  readonly unreachableMs?: number
  /** Requests at hosts at the same time; more wait. */
  readonly concurrent_max?: number
}

type Concluding = { readonly report: Message; readonly final: boolean }

const retryPause = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("2 seconds")])

/** Begin to perform what the mailbox hands on. Returns the function that performs outstanding requests again. */
export const makePerformer = Effect.fn("Performer.make")(function* (
  mailbox: Mailbox["Service"],
  options: PerformOptions = {}
) {
  const agents = yield* Agents
  const views = yield* Views
  const running = yield* FiberMap.make<string>()
  const places = Semaphore.makeUnsafe(options.concurrent_max ?? 256)
  const unreachableMs = options.unreachableMs ?? 30_000
  const run = yield* FiberMap.runtime(running)<never>()

  /** Submit a report until the mailbox has it: an answer that is lost would leave its request open for ever. */
  const report = (stream: string, asked: Outstanding, { report, final }: Concluding) =>
    mailbox
      .submit({
        stream,
        message: report,
        id: asked.key,
        correlation: asked.correlation,
        principal: { kind: "system", name: asked.request.port },
        answers: { key: asked.key, final }
      })
      .pipe(
        Effect.retry({
          schedule: retryPause,
          while: (error) => error._tag === "StoreFailure" || error._tag === "Overloaded"
        }),
        Effect.ignore
      )

  const tell = (stream: string, asked: Outstanding, request: Extract<Request, { port: "actor" }>) =>
    mailbox
      .submit({
        stream: request.to,
        message: request.command as Message,
        id: asked.key,
        correlation: asked.correlation,
        principal: { kind: "actor", name: stream },
        answers: null
      })
      .pipe(
        Effect.retry({
          schedule: retryPause,
          while: (error) => error._tag === "StoreFailure" || error._tag === "Overloaded"
        }),
        Effect.match({
          onSuccess: (): Report => ({
            type: "actor.accepted",
            to: request.to,
            command: request.command.type
          }),
          onFailure: (error): Report => ({
            type: "actor.refused",
            to: request.to,
            command: request.command.type,
            reason: error.message.slice(0, 2000)
          })
        })
      )

  const atHost = (stream: string, asked: Outstanding, request: Extract<Request, { port: "hypervisor" }>) => {
    let firstFailureMs: number | null = null
    const attempt = agents.perform(asked.key, request).pipe(
      Stream.runForEach((message) => {
        firstFailureMs = null
        return report(stream, asked, { report: message, final: concludes(message) })
      })
    )
    return attempt.pipe(
      Effect.catchTag("AgentUnreachable", (error) =>
        Effect.gen(function* () {
          const now = yield* Clock.currentTimeMillis
          firstFailureMs ??= now
          if (now - firstFailureMs < unreachableMs) return yield* error
          const lost: Report = {
            type: "hypervisor.failed",
            op: request.op,
            code: "lost",
            reason: error.reason
          }
          yield* report(stream, asked, { report: lost, final: true })
        })
      ),
      Effect.retry({ schedule: retryPause }),
      places.withPermit,
      Effect.ignore
    )
  }

  const timer = Effect.fnUntraced(function* (
    stream: string,
    asked: Outstanding,
    request: Extract<Request, { port: "timer"; op: "start" }>
  ) {
    const now = yield* Clock.currentTimeMillis
    yield* Effect.sleep(Math.max(0, asked.askedMs + request.afterMs - now))
    yield* report(stream, asked, { report: { type: "timer.fired", name: request.name }, final: true })
  })

  const perform = (stream: string, asked: Outstanding): void => {
    const { request } = asked
    switch (request.port) {
      case "timer": {
        const name = `${stream}!${request.name}`
        if (request.op === "start") run(name, timer(stream, asked, request))
        else run(name, Effect.void)
        return
      }
      case "actor": {
        const told = tell(stream, asked, request)
        run(
          asked.key,
          Effect.flatMap(told, (answer) => report(stream, asked, { report: answer, final: true }))
        )
        return
      }
      case "view": {
        const position = mailbox.resident().get(stream)?.position ?? 0
        const seen = Effect.map(views.hosts(position), (view) => ({ type: "view.hosts", ...view }))
        run(
          asked.key,
          Effect.flatMap(seen, (answer) => report(stream, asked, { report: answer, final: true }))
        )
        return
      }
      case "hypervisor":
        run(asked.key, atHost(stream, asked, request))
    }
  }

  mailbox.onRequests((stream, asked) => {
    for (const one of asked) perform(stream, one)
  })
  return {
    recover: () => {
      for (const actor of mailbox.resident().values()) {
        for (const asked of actor.outstanding) perform(actor.stream, asked)
      }
    }
  }
})

/** Progress and the hand-over are followed by more; everything else is the last word. */
function concludes(report: HypervisorReport): boolean {
  return report.type !== "hypervisor.progressed" && report.type !== "hypervisor.handedOver"
}
