/**
 * Live facts as server-sent events (HTML Living Standard, 9.2). `id` is the position, so a client that comes back
 * with `Last-Event-ID` misses nothing. A subscriber that reads slowly is read for slowly: nothing is queued for it.
 */
import { Effect, Stream } from "effect"
import type { Context } from "effect"
import { HttpServerResponse } from "effect/http"
import type { Recorded } from "../../events/envelope.ts"
import type { EventStore } from "../../kernel/ports/event-store.ts"
import { InvalidRequest, Overloaded, StoreUnavailable } from "./problems.ts"

export interface EventsQuery {
  /** Send what comes after this position; the head when null. */
  readonly after: number | null
  /** Only this stream, or with a slash at the end only this kind. */
  readonly stream: string | undefined
}

export interface EventsLimits {
  readonly subscribers_max: number
  readonly heartbeatMs: number
  /** When this ends the streams end: a server that stops would wait for its subscribers else. */
  readonly stopping: Effect.Effect<void>
}

const encoder = new TextEncoder()

export const renderEvent = (fact: Recorded): string =>
  `id: ${fact.position}\nevent: ${fact.type}\ndata: ${JSON.stringify(fact)}\n\n`

/** Tells a client that lost the link to wait so long before it comes back. */
const retryMs = 2000

const matches = (wanted: string | undefined) => (fact: Recorded) =>
  wanted === undefined || (wanted.endsWith("/") ? fact.stream.startsWith(wanted) : fact.stream === wanted)

export const makeEvents = (store: Context.Service.Shape<typeof EventStore>, limits: EventsLimits) => {
  let subscribers = 0
  return Effect.fnUntraced(function* ({ after, stream }: EventsQuery) {
    const head = yield* store.head.pipe(
      Effect.mapError((error) => new StoreUnavailable({ detail: error.reason }))
    )
    const start = after ?? head.position
    if (start > head.position) {
      const allowed = `a position from 0 to ${head.position}, the head of this store`
      return yield* new InvalidRequest({ errors: [{ path: "query.after", value: start, allowed }] })
    }
    if (subscribers >= limits.subscribers_max) {
      const detail = `${subscribers} subscribers are served, at most ${limits.subscribers_max} may be`
      return yield* new Overloaded({ detail, retryAfterSeconds: 5 })
    }
    const opening = Stream.make(`retry: ${retryMs}\n: facts after ${start}\n\n`)
    const facts = store.subscribe(start).pipe(Stream.filter(matches(stream)), Stream.map(renderEvent))
    const heartbeats = Stream.tick(limits.heartbeatMs).pipe(
      Stream.drop(1),
      Stream.map(() => ": heartbeat\n\n")
    )
    const live = Stream.merge(facts, heartbeats, { haltStrategy: "left" }).pipe(
      Stream.interruptWhen(limits.stopping)
    )
    const counted = Stream.unwrap(
      Effect.acquireRelease(
        Effect.sync(() => {
          subscribers += 1
        }),
        () =>
          Effect.sync(() => {
            subscribers -= 1
          })
      ).pipe(Effect.as(Stream.concat(opening, live)))
    )
    const bytes = Stream.map(counted, (text) => encoder.encode(text))
    return HttpServerResponse.stream(bytes, {
      contentType: "text/event-stream",
      headers: { "cache-control": "no-store", "x-accel-buffering": "no" }
    })
  })
}
