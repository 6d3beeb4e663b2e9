/** Flipped bits, torn and missing files: found and named, or without effect on what is read. */
import assert from "node:assert/strict"
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, statSync } from "node:fs"
import { truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { test } from "node:test"
import { Effect, Layer, Option } from "effect"
import type { Recorded } from "../../src/events/envelope.ts"
import { StoreDamaged, StoreFailure } from "../../src/kernel/ports/event-store.ts"
import * as LiveDigest from "../../src/live/digest.ts"
import { StoreUnsupported } from "../../src/live/event-store/errors.ts"
import { layer } from "../../src/live/event-store.ts"
import type { SqliteOptions } from "../../src/live/event-store.ts"
import { draft, drafts, within } from "../conformance/event-store.ts"
import type { Store } from "../conformance/event-store.ts"
import { inFolder } from "./event-store-folder.ts"
import { seeded } from "./event-store-seed.ts"

const placeAt = (path: string, options: Partial<SqliteOptions> = {}) => ({
  // Few, so that a part of the facts is in the written index and a part is not.
  layer: Layer.provideMerge(Layer.fresh(layer({ path, indexAfterFacts: 20, ...options })), LiveDigest.layer)
})

const snapshot = { stream: "vm/a", revision: 1, position: 2, version: 1, state: '{"status":"active"}' }

/** Everything a reader of the store can see. */
const contents = (store: Store) =>
  Effect.gen(function* () {
    const all = yield* store.readAll({ limit: 10_000 })
    const byStream: Record<string, ReadonlyArray<Recorded>> = {}
    for (const stream of yield* store.streams(""))
      byStream[stream] = yield* store.readStream(stream, { limit: 10_000 })
    const kept = Option.getOrNull(Option.fromNullOr(yield* store.loadSnapshot("vm/a", 1)))
    return { all, byStream, kept, head: yield* store.head }
  })

/**
 * A store of which one half of the facts lies in the file and the other in the log, as after a crash: its files
 * are copied while it is open.
 */
async function crashedStore(folder: string): Promise<Effect.Success<ReturnType<typeof contents>>> {
  const from = join(folder, "origin")
  const to = join(folder, "crashed")
  mkdirSync(from)
  const path = join(from, "events.db")
  const append = (store: Store, round: number) =>
    store.append([
      { stream: "vm/a", expectedRevision: round * 3 - 1, facts: drafts(`a${round}`, 3) },
      {
        stream: `host/h-${round}`,
        expectedRevision: -1,
        facts: [draft("h", { text: "é".repeat(round * 40) })]
      }
    ])
  await within(placeAt(path), (store) =>
    Effect.gen(function* () {
      for (let round = 0; round < 12; round++) yield* append(store, round)
      yield* store.saveSnapshots([snapshot])
    })
  )
  return within(placeAt(path), (store) =>
    Effect.gen(function* () {
      for (let round = 12; round < 24; round++) yield* append(store, round)
      cpSync(from, to, { recursive: true })
      return yield* contents(store)
    })
  )
}

/** Open the store, read all of it and verify: what was found, or the error with the path that it names. */
async function examine(path: string) {
  try {
    return await within(placeAt(path), (store) =>
      Effect.gen(function* () {
        const found = yield* contents(store)
        yield* store.verify
        return found
      })
    )
  } catch (error) {
    const typed =
      error instanceof StoreDamaged || error instanceof StoreUnsupported || error instanceof StoreFailure
    assert.ok(typed, `neither content nor a typed error: ${String(error)}`)
    assert.ok(JSON.stringify(error).includes(path), `the path is not named in ${JSON.stringify(error)}`)
    return error
  }
}

test("a flipped bit anywhere in the file, the log or the head is found, or changes nothing", async () => {
  const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31))
  console.log(`seed ${seed}`)
  const random = seeded(seed)
  await inFolder(async (folder) => {
    const expected = await crashedStore(folder)
    assert.equal(expected.all.length, 96)
    const tally = { found: 0, equal: 0 }
    for (let round = 0; round < 240; round++) {
      const place = join(folder, `round-${round}`)
      cpSync(join(folder, "crashed"), place, { recursive: true })
      const name =
        ["events.db", "events.db-wal", "events.db", "events.db-wal", "events.db.head"][round % 5] ?? ""
      const bytes = readFileSync(join(place, name))
      // Every fourth time among the first bytes, where the headers are and one bit counts most.
      const offset = Math.floor(random() * (round % 4 === 0 ? 160 : bytes.length))
      const bit = Math.floor(random() * 8)
      bytes[offset] = (bytes[offset] ?? 0) ^ (1 << bit)
      writeFileSync(join(place, name), bytes)
      const found = await examine(join(place, "events.db"))
      if (found instanceof Error) tally.found++
      else {
        tally.equal++
        assert.deepEqual(found, expected, `bit ${bit} of byte ${offset} of ${name} was not found`)
      }
      rmSync(place, { recursive: true })
    }
    console.log(tally)
    assert.ok(tally.found > 100)
  })
})

