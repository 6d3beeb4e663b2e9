/** A projector over a store in memory, for tests: facts go in, states come out, warnings are caught. */
import { Effect, Layer, Logger, References } from "effect"
import type { Context } from "effect"
import * as Digest from "../../simulations/world/digest.ts"
import { layer as memoryStore, memoryDisk } from "../../simulations/world/event-store.ts"
import type { MemoryDisk } from "../../simulations/world/event-store.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import * as ProjectorModule from "../../src/live/projector.ts"
import type { ProjectorOptions } from "../../src/live/projector.ts"
import { allProjections } from "../../src/live/views.ts"
import type { AnyProjection } from "../../src/projections/projection.ts"
import { textOf } from "../../src/projections/table.ts"
import { draftOf } from "../projections/facts.ts"
import type { Said } from "../projections/facts.ts"

export type Store = Context.Service.Shape<typeof EventStore>

/** Append one by one, each to the end of its stream. `from` numbers the facts, whose ids have to be unique. */
export const say = Effect.fnUntraced(function* (store: Store, history: ReadonlyArray<Said>) {
  for (const said of history) {
    const { position } = yield* store.head
    const [last] = yield* store.readStream(said[0], { direction: "backwards", limit: 1 })
    const expectedRevision = last?.revision ?? -1
    yield* store.append([{ stream: said[0], expectedRevision, facts: [draftOf(said, position)] }])
  }
})

/** The states of all stored projections, folded from the first fact. */
export const folded = Effect.fnUntraced(function* (
  store: Store,
  projections: ReadonlyArray<AnyProjection> = allProjections
) {
  const { position } = yield* store.head
  const facts = yield* store.readAll({ limit: position })
  return projections.map((projection) => {
    const state = facts.reduce((before, fact) => projection.apply(before, fact), projection.initial())
    return textOf(projection.tables(state))
  })
})

export const served = (
  projector: ProjectorModule.Projector["Service"],
  projections: ReadonlyArray<AnyProjection> = allProjections
) => projections.map((projection) => textOf(projection.tables(projector.state(projection))))

export interface Opened {
  readonly store: Store
  readonly projector: ProjectorModule.Projector["Service"]
  readonly logged: ReadonlyArray<string>
}

/** Run `use` with a projector on this disk and file; both are closed afterwards. */
export function withProjector<A, E>(
  disk: MemoryDisk,
  options: Partial<ProjectorOptions>,
  use: (opened: Opened) => Effect.Effect<A, E>
): Promise<A> {
  const logged: Array<string> = []
  const catching = Logger.layer([
    Logger.make(({ message }) => logged.push(String(Array.isArray(message) ? message[0] : message)))
  ])
  const projector = ProjectorModule.layer({ path: ":memory:", projections: allProjections, ...options })
  const world = Layer.provideMerge(projector, Layer.fresh(memoryStore(disk))).pipe(
    Layer.provide(Digest.layer),
    Layer.provideMerge(catching)
  )
  const program = Effect.gen(function* () {
    const store = yield* EventStore
    const service = yield* ProjectorModule.Projector
    return yield* use({ store, projector: service, logged })
  })
  return Effect.runPromise(
    Effect.provide(program, world).pipe(Effect.provideService(References.MinimumLogLevel, "All"))
  )
}

export { memoryDisk }
