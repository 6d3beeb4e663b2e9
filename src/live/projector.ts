/**
 * Feeds the projections from the event store and serves their states.
 *
 * Every projection follows the store by itself until it is as far as the feed, a subscription that begins at the
 * head; from then on the feed gives it each fact. So one that has to be rebuilt holds up no other. A rebuild on
 * demand builds a second state beside the one that goes on serving and takes its place in one step.
 */
import { Context, Deferred, Effect, Layer, Schedule, Schema, Stream } from "effect"
import type { Exit, Scope } from "effect"
import type { Recorded } from "../events/envelope.ts"
import { EventStore, StoreFailure } from "../kernel/ports/event-store.ts"
import type { AnyProjection, Projection } from "../projections/projection.ts"
import { openRun } from "./projector/open-run.ts"
import { Run } from "./projector/run.ts"
import { openViewsFile } from "./projector/views-file.ts"
import type { ViewsFile } from "./projector/views-file.ts"
import { PositionWaiters } from "./projector/waiters.ts"
import type { NotCaughtUp } from "./projector/waiters.ts"

export class UnknownProjection extends Schema.TaggedError<UnknownProjection>()("UnknownProjection", {
  projection: Schema.String,
  allowed: Schema.Array(Schema.String)
}) {}

/** The new state could not be built; the old one goes on serving. */
export class RebuildFailed extends Schema.TaggedError<RebuildFailed>()("RebuildFailed", {
  projection: Schema.String,
  reason: Schema.String
}) {}

export interface ProjectionStatus {
  readonly projection: string
  readonly version: number
  readonly position: number
  /** Facts in the store that it has not seen. */
  readonly lagFacts: number
  /** How far the state is that is being built beside it; null when none is. */
  readonly rebuildingPosition: number | null
  /** Why it stands still; null while it does not. */
  readonly failed: string | null
}

type AppendedListener = (facts: ReadonlyArray<Recorded>) => void

export class Projector extends Context.Service<
  Projector,
  {
    /** The state that serves now; not to be changed. Rows stay as they are, tables go on changing. */
    readonly state: <State>(projection: Projection<State>) => State
    readonly position: (projection: string) => number
    /** Wait until all projections, or those named, have seen `position`; 5000 ms unless told. */
    readonly caughtUp: (
      position: number,
      options?: { readonly projections?: ReadonlyArray<string>; readonly timeoutMs?: number }
    ) => Effect.Effect<void, NotCaughtUp>
    /** Build the state again from the first fact; returns when it serves. A second call joins the first. */
    readonly rebuild: (
      projection: string
    ) => Effect.Effect<void, UnknownProjection | RebuildFailed | StoreFailure>
    readonly status: Effect.Effect<ReadonlyArray<ProjectionStatus>, StoreFailure>
    /**
     * Hear of the facts that are appended from now on, each once and in order, after the projections that are up
     * to date have seen them. Facts from before the start are not told. Returns the way to stop.
     */
    readonly onAppended: (listener: AppendedListener) => () => void
    /** Store what has changed now. */
    readonly checkpoint: Effect.Effect<void>
  }
>()("novacron/live/Projector") {}

export interface ProjectorOptions {
  /** The views' own file, `:memory:` for none. Its folder is made when missing. */
  readonly path: string
  readonly projections: ReadonlyArray<AnyProjection>
  /** Changes are stored at least so often; 1000 ms unless told. */
  readonly checkpointEveryMs?: number
  /** And after so many facts, which are folded again after a crash; 10,000 unless told. */
  readonly checkpointEveryFacts?: number
  /** And when so many rows have changed, which are written in one go; 1000 unless told. */
  readonly checkpointEveryRows?: number
  /** Facts that are applied before others get a turn; 256 unless told. */
  readonly batch_max?: number
}

interface Entry {
  /** The one that serves. */
  run: Run
  /** It is as far as the feed and given each fact by it. */
  isFed: boolean
  building: Run | null
  rebuilt: Deferred.Deferred<void, RebuildFailed | StoreFailure> | null
}

/** Pauses of at most 5 s; after some hours of a store that can't be read, the views stand still and say so. */
const storeRetry = {
  schedule: Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("5 seconds")]),
  times: 10_000
}

