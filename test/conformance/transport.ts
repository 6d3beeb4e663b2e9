/** What every transport must do between a source and a destination. Each world runs it: see the callers. */
import assert from "node:assert/strict"
import { createHash, randomBytes } from "node:crypto"
import { once } from "node:events"
import { existsSync } from "node:fs"
import { connect, createServer } from "node:net"
import type { Server, Socket } from "node:net"
import { join } from "node:path"
import { describe, test } from "node:test"
import { Effect, References } from "effect"
import type { Scope } from "effect"
import type { Channel } from "../../src/events/requests.ts"
import type { Transport } from "../../src/kernel/ports/transport.ts"

export interface TransportPair {
  readonly source: Transport["Service"]
  readonly destination: Transport["Service"]
  /** A third node of the same cluster. */
  readonly other: Transport["Service"]
  readonly sourceNode: string
  /** The destination's agent, and an address where there is none. */
  readonly address: string
  readonly nowhere: string
  /** A folder for the test's own sockets. */
  readonly folder: string
}

export type MakePair = Effect.Effect<TransportPair, unknown, Scope.Scope>

/** A listener on a unix socket, and the connections it got, in order. */
export const receiver = (path: string, onConnection: (socket: Socket) => void) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const sockets: Array<Socket> = []
      const server = createServer({ allowHalfOpen: true }, (socket) => {
        sockets.push(socket)
        socket.on("error", () => undefined)
        onConnection(socket)
      })
      server.listen(path)
      await once(server, "listening")
      return { server, sockets }
    }),
    ({ server, sockets }) => Effect.promise(() => closeServer(server, sockets))
  )

async function closeServer(server: Server, sockets: ReadonlyArray<Socket>): Promise<void> {
  for (const socket of sockets) socket.destroy()
  const closing = once(server, "close")
  server.close()
  await closing
}

export const dialSocket = (path: string) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const socket = connect({ path, allowHalfOpen: true })
      socket.on("error", () => undefined)
      await once(socket, "connect")
      return socket
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

const readAll = (socket: Socket) =>
  Effect.promise(async () => {
    const chunks: Array<Buffer> = []
    socket.on("data", (chunk: Buffer) => chunks.push(chunk))
    socket.resume()
    await once(socket, "end")
    return Buffer.concat(chunks)
  })

/** Waits until the other end is closed for reading too: half-closed, it would take these octets for ever. */
export const closed = (socket: Socket) =>
  Effect.callback<void>((resume) => {
    if (socket.closed) return resume(Effect.void)
    const writing = setInterval(() => socket.write("?"), 1)
    socket.once("close", () => {
      clearInterval(writing)
      resume(Effect.void)
    })
    socket.resume()
  })

const sha256 = (data: Buffer) => createHash("sha256").update(data).digest("hex")

/** A transfer with one channel, opened: the path at the source. */
export const openOne = Effect.fn("openOne")(function* (
  pair: TransportPair,
  onConnection: (socket: Socket) => void,
  name = "ram"
) {
  const path = join(pair.folder, `${name}.sock`)
  const end = yield* receiver(path, onConnection)
  yield* pair.destination.accept("m-1", pair.sourceNode, [{ name, path }])
  const [channel] = yield* pair.source.open("m-1", pair.address, [name])
  return { channel: channel as Channel, end }
})

export function transportConformance(world: string, makePair: MakePair): void {
  const behaves = (
    behaviour: string,
    use: (pair: TransportPair) => Effect.Effect<unknown, unknown, Scope.Scope>
  ) =>
    test(behaviour, { timeout: 30_000 }, async () => {
      const body = Effect.scoped(Effect.flatMap(makePair, use))
      // What is provoked here is logged as a warning; nobody needs to read it.
      await Effect.runPromise(body.pipe(Effect.provideService(References.MinimumLogLevel, "None")))
    })
  describe(`transport in ${world}: carrying`, () => {
    carrying(behaves)
    holdingBack(behaves)
  })
  describe(`transport in ${world}: refusing`, () => refusing(behaves))
  describe(`transport in ${world}: waiting`, () => waiting(behaves))
  describe(`transport in ${world}: ending`, () => ending(behaves))
}

type Behaves = (
  behaviour: string,
  use: (pair: TransportPair) => Effect.Effect<unknown, unknown, Scope.Scope>
) => void

