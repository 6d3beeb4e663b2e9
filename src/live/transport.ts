/**
 * Transport v1, the baseline: one mutual TLS 1.3 connection for each connection of a channel.
 *
 *     hypervisor   agent (source)                           agent (destination)      hypervisor
 *        | unix socket |  TLS, ALPN novacron-stream/1            | unix socket |
 *        |------------>|  open: StreamOpen {transfer, channel}   |             |
 *        |             |---------------------------------------->| accepted from this node?
 *        |             |  opened: StreamOpened  |  refuse        |------------>|
 *        |             |<----------------------------------------|             |
 *        |             |  (channel null asks what is accepted; the connection may then be opened for one)
 *        |<===========>|<======== pieces, see link/relay.ts ====>|<===========>|
 *
 * Version rule: the version is in StreamOpen; a destination refuses one it does not speak and names its own.
 */
import { mkdtemp, readdir, rm } from "node:fs/promises"
import { connect as connectSocket, createServer } from "node:net"
import type { Server, Socket } from "node:net"
import { join } from "node:path"
import type { TLSSocket } from "node:tls"
import { Effect, Exit, FiberSet, Layer, Schedule, Schema, Scope } from "effect"
import type { Fiber } from "effect"
import { Name } from "../events/fields.ts"
import { Refusal, StreamOpen, StreamOpened } from "../events/link.ts"
import type { Channel } from "../events/requests.ts"
import type { LinkError } from "../kernel/ports/link.ts"
import { Transport, TransportError } from "../kernel/ports/transport.ts"
import { Endpoint, protocols } from "./link/endpoint.ts"
import type { Accepted } from "./link/endpoint.ts"
import { receiveFrame } from "./link/exchange.ts"
import { decodePayload, encodeJson, frameType } from "./link/frames.ts"
import type { Frame } from "./link/frames.ts"
import { relay } from "./link/relay.ts"
import type { ByteCounts } from "./link/relay.ts"

export interface TransportOptions {
  /** Existing folder for the unix sockets, of one process at a time; short, as their paths have at most 107 octets. */
  readonly folder: string
  readonly openTimeoutMs?: number
}

const version = 1
const defaultOpenTimeoutMs = 10_000
const transfersMax = 1024
const channelsMax = 256
/** Connections of one transfer at a time, over all its channels. */
const connectionsMax = 512
const socketPathBytesMax = 107
const reconnectPauseMs = 500
/** Five minutes, when each attempt is refused at once. */
const reconnects_max = 600

interface Transfer {
  readonly transfer: string
  readonly role: "source" | "destination"
  /** Destination: the node that may send. Source: the address. */
  readonly other: string
  readonly channels: ReadonlyArray<Channel>
  readonly counts: ByteCounts
  readonly scope: Scope.Closeable
  readonly run: (work: Effect.Effect<void>) => Fiber.Fiber<void>
  /** Channels that had a connection: a hypervisor that comes again wants to take up what broke. */
  readonly carried: Set<string>
  connections: number
  /** Source: the connection that asked, for the first that the hypervisor makes. */
  spare: { readonly socket: TLSSocket; readonly take: () => TLSSocket } | null
}

interface State {
  readonly endpoint: Endpoint["Service"]
  readonly folder: string
  readonly openTimeoutMs: number
  readonly transfers: Map<string, Transfer>
}

const socketsPrefix = "t-"

/** A process that was killed could not remove its sockets; nobody listens at them. */
const removeLeftovers = (folder: string) =>
  Effect.promise(async () => {
    const left = (await readdir(folder)).filter((name) => name.startsWith(socketsPrefix))
    for (const name of left) await rm(join(folder, name), { recursive: true, force: true })
  })