/** The entries and what is done to them within one tick. */
class Projecting {
  readonly entries = new Map<string, Entry>()
  readonly waiters = new PositionWaiters()
  readonly listeners = new Set<AppendedListener>()
  readonly #file: ViewsFile
  readonly #checkpointEvery: { readonly facts: number; readonly rows: number }
  #lastRun = 0
  #factsSinceCheckpoint = 0
  /** Changed rows that the last checkpoint could not store: it is not tried again before as many others have changed. */
  #leftRows = 0
  #isChanged = false
  /** The last position the feed gave. */
  fedTo = 0

  constructor(file: ViewsFile, checkpointEvery: { readonly facts: number; readonly rows: number }) {
    this.#file = file
    this.#checkpointEvery = checkpointEvery
  }

  freshRun(): number {
    this.#lastRun = this.#file.freshRun(this.#lastRun)
    return this.#lastRun
  }

  /** Give what was appended to every projection that is as far. Returns the errors that stopped some. */
  feed(facts: ReadonlyArray<Recorded>): ReadonlyArray<unknown> {
    const errors: Array<unknown> = []
    for (const entry of this.entries.values()) {
      if (!entry.isFed) continue
      const error = entry.run.take(facts)
      if (error !== null) errors.push(error)
    }
    this.fedTo = facts.at(-1)?.position ?? this.fedTo
    this.#count(facts.length)
    for (const listener of this.listeners) {
      try {
        listener(facts)
      } catch (error) {
        errors.push(error)
      }
    }
    this.waiters.wake()
    return errors
  }

  /** A run that follows by itself took some facts. */
  followed(facts: number): void {
    this.#count(facts)
    this.waiters.wake()
  }

  #count(facts: number): void {
    if (facts === 0) return
    this.#factsSinceCheckpoint += facts
    this.#isChanged = true
  }

  get isCheckpointDue(): boolean {
    const { facts, rows } = this.#checkpointEvery
    return this.#factsSinceCheckpoint >= facts || this.#changedRows - this.#leftRows >= rows
  }

  /** Of what is stored. */
  get #changedRows(): number {
    let rows = 0
    for (const { run, building } of this.entries.values()) {
      if (run.isStored) rows += run.changedRows
      if (building?.isStored) rows += building.changedRows
    }
    return rows
  }

  /** Store what changed. Returns the failure; what could not be stored is stored with the next. */
  checkpoint(ended: ReadonlyArray<number> = []): StoreFailure | null {
    if (!this.#isChanged && ended.length === 0) return null
    this.#factsSinceCheckpoint = 0
    const runs = []
    for (const { run, building } of this.entries.values()) {
      if (run.isStored) runs.push(run.checkpoint(true))
      if (building?.isStored) runs.push(building.checkpoint(false))
    }
    try {
      this.#file.save(runs, ended)
      this.#isChanged = false
      this.#leftRows = 0
      return null
    } catch (error) {
      this.#leftRows = this.#changedRows
      if (error instanceof StoreFailure) return error
      throw error
    }
  }

  /** The state that was built takes the place of the one that served; the next checkpoint says so in the file. */
  swap(entry: Entry, built: Run): StoreFailure | null {
    const old = entry.run
    entry.run = built
    entry.building = null
    entry.isFed = true
    this.#isChanged = true
    this.waiters.wake()
    return this.checkpoint([old.run])
  }
}

/**
 * Applies what is stored to one run, some facts at a time, until `arrived` says that it is there. What has to be done
 * at that moment `arrived` does itself: afterwards this fiber may be paused, and the feed would go on without it.
 */
const follow = Effect.fnUntraced(function* (
  store: EventStore["Service"],
  projecting: Projecting,
  run: Run,
  batch_max: number,
  arrived: () => boolean
): Effect.fn.Return<void, StoreFailure> {
  while (!arrived()) {
    const facts = yield* store.readAll({ from: run.position + 1, limit: batch_max })
    const error = run.take(facts)
    const isThere = arrived()
    projecting.followed(facts.length)
    if (error !== null) return yield* reportStopped(run, error)
    yield* warn(projecting.isCheckpointDue ? projecting.checkpoint() : null)
    if (isThere) return
    if (facts.length === 0) return yield* notThere(run, projecting.fedTo)
    yield* Effect.yieldNow
  }
})

