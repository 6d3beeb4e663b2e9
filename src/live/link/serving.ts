/** The server's side of requests: one fiber each, at most `requestsMax`, sending no more than was granted. */
import { Cause, Effect, FiberSet, Latch, Option, Stream } from "effect"
import type { Fiber, Scope } from "effect"
import { LinkCredit, LinkRequest } from "../../events/link.ts"
import type { Hello } from "../../events/link.ts"
import type { LinkError, LinkHandler } from "../../kernel/ports/link.ts"
import { decodePayload, encodeFrame, encodeJson, FrameError, frameType } from "./frames.ts"
import type { Frame } from "./frames.ts"
import type { Agreement } from "./negotiation.ts"
import type { Wire } from "./wire.ts"

/** More is never granted at a time by a sound caller. */
const creditMax = 2048

interface Served {
  credit: number
  readonly granted: Latch.Latch
  fiber: Fiber.Fiber<void> | null
}

interface ServingOptions {
  readonly hello: Hello
  readonly handlers: ReadonlyMap<string, LinkHandler>
  /** Of the other side's certificate. */
  readonly serial: string
}

class ReplyTooLarge {
  readonly _tag = "ReplyTooLarge"
  readonly reason: string
  constructor(bytes: number, bytesMax: number) {
    this.reason = `a reply has ${bytes} octets; the caller takes ${bytesMax}`
  }
}

type Run = (effect: Effect.Effect<void>) => Fiber.Fiber<void>

export class Serving {
  readonly #wire: Wire
  readonly #agreement: Agreement
  readonly #options: ServingOptions
  readonly #run: Run
  readonly #open = new Map<number, Served>()

  private constructor(wire: Wire, agreement: Agreement, options: ServingOptions, run: Run) {
    this.#wire = wire
    this.#agreement = agreement
    this.#options = options
    this.#run = run
  }

  /** The scope's end interrupts what is being served. */
  static make(
    wire: Wire,
    agreement: Agreement,
    options: ServingOptions
  ): Effect.Effect<Serving, never, Scope.Scope> {
    return Effect.map(
      FiberSet.makeRuntime<never, void, never>(),
      (run) => new Serving(wire, agreement, options, run)
    )
  }

  request(frame: Frame): void {
    const request = decodePayload(LinkRequest, frame)
    const { id } = frame
    if (this.#open.has(id)) throw new FrameError({ code: "payload", reason: `request ${id} is open already` })
    const requestsMax = this.#options.hello.requestsMax
    if (this.#open.size >= requestsMax) {
      return this.#fail(id, "busy", `${requestsMax} requests are being served, which is the limit`)
    }
    const handler = this.#options.handlers.get(request.kind)
    if (handler === undefined) return this.#fail(id, "unknown-kind", `${request.kind} is not served here`)
    const served: Served = { credit: request.credit, granted: Latch.makeUnsafe(true), fiber: null }
    this.#open.set(id, served)
    served.fiber = this.#run(this.#serve(id, served, handler, request.payload))
  }

  cancel(id: number): void {
    this.#open.get(id)?.fiber?.interruptUnsafe()
  }

  credit(frame: Frame): void {
    const { credit } = decodePayload(LinkCredit, frame)
    const served = this.#open.get(frame.id)
    if (served === undefined) return
    served.credit += credit
    if (served.credit > creditMax) {
      throw new FrameError({ code: "payload", reason: `more than ${creditMax} replies granted at a time` })
    }
    served.granted.openUnsafe()
  }

  #serve(id: number, served: Served, handler: LinkHandler, payload: unknown): Effect.Effect<void> {
    return Stream.suspend(() => handler(this.#wire.peer, payload, this.#options.serial)).pipe(
      Stream.runForEach((item) => this.#reply(id, served, item)),
      Effect.matchCauseEffect({
        onSuccess: () => this.#wire.send(encodeFrame(frameType.end, id)),
        onFailure: (cause) => this.#failed(id, cause)
      }),
      Effect.ignore,
      Effect.ensuring(Effect.sync(() => this.#open.delete(id)))
    )
  }

  #reply(id: number, served: Served, item: unknown): Effect.Effect<void, LinkError | ReplyTooLarge> {
    return Effect.gen({ self: this }, function* () {
      while (served.credit <= 0) {
        served.granted.closeUnsafe()
        yield* served.granted.await
      }
      served.credit -= 1
      const frame = encodeJson(frameType.reply, id, item)
      const bytes = frame.length - 4
      if (bytes > this.#agreement.frameBytesMax) {
        return yield* Effect.fail(new ReplyTooLarge(bytes, this.#agreement.frameBytesMax))
      }
      yield* this.#wire.send(frame)
    })
  }

  /** What a handler throws is our bug and stays in our log; the caller learns only that there was one. */
  #failed(id: number, cause: Cause.Cause<{ readonly _tag: string; readonly reason: string }>) {
    if (Cause.hasInterruptsOnly(cause)) return Effect.void
    const error = Option.getOrNull(Cause.findErrorOption(cause))
    if (error === null) {
      this.#fail(id, "failed", "the handler broke; the serving node's log says how")
      return Effect.logError("a link handler broke", cause)
    }
    if (error._tag === "ReplyTooLarge") this.#fail(id, "too-large", error.reason)
    else if (error._tag === "HandlerFailed") this.#fail(id, "failed", error.reason)
    return Effect.void
  }

  #fail(id: number, code: string, reason: string): void {
    this.#wire.sendNow(encodeJson(frameType.fail, id, { code, reason: reason.slice(0, 2048) }))
  }
}
