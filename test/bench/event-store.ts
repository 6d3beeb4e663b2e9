/** The event store beside bare `node:sqlite`: the same rows, batches, tables and settings, without chain and JSON. */
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { Effect, Layer } from "effect"
import type { Draft } from "../../src/events/envelope.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import * as liveDigest from "../../src/live/digest.ts"
import { columns } from "../../src/live/event-store/rows.ts"
import { layer } from "../../src/live/event-store.ts"
import { makeRandom } from "../../simulations/world/random.ts"
import { figure, hashOf, inFolder, repeat } from "./measure.ts"
import type { Figure, Options } from "./measure.ts"

const streamCount = 200
const streamOf = (index: number): string => `vm/web-${index % streamCount}`

function drafts(facts: number, seed: number): ReadonlyArray<Draft> {
  const random = makeRandom(seed)
  return Array.from({ length: facts }, (_, index) => ({
    id: `command-${random.int(0, 0xffffffff)}-${index}#0`,
    type: "novacron.vm.started",
    version: 1,
    timeMs: 1_760_000_000_000 + index,
    correlation: `correlation-${index}`,
    causation: `command-${index}`,
    principal: { kind: "operator", name: "alice@example.com" },
    node: "node-1",
    answers: random.chance(0.33) ? `${streamOf(index)}@${index}#0` : null,
    data: {
      type: "vm.started",
      host: `host-${random.int(1, 40)}`,
      cpu: { cores: random.int(1, 8), model: "EPYC" },
      memoryBytes: 4_294_967_296,
      labels: { tier: "web", zone: "eu-1" }
    }
  }))
}

/** Use a store at `path`, which is closed at the end. */
export const withStore = <A, E>(path: string, use: (store: EventStore["Service"]) => Effect.Effect<A, E>) =>
  Effect.runPromise(
    Effect.flatMap(EventStore, use).pipe(Effect.provide(Layer.provide(layer({ path }), liveDigest.layer)))
  )

/** Append `all` in calls of `batchFacts`, each fact to one stream; the seconds it took, and the last hash. */
const append = (path: string, all: ReadonlyArray<Draft>, batchFacts: number) =>
  withStore(path, (store) =>
    Effect.gen(function* () {
      const revisions = new Map<string, number>()
      const entries = all.map((draft, index) => {
        const stream = streamOf(index)
        const expectedRevision = revisions.get(stream) ?? -1
        revisions.set(stream, expectedRevision + 1)
        return { stream, expectedRevision, facts: [draft] }
      })
      const beganMs = performance.now()
      for (let from = 0; from < entries.length; from += batchFacts)
        yield* store.append(entries.slice(from, from + batchFacts))
      const seconds = (performance.now() - beganMs) / 1000
      return { seconds, hash: (yield* store.head).hash }
    })
  )

/** The settings of the journal, every commit synced. */
export function configureRaw(database: DatabaseSync): void {
  database.exec("pragma journal_mode = wal; pragma synchronous = full; pragma cache_size = -65536")
  database.exec("pragma wal_autocheckpoint = 4000")
}

/** The rows of the store at `from`, inserted into a table of the same shape at `path`: rows per second. */
export function rawRowsPerSecond(from: string, path: string, batchFacts: number): number {
  const source = new DatabaseSync(from, { readOnly: true })
  const read = source.prepare("select * from events order by position")
  read.setReturnArrays(true)
  const rows = read.all() as unknown as ReadonlyArray<ReadonlyArray<string | number | null>>
  const table = String(source.prepare("select sql from sqlite_schema where name = 'events'").get()?.["sql"])
  source.close()
  const database = new DatabaseSync(path)
  configureRaw(database)
  database.exec(table)
  const insert = database.prepare(`insert into events values (${columns.map(() => "?").join(", ")})`)
  const begin = database.prepare("begin immediate")
  const commit = database.prepare("commit")
  const beganMs = performance.now()
  for (let index = 0; index < rows.length; index += batchFacts) {
    begin.run()
    for (const row of rows.slice(index, index + batchFacts)) insert.run(...row)
    commit.run()
  }
  const seconds = (performance.now() - beganMs) / 1000
  database.close()
  return rows.length / seconds
}

export const yardstickName = "node:sqlite, the same rows and batches"

const sizes = {
  smoke: { singles: 100, facts: 2000, rounds: 1 },
  full: { singles: 2000, facts: 40_000, rounds: 5 }
}

export async function* eventStore({ size, seed }: Options): AsyncGenerator<Figure> {
  const { singles, facts, rounds } = sizes[size]
  for (const [batchFacts, count] of [
    [1, singles],
    [64, facts]
  ] as const) {
    const all = drafts(count, seed)
    const measured = await repeat(rounds, () =>
      inFolder(async (folder) => {
        const path = join(folder, "events.db")
        const { seconds, hash } = await append(path, all, batchFacts)
        const yardstick = rawRowsPerSecond(path, join(folder, "raw.db"), batchFacts)
        return { value: count / seconds, yardstick, result: hash.slice(0, 16) }
      })
    )
    yield figure(`append by ${batchFacts}, ${count} facts`, "facts/s", measured, { yardstick: yardstickName })
  }
  yield* reading(drafts(facts, seed), rounds)
}

async function* reading(all: ReadonlyArray<Draft>, rounds: number): AsyncGenerator<Figure> {
  const { read, verified } = await inFolder(async (folder) => {
    const path = join(folder, "events.db")
    await append(path, all, 256)
    return withStore(path, (store) =>
      Effect.gen(function* () {
        const read = []
        const verified = []
        for (let round = 0; round < rounds; round++) {
          const hashes: Array<string> = []
          const readMs = performance.now()
          for (let from = 1; from <= all.length; from += 1000)
            hashes.push((yield* store.readAll({ from })).at(-1)?.hash ?? "")
          read.push({ value: (all.length / (performance.now() - readMs)) * 1000, result: hashOf(hashes) })
          const verifyMs = performance.now()
          const head = yield* store.verify
          const value = (all.length / (performance.now() - verifyMs)) * 1000
          verified.push({ value, result: head.hash.slice(0, 16) })
        }
        return { read, verified }
      })
    )
  })
  yield figure(`read all, ${all.length} facts`, "facts/s", read)
  yield figure(`verify the chain, ${all.length} facts`, "facts/s", verified)
}
