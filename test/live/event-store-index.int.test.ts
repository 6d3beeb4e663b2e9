/** The index of streams: files of before it are taken over, damage to it is found, a full disk only delays it. */
import assert from "node:assert/strict"
import { readFileSync } from "node:fs"
import { DatabaseSync } from "node:sqlite"
import { test } from "node:test"
import { Effect, Layer } from "effect"
import { genesisHash } from "../../src/events/envelope.ts"
import { StoreDamaged, StoreFailure } from "../../src/kernel/ports/event-store.ts"
import * as LiveDigest from "../../src/live/digest.ts"
import { applicationId } from "../../src/live/event-store/schema.ts"
import { tablesOfVersion1, tablesOfVersion2, tablesOfVersion3 } from "../../src/live/event-store/schema.ts"
import { layer } from "../../src/live/event-store.ts"
import type { SqliteOptions } from "../../src/live/event-store.ts"
import { draft, drafts, within } from "../conformance/event-store.ts"
import type { Store } from "../conformance/event-store.ts"
import { withPath } from "./event-store-folder.ts"

const placeAt = (path: string, options: Partial<SqliteOptions> = {}) => ({
  layer: Layer.provideMerge(Layer.fresh(layer({ path, indexAfterFacts: 20, ...options })), LiveDigest.layer)
})

/** 28 facts of three streams, two of them in turns. */
const fill = (store: Store) =>
  Effect.gen(function* () {
    for (let round = 0; round < 4; round++)
      yield* store.append([
        { stream: "vm/a", expectedRevision: round * 3 - 1, facts: drafts(`a${round}`, 3) },
        { stream: "vm/b", expectedRevision: round * 3 - 1, facts: drafts(`b${round}`, 3) },
        { stream: `host/h${round}`, expectedRevision: -1, facts: [draft("h")] }
      ])
  })

const contents = (store: Store) =>
  Effect.gen(function* () {
    const streams = yield* store.streams("")
    const all = yield* store.readAll()
    const forwards = yield* Effect.forEach(streams, (stream) => store.readStream(stream))
    const backwards = yield* Effect.forEach(streams, (stream) =>
      store.readStream(stream, { direction: "backwards" })
    )
    return { streams, all, forwards, backwards, head: yield* store.verify }
  })

function inDatabase<A>(path: string, use: (database: DatabaseSync) => A): A {
  const database = new DatabaseSync(path)
  try {
    return use(database)
  } finally {
    database.close()
  }
}

const tablesOf = { 1: tablesOfVersion1, 2: tablesOfVersion2, 3: tablesOfVersion3 }
type OldVersion = keyof typeof tablesOf

/** The same facts as a release with an older version of the tables has them. */
function writeOld(version: OldVersion, from: string, to: string): void {
  inDatabase(to, (database) => {
    database.exec(`pragma application_id = ${applicationId}; pragma user_version = ${version}`)
    for (const table of tablesOf[version]) database.exec(table)
    database.prepare("attach ? as other").run(from)
    for (const table of ["streams", "snapshots"])
      database.exec(`insert into ${table} select * from other.${table}`)
    database.exec(`insert into events
      select position, (select id from streams where name = stream), revision, id, type, version, time_ms, correlation,
        causation, principal_kind, principal_name, node, answers, data,
        coalesce((select hash from other.events as before where before.position = facts.position - 1), '${genesisHash}'),
        hash
      from other.facts order by position`)
    if (version === 1) return
    // Its index stopped before the last facts.
    database.exec("insert into indexed (position) values (20)")
    if (version === 3)
      return database.exec("insert into stream_index select * from other.stream_index where position <= 20")
    database.exec(
      "insert into by_revision select stream, revision, position from events where position <= 20"
    )
    database.exec("insert into by_id select stream, id, position from events where position <= 20")
  })
}

const versionOf = (path: string) =>
  inDatabase(path, (database) => database.prepare("pragma user_version").get()?.["user_version"])

