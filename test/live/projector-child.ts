/**
 * Appends facts to the store in the folder given and projects them, as fast as it can, until it is killed. Says
 * about each tenth position that the views have reached, so that whoever kills it knows that it is at work.
 *
 *   node projector-child.ts <folder> <first number of a machine>
 */
import { join } from "node:path"
import { Effect, Layer } from "effect"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import * as Digest from "../../src/live/digest.ts"
import { layer as sqliteStore } from "../../src/live/event-store.ts"
import { layer as projectorLayer, Projector } from "../../src/live/projector.ts"
import { allProjections } from "../../src/live/views.ts"
import { spec } from "../projections/facts.ts"
import type { Said } from "../projections/facts.ts"
import { say } from "./projector-world.ts"

const [, , folder = "", first = "0"] = process.argv

const program = Effect.gen(function* () {
  const store = yield* EventStore
  const projector = yield* Projector
  let said = projector.position("inventory")
  for (let number = Number(first); ; number++) {
    const name = `v${number % 40}`
    const stream = `vm/${name}`
    const history: ReadonlyArray<Said> = [
      [stream, { type: "vm.created", name, spec, start: true }],
      [stream, { type: "vm.placed", host: "h1", decision: "d1" }],
      [stream, { type: "vm.deleted" }]
    ]
    yield* say(store, history.slice(0, 1 + (number % 3)))
    yield* Effect.yieldNow
    const position = projector.position("inventory")
    if (position >= said + 10) process.stdout.write(`${(said = position)}\n`)
  }
})

const store = sqliteStore({ path: join(folder, "events.db"), durability: "normal" })
const options = { path: join(folder, "views.db"), projections: allProjections, checkpointEveryFacts: 7 }
const world = Layer.provideMerge(projectorLayer(options), store).pipe(Layer.provide(Digest.layer))
await Effect.runPromise(Effect.provide(program, world))