/** Of the first a file was cut so that a fact's text was read as nothing. */
const cutSeeds = [1_825_481_618, Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31))]

test("a file, log or head that is cut short or lost is found, or changes nothing", async () => {
  for (const seed of cutSeeds) await cutsShort(seed)
})

async function cutsShort(seed: number): Promise<void> {
  console.log(`seed ${seed}`)
  const random = seeded(seed)
  await inFolder(async (folder) => {
    const expected = await crashedStore(folder)
    for (const name of ["events.db", "events.db-wal", "events.db.head"])
      for (let round = 0; round < 16; round++) {
        const place = join(folder, "round")
        cpSync(join(folder, "crashed"), place, { recursive: true })
        const file = join(place, name)
        const sizeBytes = round === 0 ? 0 : Math.floor(random() * statSync(file).size)
        if (round === 1) rmSync(file)
        else truncateSync(file, sizeBytes)
        const found = await examine(join(place, "events.db"))
        if (!(found instanceof Error)) assert.deepEqual(found, expected, `${name} cut to ${sizeBytes} bytes`)
        if (name === "events.db-wal") assert.ok(found instanceof StoreDamaged, `the log cut to ${sizeBytes}`)
        if (name === "events.db" && round < 2)
          assert.ok(found instanceof StoreDamaged && existsSync(`${file}-wal`))
        rmSync(place, { recursive: true })
      }
  })
}

test("a changed fact is found at its position: in the tail at opening, before it by verify", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "events.db")
    await within(placeAt(path), (store) =>
      store.append([{ stream: "vm/a", expectedRevision: -1, facts: drafts("a", 50) }])
    )
    const change = (position: number) => {
      const database = new DatabaseSync(path)
      database
        .prepare("update events set fact = json_set(fact, '$[3]', (fact ->> '$[3]') + 1) where position = ?")
        .run(position)
      database.close()
    }
    change(20)
    await within(placeAt(path, { tailFacts: 10 }), (store) =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(store.verify)
        assert.ok(error instanceof StoreDamaged)
        assert.deepEqual([error.path, error.position], [path, 20])
      })
    )
    change(45)
    await assert.rejects(
      within(placeAt(path, { tailFacts: 10 }), () => Effect.void),
      (error) => error instanceof StoreDamaged && error.position === 45 && error.path === path
    )
  })
})

test("what is left of a fact is not taken for one, and nobody reads past a gap", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "events.db")
    // The tail is looked at when the store is opened: the facts before it can only be found when they are read.
    const options = { tailFacts: 10, indexAfterFacts: 1 }
    // Of one letter: it stands for the first.
    const damages = ["x", "{", "long", '["a"]', "{}", "[]", "null", '["a",1,2,3,4,5,6,7,8,9,"{"]']
    for (const damage of [...damages, null]) {
      rmSync(path, { force: true })
      rmSync(`${path}.head`, { force: true })
      await within(placeAt(path, options), (store) =>
        store.append([{ stream: "vm/a", expectedRevision: -1, facts: drafts("a", 50) }])
      )
      const database = new DatabaseSync(path)
      if (damage === null) database.exec("delete from events where position = 20")
      else if (damage.length > 1)
        database.prepare("update events set fact = ? where position = 20").run(damage)
      else database.prepare("update events set fact = ? || substr(fact, 2) where position = 20").run(damage)
      database.close()
      await within(placeAt(path, options), (store) =>
        Effect.gen(function* () {
          const reads = [
            store.readAll(),
            store.readAll({ from: 20, limit: 1 }),
            store.readAll({ direction: "backwards" }),
            store.readAll({ direction: "backwards", from: 20, limit: 1 }),
            store.readStream("vm/a"),
            store.readStream("vm/a", { from: 19, limit: 1 }),
            store.readStream("vm/a", { direction: "backwards", from: 19, limit: 1 })
          ]
          // Without the one before it, a fact can't say that one's hash.
          if (damage === null)
            reads.push(
              store.readAll({ from: 21, limit: 1 }),
              store.readStream("vm/a", { from: 20, limit: 1 })
            )
          for (const read of reads) {
            const error = yield* Effect.flip(read)
            assert.ok(error instanceof StoreFailure, `${damage}: ${String(error)}`)
            assert.match(error.reason, /damaged/)
          }
          const error = yield* Effect.flip(store.verify)
          assert.ok(error instanceof StoreDamaged)
          assert.deepEqual([error.path, error.position], [path, 20])
          if (damage?.length === 1) assert.match(error.reason, /its content is not a fact's/)
          assert.equal((yield* store.readAll({ limit: 19 })).length, 19)
          assert.equal((yield* store.readAll({ from: 22 })).length, 29)
        })
      )
    }
  })
})

