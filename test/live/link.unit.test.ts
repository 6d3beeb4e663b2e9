import assert from "node:assert/strict"
import test from "node:test"
import * as fc from "fast-check"
import type { Hello } from "../../src/events/link.ts"
import { parseAddress } from "../../src/live/link/address.ts"
import { keepsExisting, negotiate } from "../../src/live/link/negotiation.ts"
import { LinkSamples } from "../../src/live/link/samples.ts"

const hello = (
  node: string,
  versionMin: number,
  versionMax: number,
  features: ReadonlyArray<string> = []
): Hello => ({
  node,
  versionMin,
  versionMax,
  features,
  frameBytesMax: 65_536,
  requestsMax: 10
})

test("both sides agree on the highest version and the features that both have, or both refuse", () => {
  const range = fc.tuple(fc.integer({ min: 1, max: 20 }), fc.nat(5))
  const features = fc.subarray(["delta", "probe", "streams", "zstd"])
  fc.assert(
    fc.property(range, range, features, features, ([a, plusA], [b, plusB], featuresA, featuresB) => {
      const ours = hello("node-a", a, a + plusA, featuresA)
      const theirs = hello("node-b", b, b + plusB, featuresB)
      const here = negotiate(ours, theirs, "node-b")
      const there = negotiate(theirs, ours, "node-a")
      const meet = Math.max(a, b) <= Math.min(a + plusA, b + plusB)
      assert.equal("version" in here, meet)
      assert.equal("version" in there, meet)
      if (!("version" in here) || !("version" in there)) return
      assert.equal(here.version, Math.min(a + plusA, b + plusB))
      assert.equal(there.version, here.version)
      assert.deepEqual(there.features, here.features)
    })
  )
})

test("a hello in another name than the certificate's is refused", () => {
  const answer = negotiate(hello("node-a", 1, 1), hello("node-c", 1, 1), "node-b")
  assert.ok("code" in answer && answer.code === "identity")
})

test("of two links both ends keep the same one, and a link dialled anew replaces its forerunner", () => {
  assert.equal(keepsExisting("node-a", "node-b"), true)
  assert.equal(keepsExisting("node-b", "node-a"), false)
  assert.equal(keepsExisting("node-a", "node-a"), false)
})

test("latency is half the round trip, jitter the mean step, loss the share of unanswered heartbeats", () => {
  const samples = new LinkSamples()
  assert.deepEqual(samples.sample(), {
    latencyMs: null,
    jitterMs: null,
    lossPercent: 0,
    bandwidthBitsPerSecond: null
  })
  for (const roundTripMs of [10, 14, 12]) samples.answered(roundTripMs)
  samples.missed()
  assert.deepEqual(samples.sample(), {
    latencyMs: 6,
    jitterMs: 1.5,
    lossPercent: 25,
    bandwidthBitsPerSecond: null
  })
})

test("bandwidth is the best recent rate; small transfers say nothing, and old ones are forgotten", () => {
  const samples = new LinkSamples()
  samples.transferred(1000, 0.001)
  assert.equal(samples.sample().bandwidthBitsPerSecond, null)
  samples.transferred(1_000_000, 8)
  samples.transferred(1_000_000, 80)
  assert.equal(samples.sample().bandwidthBitsPerSecond, 1e9)
  for (let n = 0; n < 20; n++) samples.transferred(1_000_000, 80)
  assert.equal(samples.sample().bandwidthBitsPerSecond, 1e8)
})

test("addresses: host and port, IPv6 in brackets, with or without the node's name", () => {
  assert.deepEqual(parseAddress("10.0.0.1:9090"), { node: null, host: "10.0.0.1", port: 9090 })
  assert.deepEqual(parseAddress("node-a@[::1]:1"), { node: "node-a", host: "::1", port: 1 })
  for (const bad of ["", "host", "host:0", "host:65536", "::1:9090", "a b:1", "node-a@:1", "@host:1"]) {
    assert.equal(parseAddress(bad), null, bad)
  }
})