const makeTransport = Effect.fn("Transport.make")(function* (options: TransportOptions) {
  const endpoint = yield* Endpoint
  yield* removeLeftovers(options.folder)
  const state: State = {
    endpoint,
    folder: options.folder,
    openTimeoutMs: options.openTimeoutMs ?? defaultOpenTimeoutMs,
    transfers: new Map()
  }
  yield* Effect.addFinalizer(() =>
    Effect.forEach([...state.transfers.keys()], (transfer) => close(state, transfer), { discard: true })
  )
  const run = yield* FiberSet.makeRuntime<never, void, never>()
  yield* endpoint.route({ protocol: protocols.stream, take: (accepted) => run(takeStream(state, accepted)) })
  return Transport.of({
    accept: (transfer, from, channels) => accept(state, transfer, from, channels),
    open: (transfer, address, channels, isResumed = false) =>
      Effect.tap(open(state, transfer, address, channels), () =>
        Effect.sync(() => {
          const carried = state.transfers.get(transfer)?.carried
          if (isResumed) for (const channel of channels) carried?.add(channel)
        })
      ),
    statistics: (transfer) =>
      Effect.suspend(() => {
        const known = state.transfers.get(transfer)
        return known
          ? Effect.succeed({ ...known.counts })
          : Effect.fail(problem(transfer, "unknown", "no such transfer is open or accepted here"))
      }),
    close: (transfer) => close(state, transfer)
  })
})

/** The Transport port, v1, on this node's endpoint. */
export const transportLayer = (options: TransportOptions): Layer.Layer<Transport, never, Endpoint> =>
  Layer.effect(Transport, makeTransport(options))

const problem = (transfer: string, code: TransportError["code"], reason: string) =>
  new TransportError({ transfer, code, reason })

const close = (state: State, transfer: string): Effect.Effect<void> =>
  Effect.suspend(() => {
    const known = state.transfers.get(transfer)
    state.transfers.delete(transfer)
    return known ? Scope.close(known.scope, Exit.void) : Effect.void
  })

const accept = Effect.fn("Transport.accept")(function* (
  state: State,
  transfer: string,
  from: string,
  channels: ReadonlyArray<Channel>
) {
  const known = state.transfers.get(transfer)
  if (known !== undefined) {
    const same = known.role === "destination" && known.other === from && sameNames(known.channels, channels)
    if (!same)
      return yield* problem(transfer, "refused", "the transfer is known already, with other channels")
    const paths = new Map(known.channels.map(({ name, path }) => [name, path]))
    if (channels.every(({ name, path }) => paths.get(name) === path)) return
    yield* close(state, transfer)
  }
  const bad = whyNot(
    state,
    transfer,
    channels.map(({ name }) => name)
  )
  if (bad !== null) return yield* problem(transfer, "refused", bad)
  state.transfers.set(transfer, yield* begin(transfer, "destination", from, channels))
})

const sameNames = (a: ReadonlyArray<Channel>, b: ReadonlyArray<Channel>) =>
  a
    .map(({ name }) => name)
    .toSorted()
    .join() ===
  b
    .map(({ name }) => name)
    .toSorted()
    .join()

function whyNot(state: State, transfer: string, channels: ReadonlyArray<string>): string | null {
  if (transfer.length < 1 || transfer.length > 128) return "a transfer's name has 1 to 128 characters"
  if (channels.length < 1 || channels.length > channelsMax)
    return `a transfer has 1 to ${channelsMax} channels`
  const odd = channels.find((name) => !Schema.is(Name)(name))
  if (odd !== undefined) return `${JSON.stringify(odd)} is not a channel's name`
  if (new Set(channels).size < channels.length) return "two channels have the same name"
  return state.transfers.size < transfersMax
    ? null
    : `${transfersMax} transfers are known, which is the limit`
}

const begin = (
  transfer: string,
  role: Transfer["role"],
  other: string,
  channels: ReadonlyArray<Channel>
): Effect.Effect<Transfer> =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const run = yield* Scope.provide(FiberSet.makeRuntime<never, void, never>(), scope)
    const counts = { sentBytes: 0, receivedBytes: 0 }
    return {
      transfer,
      role,
      other,
      channels,
      counts,
      scope,
      run,
      carried: new Set(),
      connections: 0,
      spare: null
    }
  })