for (const version of [1, 2, 3] as const)
  test(`a file of version ${version} is taken over with every fact, its chain and its snapshots`, async () => {
    await withPath(async (path) => {
      const snapshot = { stream: "vm/a", revision: 1, position: 2, version: 1, state: '{"status":"active"}' }
      const before = await within(placeAt(path), (store) =>
        Effect.gen(function* () {
          yield* fill(store)
          yield* store.saveSnapshots([snapshot])
          return yield* contents(store)
        })
      )
      const old = `${path}.old`
      writeOld(version, path, old)
      for (let opening = 0; opening < 2; opening++)
        await within(placeAt(old), (store) =>
          Effect.gen(function* () {
            assert.deepEqual(yield* contents(store), before)
            assert.deepEqual(yield* store.loadSnapshot("vm/a", 1), snapshot)
            const [again] = yield* store.append([
              { stream: "vm/b", expectedRevision: 2, facts: [draft("b1#0")] }
            ])
            assert.equal(again?.revision, 3)
          })
        )
      assert.equal(versionOf(old), 4)
      await within(placeAt(old), (store) =>
        Effect.gen(function* () {
          yield* store.append([{ stream: "vm/a", expectedRevision: 11, facts: drafts("more", 30) }])
          assert.equal((yield* store.verify).position, before.head.position + 30)
        })
      )
    })
  })

for (const version of [1, 2, 3] as const)
  test(`a file of version ${version} for which there is no room stays as it is, and says so`, async () => {
    await withPath(async (path) => {
      await within(placeAt(path), fill)
      const old = `${path}.old`
      writeOld(version, path, old)
      const before = readFileSync(old)
      const opening = within(placeAt(old, { sizeBytesMax: before.length }), () => Effect.void)
      await assert.rejects(opening, (error) => error instanceof StoreFailure && /full/.test(error.reason))
      assert.equal(versionOf(old), version)
      assert.equal((await within(placeAt(old), (store) => store.verify)).position, 28)
    })
  })

/** Of the row of this stream, which has so many facts: how far behind its position one is, or the hash of its id. */
const entry = (stream: number, count: number, place: number, part: "offset" | "hash", hex: string) => {
  const at = 4 * (part === "offset" ? place : count + place) + 1
  return `update stream_index
    set places = cast(substr(places, 1, ${at - 1}) || x'${hex}' || substr(places, ${at + 4}) as blob)
    where stream = ${stream} and revision = 0 and length(places) = ${8 * count}`
}
const cut = (stream: number, octets: number) =>
  `update stream_index set places = substr(places, 1, length(places) - ${octets}) where stream = ${stream}`

const damages: ReadonlyArray<readonly [string, string]> = [
  ["a row is lost", "delete from stream_index where stream = 2"],
  ["a row begins too late", "update stream_index set revision = revision + 1 where stream = 1"],
  ["a row leads elsewhere", "update stream_index set position = position + 1 where stream = 2"],
  ["a row is another stream's", "update stream_index set stream = 99 where stream = 2"],
  ["a row has nothing", "update stream_index set places = x'' where stream = 3"],
  ["the last entry is lost", cut(1, 8)],
  ["the last entry is torn", cut(2, 3)],
  ["an entry leads elsewhere", entry(1, 9, 4, "offset", "01000000")],
  ["an entry leads nowhere", entry(1, 9, 4, "offset", "ff000000")],
  ["the hash of an id is another", entry(2, 9, 3, "hash", "00000000")],
  [
    "a row too many",
    "insert into stream_index (stream, revision, position, places) select stream, 99, position, places from stream_index"
  ],
  ["the mark is too low", "update indexed set position = position - 1"],
  ["the mark is too high", "update indexed set position = position + 1"],
  ["the mark is behind all facts", "update indexed set position = 29"],
  ["the mark is no position", "update indexed set position = -5"],
  ["the mark is lost", "delete from indexed"],
  ["the key of the hashes is another", "update indexed set key = x'0102030405060708'"],
  ["the key of the hashes is too short", "update indexed set key = x'01'"]
]

for (const [what, statement] of damages)
  test(`${what}: found at opening or by verify`, async () => {
    await withPath(async (path) => {
      await within(placeAt(path), fill)
      inDatabase(path, (database) => {
        const mark = database.prepare("select position from indexed").get()?.["position"]
        assert.equal(mark, 21, "some facts are in the index and some are not")
        database.exec(statement)
      })
      const examined = within(placeAt(path), (store) => store.verify)
      await assert.rejects(examined, (error) => error instanceof StoreDamaged && error.path === path)
    })
  })

