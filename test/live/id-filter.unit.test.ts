import assert from "node:assert/strict"
import { test } from "node:test"
import * as fc from "fast-check"
import { hashOf, IdFilter } from "../../src/live/event-store/id-filter.ts"

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31))
console.log(`seed ${seed}`)

test("an id that was added is never denied", () => {
  const added = fc.array(fc.tuple(fc.nat(), fc.string({ unit: "binary" })), { maxLength: 200 })
  const property = fc.property(added, (all) => {
    const filter = new IdFilter(0)
    for (const [stream, id] of all) filter.add(hashOf(stream, id))
    assert.ok(all.every(([stream, id]) => filter.mayHave(hashOf(stream, id))))
  })
  fc.assert(property, { seed, numRuns: 300 })
})

test("of those that were not added few are not denied, until it is full and says so", () => {
  const filter = new IdFilter(0)
  const ids = 1 << 17
  for (let n = 0; n < ids; n++) {
    assert.ok(!filter.isFull)
    filter.add(hashOf(n % 64, `command-${n}#0`))
  }
  assert.ok(filter.isFull)
  let taken = 0
  for (let n = 0; n < 100_000; n++) if (filter.mayHave(hashOf(n % 64, `command-${n}#1`))) taken++
  console.log(`${taken} of 100000`)
  // (1 - e^(-6/16))^6 = 0.09 %, Bloom's estimate.
  assert.ok(taken > 40 && taken < 180)
  // In another stream the same id is another one.
  assert.notEqual(hashOf(1, "command-1#0"), hashOf(2, "command-1#0"))
})

test("the hash of an id is what files have: FNV-1a of its characters, begun with the stream", () => {
  // By hand: (0x811c9dc5 ^ 7) * 0x01000193, then each character in turn.
  let expected = (0x811c9dc5n ^ 7n) * 0x01000193n
  for (const octet of Buffer.from("start-1#0", "latin1"))
    expected = ((expected & 0xffffffffn) ^ BigInt(octet)) * 0x01000193n
  assert.equal(BigInt(hashOf(7, "start-1#0")), expected & 0xffffffffn)
})