const open = Effect.fn("Transport.open")(function* (
  state: State,
  transfer: string,
  address: string,
  channels: ReadonlyArray<string>
) {
  const known = state.transfers.get(transfer)
  if (known !== undefined) {
    const wanted = channels.map((name) => ({ name, path: "" }))
    const same = known.role === "source" && known.other === address && sameNames(known.channels, wanted)
    if (same) return known.channels
    return yield* problem(transfer, "refused", "the transfer is known already, with other channels")
  }
  const bad = whyNot(state, transfer, channels)
  if (bad !== null) return yield* problem(transfer, "refused", bad)
  const asked = yield* askDestination(state, transfer, address)
  return yield* serve(state, transfer, address, channels, asked).pipe(
    Effect.onError(() => Effect.sync(() => asked.socket.destroy()))
  )
})

interface Asked {
  readonly socket: TLSSocket
  readonly channels: ReadonlyArray<string>
}

const serve = Effect.fn("Transport.serve")(function* (
  state: State,
  transfer: string,
  address: string,
  channels: ReadonlyArray<string>,
  asked: Asked
) {
  const missing = channels.find((name) => !asked.channels.includes(name))
  if (missing !== undefined)
    return yield* problem(transfer, "unknown", `no channel ${missing} is accepted there`)
  const folder = yield* attempt(transfer, () => mkdtemp(join(state.folder, socketsPrefix)))
  const paths = channels.map((name) => ({ name, path: join(folder, `${name}.sock`) }))
  const source = yield* begin(transfer, "source", address, paths)
  yield* Scope.addFinalizer(
    source.scope,
    Effect.promise(() => rm(folder, { recursive: true, force: true }))
  )
  const listening = Effect.forEach(paths, (channel) => listen(state, source, channel), { discard: true })
  yield* Scope.provide(listening, source.scope).pipe(
    Effect.onError(() => Scope.close(source.scope, Exit.void))
  )
  keepSpare(source, asked.socket)
  yield* Scope.addFinalizer(
    source.scope,
    Effect.sync(() => source.spare?.socket.destroy())
  )
  state.transfers.set(transfer, source)
  return paths
})

function keepSpare(source: Transfer, socket: TLSSocket): void {
  const isGone = () => {
    source.spare = null
    socket.destroy()
  }
  for (const event of goneEvents) socket.on(event, isGone)
  // Paused, it would not see that the other side gives it up.
  socket.resume()
  source.spare = {
    socket,
    take: () => {
      source.spare = null
      for (const event of goneEvents) socket.off(event, isGone)
      return socket
    }
  }
}

const goneEvents = ["error", "end", "close"] as const

const attempt = <A>(transfer: string, work: () => Promise<A>) =>
  Effect.tryPromise({ try: work, catch: (cause) => problem(transfer, "failed", String(cause)) })

const askDestination = (state: State, transfer: string, address: string) =>
  Effect.flatMap(dialStream(state, transfer, address), (socket) =>
    openStream(state, socket, transfer, null).pipe(
      Effect.map((channels): Asked => ({ socket, channels })),
      Effect.onError(() => Effect.sync(() => socket.destroy()))
    )
  )

/** A connection that is open for the channel: the spare one, when it still is one, or a new one. */
const connectChannel = (state: State, source: Transfer, channel: string) =>
  Effect.gen(function* () {
    const spare = source.spare?.take()
    if (spare !== undefined) {
      const used = openStream(state, spare, source.transfer, channel).pipe(
        Effect.onError(() => Effect.sync(() => spare.destroy()))
      )
      const opened = yield* Effect.option(used)
      if (opened._tag === "Some") return spare
    }
    const remote = yield* dialStream(state, source.transfer, source.other)
    yield* openStream(state, remote, source.transfer, channel).pipe(
      Effect.onError(() => Effect.sync(() => remote.destroy()))
    )
    return remote
  })

