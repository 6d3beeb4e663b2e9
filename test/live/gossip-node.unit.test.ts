/** Keys, words and samples of a node in the gossip, as values. */
import assert from "node:assert/strict"
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { Effect } from "effect"
import * as fc from "fast-check"
import { gossipAddress, gossipSettings } from "../../src/cli/up-gossip.ts"
import { descriptionText, keyringOf, noDescription, readDescription } from "../../src/events/peer.ts"
import { lanSettings } from "../../src/events/swim.ts"
import type { PeerStatus, PeerView } from "../../src/events/swim.ts"
import { configOf } from "../../src/live/config.ts"
import { isOtherSample } from "../../src/live/gossip/describing.ts"
import {
  advancedRing,
  begunRing,
  foundedRing,
  isLaterVersion,
  keysOf,
  readRing,
  versionOf,
  writeRing
} from "../../src/live/gossip/keyring.ts"
import { Suspicions } from "../../src/live/gossip/noticing.ts"
import { newsOf, recalledOf } from "../../src/live/gossip/recorded-peers.ts"
import type { RecordedPeer } from "../../src/live/gossip/recorded-peers.ts"
import { withoutVersion } from "../../src/live/gossip/rotation.ts"

test("a turning over seals with the old key, then with the new one, then has that alone; each step is later", () => {
  const first = foundedRing()
  const installing = begunRing(first, 1)
  const using = advancedRing(installing)
  const settled = advancedRing(using)
  const [old = "", fresh = ""] = installing.secrets
  assert.deepEqual(first.secrets, [old])
  assert.notEqual(old, fresh)
  assert.deepEqual(using.secrets, [fresh, old])
  assert.deepEqual(settled.secrets, [fresh])
  assert.equal(settled.rotation, 1)
  assert.equal(advancedRing(settled), settled)
  const versions = [first, installing, using, settled].map((ring) => versionOf("blue", ring))
  for (const [at, version] of versions.entries()) {
    assert.ok(isLaterVersion(version, null))
    assert.ok(!isLaterVersion(version, version))
    for (const earlier of versions.slice(0, at)) assert.ok(isLaterVersion(version, earlier))
  }
  // What seals in each step is open in the one before and after it.
  const ids = [first, installing, using, settled].map((ring) => keysOf("blue", ring).map(({ id }) => id))
  for (const [at, own] of ids.entries())
    for (const other of ids.slice(Math.max(0, at - 1), at + 2)) assert.ok(other.includes(own[0] ?? ""))
})

test("of two rings of one generation the same one stands everywhere, and a version says nothing of a secret", () => {
  const base = foundedRing()
  for (let n = 0; n < 50; n++) {
    const [a, b] = [versionOf("blue", begunRing(base, 1)), versionOf("blue", begunRing(base, 1))]
    assert.notEqual(a, b)
    assert.notEqual(isLaterVersion(a, b), isLaterVersion(b, a))
  }
  for (const no of [null, "", "1", "0.00000000", "1.XYZ", "9.0123abcd "]) {
    assert.equal(isLaterVersion(no, null), false)
    assert.equal(isLaterVersion("1.00000000", no), true)
  }
  const version = versionOf("blue", base)
  assert.notEqual(version, versionOf("red", base))
  assert.match(version, /^1\.[0-9a-f]{8}$/)
})