function carrying(behaves: Behaves): void {
  behaves("octets go both ways unchanged, and half-closing one end half-closes the other", (pair) =>
    Effect.gen(function* () {
      const data = randomBytes(5 * 1024 * 1024 + 7)
      const { channel } = yield* openOne(pair, (socket) => {
        const chunks: Array<Buffer> = []
        socket.on("data", (chunk: Buffer) => chunks.push(chunk))
        // Answer only after the end: the way back is still open then.
        socket.on("end", () => socket.end(sha256(Buffer.concat(chunks))))
      })
      const socket = yield* dialSocket(channel.path)
      socket.end(data)
      assert.equal((yield* readAll(socket)).toString(), sha256(data))
      yield* Effect.promise(async () => socket.closed || (await once(socket, "close")))
      const sent = yield* pair.source.statistics("m-1")
      assert.deepEqual(sent, { sentBytes: data.length, receivedBytes: 64 })
      const received = yield* pair.destination.statistics("m-1")
      assert.deepEqual(received, { sentBytes: 64, receivedBytes: data.length })
    })
  )
  behaves("channels, and the connections of one channel, don't mix", (pair) =>
    Effect.gen(function* () {
      const names = ["ram", "disk-0", "disk-1"]
      const channels = names.map((name) => ({ name, path: join(pair.folder, `${name}.sock`) }))
      for (const { name, path } of channels) {
        yield* receiver(path, (socket) => {
          socket.write(`${name}:`)
          socket.pipe(socket)
        })
      }
      yield* pair.destination.accept("m-1", pair.sourceNode, channels)
      const opened = yield* pair.source.open("m-1", pair.address, names)
      assert.deepEqual(
        opened.map(({ name }) => name),
        names
      )
      const talk = (channel: Channel, n: number) =>
        Effect.gen(function* () {
          const socket = yield* dialSocket(channel.path)
          socket.end(`${n}`.repeat(100_000))
          assert.equal((yield* readAll(socket)).toString(), `${channel.name}:${`${n}`.repeat(100_000)}`)
        })
      const talks = opened.flatMap((channel) => [1, 2, 3, 4].map((n) => talk(channel, n)))
      yield* Effect.all(talks, { concurrency: "unbounded" })
    })
  )
}

function holdingBack(behaves: Behaves): void {
  behaves("a reader that does not read holds the writer back", (pair) =>
    Effect.gen(function* () {
      const { channel, end } = yield* openOne(pair, (socket) => socket.pause())
      const socket = yield* dialSocket(channel.path)
      const piece = Buffer.alloc(64 * 1024)
      const total = 512 * piece.length
      yield* Effect.promise(async () => {
        for (let n = 0; n < 512 && socket.write(piece); n++) await new Promise(setImmediate)
        // Full somewhere; give what can still move the time to move.
        for (let n = 0; n < 512 && socket.writableLength > 0; n++) await new Promise(setImmediate)
      })
      const before = (yield* pair.source.statistics("m-1")).sentBytes
      assert.ok(before < total, `all of ${total} octets went into a transport nobody reads from`)
      for (let left = total - socket.bytesWritten; left > 0; left -= piece.length) socket.write(piece)
      socket.end()
      const [receiving] = end.sockets
      assert.ok(receiving)
      const all = yield* readAll(receiving)
      assert.ok(all.length >= total)
    })
  )
  behaves("opening twice and accepting twice is once", (pair) =>
    Effect.gen(function* () {
      const { channel, end } = yield* openOne(pair, (socket) => socket.pipe(socket))
      const path = join(pair.folder, "ram.sock")
      yield* pair.destination.accept("m-1", pair.sourceNode, [{ name: "ram", path }])
      assert.deepEqual(yield* pair.source.open("m-1", pair.address, ["ram"]), [channel])
      assert.equal(end.sockets.length, 0)
    })
  )
}

