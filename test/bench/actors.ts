/**
 * Many VM actors in memory: bytes of each, and how long a node takes to have them all again, from every fact and from a
 * checkpoint. Measured in a process of its own with `--expose-gc`, so that nothing else is on its heap:
 * `node --expose-gc actors.ts <machines> <rounds> <seed>` prints one line of JSON.
 */
import { execFile } from "node:child_process"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { Effect } from "effect"
import { actorKinds } from "../../src/actors/kinds.ts"
import { replay, saveCheckpoint } from "../../src/kernel/replay.ts"
import { serialize } from "../../src/kernel/turn.ts"
import type { ActorState } from "../../src/kernel/turn.ts"
import { withStore } from "./event-store.ts"
import { turnsToRun, writeLives } from "./lives.ts"
import { figure, hashOf, inFolder } from "./measure.ts"
import type { Figure, Options } from "./measure.ts"

interface Recovery {
  readonly bytesEach: number
  readonly replayMs: number
  readonly checkpointMs: number
  /** Over all states, which are the same from facts and from the checkpoint. */
  readonly result: string
}

interface Measured {
  readonly facts: number
  readonly recoveries: ReadonlyArray<Recovery>
}

function heapBytes(): number {
  const { gc } = globalThis as { readonly gc?: () => void }
  if (gc === undefined) throw new Error("run with --expose-gc")
  gc()
  gc()
  return process.memoryUsage().heapUsed
}

const resultOf = (actors: ReadonlyMap<string, ActorState>) =>
  hashOf(Array.from(actors.values(), serialize).sort())

const recover = (path: string, snapshots: boolean) =>
  withStore(path, (store) =>
    Effect.gen(function* () {
      const before = heapBytes()
      const beganMs = performance.now()
      const actors = yield* replay(store, actorKinds, { snapshots })
      const ms = performance.now() - beganMs
      return { actors, ms, bytesEach: (heapBytes() - before) / actors.size }
    })
  )

/** In this process. The journal is opened anew for every recovery, as at a start. */
const measure = (machines: number, rounds: number, seed: number): Promise<Measured> =>
  inFolder(async (folder) => {
    const path = join(folder, "journal.db")
    const facts = await withStore(path, (store) => writeLives(store, { machines, turns: turnsToRun, seed }))
    const replayed: Array<{ ms: number; bytesEach: number; result: string }> = []
    for (let round = 0; round < rounds; round++) {
      const { actors, ...one } = await recover(path, false)
      replayed.push({ ...one, result: resultOf(actors) })
      if (round === rounds - 1)
        await withStore(path, (store) => saveCheckpoint(store, actorKinds, [...actors.values()], facts))
      // Whoever may still hold the map: the next round is not to find these on the heap, and lose them meanwhile.
      actors.clear()
    }
    const recoveries: Array<Recovery> = []
    for (const { ms, bytesEach, result } of replayed) {
      const again = await recover(path, true)
      if (resultOf(again.actors) !== result)
        throw new Error("the checkpoint gives other states than the facts")
      again.actors.clear()
      recoveries.push({ bytesEach, replayMs: ms, checkpointMs: again.ms, result })
    }
    return { facts, recoveries }
  })

const sizes = {
  smoke: { machines: [500], rounds: 1 },
  full: { machines: [1000, 10_000, 100_000], rounds: 3 }
}

export async function* actorsInMemory({ size, seed }: Options): AsyncGenerator<Figure> {
  const { machines, rounds } = sizes[size]
  for (const count of machines) {
    const args = ["--expose-gc", "--max-old-space-size=8192", fileURLToPath(import.meta.url)]
    const work = [count, rounds, seed].map(String)
    const { stdout } = await promisify(execFile)(process.execPath, [...args, ...work])
    const { facts, recoveries } = JSON.parse(stdout) as Measured
    const of = (value: (one: Recovery) => number) =>
      recoveries.map((one) => ({ value: value(one), result: one.result }))
    const note = `${facts} facts`
    yield figure(
      `${count} machines in memory`,
      "bytes each",
      of((one) => one.bytesEach)
    )
    yield figure(
      `${count} machines recovered from every fact`,
      "ms",
      of((one) => one.replayMs),
      { note }
    )
    yield figure(
      `${count} machines recovered from a checkpoint`,
      "ms",
      of((one) => one.checkpointMs)
    )
  }
}

if (import.meta.main) {
  const [machines = 0, rounds = 1, seed = 1] = process.argv.slice(2).map(Number)
  console.log(JSON.stringify(await measure(machines, rounds, seed)))
}
