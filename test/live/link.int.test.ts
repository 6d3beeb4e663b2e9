import assert from "node:assert/strict"
import test from "node:test"
import { Effect, Exit, Fiber, Queue, References, Scope, Stream } from "effect"
import { HandlerFailed } from "../../src/kernel/ports/link.ts"
import { issueIdentity } from "../../src/live/ca.ts"
import type { NodeIdentity } from "../../src/live/ca.ts"
import { protocols } from "../../src/live/link/endpoint.ts"
import { encodeJson, frameType } from "../../src/live/link/frames.ts"
import {
  collect,
  isConnected,
  newAuthority,
  startEndpointAs,
  startNode,
  startNodeAs,
  until
} from "./link-nodes.ts"

const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Effect.scoped(effect))

const upTo = (count: number) => Array.from({ length: count }, (_, index) => index + 1)

const quick = { heartbeatMs: 20, backoffMinMs: 10, backoffMaxMs: 50 }

/** A node that greets and then reads nothing any more: to the other side a machine that stands still. */
const silentPeer = Effect.fn("silentPeer")(function* (address: string, identity: NodeIdentity) {
  const { endpoint } = yield* startEndpointAs(identity, 0)
  const { socket } = yield* endpoint.dial(address, protocols.link, null)
  yield* Effect.addFinalizer(() => Effect.sync(() => socket.destroy()))
  const hello = {
    node: identity.node,
    versionMin: 1,
    versionMax: 1,
    features: [],
    frameBytesMax: 65_536,
    requestsMax: 8
  }
  socket.on("data", () => {})
  socket.write(encodeJson(frameType.hello, 0, hello))
  return socket
})

const pair = Effect.gen(function* () {
  const ca = yield* newAuthority
  const a = yield* startNode(ca, "node-a", quick)
  const b = yield* startNode(ca, "node-b", quick)
  yield* a.link.connect("node-b", b.endpoint.address)
  yield* until(isConnected(a.link, "node-b"))
  yield* until(isConnected(b.link, "node-a"))
  return { ca, a, b }
})

test("a request is answered with a stream, in order, in both directions", { timeout: 20_000 }, () =>
  run(
    Effect.gen(function* () {
      const { a, b } = yield* pair
      yield* a.link.serve("count", (_peer, payload) => Stream.fromIterable(upTo(payload as number)))
      yield* b.link.serve("count", (_peer, payload) => Stream.fromIterable(upTo(payload as number)))
      for (const count of [0, 1, 31, 32, 33, 1000]) {
        const expected = upTo(count)
        assert.deepEqual(yield* collect(a.link.call("node-b", "count", count)), expected)
        assert.deepEqual(yield* collect(b.link.call("node-a", "count", count)), expected)
      }
    })
  )
)

test("who is looked at answers, and a link that does not answer ends at once", { timeout: 20_000 }, () =>
  run(
    Effect.gen(function* () {
      const { a, ca } = yield* pair
      assert.equal(yield* a.link.look("node-b"), true)
      assert.equal(yield* a.link.look("nobody"), false)
      // Heartbeats alone would notice it after minutes.
      const slow = { ...quick, heartbeatMs: 500, heartbeatMissesMax: 600 }
      const c = yield* startNode(ca, "node-c", slow)
      const silent = yield* silentPeer(c.endpoint.address, yield* issueIdentity(ca, "node-d"))
      yield* until(isConnected(c.link, "node-d"))
      silent.pause()
      assert.equal(yield* c.link.look("node-d"), false)
      assert.equal(yield* isConnected(c.link, "node-d"), false)
    })
  )
)

test("who is down is dialled at once when somebody looks", { timeout: 20_000 }, () =>
  run(
    Effect.gen(function* () {
      const ca = yield* newAuthority
      // Its first try fails, and the second is hours away.
      const a = yield* startNode(ca, "node-a", { backoffMinMs: 3_600_000, backoffMaxMs: 3_600_000 })
      const first = yield* startNode(ca, "node-b").pipe(
        Effect.map(({ endpoint, identity }) => ({ address: endpoint.address, identity })),
        Effect.scoped
      )
      yield* a.link.connect("node-b", first.address)
      const isTried = Effect.map(a.link.peers, (peers) => peers.some(({ lastError }) => lastError !== null))
      yield* until(isTried)
      yield* startNodeAs(first.identity, quick, Number(first.address.split(":")[1]))
      yield* until(Effect.andThen(a.link.look("node-b"), isConnected(a.link, "node-b")))
    })
  )
)

test("the handler learns the caller's certified name", { timeout: 20_000 }, () =>
  run(
    Effect.gen(function* () {
      const { a, b } = yield* pair
      yield* b.link.serve("who", (peer) => Stream.make(peer))
      assert.deepEqual(yield* collect(a.link.call("node-b", "who", null)), ["node-a"])
    })
  )
)

