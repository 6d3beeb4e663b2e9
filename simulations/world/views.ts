/** The Views port over the production projections, fed from the store of a simulated node. */
import { Effect, Latch, Stream } from "effect"
import type { EventStore } from "../../src/kernel/ports/event-store.ts"
import { Views } from "../../src/kernel/ports/views.ts"
import { hostsFor } from "../../src/projections/candidates.ts"
import { inventory } from "../../src/projections/inventory.ts"
import type { Inventory } from "../../src/projections/inventory.ts"
import { loadsOf } from "../../src/projections/loads.ts"

/** Folds every fact from the first on, `lagMeanMs` behind on average; runs in the surrounding scope. */
export const makeViews = Effect.fnUntraced(function* (
  store: EventStore["Service"],
  lag: Effect.Effect<void>
) {
  let state: Inventory = inventory.initial()
  let reached = 0
  const moved = Latch.makeUnsafe(false)
  const feed = store.subscribe(0).pipe(
    Stream.runForEachArray((facts) =>
      Effect.map(lag, () => {
        for (const fact of facts) state = inventory.apply(state, fact)
        reached = facts.at(-1)?.position ?? reached
        moved.openUnsafe()
        moved.closeUnsafe()
      })
    )
  )
  yield* Effect.forkScoped(Effect.ignore(feed))
  const after = <A>(position: number, look: () => A): Effect.Effect<A & { readonly position: number }> =>
    Effect.suspend(() => {
      const answer = Effect.sync(() => ({ ...look(), position: reached }))
      const wait: Effect.Effect<void> = Effect.suspend(() =>
        reached >= position ? Effect.void : Effect.flatMap(moved.await, () => wait)
      )
      return Effect.andThen(wait, answer)
    })
  const views = Views.of({
    hosts: (position, asked) => after(position, () => hostsFor(state, asked ?? {})),
    loads: (position, { most }) => after(position, () => loadsOf(state, most))
  })
  return { views, state: () => state, reached: () => reached }
})
