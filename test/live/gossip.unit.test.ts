/** Sealed datagrams, replays and DNS messages: what was made is taken, and nothing else. */
import assert from "node:assert/strict"
import { randomBytes } from "node:crypto"
import { test } from "node:test"
import * as fc from "fast-check"
import {
  decodeMessage,
  encodeMessage,
  encodeName,
  readName,
  readSrv,
  readTxt,
  recordTypes,
  srvData,
  txtData
} from "../../src/live/gossip/dns-message.ts"
import { clusterKeys, secretBytes } from "../../src/live/gossip/keys.ts"
import { ReplayWindow, windowSize } from "../../src/live/gossip/replays.ts"
import { sealBytes, Sealing } from "../../src/live/gossip/sealing.ts"

const seed = 20_261_129
const [one, two] = [Buffer.alloc(secretBytes, 1), Buffer.alloc(secretBytes, 2)]

function sealing(
  secrets: ReadonlyArray<Uint8Array>,
  { cluster = "blue", wallClockMs = (): number => 1_000_000 } = {}
) {
  return new Sealing({ keys: clusterKeys(cluster, secrets), ageMsMax: 1000, sessionsMax: 2, wallClockMs })
}

test("who has the key reads what was sealed, once", () => {
  const [from, to] = [sealing([one]), sealing([one])]
  const sealed = from.seal("hello")
  assert.equal(sealed.length, 5 + sealBytes)
  assert.equal(sealed.includes("hello"), false)
  assert.deepEqual(to.open(sealed), { ok: true, text: "hello" })
  assert.deepEqual(to.open(sealed), { ok: false, reason: "replayed" })
  assert.deepEqual(to.open(from.seal("again")), { ok: true, text: "again" })
})

test("another secret and another cluster are refused, and so is every changed bit", () => {
  const sealed = sealing([one]).seal("hello")
  assert.deepEqual(sealing([two]).open(sealed), { ok: false, reason: "unknown-key" })
  assert.deepEqual(sealing([one], { cluster: "red" }).open(sealed), { ok: false, reason: "unknown-key" })
  for (let at = 0; at < sealed.length; at++) {
    const changed = Buffer.from(sealed)
    changed[at] = (changed[at] ?? 0) ^ 1
    const opened = sealing([one]).open(changed)
    assert.equal(opened.ok, false, `octet ${at}`)
  }
  for (const bytes of [0, 1, sealBytes - 1])
    assert.equal(sealing([one]).open(sealed.subarray(0, bytes)).ok, false)
  assert.equal(sealing([one]).open(randomBytes(200)).ok, false)
})

test("what is too old is refused, also when its sender was forgotten", () => {
  let nowMs = 1_000_000
  const wallClockMs = () => nowMs
  const to = sealing([one], { wallClockMs })
  const sealed = sealing([one], { wallClockMs }).seal("hello")
  assert.equal(to.open(sealed).ok, true)
  for (let n = 0; n < 3; n++) assert.equal(to.open(sealing([one], { wallClockMs }).seal("other")).ok, true)
  nowMs += 1001
  assert.deepEqual(to.open(sealed), { ok: false, reason: "stale" })
})

test("keys are replaced without a word lost: first all open with the new one, then it seals", () => {
  const [from, to] = [sealing([one]), sealing([one])]
  to.replaceKeys(clusterKeys("blue", [one, two]))
  assert.equal(to.open(from.seal("old")).ok, true)
  from.replaceKeys(clusterKeys("blue", [two, one]))
  assert.equal(to.open(from.seal("new")).ok, true)
  to.replaceKeys(clusterKeys("blue", [two]))
  assert.equal(to.open(from.seal("new")).ok, true)
  assert.equal(to.open(sealing([one]).seal("old")).ok, false)
})

test("secrets that are none are refused with where and why", () => {
  assert.throws(() => clusterKeys("blue", []), /gossip.secrets: 0 secrets: allowed are 1 to 8/)
  assert.throws(
    () => clusterKeys("blue", [one, Buffer.alloc(5)]),
    /gossip.secrets.1: 5 bytes: a secret has 32/
  )
})

test("a window admits each counter once, and nothing that is far behind", () => {
  const counters = fc.array(fc.oneof(fc.nat(200), fc.nat(3 * windowSize)), { maxLength: 300 })
  fc.assert(
    fc.property(counters, (all) => {
      const window = new ReplayWindow()
      const seen = new Set<number>()
      let highest = -1
      for (const counter of all) {
        const isNew = !seen.has(counter) && counter + windowSize > highest
        assert.equal(window.admit(counter), isNew, `${counter} after ${highest}`)
        seen.add(counter)
        highest = Math.max(highest, counter)
      }
    }),
    { seed }
  )
})

const service = "_novacron._udp.local"
const message = {
  isAnswer: true,
  questions: [{ name: service, type: recordTypes.ptr }],
  records: [
    { name: service, type: recordTypes.ptr, ttlSeconds: 120, data: encodeName(`n1.${service}`) },
    { name: `n1.${service}`, type: recordTypes.srv, ttlSeconds: 120, data: srvData(7946, "n1.local") },
    { name: `n1.${service}`, type: recordTypes.txt, ttlSeconds: 120, data: txtData(["cluster=blue", ""]) },
    { name: "n1.local", type: recordTypes.a, ttlSeconds: 120, data: Buffer.from([127, 0, 0, 1]) }
  ]
}

test("DNS messages are read as they were written, compressed names too", () => {
  const read = decodeMessage(encodeMessage(message))
  assert.deepEqual(read, message)
  assert.deepEqual(readSrv(message.records[1]!.data), { port: 7946, target: "n1.local" })
  assert.deepEqual(readTxt(message.records[2]!.data), ["cluster=blue", ""])
  const compressed = Buffer.concat([encodeName("udp.local"), Buffer.from([2, 0x6e, 0x31, 0xc0, 0])])
  assert.deepEqual(readName(compressed, 11), { name: "n1.udp.local", end: 16 })
  // A pointer to itself, or forwards, would never end.
  assert.equal(readName(Buffer.from([0xc0, 0]), 0), null)
  assert.equal(readName(Buffer.from([0xc0, 2, 0]), 0), null)
})

test("no octets break the reader of DNS messages", () => {
  const whole = encodeMessage(message)
  fc.assert(
    fc.property(fc.nat(), fc.uint8Array({ maxLength: 8 }), fc.nat(whole.length), (at, put, length) => {
      const changed = Buffer.from(whole.subarray(0, length))
      changed.set(put.subarray(0, Math.max(0, length - (at % (length + 1)))), at % (length + 1))
      const read = decodeMessage(changed)
      for (const { type, data } of read?.records ?? []) if (type === recordTypes.srv) readSrv(data)
    }),
    { seed, numRuns: 1000 }
  )
  fc.assert(
    fc.property(fc.uint8Array(), (bytes) => void decodeMessage(Buffer.from(bytes))),
    { seed }
  )
})