const notThere = (run: Run, position: number) =>
  new StoreFailure({
    operation: "readAll",
    reason: `nothing after position ${run.position}, though facts up to ${position} were announced`
  })

const reportStopped = (run: Run, error: unknown) =>
  Effect.logError(`the view ${run.projection.name} stopped at ${run.failed}`, error)

const warn = (failure: StoreFailure | null) =>
  failure === null ? Effect.void : Effect.logWarning(`views are not stored: ${failure.reason}`)

interface Parts {
  readonly store: EventStore["Service"]
  readonly projecting: Projecting
  readonly batch_max: number
}

/** A serving run that is behind: let it catch up, then leave it to the feed. */
const catchUp = ({ store, projecting, batch_max }: Parts, entry: Entry) => {
  const { run } = entry
  const arrived = () => {
    // Another run serves meanwhile, or its own fold stopped it: there is nothing to catch up with.
    if (entry.run !== run || run.failed !== null) return true
    entry.isFed = run.position >= projecting.fedTo
    return entry.isFed
  }
  return follow(store, projecting, run, batch_max, arrived).pipe(
    Effect.tapError((error) => Effect.logWarning(`the view ${run.projection.name} waits: ${error.reason}`)),
    Effect.retry(storeRetry),
    Effect.catch((error) => Effect.logError(`the view ${run.projection.name} stands still: ${error.reason}`))
  )
}

const build = ({ store, projecting, batch_max }: Parts, entry: Entry) =>
  Effect.gen(function* () {
    const { projection } = entry.run
    const target = () => Math.max(entry.run.position, projecting.fedTo)
    const run = Run.begin(projection, projecting.freshRun())
    entry.building = run
    let unsaved: StoreFailure | null = null
    const arrived = () => {
      if (run.failed !== null) return true
      if (run.position < target()) return false
      unsaved = projecting.swap(entry, run)
      return true
    }
    yield* follow(store, projecting, run, batch_max, arrived)
    if (run.failed !== null)
      return yield* new RebuildFailed({ projection: projection.name, reason: `it stopped at ${run.failed}` })
    yield* warn(unsaved)
  }).pipe(
    Effect.onExit(() =>
      Effect.suspend(() => {
        const left = entry.building
        entry.building = null
        return left === null ? Effect.void : warn(projecting.checkpoint([left.run]))
      })
    )
  )

/** The subscription, taken up again after failures from where it was. */
const feeding = ({ store, projecting, batch_max }: Parts) =>
  Effect.suspend(() =>
    Stream.runForEachArray(
      store.subscribe(projecting.fedTo),
      Effect.fnUntraced(function* (facts) {
        for (let from = 0; from < facts.length; from += batch_max) {
          const errors = projecting.feed(facts.slice(from, from + batch_max))
          for (const error of errors) yield* Effect.logError("a view or a listener failed", error)
          yield* warn(projecting.isCheckpointDue ? projecting.checkpoint() : null)
          yield* Effect.yieldNow
        }
      })
    )
  ).pipe(
    Effect.tapError((error) => Effect.logWarning(`views wait for the event store: ${error.reason}`)),
    Effect.retry(storeRetry),
    Effect.catch((error) => Effect.logError(`views stand still: ${error.reason}`))
  )

