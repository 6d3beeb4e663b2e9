import assert from "node:assert/strict"
import { once } from "node:events"
import { connect, createServer } from "node:net"
import type { AddressInfo, Socket } from "node:net"
import test from "node:test"
import { Context, Effect, Layer, References } from "effect"
import { Transport } from "../../src/kernel/ports/transport.ts"
import type { Authority } from "../../src/live/ca.ts"
import { transportLayer } from "../../src/live/transport.ts"
import { closed, dialSocket, openOne, transportConformance } from "../conformance/transport.ts"
import type { TransportPair } from "../conformance/transport.ts"
import { newAuthority, scratchFolder, startEndpoint } from "./link-nodes.ts"

const startTransport = Effect.fn("startTransport")(function* (ca: Authority, node: string) {
  const folder = yield* scratchFolder
  const { endpoint, context } = yield* startEndpoint(ca, node)
  const built = yield* Layer.build(Layer.provide(transportLayer({ folder }), Layer.succeedContext(context)))
  return { endpoint, transport: Context.get(built, Transport) }
})

const makePair = Effect.gen(function* () {
  const ca = yield* newAuthority
  const source = yield* startTransport(ca, "node-a")
  const destination = yield* startTransport(ca, "node-b")
  const other = yield* startTransport(ca, "node-c")
  const pair: TransportPair = {
    source: source.transport,
    destination: destination.transport,
    other: other.transport,
    sourceNode: "node-a",
    address: `node-b@${destination.endpoint.address}`,
    nowhere: "127.0.0.1:1",
    folder: yield* scratchFolder
  }
  return pair
})

const quiet = Effect.provideService(References.MinimumLogLevel, "None" as const)

transportConformance("live", quiet(makePair))

/** A TCP listener in front of `address`; `cut` ends what goes through it, in good TCP order. */
const middleman = (address: string, isUp: () => boolean = () => true) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const [host, port] = address.replace(/^.*@/, "").split(":")
      const sockets: Array<Socket> = []
      const server = createServer((near) => {
        if (!isUp()) return near.destroy()
        const far = connect(Number(port), host)
        for (const socket of [near, far]) socket.on("error", () => undefined)
        near.pipe(far).pipe(near)
        sockets.push(near, far)
      })
      server.listen(0, "127.0.0.1")
      await once(server, "listening")
      const at = `127.0.0.1:${(server.address() as AddressInfo).port}`
      const cut = () => {
        for (const socket of sockets) socket.end()
      }
      return { server, sockets, at, cut }
    }),
    ({ server, sockets }) =>
      Effect.promise(async () => {
        for (const socket of sockets) socket.destroy()
        const closing = once(server, "close")
        server.close()
        await closing
      })
  )

test("a link that ends without the last piece is broken, not half-closed", { timeout: 20_000 }, () =>
  Effect.runPromise(
    Effect.scoped(
      Effect.gen(function* () {
        const pair = yield* makePair
        const between = yield* middleman(pair.address)
        const { channel, end } = yield* openOne({ ...pair, address: between.at }, (socket) =>
          socket.write("hello")
        )
        const socket = yield* dialSocket(channel.path)
        yield* Effect.promise(() => once(socket, "data"))
        const [receiving] = end.sockets
        assert.ok(receiving)
        between.cut()
        yield* closed(socket)
        yield* closed(receiving)
      }).pipe(quiet)
    )
  )
)

test(
  "who comes again after a break is held until the link is back, and then carried",
  { timeout: 20_000 },
  () =>
    Effect.runPromise(
      Effect.scoped(
        Effect.gen(function* () {
          const pair = yield* makePair
          let isUp = true
          const between = yield* middleman(pair.address, () => isUp)
          const { channel } = yield* openOne({ ...pair, address: between.at }, (socket) => {
            socket.write("hello")
          })
          const first = yield* dialSocket(channel.path)
          yield* Effect.promise(() => once(first, "data"))
          isUp = false
          between.cut()
          yield* closed(first)
          const second = yield* dialSocket(channel.path)
          const said: Array<string> = []
          second.on("data", (chunk: Buffer) => said.push(chunk.toString()))
          yield* Effect.sleep(1200)
          assert.equal(second.closed, false)
          assert.deepEqual(said, [])
          isUp = true
          yield* Effect.promise(() => once(second, "data"))
          assert.deepEqual(said, ["hello"])
        }).pipe(quiet)
      )
    )
)

test("a destination that is not the node named in the address is refused", { timeout: 20_000 }, () =>
  Effect.runPromise(
    Effect.scoped(
      Effect.gen(function* () {
        const pair = yield* makePair
        const address = pair.address.replace("node-b@", "node-c@")
        const error = yield* Effect.flip(pair.source.open("m-1", address, ["ram"]))
        assert.equal(error.code, "refused")
        assert.match(error.reason, /it is node-b, not node-c/)
      }).pipe(quiet)
    )
  )
)
