/**
 * One link: after the hello, requests with streams of replies in both directions, heartbeats, and one end.
 *
 *     caller                                server
 *       | request(id, kind, credit, payload) |
 *       |----------------------------------->|  handler's stream begins
 *       |            reply(id)  x credit     |
 *       |<-----------------------------------|  waits for credit
 *       | credit(id, n)                      |
 *       |----------------------------------->|
 *       |            end(id) | fail(id)      |  cancel(id) from the caller instead interrupts the handler
 *       |<-----------------------------------|
 */
import type { Duplex } from "node:stream"
import { Clock, Deferred, Effect } from "effect"
import type { Scope, Stream } from "effect"
import { Hello, Refusal } from "../../events/link.ts"
import { LinkError } from "../../kernel/ports/link.ts"
import type { LinkHandler } from "../../kernel/ports/link.ts"
import { Calls } from "./calls.ts"
import { decodePayload, encodeJson, FrameError, frameType } from "./frames.ts"
import type { Frame } from "./frames.ts"
import { Heartbeat } from "./heartbeat.ts"
import type { HeartbeatOptions } from "./heartbeat.ts"
import { negotiate } from "./negotiation.ts"
import type { Agreement } from "./negotiation.ts"
import { LinkSamples } from "./samples.ts"
import { Serving } from "./serving.ts"
import { Wire } from "./wire.ts"

export interface ConnectionOptions extends HeartbeatOptions {
  readonly hello: Hello
  /** The name in the other side's certificate. */
  readonly peer: string
  /** The node that dialled. */
  readonly dialler: string
  /** When the other side's certificate ends, milliseconds since the epoch. */
  readonly certificateEndsMs: number
  /** Of the other side's certificate. */
  readonly serial: string
  readonly helloTimeoutMs: number
  readonly handlers: ReadonlyMap<string, LinkHandler>
}

export interface Connection {
  readonly peer: string
  readonly dialler: string
  readonly agreement: Agreement
  readonly sinceMs: number
  readonly samples: LinkSamples
  /** Why it ended; waits until it does. */
  readonly closed: Effect.Effect<LinkError>
  readonly request: (kind: string, payload: unknown) => Stream.Stream<unknown, LinkError>
  readonly probe: (bytes: number) => Effect.Effect<number, LinkError>
  /** Whether it answers now; ended when it does not. */
  readonly look: Effect.Effect<boolean>
  readonly bye: (reason: Refusal) => void
}

/** Greet, agree and run the link on an authenticated socket until the scope closes or either side ends it. */
export const establish = Effect.fn("link.establish")(function* (
  socket: Duplex,
  options: ConnectionOptions
): Effect.fn.Return<Connection, LinkError, Scope.Scope> {
  const wire = yield* Effect.acquireRelease(
    Effect.sync(() => new Wire(socket, options.peer)),
    (wire) =>
      Effect.sync(() => {
        const reason: Refusal = { code: "refused", reason: "the node closes its link" }
        wire.finish(encodeJson(frameType.bye, 0, reason), reason.reason)
      })
  )
  const agreement = yield* greet(wire, options)
  const samples = new LinkSamples()
  const calls = new Calls(wire, agreement)
  const serving = yield* Serving.make(wire, agreement, options)
  const heartbeat = new Heartbeat(wire, samples, options)
  wire.decoder.frameBytesMax = options.hello.frameBytesMax
  wire.listen((frame) => dispatch(frame, wire, calls, serving, heartbeat))
  yield* Effect.forkScoped(heartbeat.run(options.certificateEndsMs))
  wire.onEnd((end) => calls.failAll(end))
  return {
    peer: options.peer,
    dialler: options.dialler,
    agreement,
    sinceMs: yield* Clock.currentTimeMillis,
    samples,
    closed: Deferred.await(wire.closed),
    request: (kind, payload) => calls.request(kind, payload),
    probe: (bytes) => heartbeat.probe(bytes, agreement),
    look: heartbeat.look(),
    bye: (refusal) => wire.finish(encodeJson(frameType.bye, 0, refusal), refusal.reason)
  }
})

/** Both sides send their hello at once; each reads the other's and comes to the same agreement. */
const greet = (wire: Wire, options: ConnectionOptions): Effect.Effect<Agreement, LinkError> =>
  Effect.callback<Frame, LinkError>((resume) => {
    wire.listen((frame) => {
      wire.hold()
      resume(Effect.succeed(frame))
    })
    wire.sendNow(encodeJson(frameType.hello, 0, options.hello))
  }).pipe(
    Effect.raceFirst(Effect.flatMap(Deferred.await(wire.closed), (end) => Effect.fail(end))),
    Effect.timeoutOrElse({
      duration: options.helloTimeoutMs,
      orElse: () => {
        const reason = `no hello within ${options.helloTimeoutMs} ms`
        wire.destroy("timeout", reason)
        return Effect.fail(new LinkError({ node: wire.peer, code: "timeout", reason }))
      }
    }),
    Effect.flatMap((frame) => agree(frame, wire, options))
  )

function agree(frame: Frame, wire: Wire, options: ConnectionOptions): Effect.Effect<Agreement, LinkError> {
  const failed = (code: LinkError["code"], reason: string) =>
    Effect.fail(new LinkError({ node: wire.peer, code, reason }))
  try {
    if (frame.type === frameType.refuse || frame.type === frameType.bye) {
      const refusal = decodePayload(Refusal, frame)
      wire.destroy("refused", refusal.reason)
      return failed("refused", `${refusal.code}: ${refusal.reason}`)
    }
    if (frame.type !== frameType.hello) {
      throw new FrameError({ code: "type", reason: `frame ${frame.type} instead of a hello` })
    }
    const answer = negotiate(options.hello, decodePayload(Hello, frame), options.peer)
    if (!("code" in answer)) return Effect.succeed(answer)
    wire.finish(encodeJson(frameType.refuse, 0, answer), answer.reason)
    return failed("refused", `${answer.code}: ${answer.reason}`)
  } catch (error) {
    if (!(error instanceof FrameError)) throw error
    wire.destroy("protocol", error.reason)
    return failed("protocol", error.reason)
  }
}

function dispatch(frame: Frame, wire: Wire, calls: Calls, serving: Serving, heartbeat: Heartbeat): void {
  switch (frame.type) {
    case frameType.ping:
      return heartbeat.ping(frame.id)
    case frameType.pong:
      return heartbeat.pong(frame.id)
    case frameType.probe:
      return
    case frameType.request:
      return serving.request(frame)
    case frameType.cancel:
      return serving.cancel(frame.id)
    case frameType.credit:
      return serving.credit(frame)
    case frameType.reply:
    case frameType.end:
    case frameType.fail:
      return calls.answer(frame)
    case frameType.refuse:
    case frameType.bye: {
      const refusal = decodePayload(Refusal, frame)
      return wire.destroy("lost", `${wire.peer} ended the link: ${refusal.code}: ${refusal.reason}`)
    }
    default:
      throw new FrameError({ code: "type", reason: `frame ${frame.type} does not belong on an agreed link` })
  }
}