const dialStream = (
  state: State,
  transfer: string,
  address: string
): Effect.Effect<TLSSocket, TransportError> =>
  state.endpoint.dial(address, protocols.stream, null).pipe(
    Effect.map(({ socket }) => socket),
    Effect.mapError(({ code, reason }: LinkError) =>
      problem(transfer, code === "refused" ? "refused" : "unreachable", reason)
    )
  )

/** Say what the connection is for; the names of the accepted channels. */
const openStream = (state: State, remote: TLSSocket, transfer: string, channel: string | null) =>
  Effect.gen(function* () {
    const message: typeof StreamOpen.Type = { version, transfer, channel }
    remote.write(encodeJson(frameType.open, 0, message))
    const frame = yield* receiveFrame(remote, state.openTimeoutMs).pipe(
      Effect.mapError(({ reason }) => problem(transfer, "lost", reason))
    )
    if (frame.type === frameType.opened) return (yield* decode(transfer, StreamOpened, frame)).channels
    const { code, reason } = yield* decode(transfer, Refusal, frame)
    return yield* problem(transfer, code === "unknown" ? "unknown" : "refused", `${code}: ${reason}`)
  })

const decode = <S extends Schema.ConstraintDecoder<unknown>>(transfer: string, schema: S, frame: Frame) =>
  Effect.try({
    try: (): S["Type"] => decodePayload(schema, frame),
    catch: (error) => problem(transfer, "failed", (error as { reason: string }).reason)
  })

/** Listen for the hypervisor on a channel's socket, for as long as the scope is open. */
const listen = (
  state: State,
  source: Transfer,
  channel: Channel
): Effect.Effect<Server, TransportError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Server, TransportError>((resume) => {
      const failed = (reason: string) => resume(Effect.fail(problem(source.transfer, "failed", reason)))
      const bytes = Buffer.byteLength(channel.path)
      if (bytes > socketPathBytesMax) {
        failed(`${channel.path} has ${bytes} octets; a socket's path has at most ${socketPathBytesMax}`)
        return
      }
      const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (local) => {
        local.on("error", () => local.destroy())
        source.run(carryOut(state, source, channel.name, local))
      })
      server.maxConnections = connectionsMax
      server.once("error", (error) => failed(error.message))
      server.listen(channel.path, () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server.close())
  )

/**
 * As long as the hypervisor waits: its octets stay in the socket until the link is back. QEMU before 8.2 never ends a
 * recovery of post-copy whose connection breaks at once, so it is not given one that leads nowhere.
 */
const patiently = (connecting: Effect.Effect<TLSSocket, TransportError>) =>
  Effect.retry(connecting, { schedule: Schedule.spaced(reconnectPauseMs), times: reconnects_max })

/** Source: one connection of the hypervisor's, to the destination's socket of the same channel. */
const carryOut = (state: State, source: Transfer, channel: string, local: Socket): Effect.Effect<void> =>
  Effect.scoped(
    Effect.gen(function* () {
      yield* Effect.addFinalizer(() => Effect.sync(() => local.destroy()))
      yield* counted(source)
      const connecting = connectChannel(state, source, channel)
      const remote = yield* Effect.acquireRelease(
        source.carried.has(channel) ? patiently(connecting) : connecting,
        (socket) => Effect.sync(() => socket.destroy()),
        { interruptible: true }
      )
      source.carried.add(channel)
      yield* relay(local, remote, source.counts).pipe(
        Effect.mapError((reason) => problem(source.transfer, "lost", reason))
      )
    })
  ).pipe(
    Effect.catch(({ transfer, code, reason }) =>
      Effect.logWarning(`transfer ${transfer}, channel ${channel}: ${code}: ${reason}`)
    )
  )

/** One of the transfer's connections, until the scope closes. */
const counted = (transfer: Transfer) =>
  Effect.acquireRelease(
    Effect.suspend(() => {
      if (transfer.connections >= connectionsMax) {
        const reason = `${connectionsMax} connections are open, which is the limit`
        return Effect.fail(problem(transfer.transfer, "refused", reason))
      }
      transfer.connections += 1
      return Effect.void
    }),
    () => Effect.sync(() => (transfer.connections -= 1))
  )