test("failures come typed: unknown kinds, the handler's own, the handler's bugs", { timeout: 20_000 }, () =>
  run(
    Effect.gen(function* () {
      const { a, b } = yield* pair
      yield* b.link.serve("fails", () =>
        Stream.concat(Stream.make(1), Stream.fail(new HandlerFailed({ reason: "no room" })))
      )
      yield* b.link.serve("throws", () => {
        throw new Error("the secret inside")
      })
      const failure = (kind: string) => Effect.flip(collect(a.link.call("node-b", kind, {})))
      assert.deepEqual(yield* Effect.map(failure("none"), ({ code }) => code), "unknown-kind")
      const failed = yield* failure("fails")
      assert.deepEqual([failed.code, failed.reason], ["failed", "no room"])
      const broke = yield* failure("throws")
      assert.equal(broke.code, "failed")
      assert.doesNotMatch(broke.reason, /secret/)
      const unknown = yield* Effect.flip(collect(a.link.call("node-z", "x", {})))
      assert.equal(unknown.code, "unreachable")
    }).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
  )
)

test("cancelling a call interrupts the handler at the other side", { timeout: 20_000 }, () =>
  run(
    Effect.gen(function* () {
      const { a, b } = yield* pair
      const events = yield* Queue.unbounded<string>()
      yield* b.link.serve("endless", () =>
        Stream.concat(Stream.make(1), Stream.never).pipe(Stream.ensuring(Queue.offer(events, "ended")))
      )
      const first = yield* collect(Stream.take(a.link.call("node-b", "endless", {}), 1))
      assert.deepEqual(first, [1])
      assert.equal(yield* Queue.take(events), "ended")
    })
  )
)

test("a caller that does not take its replies holds the handler back", { timeout: 20_000 }, () =>
  run(
    Effect.gen(function* () {
      const { a, b } = yield* pair
      let produced = 0
      yield* b.link.serve("flood", () =>
        Stream.range(1, 100_000).pipe(
          Stream.rechunk(1),
          Stream.tap(() => Effect.sync(() => (produced += 1)))
        )
      )
      yield* b.link.serve("ping", () => Stream.make("pong"))
      const taken = yield* a.link.call("node-b", "flood", {}).pipe(
        Stream.tap(() => Effect.never),
        Stream.runDrain,
        Effect.forkScoped
      )
      yield* until(Effect.sync(() => produced > 0))
      for (let n = 0; n < 50; n++) yield* collect(a.link.call("node-b", "ping", {}))
      assert.ok(produced <= 66, `${produced} were produced for a caller that took one`)
      yield* Fiber.interrupt(taken)
    })
  )
)

test(
  "requests above the limit and frames above the size are refused, the link stays",
  { timeout: 20_000 },
  () =>
    run(
      Effect.gen(function* () {
        const ca = yield* newAuthority
        const a = yield* startNode(ca, "node-a", quick)
        const b = yield* startNode(ca, "node-b", { ...quick, requestsMax: 2, frameBytesMax: 4096 })
        yield* a.link.connect("node-b", b.endpoint.address)
        yield* until(isConnected(a.link, "node-b"))
        yield* b.link.serve("hang", () => Stream.concat(Stream.make(1), Stream.never))
        yield* b.link.serve("echo", (_peer, payload) => Stream.make(payload))
        yield* a.link.serve("echo", (_peer, payload) => Stream.make("x".repeat(payload as number)))
        const big = yield* Effect.flip(collect(a.link.call("node-b", "echo", "x".repeat(5000))))
        assert.equal(big.code, "too-large")
        const bigReply = yield* Effect.flip(collect(b.link.call("node-a", "echo", 5000)))
        assert.equal(bigReply.code, "too-large")
        for (let n = 0; n < 2; n++) {
          const started = yield* Queue.unbounded<unknown>()
          yield* Effect.forkScoped(
            Stream.runForEach(a.link.call("node-b", "hang", {}), (item) => Queue.offer(started, item))
          )
          yield* Queue.take(started)
        }
        assert.equal((yield* Effect.flip(collect(a.link.call("node-b", "echo", 1)))).code, "busy")
        assert.ok(yield* isConnected(a.link, "node-b"))
      })
    )
)

