import assert from "node:assert/strict"
import { randomInt } from "node:crypto"
import { Duplex } from "node:stream"
import test from "node:test"
import { Effect, Exit, Fiber, References, Stream } from "effect"
import * as fc from "fast-check"
import type { Hello } from "../../src/events/link.ts"
import { protocols } from "../../src/live/link/endpoint.ts"
import { establish } from "../../src/live/link/connection.ts"
import { encodeFrame, encodeJson, FrameDecoder, FrameError, frameType } from "../../src/live/link/frames.ts"
import type { Frame } from "../../src/live/link/frames.ts"
import { collect, isConnected, newAuthority, startEndpoint, startNode, until } from "./link-nodes.ts"

const frames = fc.record(
  {
    type: fc.integer({ min: 1, max: 16 }),
    id: fc.nat(0xffff_ffff),
    payload: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes))
  },
  { noNullPrototype: true }
)

function decodeAll(decoder: FrameDecoder, bytes: Buffer, cuts: ReadonlyArray<number>): ReadonlyArray<Frame> {
  const found: Array<Frame> = []
  const edges = [0, ...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length].toSorted((a, b) => a - b)
  for (const [index, edge] of edges.entries()) {
    decoder.push(bytes.subarray(edge, edges[index + 1] ?? bytes.length), (frame) => found.push(frame) > 0)
  }
  return found
}

test("frames come out as they went in, however the octets are cut", () => {
  fc.assert(
    fc.property(fc.array(frames, { maxLength: 10 }), fc.array(fc.nat(5000)), (list, cuts) => {
      const bytes = Buffer.concat(list.map(({ type, id, payload }) => encodeFrame(type, id, payload)))
      assert.deepEqual(decodeAll(new FrameDecoder(4096), bytes, cuts), list)
    })
  )
})

test("the octets after the frame that was waited for are given back", () => {
  const bytes = Buffer.concat([encodeFrame(frameType.open, 0, Buffer.from("{}")), Buffer.from("the rest")])
  const rest = new FrameDecoder(4096).push(bytes, () => false)
  assert.equal(rest?.toString(), "the rest")
})

test("any octets are frames or a FrameError, and never more memory than the longest frame", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 2000 }), fc.array(fc.nat(2000)), (octets, cuts) => {
      try {
        for (const { payload } of decodeAll(new FrameDecoder(1000), Buffer.from(octets), cuts)) {
          assert.ok(payload.length <= 995)
        }
      } catch (error) {
        assert.ok(error instanceof FrameError, String(error))
      }
    }),
    { numRuns: 2000 }
  )
})

/** A socket whose other side is the test; what is written to it is thrown away. */
const deafSocket = () =>
  new Duplex({ read: () => undefined, write: (_chunk, _encoding, done: () => void) => done() })

const hello: Hello = {
  node: "node-a",
  versionMin: 1,
  versionMax: 1,
  features: [],
  frameBytesMax: 4096,
  requestsMax: 4
}

const serveOn = (socket: Duplex) =>
  Effect.scoped(
    Effect.flatMap(
      establish(socket, {
        hello,
        peer: "node-b",
        dialler: "node-b",
        certificateEndsMs: Number.MAX_SAFE_INTEGER,
        serial: "1",
        helloTimeoutMs: 1000,
        heartbeatMs: 1000,
        heartbeatMissesMax: 3,
        handlers: new Map([["echo", (_peer: string, payload: unknown) => Stream.make(payload, payload)]])
      }),
      ({ closed }) => closed
    )
  ).pipe(Effect.provideService(References.MinimumLogLevel, "None"))

const request = (id: number) =>
  encodeJson(frameType.request, id, { kind: "echo", credit: 1, payload: { id } })
const greeting = encodeJson(frameType.hello, 0, { ...hello, node: "node-b" })
const sound = Buffer.concat([
  greeting,
  encodeFrame(frameType.ping, 1),
  request(1),
  request(2),
  encodeJson(frameType.credit, 1, { credit: 5 }),
  encodeFrame(frameType.cancel, 2),
  encodeFrame(frameType.probe, 0, Buffer.alloc(100)),
  encodeFrame(frameType.pong, 7)
])

