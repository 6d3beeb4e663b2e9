/**
 * The event store's speed beside bare `node:sqlite`: the same rows, batches, indexes and settings, without
 * streams, hashes or effects. Run: `node test/bench/event-store.ts [facts]`.
 */
import { createHash } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { Effect, Layer } from "effect"
import type { Draft } from "../../src/events/envelope.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import * as LiveDigest from "../../src/live/digest.ts"
import { columns } from "../../src/live/event-store/rows.ts"
import { layer } from "../../src/live/event-store.ts"

export interface EventStoreBench {
  readonly batchFacts: number
  readonly rawPerSecond: number
  readonly storePerSecond: number
  /** The store's share of the raw speed. */
  readonly share: number
}

export interface EventStoreReadBench {
  readonly readPerSecond: number
  readonly verifyPerSecond: number
  /** Hash over what was read: equal in every run with as many facts. */
  readonly result: string
}

const streamCount = 200
const streamOf = (index: number): string => `vm/web-${index % streamCount}`

function benchDraft(index: number): Draft {
  return {
    id: `command-${Math.imul(index, 0x9e3779b1) >>> 0}-${index}#0`,
    type: "novacron.vm.started",
    version: 1,
    timeMs: 1_760_000_000_000 + index,
    correlation: `correlation-${index}`,
    causation: `command-${index}`,
    principal: { kind: "operator", name: "alice@example.com" },
    node: "node-1",
    answers: index % 3 === 0 ? `${streamOf(index)}@${index}#0` : null,
    data: {
      type: "vm.started",
      host: "host-12",
      cpu: { cores: 4, model: "EPYC" },
      memoryBytes: 4_294_967_296,
      labels: { tier: "web", zone: "eu-1" }
    }
  }
}

async function inFolder<A>(use: (path: string) => Promise<A> | A): Promise<A> {
  const folder = mkdtempSync(join(tmpdir(), "novacron-bench-"))
  try {
    return await use(join(folder, "events.db"))
  } finally {
    rmSync(folder, { recursive: true })
  }
}

const withStore = <A, E>(path: string, use: (store: EventStore["Service"]) => Effect.Effect<A, E>) =>
  Effect.runPromise(
    Effect.flatMap(EventStore, use).pipe(Effect.provide(Layer.provide(layer({ path }), LiveDigest.layer)))
  )

/** Append `facts` facts in calls of `batchFacts`, each to one stream; returns the seconds it took. */
const storeSeconds = (path: string, facts: number, batchFacts: number): Promise<number> =>
  withStore(path, (store) =>
    Effect.gen(function* () {
      const revisions = new Map<string, number>()
      const batches = []
      for (let index = 0; index < facts; index += batchFacts) {
        const batch = []
        for (let each = index; each < Math.min(facts, index + batchFacts); each++) {
          const stream = streamOf(each)
          const expectedRevision = revisions.get(stream) ?? -1
          batch.push({ stream, expectedRevision, facts: [benchDraft(each)] })
          revisions.set(stream, expectedRevision + 1)
        }
        batches.push(batch)
      }
      const startMs = performance.now()
      for (const batch of batches) yield* store.append(batch)
      return (performance.now() - startMs) / 1000
    })
  )

/** The rows of the store at `from`, inserted into a table of the same shape at `path`. */
export function rawSeconds(from: string, path: string, batchFacts: number): number {
  const source = new DatabaseSync(from, { readOnly: true })
  const read = source.prepare("select * from events order by position")
  read.setReturnArrays(true)
  const rows = read.all() as unknown as ReadonlyArray<ReadonlyArray<string | number | null>>
  const table = String(source.prepare("select sql from sqlite_schema where name = 'events'").get()?.["sql"])
  source.close()
  const database = new DatabaseSync(path)
  database.exec("pragma journal_mode = wal; pragma synchronous = full; pragma cache_size = -65536")
  database.exec("pragma wal_autocheckpoint = 4000")
  database.exec(table)
  const insert = database.prepare(`insert into events values (${columns.map(() => "?").join(", ")})`)
  const begin = database.prepare("begin immediate")
  const commit = database.prepare("commit")
  const startMs = performance.now()
  for (let index = 0; index < rows.length; index += batchFacts) {
    begin.run()
    for (const row of rows.slice(index, index + batchFacts)) insert.run(...row)
    commit.run()
  }
  const seconds = (performance.now() - startMs) / 1000
  database.close()
  return seconds
}

const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN

/** `rounds` times each, in turn, so that both meet the same weather; the medians. */
export async function benchAppend(
  facts: number,
  batchFacts: number,
  rounds: number
): Promise<EventStoreBench> {
  const raw: Array<number> = []
  const store: Array<number> = []
  for (let round = 0; round < rounds; round++)
    await inFolder(async (path) => {
      store.push(await storeSeconds(path, facts, batchFacts))
      raw.push(rawSeconds(path, `${path}.raw`, batchFacts))
    })
  const rawPerSecond = facts / median(raw)
  const storePerSecond = facts / median(store)
  return { batchFacts, rawPerSecond, storePerSecond, share: storePerSecond / rawPerSecond }
}

/** Read all facts as `Recorded`, three times, and verify the chain. */
export const benchRead = (facts: number): Promise<EventStoreReadBench> =>
  inFolder(async (path) => {
    await storeSeconds(path, facts, 256)
    return withStore(path, (store) =>
      Effect.gen(function* () {
        const digest = createHash("sha256")
        const perSecond: Array<number> = []
        for (let round = 0; round < 3; round++) {
          const startMs = performance.now()
          for (let from = 1; from <= facts; from += 1000) {
            const read = yield* store.readAll({ from })
            digest.update(read.at(-1)?.hash ?? "")
          }
          perSecond.push((facts / (performance.now() - startMs)) * 1000)
        }
        const startMs = performance.now()
        yield* store.verify
        const verifyPerSecond = (facts / (performance.now() - startMs)) * 1000
        return {
          readPerSecond: median(perSecond),
          verifyPerSecond,
          result: digest.digest("hex").slice(0, 16)
        }
      })
    )
  })

if (import.meta.main) {
  const facts = Number(process.argv[2] ?? 40_000)
  for (const batchFacts of [1, 16, 64, 256]) {
    const bench = await benchAppend(batchFacts === 1 ? Math.ceil(facts / 20) : facts, batchFacts, 3)
    const { rawPerSecond, storePerSecond, share } = bench
    const speeds = `${Math.round(storePerSecond)} facts/s, raw ${Math.round(rawPerSecond)}`
    console.log(`append by ${batchFacts}: ${speeds}, ${Math.round(share * 100)} % of raw`)
  }
  const { readPerSecond, verifyPerSecond, result } = await benchRead(facts)
  console.log(
    `readAll: ${Math.round(readPerSecond)} facts/s; verify: ${Math.round(verifyPerSecond)} facts/s; ${result}`
  )
}
