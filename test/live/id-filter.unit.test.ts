import assert from "node:assert/strict"
import { test } from "node:test"
import * as fc from "fast-check"
import { idHash, IdFilter } from "../../src/live/event-store/id-filter.ts"

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31))
console.log(`seed ${seed}`)
const hashOf = idHash(Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8))

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

/** HalfSipHash of octets as its reference has it, with `c` rounds for each word and `d` at the end. */
function reference(key: Uint8Array, message: Uint8Array, c: number, d: number): number {
  const words = new DataView(key.buffer, key.byteOffset, 8)
  const [k0, k1] = [words.getUint32(0, true), words.getUint32(4, true)]
  const v = [k0, k1, 0x6c796765 ^ k0, 0x74656462 ^ k1].map((word) => BigInt(word >>> 0))
  const at = (place: number) => v[place] as bigint
  const rotated = (word: bigint, by: bigint) => ((word << by) | (word >> (32n - by))) & 0xffffffffn
  /** `a += b`, and then `b`, rotated, `^= a`. */
  const mix = (a: number, b: number, by: bigint) => {
    v[a] = (at(a) + at(b)) & 0xffffffffn
    v[b] = rotated(at(b), by) ^ at(a)
  }
  const rounds = (count: number) => {
    for (let round = 0; round < count; round++) {
      mix(0, 1, 5n)
      v[0] = rotated(at(0), 16n)
      mix(2, 3, 8n)
      mix(0, 3, 7n)
      mix(2, 1, 13n)
      v[2] = rotated(at(2), 16n)
    }
  }
  const whole = message.length - (message.length % 4)
  const last = [...message.subarray(whole), 0, 0, 0].slice(0, 3)
  const padded = Uint8Array.from([...message.subarray(0, whole), ...last, message.length & 0xff])
  const view = new DataView(padded.buffer)
  for (let begin = 0; begin < padded.length; begin += 4) {
    const word = BigInt(view.getUint32(begin, true))
    v[3] = at(3) ^ word
    rounds(c)
    v[0] = at(0) ^ word
  }
  v[2] = at(2) ^ 0xffn
  rounds(d)
  return Number(at(1) ^ at(3))
}

test("the hash of an id is what files have: HalfSipHash-1-3 of its stream and its UTF-16", () => {
  // From the vectors of the authors' reference, of 2-4, for the messages 00, 00 01, and so on.
  const key = Uint8Array.from({ length: 8 }, (_, octet) => octet)
  const vectors = ["a9359f5b", "27475ab8", "fa62a603", "8afee704"]
  for (const [length, expected] of vectors.entries()) {
    const message = Uint8Array.from({ length }, (_, octet) => octet)
    assert.equal(reference(key, message, 2, 4), Buffer.from(expected, "hex").readUInt32LE())
  }
  const octets = fc.uint8Array({ minLength: 8, maxLength: 8 })
  const stream = fc.nat({ max: 2 ** 32 - 1 })
  const property = fc.property(octets, stream, fc.string({ unit: "binary" }), (key, stream, id) => {
    const message = Buffer.alloc(4 + 2 * id.length)
    message.writeUInt32LE(stream)
    message.write(id, 4, "utf16le")
    assert.equal(idHash(key)(stream, id), reference(key, message, 1, 3))
  })
  fc.assert(property, { seed, numRuns: 500 })
})