function refusing(behaves: Behaves): void {
  behaves("a transfer that nobody accepted, from this node or under this channel, is unknown", (pair) =>
    Effect.gen(function* () {
      const path = join(pair.folder, "ram.sock")
      const none = yield* Effect.flip(pair.source.open("m-1", pair.address, ["ram"]))
      assert.equal(none.code, "unknown")
      yield* pair.destination.accept("m-1", pair.sourceNode, [{ name: "ram", path }])
      const stranger = yield* Effect.flip(pair.other.open("m-1", pair.address, ["ram"]))
      assert.equal(stranger.code, "unknown")
      const channel = yield* Effect.flip(pair.source.open("m-1", pair.address, ["ram", "disk-0"]))
      assert.equal(channel.code, "unknown")
      assert.equal((yield* Effect.flip(pair.source.statistics("m-1"))).code, "unknown")
    })
  )
  behaves("an address without an agent is unreachable", (pair) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(pair.source.open("m-1", pair.nowhere, ["ram"]))
      assert.equal(error.code, "unreachable")
    })
  )
  behaves("the same transfer with other channels is refused", (pair) =>
    Effect.gen(function* () {
      yield* openOne(pair, () => undefined)
      assert.equal((yield* Effect.flip(pair.source.open("m-1", pair.address, ["disk-0"]))).code, "refused")
      const channels = [{ name: "disk-0", path: join(pair.folder, "disk-0.sock") }]
      const again = yield* Effect.flip(pair.destination.accept("m-1", pair.sourceNode, channels))
      assert.equal(again.code, "refused")
      for (const names of [[], ["ram", "ram"], ["../ram"]]) {
        assert.equal((yield* Effect.flip(pair.source.open("m-2", pair.address, names))).code, "refused")
      }
    })
  )
  behaves("a channel whose socket nobody listens on closes the source's connection", (pair) =>
    Effect.gen(function* () {
      const path = join(pair.folder, "ram.sock")
      yield* pair.destination.accept("m-1", pair.sourceNode, [{ name: "ram", path }])
      const [channel] = yield* pair.source.open("m-1", pair.address, ["ram"])
      yield* closed(yield* dialSocket((channel as Channel).path))
    })
  )
}

function waiting(behaves: Behaves): void {
  behaves("a connection that takes up what an earlier process began waits for the destination", (pair) =>
    Effect.gen(function* () {
      const path = join(pair.folder, "ram.sock")
      yield* pair.destination.accept("m-1", pair.sourceNode, [{ name: "ram", path }])
      const [channel] = yield* pair.source.open("m-1", pair.address, ["ram"], true)
      const socket = yield* dialSocket((channel as Channel).path)
      socket.end("the rest")
      // Long enough for the attempts that lead nowhere yet.
      yield* Effect.sleep(800)
      assert.ok(!socket.closed)
      const end = yield* receiver(path, () => undefined)
      while (end.sockets.length === 0) yield* Effect.sleep(10)
      assert.equal(String(yield* readAll(end.sockets[0] as Socket)), "the rest")
    })
  )
}

function ending(behaves: Behaves): void {
  const endings = [
    ["the source closes the transfer", (pair: TransportPair) => pair.source.close("m-1")],
    ["the destination closes the transfer", (pair: TransportPair) => pair.destination.close("m-1")]
  ] as const
  for (const [name, end] of endings) {
    behaves(`both ends of every connection close when ${name}`, (pair) =>
      Effect.gen(function* () {
        const { channel, end: there } = yield* openOne(pair, (socket) => socket.write("hello"))
        const socket = yield* dialSocket(channel.path)
        yield* Effect.promise(() => once(socket, "data"))
        yield* end(pair)
        yield* closed(socket)
        assert.equal(there.sockets.length, 1)
        for (const receiving of there.sockets) yield* closed(receiving)
      })
    )
  }
  behaves("closing removes the sockets; closing what is not known is a success", (pair) =>
    Effect.gen(function* () {
      const { channel } = yield* openOne(pair, () => undefined)
      assert.ok(existsSync(channel.path))
      yield* pair.source.close("m-1")
      assert.ok(!existsSync(channel.path))
      assert.equal((yield* Effect.flip(pair.source.statistics("m-1"))).code, "unknown")
      yield* pair.source.close("m-1")
      yield* pair.source.close("m-2")
      yield* pair.destination.close("m-1")
      assert.equal((yield* Effect.flip(pair.source.open("m-1", pair.address, ["ram"]))).code, "unknown")
    })
  )
  behaves("a hypervisor that dies at the destination closes the connection at the source", (pair) =>
    Effect.gen(function* () {
      const { channel, end } = yield* openOne(pair, (socket) => socket.write("hello"))
      const socket = yield* dialSocket(channel.path)
      yield* Effect.promise(() => once(socket, "data"))
      for (const receiving of end.sockets) receiving.destroy()
      const filling = setInterval(() => socket.write("more"), 1)
      yield* Effect.ensuring(
        closed(socket),
        Effect.sync(() => clearInterval(filling))
      )
    })
  )
}
