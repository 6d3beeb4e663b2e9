/** Records that are changed, lost or misplaced are found; an end that nobody relied on is told from a loss. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { crc32c, open, seal } from "../../src/kernel/records.ts"
import type { Found, Sealed } from "../../src/kernel/records.ts"

function sealed(owner: string, ...texts: ReadonlyArray<string>): Array<Found> {
  const records: Array<Sealed> = []
  for (const text of texts) records.push(seal(owner, records.at(-1) ?? null, text))
  return records
}
const texts = ["one", "two", "thrée", "", "five"]
const at = (records: ReadonlyArray<Found>, place: number) => records[place] as Sealed

test("the checksum is CRC-32C", () => {
  // RFC 3720, B.4: 32 bytes from 0 up, as 16 units of two bytes.
  const units = Array.from({ length: 16 }, (_, n) => (2 * n + 1) * 256 + 2 * n)
  assert.equal(crc32c(String.fromCharCode(...units)), 0x46dd794e)
})

test("what was written is whole; an end that was never acknowledged is cut off, wherever it is damaged", () => {
  assert.deepEqual(open("a", [], 0), { state: "whole", intact: 0 })
  assert.deepEqual(open("a", sealed("a", ...texts), 5), { state: "whole", intact: 5 })
  const torn = sealed("a", ...texts)
  torn[3] = { ...at(torn, 3), text: "x" }
  assert.deepEqual(open("a", torn, 3), { state: "torn", intact: 3 })
  assert.deepEqual(open("a", torn, 0), { state: "torn", intact: 3 })
  assert.deepEqual(open("a", torn, 4), { state: "damaged", intact: 3 })
})

test("every bit of every record counts, and so do its place, its owner and those before it", () => {
  const records = sealed("a", ...texts)
  for (const [place, one] of records.entries()) {
    const { text, checksum } = one as Sealed
    const others: Array<Found> = [
      null,
      { ...(one as Sealed), checksum: checksum ^ 1 },
      { ...(one as Sealed), sequence: place + 2 },
      ...Array.from({ length: text.length * 16 }, (_, bit) => {
        const unit = text.charCodeAt(bit >> 4) ^ (1 << (bit & 15))
        return {
          ...(one as Sealed),
          text: text.slice(0, bit >> 4) + String.fromCharCode(unit) + text.slice((bit >> 4) + 1)
        }
      })
    ]
    for (const other of others)
      assert.deepEqual(open("a", records.with(place, other), 5), { state: "damaged", intact: place })
  }
  assert.deepEqual(open("b", records, 5), { state: "damaged", intact: 0 }, "of somebody else")
  assert.deepEqual(open("a", records.toSpliced(1, 1), 4), { state: "damaged", intact: 1 }, "one is missing")
  assert.deepEqual(
    open("a", records.with(3, at(records, 1)), 5),
    { state: "damaged", intact: 3 },
    "misdirected"
  )
  const other = sealed("a", "one", "other", "thrée", "", "five")
  assert.deepEqual(
    open("a", records.with(1, at(other, 1)), 5),
    { state: "damaged", intact: 2 },
    "of another past"
  )
  assert.deepEqual(open("a", records.slice(0, 3), 5), { state: "damaged", intact: 3 }, "the end is gone")
})

test("what was verified before is not looked at again", () => {
  const records = sealed("a", ...texts)
  assert.deepEqual(open("a", records.with(0, null), 5, 2), { state: "whole", intact: 5 })
  assert.deepEqual(open("a", records.with(4, null), 5, 2), { state: "damaged", intact: 4 })
})