test("what a damaged index leads to is not taken for the stream's facts", async () => {
  await withPath(async (path) => {
    await within(placeAt(path), fill)
    inDatabase(path, (database) => {
      database.exec(entry(1, 9, 4, "offset", "ff000000"))
      database.exec(entry(2, 9, 3, "offset", "01000000"))
    })
    await within(placeAt(path), (store) =>
      Effect.gen(function* () {
        const failure = (effect: Effect.Effect<unknown, unknown>) =>
          Effect.map(Effect.flip(effect), (error) => {
            assert.ok(error instanceof StoreFailure, String(error))
            assert.match(error.reason, /damaged/)
            return error.reason
          })
        assert.match(yield* failure(store.readStream("vm/a")), /vm\/a has no fact of revision 4:/)
        assert.match(
          yield* failure(store.readStream("vm/a", { direction: "backwards", from: 5 })),
          /revision 4:/
        )
        assert.match(yield* failure(store.readStream("vm/b")), /vm\/b has no fact of revision 3:/)
        assert.match(yield* failure(store.readStream("vm/b", { from: 3 })), /revision 3:/)
        const again = store.append([{ stream: "vm/b", expectedRevision: 0, facts: [draft("b1#0")] }])
        assert.match(yield* failure(again), /the fact at 5 is not what the index of streams says/)
        assert.equal((yield* store.readStream("vm/a", { limit: 4 })).length, 4)
      })
    )
  })
})

test("without room for the index the facts are kept all the same, and it is written when there is room", async () => {
  await withPath(async (path) => {
    // With a period this short the index is tried again and again while the file fills up.
    const appended = await within(placeAt(path, { sizeBytesMax: 256 * 1024, indexAfterFacts: 7 }), (store) =>
      Effect.gen(function* () {
        for (let count = 0; ; count++) {
          const append = store.append([
            {
              stream: `vm/${count % 5}`,
              expectedRevision: Math.floor(count / 5) - 1,
              facts: [draft(`${count}`)]
            }
          ])
          const error = yield* Effect.match(append, {
            onSuccess: () => null,
            onFailure: (failure) => failure
          })
          if (error === null) continue
          assert.ok(error instanceof StoreFailure && /full/.test(error.reason), String(error))
          assert.equal((yield* store.verify).position, count)
          return count
        }
      })
    )
    await within(placeAt(path), (store) =>
      Effect.gen(function* () {
        assert.equal((yield* store.verify).position, appended)
        yield* store.append([{ stream: "vm/new", expectedRevision: -1, facts: drafts("new", 20) }])
        assert.equal((yield* store.verify).position, appended + 20)
        const [again] = yield* store.append([{ stream: "vm/3", expectedRevision: -1, facts: [draft("3")] }])
        assert.equal(again?.position, 4)
      })
    )
    const mark = inDatabase(path, (database) => database.prepare("select position from indexed").get())
    assert.equal(mark?.["position"], appended + 20)
  })
})

test("a repeated id is found while the filter still learns what is stored, and when it has grown", async () => {
  await withPath(async (path) => {
    const at = { durability: "normal", indexAfterFacts: 5000 } as const
    const facts = (from: number, count: number) =>
      Array.from({ length: count }, (_, n) => draft(`${from + n}`, { type: "vm.started" }))
    // More than the smallest filter is for.
    const appended = 140_000
    await within(placeAt(path, at), (store) =>
      Effect.gen(function* () {
        for (let from = 0; from < appended; from += 1000)
          yield* store.append([{ stream: "vm/a", expectedRevision: from - 1, facts: facts(from, 1000) }])
      })
    )
    for (let opening = 0; opening < 2; opening++)
      await within(placeAt(path, at), (store) =>
        Effect.gen(function* () {
          const [last] = yield* store.readStream("vm/a", { direction: "backwards", limit: 1 })
          let revision = last?.revision ?? -1
          for (let round = 0; round < 300; round++) {
            const old = (round * 7919) % appended
            const repeated = yield* store.append([
              { stream: "vm/a", expectedRevision: revision, facts: facts(old, 1) }
            ])
            assert.deepEqual(
              repeated.map((fact) => fact.revision),
              [old]
            )
            yield* store.append([
              { stream: "vm/a", expectedRevision: revision, facts: facts(appended + revision, 1) }
            ])
            revision++
          }
        })
      )
    assert.equal((await within(placeAt(path, at), (store) => store.verify)).position, appended + 600)
  })
})