test("keys lie in a file of the owner's alone; a file that is none is refused without a word of what is in it", async () => {
  const folder = mkdtempSync(join(tmpdir(), "novacron-keys-"))
  try {
    const path = join(folder, "gossip", "keys.json")
    assert.equal(await Effect.runPromise(readRing(path)), null)
    const ring = foundedRing()
    await Effect.runPromise(writeRing(path, ring))
    assert.equal(statSync(path).mode & 0o777, 0o600)
    assert.equal(statSync(join(folder, "gossip")).mode & 0o777, 0o700)
    assert.deepEqual(await Effect.runPromise(readRing(path)), ring)
    const [secret = ""] = ring.secrets
    for (const wrong of [{ ...ring, secrets: [`${secret}x`] }, { ...ring, more: secret }, secret]) {
      writeFileSync(path, JSON.stringify(wrong))
      const error = await Effect.runPromise(Effect.flip(readRing(path)))
      assert.match(error.message, /keys\.json: it is no keyring/)
      assert.ok(!JSON.stringify(error).includes(secret.slice(0, 20)))
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

const capacity = { cpus: 4, memoryMib: 4096, diskMib: 10_000 }
const description = { ...noDescription, capacity }
const recorded = (state: RecordedPeer["state"], incarnation: number): RecordedPeer => ({
  name: "n2",
  state,
  incarnation,
  address: "10.0.0.2:9090",
  description,
  by: "n3",
  sinceMs: 0
})
const seen = (status: PeerStatus, incarnation: number, more: Partial<PeerView> = {}): PeerView => ({
  id: "n2",
  status,
  incarnation,
  address: "10.0.0.2:9090",
  meta: descriptionText(description, "3.0123abcd"),
  ...more
})
const typeOf = (one: { readonly type: string } | null) => one?.type.slice("peer.notice".length) ?? null

test("what the members say of their keys is no part of what is recorded", () => {
  const text = descriptionText(description, "3.0123abcd")
  assert.equal(keyringOf(text), "3.0123abcd")
  assert.deepEqual(readDescription(text), description)
  for (const none of ["", "x", "{}", "[1]", "[1,2,3,4]", descriptionText(description)])
    assert.equal(keyringOf(none), null)
})

test("only what is later and of use is told: states, addresses and descriptions, not incarnations", () => {
  assert.equal(typeOf(newsOf(null, seen("alive", 1), "n2")), "Alive")
  assert.equal(typeOf(newsOf(null, seen("suspect", 1), "n3")), "Alive")
  assert.equal(newsOf(null, seen("dead", 1), "n3"), null)
  assert.equal(newsOf(recorded("alive", 1), seen("alive", 1), "n2"), null)
  assert.equal(newsOf(recorded("alive", 1), seen("alive", 9), "n2"), null)
  assert.equal(
    typeOf(newsOf(recorded("alive", 1), seen("alive", 2, { address: "10.0.0.9:9090" }), "n2")),
    "Alive"
  )
  assert.equal(typeOf(newsOf(recorded("alive", 1), seen("alive", 2, { meta: "" }), "n2")), "Alive")
  assert.equal(typeOf(newsOf(recorded("alive", 1), seen("suspect", 4), "n3")), "Suspect")
  assert.equal(typeOf(newsOf(recorded("suspect", 4), seen("alive", 5), "n2")), "Alive")
  assert.equal(newsOf(recorded("suspect", 4), seen("alive", 4), "n2"), null)
  assert.equal(typeOf(newsOf(recorded("suspect", 4), seen("dead", 4), "n3")), "Failed")
  // Another life came and is doubted: first the one, then the other.
  assert.equal(typeOf(newsOf(recorded("failed", 4), seen("suspect", 5), "n3")), "Alive")
  assert.equal(newsOf(recorded("failed", 4), seen("dead", 5), "n3"), null)
  assert.equal(typeOf(newsOf(recorded("failed", 4), seen("left", 4), "n2")), "Left")
  assert.equal(newsOf(recorded("left", 4), seen("left", 5), "n2"), null)
})

test("a detector hears of the journal what it does not know: who was there is probed, who is gone has to answer", () => {
  assert.equal(recalledOf(recorded("alive", 3), null)?.status, "alive")
  assert.equal(recalledOf(recorded("suspect", 3), null)?.status, "alive")
  assert.equal(recalledOf(recorded("failed", 3), null), null)
  assert.equal(recalledOf(recorded("left", 3), null), null)
  assert.equal(recalledOf(recorded("failed", 3), seen("alive", 3))?.status, "dead")
  assert.equal(recalledOf(recorded("failed", 3), seen("alive", 1))?.incarnation, 3)
  assert.equal(recalledOf(recorded("left", 3), seen("dead", 3))?.status, "left")
  assert.equal(recalledOf(recorded("failed", 3), seen("alive", 4)), null)
  assert.equal(recalledOf(recorded("alive", 3), seen("suspect", 3)), null)
})

test("journal and detector never both have the later word, and one step brings them nearer", () => {
  const states = fc.constantFrom<RecordedPeer["state"]>("alive", "suspect", "failed", "left")
  const stati = fc.constantFrom<PeerStatus>("alive", "suspect", "dead", "left")
  const incarnation = fc.integer({ min: 0, max: 3 })
  fc.assert(
    fc.property(states, incarnation, stati, incarnation, (state, known, status, own) => {
      const [one, other] = [recorded(state, known), seen(status, own)]
      const [news, recalled] = [newsOf(one, other, "n3"), recalledOf(one, other)]
      assert.ok(news === null || recalled === null)
      if (news !== null) assert.ok(news.incarnation >= known)
      if (recalled !== null) assert.ok(recalled.incarnation >= own && recalled.address.length >= 0)
    })
  )
})

test("the next step of a turning over waits for those that are there or may be, and for nobody else", () => {
  const version = "3.0123abcd"
  const with_ = (id: string, status: string, keyring: string | null) => ({
    id,
    status,
    meta: descriptionText(noDescription, keyring)
  })
  const peers = [
    with_("n1", "alive", null),
    with_("n2", "alive", version),
    with_("n3", "suspect", "2.0123abcd"),
    with_("n4", "alive", null),
    with_("n5", "dead", "1.0123abcd"),
    with_("n6", "left", "1.0123abcd")
  ]
  assert.deepEqual(withoutVersion(peers, "n1", version), ["n3", "n4"])
})

test("a peer that is suspected again and again is recorded as such a dozen times in an hour", () => {
  const suspicions = new Suspicions()
  const admitted = Array.from({ length: 100 }, (_, n) => suspicions.admit("n2", n * 1000))
  assert.equal(admitted.filter(Boolean).length, 12)
  assert.equal(suspicions.admit("n3", 100_000), true)
  assert.equal(suspicions.admit("n2", 3_600_000), true)
})

test("a sample is told when it says something else by the factor of two, above the noise", () => {
  const sample = { latencyMs: 10, bandwidthBitsPerSecond: 1e9, lossPercent: 0, jitterMs: 0.1 }
  assert.equal(isOtherSample(null, null), false)
  assert.equal(isOtherSample(null, sample), true)
  assert.equal(isOtherSample(sample, { ...sample, latencyMs: 19, jitterMs: 0.9 }), false)
  assert.equal(isOtherSample(sample, { ...sample, latencyMs: 21 }), true)
  assert.equal(isOtherSample(sample, { ...sample, bandwidthBitsPerSecond: 4e8 }), true)
  assert.equal(isOtherSample(sample, { ...sample, lossPercent: 3 }), true)
})

const configured = (text: string) => Effect.runPromise(configOf("c.yaml", text, {}))

test("every time goes with the period, and the address is that of the link unless another is told", async () => {
  const standard = await configured("")
  assert.deepEqual(gossipSettings(standard.config.gossip), lanSettings)
  const quick = await configured("gossip: { period: 200ms, fanout: 5 }")
  const { periodMs, timeoutMs, gossipEveryMs, gossipTo, leaveMs } = gossipSettings(quick.config.gossip)
  assert.deepEqual([periodMs, timeoutMs, gossipEveryMs, gossipTo, leaveMs], [200, 100, 40, 5, 1000])
  assert.equal(gossipAddress(standard, "127.0.0.1")(9090), "127.0.0.1:9090")
  assert.equal(gossipAddress(standard, "::1")(9090), "[::1]:9090")
  assert.doesNotMatch(gossipAddress(standard, "0.0.0.0")(9090), /^0\.0\.0\.0/)
  const behind = await configured("cluster: { advertise_address: 'n1@192.0.2.1:7000' }")
  assert.equal(gossipAddress(behind, "10.0.0.1")(9090), "192.0.2.1:9090")
  const told = await configured("gossip: { advertise_address: '192.0.2.7:7946' }")
  assert.equal(gossipAddress(told, "10.0.0.1")(9090), "192.0.2.7:7946")
})

test("what the gossip can't be is refused with the key", async () => {
  const refused = async (text: string) => {
    const error = await Effect.runPromise(Effect.flip(configOf("c.yaml", text, {})))
    return error.issues.map(({ path }) => path)
  }
  assert.deepEqual(await refused("gossip: { enable: maybe }"), ["gossip.enable"])
  assert.deepEqual(await refused("gossip: { seeds: 'a:1,b' }"), ["gossip.seeds"])
  assert.deepEqual(await refused("gossip: { period: 10ms }"), ["gossip.period"])
  assert.deepEqual(await refused("gossip: { listen_address: 'a b' }"), ["gossip.listen_address"])
  const { config } = await configured("gossip: { enable: on, seeds: '10.0.0.1:9090,nodes.example:9090' }")
  assert.equal(config.gossip.enable, "on")
})