test("a connection ends with a typed error whatever mutation of a sound conversation it hears", async () => {
  const mutation = fc.record({ at: fc.nat(sound.length - 1), to: fc.nat(255), drop: fc.nat(20) })
  const conversation = fc.array(mutation, { minLength: 0, maxLength: 4 }).map((mutations) => {
    let bytes = Buffer.from(sound)
    for (const { at, to, drop } of mutations) {
      const from = at % Math.max(1, bytes.length)
      bytes = Buffer.concat([bytes.subarray(0, from), Buffer.from([to]), bytes.subarray(from + drop)])
    }
    return bytes
  })
  await fc.assert(
    fc.asyncProperty(conversation, async (bytes) => {
      const socket = deafSocket()
      const running = Effect.runFork(serveOn(socket))
      socket.push(bytes)
      socket.push(null)
      const exit = await Effect.runPromise(Fiber.await(running))
      if (Exit.isFailure(exit)) {
        const [reason] = exit.cause.reasons
        assert.equal(reason?._tag, "Fail", String(exit.cause))
      }
    }),
    { numRuns: 500 }
  )
})

test("a peer that floods with pings and never reads is cut off", async () => {
  const socket = new Duplex({ read: () => undefined, write: () => undefined })
  const running = Effect.runFork(serveOn(socket))
  socket.push(greeting)
  const pings = Buffer.concat(Array.from({ length: 1000 }, (_, id) => encodeFrame(frameType.ping, id)))
  for (let n = 0; n < 100 && !socket.destroyed; n++) {
    socket.push(pings)
    await new Promise(setImmediate)
  }
  assert.ok(socket.destroyed)
  const end = await Effect.runPromise(Fiber.join(running))
  assert.equal(end.code, "protocol")
  assert.ok(socket.writableLength < 1024 * 1024)
})

test("a node goes on serving while authenticated peers send it rubbish", { timeout: 60_000 }, async (t) => {
  const seed = randomInt(2 ** 31)
  t.diagnostic(`seed ${seed}`)
  const rubbish = fc.sample(fc.uint8Array({ minLength: 1, maxLength: 3000 }), { seed, numRuns: 60 })
  const unhandled: Array<unknown> = []
  const onUnhandled = (reason: unknown) => unhandled.push(reason)
  process.on("unhandledRejection", onUnhandled)
  const body = Effect.gen(function* () {
    const ca = yield* newAuthority
    const node = yield* startNode(ca, "node-a", { helloTimeoutMs: 500 })
    const caller = yield* startNode(ca, "node-b")
    const { endpoint: rude } = yield* startEndpoint(ca, "node-c")
    yield* node.link.serve("echo", (_peer, payload) => Stream.make(payload))
    yield* caller.link.connect("node-a", node.endpoint.address)
    yield* until(isConnected(caller.link, "node-a"))
    for (const [index, octets] of rubbish.entries()) {
      const { socket } = yield* rude.dial(node.endpoint.address, protocols.link, "node-a")
      const begin =
        index % 2 === 0 ? Buffer.alloc(0) : encodeJson(frameType.hello, 0, { ...hello, node: "node-c" })
      yield* Effect.callback<void>((resume) => {
        socket.on("close", () => resume(Effect.void))
        socket.resume()
        socket.write(begin)
        socket.end(Buffer.from(octets))
      })
      assert.deepEqual(yield* collect(caller.link.call("node-a", "echo", index)), [index])
    }
    yield* until(Effect.map(node.link.peers, (peers) => peers.every((peer) => peer.node === "node-b")))
  })
  await Effect.runPromise(Effect.scoped(body).pipe(Effect.provideService(References.MinimumLogLevel, "None")))
  process.off("unhandledRejection", onUnhandled)
  assert.deepEqual(unhandled, [])
})
