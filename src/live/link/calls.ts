/** The caller's side of requests: at most `credit` replies wait here for each, then the server waits. */
import { Cause, Effect, Queue, Stream } from "effect"
import { LinkFailure } from "../../events/link.ts"
import { LinkError } from "../../kernel/ports/link.ts"
import { decodePayload, encodeFrame, encodeJson, FrameError, frameType, overheadBytes } from "./frames.ts"
import type { Frame } from "./frames.ts"
import type { Agreement } from "./negotiation.ts"
import type { Wire } from "./wire.ts"

/** Replies that the server may send ahead of their being taken. */
const window = 32

interface Call {
  readonly queue: Queue.Queue<unknown, LinkError | Cause.Done>
  /** Taken since the last grant. */
  taken: number
}

export class Calls {
  readonly #wire: Wire
  readonly #agreement: Agreement
  readonly #open = new Map<number, Call>()
  #lastId = 0

  constructor(wire: Wire, agreement: Agreement) {
    this.#wire = wire
    this.#agreement = agreement
  }

  request(kind: string, payload: unknown): Stream.Stream<unknown, LinkError> {
    return Stream.unwrap(
      Effect.gen({ self: this }, function* () {
        const id = this.#nextId()
        const frame = encodeJson(frameType.request, id, { kind, credit: window, payload })
        const bytes = frame.length - 4
        if (bytes > this.#agreement.frameBytesMax) {
          const reason = `the request has ${bytes} octets; the peer takes ${this.#agreement.frameBytesMax}`
          return yield* this.#error("too-large", reason)
        }
        const call = yield* Effect.acquireRelease(this.#begin(id), () => this.#forget(id))
        yield* this.#wire.send(frame)
        return Stream.fromQueue(call.queue).pipe(Stream.tap(() => Effect.sync(() => this.#grant(id, call))))
      })
    )
  }

  /** A reply, an end or a failure. Those of a request that is not open any more are dropped. */
  answer(frame: Frame): void {
    const call = this.#open.get(frame.id)
    if (call === undefined) return
    if (frame.type === frameType.reply) {
      if (!Queue.offerUnsafe(call.queue, parse(frame))) {
        throw new FrameError({
          code: "payload",
          reason: `more replies to request ${frame.id} than were granted`
        })
      }
      return
    }
    this.#open.delete(frame.id)
    if (frame.type === frameType.end) {
      Queue.endUnsafe(call.queue)
      return
    }
    const failure = decodePayload(LinkFailure, frame)
    Queue.failCauseUnsafe(call.queue, Cause.fail(this.#error(failure.code, failure.reason)))
  }

  failAll(end: LinkError): void {
    for (const call of this.#open.values()) Queue.failCauseUnsafe(call.queue, Cause.fail(end))
    this.#open.clear()
  }

  readonly #begin = (id: number) =>
    Effect.suspend(() => {
      const end = this.#wire.end
      if (end !== null) return Effect.fail(end)
      if (this.#open.size >= this.#agreement.requestsMax) {
        const reason = `${this.#open.size} requests are under way; the peer serves ${this.#agreement.requestsMax}`
        return Effect.fail(this.#error("busy", reason))
      }
      const queue = Effect.runSync(Queue.bounded<unknown, LinkError | Cause.Done>(window))
      const call: Call = { queue, taken: 0 }
      this.#open.set(id, call)
      return Effect.succeed(call)
    })

  readonly #forget = (id: number) =>
    Effect.sync(() => {
      if (this.#open.delete(id)) this.#wire.sendNow(encodeFrame(frameType.cancel, id))
    })

  #grant(id: number, call: Call): void {
    call.taken += 1
    if (call.taken < window / 2 || !this.#open.has(id)) return
    this.#wire.sendNow(encodeJson(frameType.credit, id, { credit: call.taken }))
    call.taken = 0
  }

  #nextId(): number {
    do this.#lastId = this.#lastId === 0xffff_ffff ? 1 : this.#lastId + 1
    while (this.#open.has(this.#lastId))
    return this.#lastId
  }

  #error(code: LinkError["code"], reason: string): LinkError {
    return new LinkError({ node: this.#wire.peer, code, reason })
  }
}

export function parse(frame: Frame): unknown {
  try {
    return JSON.parse(frame.payload.toString("utf8"))
  } catch {
    const reason = `frame ${frame.type} with ${frame.payload.length + overheadBytes} octets is not JSON`
    throw new FrameError({ code: "payload", reason })
  }
}