/** Open the views' file and begin; ends, with a last checkpoint, with the scope. */
export const makeProjector = Effect.fn("Projector.make")(function* (options: ProjectorOptions) {
  const store = yield* EventStore
  const scope = yield* Effect.scope
  const batch_max = options.batch_max ?? 256
  const file = yield* acquireFile(options.path)
  const every = { facts: options.checkpointEveryFacts ?? 10_000, rows: options.checkpointEveryRows ?? 1000 }
  const projecting = new Projecting(file, every)
  const context = { store, projecting, batch_max }
  const head = yield* store.head
  projecting.fedTo = head.position

  const outdated: Array<string> = []
  for (const projection of options.projections) {
    const opened = yield* openRun(store, file, projection, head, () => projecting.freshRun())
    projecting.entries.set(projection.name, { run: opened.run, isFed: false, building: null, rebuilt: null })
    if (opened.outdated) outdated.push(projection.name)
  }
  file.keepOnly(new Set([...projecting.entries.values()].map(({ run }) => run.run)))
  yield* Effect.addFinalizer(() => Effect.suspend(() => warn(projecting.checkpoint())))

  const rebuild = Effect.fn("Projector.rebuild")(function* (name: string) {
    const entry = projecting.entries.get(name)
    if (entry === undefined)
      return yield* new UnknownProjection({ projection: name, allowed: [...projecting.entries.keys()] })
    if (entry.rebuilt === null) {
      const rebuilt = Deferred.makeUnsafe<void, RebuildFailed | StoreFailure>()
      entry.rebuilt = rebuilt
      const done = (exit: Exit.Exit<void, RebuildFailed | StoreFailure>) => {
        entry.rebuilt = null
        return Deferred.done(rebuilt, exit)
      }
      yield* build(context, entry).pipe(Effect.exit, Effect.flatMap(done), Effect.forkIn(scope))
      return yield* Deferred.await(rebuilt)
    }
    return yield* Deferred.await(entry.rebuilt)
  })

  yield* Effect.forkIn(feeding(context), scope)
  for (const entry of projecting.entries.values()) yield* Effect.forkIn(catchUp(context, entry), scope)
  for (const name of outdated) {
    const noted = Effect.tapError(rebuild(name), (error) => Effect.logError("not rebuilt", error))
    yield* Effect.forkIn(Effect.ignore(noted), scope)
  }
  const storeChanges = Effect.suspend(() => warn(projecting.checkpoint()))
  const oftenEnough = Schedule.spaced(options.checkpointEveryMs ?? 1000)
  yield* Effect.forkIn(Effect.schedule(storeChanges, oftenEnough), scope)
  return serviceOf(context, rebuild, storeChanges)
})

const acquireFile = (path: string): Effect.Effect<ViewsFile, StoreFailure, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.try({
      try: () => openViewsFile(path),
      catch: (error) => {
        if (error instanceof StoreFailure) return error
        throw error
      }
    }).pipe(
      Effect.tap(({ warning }) =>
        warning === null
          ? Effect.void
          : Effect.logWarning(`${path} was put aside and all views are rebuilt: ${warning}`)
      ),
      Effect.map(({ file }) => file)
    ),
    (file) => Effect.sync(() => file.close())
  )

function serviceOf(
  { store, projecting }: Parts,
  rebuild: Projector["Service"]["rebuild"],
  checkpoint: Effect.Effect<void>
): Projector["Service"] {
  const entryOf = (name: string): Entry => {
    const entry = projecting.entries.get(name)
    if (entry === undefined) throw new Error(`${name} is not among the projections of this projector`)
    return entry
  }
  return Projector.of({
    state: <State>(projection: Projection<State>) => entryOf(projection.name).run.state as State,
    position: (name) => entryOf(name).run.position,
    caughtUp: (position, options = {}) => {
      const names = options.projections ?? [...projecting.entries.keys()]
      const entries = names.map(entryOf)
      return projecting.waiters.wait(position, () => entries.map(({ run }) => run), options.timeoutMs ?? 5000)
    },
    rebuild,
    status: Effect.map(store.head, (head) =>
      [...projecting.entries.values()].map(({ run, building }) => ({
        projection: run.projection.name,
        version: run.version,
        position: run.position,
        lagFacts: Math.max(0, head.position - run.position),
        rebuildingPosition: building?.position ?? null,
        failed: run.failed
      }))
    ),
    onAppended: (listener) => {
      projecting.listeners.add(listener)
      return () => projecting.listeners.delete(listener)
    },
    checkpoint
  })
}

/** `makeProjector` as a layer. */
export const layer = (options: ProjectorOptions): Layer.Layer<Projector, StoreFailure, EventStore> =>
  Layer.effect(Projector, makeProjector(options))
