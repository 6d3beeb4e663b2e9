/** The journal, read: pages of facts, and an actor as it was at a position or a time. */
import { hash } from "node:crypto"
import { Effect } from "effect"
import type { Context } from "effect"
import type { ActorKind } from "../../kernel/actor.ts"
import type { EventStore, StoreFailure } from "../../kernel/ports/event-store.ts"
import { describe } from "../../kernel/statechart.ts"
import { replay } from "../../kernel/replay.ts"
import { apply, emptyActor, serialize } from "../../kernel/turn.ts"
import type { ActorState } from "../../kernel/turn.ts"
import type { Replay } from "./bodies.ts"
import { page_max } from "./pages.ts"
import { StoreUnavailable } from "./problems.ts"

type Store = Context.Service.Shape<typeof EventStore>

const page = 1000
const pageDefault = 100

export const unavailable = (error: StoreFailure) =>
  new StoreUnavailable({ detail: `${error.operation}: ${error.reason}` })

export interface Page {
  readonly from?: number
  readonly limit?: number
  readonly direction?: "forwards" | "backwards"
}

/** A page of a stream's facts by revision; `next` is the `from` of the page after it. */
export const factsOf = Effect.fnUntraced(function* (store: Store, stream: string, asked: Page) {
  const limit = asked.limit ?? pageDefault
  const direction = asked.direction ?? "forwards"
  const options = { limit, direction, ...(asked.from === undefined ? {} : { from: asked.from }) }
  const facts = yield* store.readStream(stream, options).pipe(Effect.mapError(unavailable))
  const last = facts.at(-1)?.revision
  const more = facts.length === limit && last !== undefined
  const following = direction === "forwards" ? (last ?? 0) + 1 : (last ?? 0) - 1
  return { facts, next: more && following >= 0 ? following : null }
})

export type At = { readonly position: number; readonly timeMs: number | null }

export const head: At = { position: Number.MAX_SAFE_INTEGER, timeMs: null }

/** A position, `1234`, or a time, `2026-05-01T12:00:00Z`; null when it is neither. */
export function parseAt(text: string): At | null {
  if (/^\d{1,15}$/.test(text)) return { position: Number(text), timeMs: null }
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,3})?)?(Z|[+-]\d\d:\d\d)$/.test(text)) return null
  const timeMs = Date.parse(text)
  return Number.isNaN(timeMs) ? null : { position: Number.MAX_SAFE_INTEGER, timeMs }
}

/** The actor as its facts up to then made it; a `revision` of -1 when it had none. */
export const stateAt = Effect.fnUntraced(function* (store: Store, kind: ActorKind, stream: string, at: At) {
  let actor = emptyActor(kind, stream)
  let last: At = { position: 0, timeMs: null }
  for (;;) {
    const facts = yield* store
      .readStream(stream, { from: actor.revision + 1, limit: page })
      .pipe(Effect.mapError(unavailable))
    for (const fact of facts) {
      if (fact.position > at.position || (at.timeMs !== null && fact.timeMs > at.timeMs)) {
        return { actor, last, state: describe(actor.chart) }
      }
      actor = apply(kind, actor, fact, fact.revision, fact.position).actor
      last = { position: fact.position, timeMs: fact.timeMs }
    }
    if (facts.length < page) return { actor, last, state: describe(actor.chart) }
  }
})

/** An actor's state in a line; `sha256` is that of its snapshot's text. */
const summary = (actor: ActorState): Replay["actors"][number] => ({
  stream: actor.stream,
  revision: actor.revision,
  position: actor.position,
  state: describe(actor.chart),
  sha256: hash("sha256", serialize(actor), "hex")
})

/** Every actor as of then, folded from the first fact; a page of them in the order of their streams. */
export const statesAt = Effect.fnUntraced(function* (
  store: Store,
  kinds: ReadonlyArray<ActorKind>,
  at: At,
  { after = "", limit = page_max }: { readonly after?: string; readonly limit?: number }
): Effect.fn.Return<Replay, StoreUnavailable> {
  const actors = yield* replay(store, kinds, { snapshots: false, until: at }).pipe(
    Effect.mapError(unavailable)
  )
  const all = [...actors.values()].map(summary).sort((a, b) => (a.stream < b.stream ? -1 : 1))
  const position = all.reduce((last, one) => Math.max(last, one.position), 0)
  const [fact] = yield* store.readAll({ from: position, limit: 1 }).pipe(Effect.mapError(unavailable))
  const left = all.filter(({ stream }) => stream > after)
  return {
    at: { position, timeMs: position === 0 ? null : (fact?.timeMs ?? null) },
    sha256: hash("sha256", all.map((one) => `${one.stream} ${one.sha256}`).join("\n"), "hex"),
    count: all.length,
    actors: left.slice(0, limit),
    next: left.length > limit ? (left[limit - 1]?.stream ?? null) : null
  }
})
