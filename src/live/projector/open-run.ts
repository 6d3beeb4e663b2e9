/** Where a projection goes on after a start: from what is stored of it, if that can be trusted, or from nothing. */
import { Effect } from "effect"
import type { EventStore, Head, StoreFailure } from "../../kernel/ports/event-store.ts"
import type { AnyProjection } from "../../projections/projection.ts"
import { Run } from "./run.ts"
import { RowsDamaged } from "./views-file.ts"
import type { StoredRun, ViewsFile } from "./views-file.ts"

type Store = EventStore["Service"]

export interface OpenedRun {
  readonly run: Run
  /** Its state was built by older code and is served only until it is rebuilt. */
  readonly outdated: boolean
}

/** Why a stored state is not one of this journal, or null. */
const foreign = Effect.fnUntraced(function* (
  store: Store,
  stored: StoredRun,
  head: Head
): Effect.fn.Return<string | null, StoreFailure> {
  if (stored.position > head.position)
    return `it is at position ${stored.position} and the event store only at ${head.position}`
  if (stored.position === 0) return null
  const [fact] = yield* store.readAll({ from: stored.position, limit: 1 })
  return fact?.hash === stored.hash ? null : `the event store has another fact at position ${stored.position}`
})

function restored(projection: AnyProjection, stored: StoredRun, file: ViewsFile): Run | string {
  const run = new Run(projection, stored)
  try {
    run.restore(file)
    return run
  } catch (error) {
    if (error instanceof RowsDamaged) return `its stored state is damaged: ${error.message}`
    throw error
  }
}

export const openRun = Effect.fnUntraced(function* (
  store: Store,
  file: ViewsFile,
  projection: AnyProjection,
  head: Head,
  freshRun: () => number
): Effect.fn.Return<OpenedRun, StoreFailure> {
  const begin = () => ({ run: Run.begin(projection, freshRun()), outdated: false })
  const stored = file.servingRun(projection.name)
  if (stored === null) return begin()
  const current = stored.version === projection.version
  if (!current && !projection.continues.includes(stored.version)) {
    yield* Effect.logInfo(
      `the view ${projection.name} is rebuilt: version ${projection.version} after version ${stored.version}`
    )
    return begin()
  }
  const run = (yield* foreign(store, stored, head)) ?? restored(projection, stored, file)
  if (run instanceof Run) return { run, outdated: !current }
  yield* Effect.logWarning(`the view ${projection.name} is rebuilt: ${run}`)
  return begin()
})