/** Destination: check what comes; a stream that is accepted lives in its transfer's scope from then on. */
const takeStream = (
  state: State,
  { socket, peer }: Pick<Accepted, "socket" | "peer">,
  isAgain = false
): Effect.Effect<void> =>
  Effect.gen(function* () {
    const frame = yield* receiveFrame(socket, state.openTimeoutMs)
    const message = yield* decode("", StreamOpen, frame)
    const transfer = state.transfers.get(message.transfer)
    const refusal = whyRefuse(transfer, peer, frame, message)
    // Whoever only asks closes by itself, or goes on with a channel; whoever does neither is not waited for.
    socket.setTimeout(state.openTimeoutMs, () => socket.destroy())
    if (refusal !== null || transfer === undefined) {
      socket.end(encodeJson(frameType.refuse, 0, refusal))
      return
    }
    if (message.channel === null) {
      const answer = encodeJson(frameType.opened, 0, { channels: transfer.channels.map(({ name }) => name) })
      if (isAgain) socket.end(answer)
      else {
        socket.write(answer)
        yield* takeStream(state, { socket, peer }, true)
      }
      return
    }
    const channel = transfer.channels.find(({ name }) => name === message.channel)
    if (channel !== undefined) transfer.run(carryIn(transfer, channel, socket))
  }).pipe(
    Effect.catch(({ reason }) =>
      Effect.andThen(
        Effect.sync(() => socket.destroy()),
        Effect.logDebug(`a stream of ${peer} ended: ${reason}`)
      )
    )
  )

function whyRefuse(
  transfer: Transfer | undefined,
  peer: string,
  frame: Frame,
  message: typeof StreamOpen.Type
): Refusal | null {
  if (frame.type !== frameType.open) return { code: "refused", reason: "the first frame is not an open" }
  if (message.version !== version) {
    return { code: "version", reason: `version ${message.version}; ${version} is spoken here` }
  }
  // A node that is not the expected one learns nothing about which transfers there are.
  if (transfer?.role !== "destination" || transfer.other !== peer) {
    return { code: "unknown", reason: `no transfer ${message.transfer} is accepted from ${peer}` }
  }
  if (message.channel === null || transfer.channels.some(({ name }) => name === message.channel)) return null
  return { code: "unknown", reason: `the transfer has no channel ${message.channel}` }
}

const carryIn = (transfer: Transfer, channel: Channel, remote: TLSSocket): Effect.Effect<void> =>
  Effect.scoped(
    Effect.gen(function* () {
      yield* Effect.addFinalizer(() => Effect.sync(() => remote.destroy()))
      yield* counted(transfer)
      const local = yield* Effect.acquireRelease(connectLocal(transfer, channel), (socket) =>
        Effect.sync(() => socket.destroy())
      )
      remote.write(encodeJson(frameType.opened, 0, { channels: [channel.name] }))
      yield* relay(local, remote, transfer.counts).pipe(
        Effect.mapError((reason) => problem(transfer.transfer, "lost", reason))
      )
    })
  ).pipe(
    Effect.catch(({ code, reason }) =>
      Effect.logWarning(`transfer ${transfer.transfer}, channel ${channel.name}: ${code}: ${reason}`)
    )
  )

const connectLocal = (transfer: Transfer, channel: Channel): Effect.Effect<Socket, TransportError> =>
  Effect.callback<Socket, TransportError>((resume) => {
    const socket = connectSocket({ path: channel.path, allowHalfOpen: true })
    socket.on("error", (error) => {
      resume(Effect.fail(problem(transfer.transfer, "failed", `channel ${channel.name}: ${error.message}`)))
    })
    socket.once("connect", () => {
      socket.pause()
      resume(Effect.succeed(socket))
    })
    return Effect.sync(() => socket.destroy())
  })
