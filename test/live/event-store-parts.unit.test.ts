/** Rows of the index of streams: what is written is what is read, from wherever one begins. */
import assert from "node:assert/strict"
import { DatabaseSync } from "node:sqlite"
import { test } from "node:test"
import * as fc from "fast-check"
import { partFacts_max, PartReader, PartWriter, RecentPart } from "../../src/live/event-store/parts.ts"
import type { Part } from "../../src/live/event-store/parts.ts"
import { tables } from "../../src/live/event-store/schema.ts"

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31))
console.log(`seed ${seed}`)

const facts_max = 3 * partFacts_max
/** How far behind the one before it a fact is: mostly near, now and then farther than 32 bits say. */
const gap = fc.oneof(
  { weight: 60, arbitrary: fc.integer({ min: 1, max: 1000 }) },
  { weight: 1, arbitrary: fc.constantFrom(2 ** 32 - 1, 2 ** 32, 2 ** 40) }
)
const facts = fc.array(fc.tuple(gap, fc.nat(0xffffffff)), { minLength: 1, maxLength: facts_max, size: "max" })
/** Of each stream, the runs that are written one after the other. */
const streams = fc.array(fc.array(facts, { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 4 })

const listOf = (parts: Iterable<Part>) =>
  [...parts].flatMap((part) =>
    Array.from({ length: part.count }, (_, place) => ({
      revision: part.firstRevision + place,
      position: part.positionAt(place),
      hash: part.hashAt(place)
    }))
  )

test("rows give back what was written, forwards and backwards, from any revision, and for all streams", () => {
  const property = fc.property(streams, fc.nat(facts_max), (all, at) => {
    const database = new DatabaseSync(":memory:")
    for (const table of tables) database.exec(table)
    const writer = new PartWriter(database)
    const reader = new PartReader(database)
    const expected = all.map((runs, stream) => {
      const list: ReturnType<typeof listOf> = []
      let position = 0
      for (const run of runs) {
        const part = new RecentPart(list.length)
        for (const [gap, hash] of run) {
          position += gap
          list.push({ revision: list.length, position, hash })
          part.push(position, hash)
        }
        writer.write(stream, part)
      }
      return list
    })
    for (const [stream, list] of expected.entries()) {
      const revision = at % (list.length + 2)
      const from = listOf(reader.from(stream, revision))
      assert.deepEqual(from, list.slice(list.length - from.length))
      assert.ok(from.length >= Math.min(list.length, list.length - revision))
      assert.ok(from.length < list.length - revision + partFacts_max + 1)
      const byRevision = (one: { revision: number }, other: { revision: number }) =>
        one.revision - other.revision
      const back = listOf(reader.backwards(stream, revision)).sort(byRevision)
      assert.deepEqual(back, list.slice(0, back.length))
      assert.ok(back.length >= Math.min(list.length, revision + 1))
      for (const part of reader.from(stream, 0)) {
        const hash = part.hashAt(at % part.count)
        const places = Array.from({ length: part.count }, (_, place) => place)
        const last = places.findLast((place) => place <= at && part.hashAt(place) === hash) ?? -1
        assert.equal(part.lastOf(hash, Math.min(at, part.count - 1)), last)
        assert.equal(part.lastOf(hash, -1), -1)
      }
    }
    assert.deepEqual(listOf(reader.after(-1, 0)), expected.flat())
    database.close()
  })
  fc.assert(property, { seed, numRuns: 60 })
})

test("a row is kept in one piece by SQLite", () => {
  const database = new DatabaseSync(":memory:")
  for (const table of tables) database.exec(table)
  const writer = new PartWriter(database)
  // The longest that there may be: every number in it takes as much room as it can.
  const far = 2 ** 52
  for (let n = 0; n < 40; n++) {
    const part = new RecentPart(far + n * partFacts_max)
    for (let place = 0; place < partFacts_max; place++) part.push(far + n * 1_000_000 + place, 0xffffffff)
    writer.write(2 ** 40, part)
  }
  const pages = Number(database.prepare("pragma page_count").get()?.["page_count"])
  const empty = new DatabaseSync(":memory:")
  for (const table of tables) empty.exec(table)
  const before = Number(empty.prepare("pragma page_count").get()?.["page_count"])
  // Four rows a page, more where a leaf was split; an overflowing row would have a page of its own.
  assert.ok(pages - before <= 20, `${pages - before} pages`)
})