test("a link that is lost fails its calls as lost and is dialled again", { timeout: 20_000 }, () =>
  run(
    Effect.gen(function* () {
      const ca = yield* newAuthority
      const a = yield* startNode(ca, "node-a", quick)
      const scope = yield* Scope.make()
      const b = yield* Scope.provide(startNode(ca, "node-b", quick), scope)
      const port = Number(b.endpoint.address.split(":")[1])
      yield* a.link.connect("node-b", b.endpoint.address)
      yield* until(isConnected(a.link, "node-b"))
      yield* Scope.provide(
        b.link.serve("hang", () => Stream.never),
        scope
      )
      const call = yield* Effect.forkScoped(Effect.flip(collect(a.link.call("node-b", "hang", {}))))
      yield* Effect.sleep(20)
      yield* Scope.close(scope, Exit.void)
      assert.equal((yield* Fiber.join(call)).code, "lost")
      yield* until(Effect.map(isConnected(a.link, "node-b"), (connected) => !connected))
      const back = yield* startNodeAs(b.identity, quick, port)
      assert.equal(back.endpoint.address, b.endpoint.address)
      yield* until(isConnected(a.link, "node-b"))
    })
  )
)

test("two nodes that dial each other keep one link", { timeout: 20_000 }, () =>
  run(
    Effect.gen(function* () {
      const ca = yield* newAuthority
      const a = yield* startNode(ca, "node-a", quick)
      const b = yield* startNode(ca, "node-b", quick)
      yield* Effect.all(
        [a.link.connect("node-b", b.endpoint.address), b.link.connect("node-a", a.endpoint.address)],
        {
          concurrency: 2
        }
      )
      yield* until(isConnected(a.link, "node-b"))
      yield* until(isConnected(b.link, "node-a"))
      yield* Effect.sleep(100)
      yield* b.link.serve("who", (peer) => Stream.make(peer))
      yield* a.link.serve("who", (peer) => Stream.make(peer))
      yield* until(isConnected(a.link, "node-b"))
      assert.deepEqual(yield* collect(a.link.call("node-b", "who", 0)), ["node-a"])
      assert.deepEqual(yield* collect(b.link.call("node-a", "who", 0)), ["node-b"])
    })
  )
)

test("versions that don't meet are refused with both ranges named", { timeout: 20_000 }, () =>
  run(
    Effect.gen(function* () {
      const ca = yield* newAuthority
      const a = yield* startNode(ca, "node-a", { ...quick, versionMin: 2, versionMax: 3 })
      const b = yield* startNode(ca, "node-b", quick)
      yield* a.link.connect("node-b", b.endpoint.address)
      const error = Effect.map(a.link.peers, ([peer]) => peer?.lastError ?? "")
      yield* until(Effect.map(error, (text) => text.includes("version")))
      assert.match(yield* error, /node-a speaks 2 to 3/)
      assert.match(yield* error, /node-b speaks 1 to 1/)
    })
  )
)

test("a node of another authority, and one with another name, get no link", { timeout: 20_000 }, () =>
  run(
    Effect.gen(function* () {
      const ca = yield* newAuthority
      const a = yield* startNode(ca, "node-a", quick)
      const stranger = yield* startNode(yield* newAuthority, "node-b", quick)
      yield* a.link.connect("node-b", stranger.endpoint.address)
      yield* stranger.link.connect("node-a", a.endpoint.address)
      const c = yield* startNode(ca, "node-c", quick)
      yield* a.link.connect("node-d", c.endpoint.address)
      const errorOf = (link: typeof a.link, node: string) =>
        Effect.map(link.peers, (peers) => peers.find((peer) => peer.node === node)?.lastError ?? null)
      yield* until(Effect.map(errorOf(a.link, "node-b"), (error) => error !== null))
      yield* until(Effect.map(errorOf(stranger.link, "node-a"), (error) => error !== null))
      yield* until(Effect.map(errorOf(a.link, "node-d"), (error) => error !== null))
      assert.match((yield* errorOf(a.link, "node-d")) ?? "", /it is node-c, not node-d/)
      assert.ok(!(yield* isConnected(a.link, "node-b")))
      assert.ok(!(yield* isConnected(stranger.link, "node-a")))
    })
  )
)

test("heartbeats and a probe fill the samples", { timeout: 20_000 }, () =>
  run(
    Effect.gen(function* () {
      const { a } = yield* pair
      const bits = yield* a.link.probe("node-b", 1024 * 1024)
      assert.ok(bits > 0)
      yield* a.link.recordTransfer("node-b", 1_000_000, 1)
      const sample = Effect.map(a.link.peers, ([peer]) => peer?.sample ?? null)
      yield* until(Effect.map(sample, (known) => known?.jitterMs != null))
      const known = yield* sample
      assert.ok(known !== null && known.latencyMs !== null && known.latencyMs >= 0)
      assert.ok(known.bandwidthBitsPerSecond !== null && known.bandwidthBitsPerSecond >= 8_000_000_000)
      assert.equal((yield* Effect.flip(a.link.probe("node-b", 9 * 1024 * 1024))).code, "refused")
    })
  )
)
