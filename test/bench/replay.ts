/** Facts per second from SQLite to the states of all actors: machines that were told this and that for forty turns. */
import { join } from "node:path"
import { Effect } from "effect"
import { actorKinds } from "../../src/actors/kinds.ts"
import { replay } from "../../src/kernel/replay.ts"
import { serialize } from "../../src/kernel/turn.ts"
import { withStore } from "./event-store.ts"
import { writeLives } from "./lives.ts"
import { figure, hashOf, inFolder } from "./measure.ts"
import type { Figure, Options, Round } from "./measure.ts"

const turns = 40

const sizes = { smoke: { machines: [50], rounds: 1 }, full: { machines: [50, 500, 5000], rounds: 5 } }

const measure = (machines: number, rounds: number, seed: number) =>
  inFolder(async (folder) => {
    const path = join(folder, "journal.db")
    const facts = await withStore(path, (store) => writeLives(store, { machines, turns, seed }))
    // Opened again, as at a start.
    const measured = await withStore(path, (store) =>
      Effect.gen(function* () {
        const all: Array<Round> = []
        for (let round = 0; round < rounds; round++) {
          const beganMs = performance.now()
          const actors = yield* replay(store, actorKinds, { snapshots: false })
          const value = (facts / (performance.now() - beganMs)) * 1000
          all.push({ value, result: hashOf([...actors.values()].map(serialize)) })
        }
        return all
      })
    )
    return figure(`${facts} facts of ${machines} machines`, "facts/s", measured)
  })

export async function* replaying({ size, seed }: Options): AsyncGenerator<Figure> {
  const { machines, rounds } = sizes[size]
  for (const count of machines) yield await measure(count, rounds, seed)
}
