import assert from "node:assert/strict"
import { test } from "node:test"
import * as fc from "fast-check"
import { IdFilter } from "../../src/live/event-store/id-filter.ts"

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31))
console.log(`seed ${seed}`)

test("an id that was added is never denied", () => {
  const added = fc.array(fc.tuple(fc.nat(), fc.string({ unit: "binary" })), { maxLength: 200 })
  const property = fc.property(added, (all) => {
    const filter = new IdFilter(0)
    for (const [stream, id] of all) filter.add(stream, id)
    assert.ok(all.every(([stream, id]) => filter.mayHave(stream, id)))
  })
  fc.assert(property, { seed, numRuns: 300 })
})

test("of those that were not added few are not denied, until it is full and says so", () => {
  const filter = new IdFilter(0)
  const ids = 1 << 17
  for (let n = 0; n < ids; n++) {
    assert.ok(!filter.isFull)
    filter.add(n % 64, `command-${n}#0`)
  }
  assert.ok(filter.isFull)
  let taken = 0
  for (let n = 0; n < 100_000; n++) if (filter.mayHave(n % 64, `command-${n}#1`)) taken++
  console.log(`${taken} of 100000`)
  // (1 - e^(-4/8))^4 = 2.4 %, Bloom's estimate.
  assert.ok(taken > 1500 && taken < 3300)
  // In another stream the same id is another one.
  assert.ok(!filter.mayHave(1_000_000, "command-1#0") || !filter.mayHave(2_000_000, "command-1#0"))
})
