/** States from stored facts: one actor on demand, or all of them at start. Requests are dropped on the way. */
import { Effect } from "effect"
import type { Recorded } from "../events/envelope.ts"
import type { ActorKind } from "./actor.ts"
import type { EventStore, StoreFailure } from "./ports/event-store.ts"
import { Residents } from "./residents.ts"
import { apply, deserialize, emptyActor, serialize } from "./turn.ts"
import type { ActorState } from "./turn.ts"

const page = 1000

/** The stream that says up to which position every actor has a snapshot. */
const checkpointStream = "kernel/checkpoint"

type Store = EventStore["Service"]

/** An actor from its latest snapshot and the facts after it. */
export const load = Effect.fnUntraced(function* (
  store: Store,
  kind: ActorKind,
  stream: string
): Effect.fn.Return<ActorState, StoreFailure> {
  const snapshot = yield* store.loadSnapshot(stream, kind.snapshotVersion)
  return yield* goOn(
    store,
    kind,
    snapshot ? deserialize(kind, stream, snapshot.state) : emptyActor(kind, stream)
  )
})

/** The actor with the facts after it. */
const goOn = Effect.fnUntraced(function* (
  store: Store,
  kind: ActorKind,
  from: ActorState
): Effect.fn.Return<ActorState, StoreFailure> {
  let actor = from
  for (;;) {
    const facts = yield* store.readStream(from.stream, { from: actor.revision + 1, limit: page })
    for (const fact of facts) actor = apply(kind, actor, fact, fact.revision, fact.position).actor
    if (facts.length < page) return actor
  }
})

/** Fold facts in store order into the actors they belong to; facts an actor already has are passed over. */
export function fold(
  kinds: ReadonlyMap<string, ActorKind>,
  actors: Map<string, ActorState>,
  facts: ReadonlyArray<Recorded>
): void {
  for (const fact of facts) {
    const kind = kinds.get(fact.stream.slice(0, fact.stream.indexOf("/")))
    if (!kind) throw new Error(`position ${fact.position}: no kind of actor for the stream ${fact.stream}`)
    const actor = actors.get(fact.stream) ?? emptyActor(kind, fact.stream)
    if (fact.revision <= actor.revision) continue
    actors.set(fact.stream, apply(kind, actor, fact, fact.revision, fact.position).actor)
  }
}

const byKind = (kinds: ReadonlyArray<ActorKind>) => new Map(kinds.map((kind) => [kind.kind, kind]))
const checkpointVersion = (kinds: ReadonlyArray<ActorKind>) =>
  kinds.reduce((sum, kind) => sum * 31 + kind.snapshotVersion, kinds.length) % 2 ** 31

/** The last fact that counts, by its position, and by its time unless that is null. */
export interface Until {
  readonly position: number
  readonly timeMs: number | null
}

/**
 * All actors, as of `until` (the head unless told). With `snapshots: false` every fact is folded again from the
 * first: what `novacron replay` and the determinism tests do.
 */
export const replay = (
  store: Store,
  kinds: ReadonlyArray<ActorKind>,
  options: { readonly snapshots: boolean; readonly until?: Until }
): Effect.Effect<Map<string, ActorState>, StoreFailure> =>
  options.snapshots
    ? Effect.map(resume(store, kinds), ({ actors }) => actors)
    : replayAfter(store, byKind(kinds), { actors: new Map(), position: 0 }, options.until)

/** The facts after `position`, folded into the actors as they were there. */
const replayAfter = Effect.fn("replay")(function* (
  store: Store,
  known: ReadonlyMap<string, ActorKind>,
  from: { readonly actors: Map<string, ActorState>; readonly position: number },
  until: Until = { position: Number.MAX_SAFE_INTEGER, timeMs: null }
): Effect.fn.Return<Map<string, ActorState>, StoreFailure> {
  const { actors } = from
  let { position } = from
  const isWanted = (fact: Recorded) =>
    fact.position <= until.position && (until.timeMs === null || fact.timeMs <= until.timeMs)
  for (;;) {
    const facts = yield* store.readAll({ from: position + 1, limit: page })
    const latest = facts.at(-1)
    // In the journal neither positions nor times go back.
    const isWhole = latest === undefined || isWanted(latest)
    fold(known, actors, isWhole ? facts : facts.filter(isWanted))
    position = latest?.position ?? position
    if (facts.length < page || !isWhole) return actors
    yield* Effect.yieldNow
  }
})

/** All actors after a start, and up to which position all of them have a snapshot that can be used; 0 when one is lost. */
export const resume = Effect.fn("resume")(function* (
  store: Store,
  kinds: ReadonlyArray<ActorKind>
): Effect.fn.Return<{ readonly actors: Residents; readonly savedTo: number }, StoreFailure> {
  const known = byKind(kinds)
  const checkpoint = yield* store.loadSnapshot(checkpointStream, checkpointVersion(kinds))
  const position = checkpoint?.position ?? 0
  const actors = new Residents()
  let isWhole = true
  for (const stream of position === 0 ? [] : yield* store.streams("")) {
    const kind = known.get(stream.slice(0, stream.indexOf("/")))
    if (!kind) continue
    const snapshot = yield* store.loadSnapshot(stream, kind.snapshotVersion)
    if (snapshot) actors.set(stream, deserialize(kind, stream, snapshot.state))
    else {
      const [first] = yield* store.readStream(stream, { limit: 1 })
      // It began after the checkpoint.
      if (first === undefined || first.position > position) continue
      // Its snapshot is damaged: its facts before the checkpoint count too.
      isWhole = false
      actors.set(stream, yield* goOn(store, kind, emptyActor(kind, stream)))
    }
  }
  yield* replayAfter(store, known, { actors, position })
  return { actors, savedTo: isWhole ? position : 0 }
})

/** Those that were forgotten are in memory again, as the store has them. */
export const recall = Effect.fn("recall")(function* (
  store: Store,
  kinds: ReadonlyArray<ActorKind>,
  residents: Residents
): Effect.fn.Return<void, StoreFailure> {
  const known = byKind(kinds)
  const { forgotten } = residents
  for (let [stream] = forgotten; stream !== undefined; [stream] = forgotten) {
    forgotten.delete(stream)
    const kind = known.get(stream.slice(0, stream.indexOf("/")))
    if (kind === undefined || residents.has(stream)) continue
    const actor = yield* load(store, kind, stream).pipe(
      Effect.onError(() => Effect.sync(() => forgotten.add(stream)))
    )
    // It may be there meanwhile, with more; or it was forgotten anew, and is loaded again.
    const isLatest = !forgotten.has(stream) && !residents.has(stream)
    if (isLatest && actor.revision >= 0) residents.set(stream, actor)
  }
})

/**
 * Save the states of these actors, and that all facts up to `position` are covered by snapshots. The caller gives
 * every actor that changed since the last checkpoint.
 */
export const saveCheckpoint = Effect.fn("saveCheckpoint")(function* (
  store: Store,
  kinds: ReadonlyArray<ActorKind>,
  actors: ReadonlyArray<ActorState>,
  position: number
): Effect.fn.Return<void, StoreFailure> {
  const known = byKind(kinds)
  const snapshots = actors.map((actor) => ({
    stream: actor.stream,
    revision: actor.revision,
    position: actor.position,
    version: known.get(actor.stream.slice(0, actor.stream.indexOf("/")))?.snapshotVersion ?? 0,
    state: serialize(actor)
  }))
  yield* store.saveSnapshots([
    ...snapshots,
    { stream: checkpointStream, revision: 0, position, version: checkpointVersion(kinds), state: "{}" }
  ])
})