test("a damaged snapshot is ignored when it is asked for and reported by verify", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "events.db")
    await within(placeAt(path), (store) => store.saveSnapshots([snapshot]))
    const database = new DatabaseSync(path)
    database.exec("update snapshots set state = '{}'")
    database.close()
    await within(placeAt(path), (store) =>
      Effect.gen(function* () {
        assert.equal(yield* store.loadSnapshot("vm/a", 1), null)
        assert.equal((yield* Effect.flip(store.verify))._tag, "StoreDamaged")
      })
    )
  })
})

test("files of other applications and of newer releases are refused and left as they are", async () => {
  await inFolder(async (folder) => {
    const cases: ReadonlyArray<readonly [string, (database: DatabaseSync) => void, RegExp]> = [
      [
        "other.db",
        (database) => database.exec("pragma application_id = 7; create table t (a)"),
        /0x00000007/
      ],
      ["plain.db", (database) => database.exec("create table t (a)"), /0x00000000/],
      [
        "newer.db",
        (database) => database.exec("pragma user_version = 99"),
        /version is 99, allowed are 1 to 4/
      ]
    ]
    for (const [name, prepare, reason] of cases) {
      const path = join(folder, name)
      if (name === "newer.db") await within(placeAt(path), () => Effect.void)
      const database = new DatabaseSync(path)
      prepare(database)
      database.close()
      const before = readFileSync(path)
      const found = await examine(path)
      assert.ok(found instanceof StoreUnsupported, String(found))
      assert.match(found.message, reason)
      assert.deepEqual(readFileSync(path), before)
    }
    const text = join(folder, "text.db")
    writeFileSync(text, "not a database, and longer than the hundred bytes that a header has: ".repeat(3))
    assert.ok((await examine(text)) instanceof StoreUnsupported)
    assert.ok((await examine("/proc/none/events.db")) instanceof StoreFailure)
  })
})

test("a full store fails the append, keeps nothing of it and goes on when there is room", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "events.db")
    const big = (id: string, sizeBytes: number) => draft(id, { text: "x".repeat(sizeBytes) })
    await within(placeAt(path, { sizeBytesMax: 512 * 1024 }), (store) =>
      Effect.gen(function* () {
        yield* store.append([{ stream: "vm/a", expectedRevision: -1, facts: drafts("a", 10) }])
        const head = yield* store.head
        const error = yield* Effect.flip(
          store.append([
            { stream: "vm/b", expectedRevision: -1, facts: drafts("b", 3) },
            { stream: "vm/a", expectedRevision: 9, facts: [draft("x"), big("y", 1024 * 1024)] }
          ])
        )
        assert.ok(error instanceof StoreFailure)
        assert.match(error.reason, /full/)
        assert.ok(error.reason.includes(path))
        assert.deepEqual(yield* store.head, head)
        assert.deepEqual(yield* store.streams(""), ["vm/a"])
        yield* store.append([{ stream: "vm/b", expectedRevision: -1, facts: drafts("b", 3) }])
        yield* store.append([{ stream: "vm/a", expectedRevision: 9, facts: [draft("x")] }])
        assert.equal((yield* store.verify).position, 14)
      })
    )
    assert.equal((await within(placeAt(path), (store) => store.verify)).position, 14)
  })
})

test("a closed store refuses work", async () => {
  await inFolder(async (folder) => {
    const store = await within(placeAt(join(folder, "events.db")), (open) => Effect.succeed(open))
    const error = await Effect.runPromise(Effect.flip(store.head))
    assert.match(error.reason, /closed/)
  })
})
