/** The Link port over mutual TLS: one supervised connection per peer, dialled again whenever it is lost. */
import { Clock, Effect, FiberMap, FiberSet, Latch, Layer, Random, Stream } from "effect"
import type { Scope } from "effect"
import type { Hello } from "../events/link.ts"
import { Link, LinkError } from "../kernel/ports/link.ts"
import type { LinkHandler, Peer } from "../kernel/ports/link.ts"
import { Endpoint, protocols } from "./link/endpoint.ts"
import type { Accepted } from "./link/endpoint.ts"
import { parseAddress } from "./link/address.ts"
import { establish } from "./link/connection.ts"
import type { Connection } from "./link/connection.ts"
import { probeFeature } from "./link/heartbeat.ts"
import { keepsExisting } from "./link/negotiation.ts"

export interface LinkOptions {
  readonly heartbeatMs?: number
  readonly heartbeatMissesMax?: number
  readonly helloTimeoutMs?: number
  readonly backoffMinMs?: number
  readonly backoffMaxMs?: number
  readonly requestsMax?: number
  readonly frameBytesMax?: number
  /** Versions this node speaks, and features beside the built-in ones. */
  readonly versionMin?: number
  readonly versionMax?: number
  readonly features?: ReadonlyArray<string>
}

const defaults = {
  heartbeatMs: 500,
  heartbeatMissesMax: 6,
  helloTimeoutMs: 5000,
  backoffMinMs: 100,
  backoffMaxMs: 10_000,
  requestsMax: 256,
  frameBytesMax: 1024 * 1024,
  versionMin: 1,
  versionMax: 1,
  features: []
} satisfies Required<LinkOptions>
type Settings = Required<LinkOptions>

/** So many peers may be dialled. */
const dialledMax = 10_000

interface PeerEntry {
  readonly node: string
  address: string | null
  connection: Connection | null
  sinceMs: number
  lastError: string | null
  /** Ends the wait before the next try. */
  readonly hurry: Latch.Latch
}

interface State {
  readonly endpoint: Endpoint["Service"]
  readonly settings: Settings
  readonly handlers: Map<string, LinkHandler>
  readonly peers: Map<string, PeerEntry>
}

const makeLink = Effect.fn("Link.make")(function* (options: LinkOptions) {
  const endpoint = yield* Endpoint
  const state: State = {
    endpoint,
    settings: { ...defaults, ...options },
    handlers: new Map(),
    peers: new Map()
  }
  const dialling = yield* FiberMap.make<string, void>()
  const serving = yield* FiberSet.makeRuntime<never, void, never>()
  yield* endpoint.route({
    protocol: protocols.link,
    take: (accepted) => serving(Effect.ignore(runLink(state, accepted, accepted.peer)))
  })

  return Link.of({
    node: endpoint.node,
    serve: (kind, handler) => serve(state, kind, handler),
    call: (node, kind, payload) =>
      Stream.unwrap(Effect.map(connected(state, node), (connection) => connection.request(kind, payload))),
    connect: Effect.fn("Link.connect")(function* (node, address) {
      const problem = whyNotDial(state, node, address)
      if (problem !== null) return yield* new LinkError({ node, code: "refused", reason: problem })
      const entry = yield* entryOf(state, node)
      entry.address = address
      yield* FiberMap.run(dialling, node, keepDialling(state, entry, address))
    }),
    disconnect: Effect.fn("Link.disconnect")(function* (node) {
      yield* FiberMap.remove(dialling, node)
      const entry = state.peers.get(node)
      state.peers.delete(node)
      entry?.connection?.bye({ code: "refused", reason: `${endpoint.node} disconnects` })
    }),
    peers: Effect.sync(() => [...state.peers.values()].map(viewOf)),
    recordTransfer: (node, bytes, durationMs) =>
      Effect.sync(() => state.peers.get(node)?.connection?.samples.transferred(bytes, durationMs)),
    look: (node) =>
      Effect.suspend(() => {
        const entry = state.peers.get(node)
        if (entry?.connection) return entry.connection.look
        return entry === undefined ? Effect.succeed(false) : Effect.as(entry.hurry.release, false)
      }),
    probe: (node, bytes) => Effect.flatMap(connected(state, node), (connection) => connection.probe(bytes))
  })
})

/** The Link port on this node's endpoint. */
export const linkLayer = (options: LinkOptions = {}): Layer.Layer<Link, never, Endpoint> =>
  Layer.effect(Link, makeLink(options))

const serve = (state: State, kind: string, handler: LinkHandler): Effect.Effect<void, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      if (state.handlers.has(kind)) throw new Error(`${kind} is served already`)
      state.handlers.set(kind, handler)
    }),
    () => Effect.sync(() => state.handlers.delete(kind))
  ).pipe(Effect.asVoid)

const connected = (state: State, node: string): Effect.Effect<Connection, LinkError> =>
  Effect.suspend(() => {
    const entry = state.peers.get(node)
    if (entry?.connection) return Effect.succeed(entry.connection)
    const why = entry === undefined ? "no such peer is known" : (entry.lastError ?? "not connected yet")
    return Effect.fail(new LinkError({ node, code: "unreachable", reason: why }))
  })

function whyNotDial(state: State, node: string, address: string): string | null {
  if (node === state.endpoint.node) return "a node has no link to itself"
  const target = parseAddress(address)
  if (target === null) return `${JSON.stringify(address)} is not [node@]host:port`
  if (target.node !== null && target.node !== node) return `the address is that of ${target.node}`
  return state.peers.size >= dialledMax ? `${dialledMax} peers are known, which is the limit` : null
}

const entryOf = (state: State, node: string): Effect.Effect<PeerEntry> =>
  Effect.map(Clock.currentTimeMillis, (nowMs) => {
    const known = state.peers.get(node)
    if (known) return known
    const hurry = Latch.makeUnsafe(false)
    const entry: PeerEntry = { node, address: null, connection: null, sinceMs: nowMs, lastError: null, hurry }
    state.peers.set(node, entry)
    return entry
  })

/** Never ends by itself. The wait between two tries doubles up to a limit, and begins anew after a link. */
const keepDialling = (state: State, entry: PeerEntry, address: string): Effect.Effect<void> =>
  Effect.gen(function* () {
    const { backoffMinMs, backoffMaxMs } = state.settings
    let waitMs = backoffMinMs
    while (true) {
      if (entry.connection !== null) yield* entry.connection.closed
      const wasLinked = yield* state.endpoint.dial(address, protocols.link, entry.node).pipe(
        Effect.flatMap((accepted) => runLink(state, accepted, state.endpoint.node)),
        Effect.as(true),
        Effect.catch((error) =>
          Effect.sync(() => {
            entry.lastError = error.reason
            return false
          })
        )
      )
      waitMs = wasLinked ? backoffMinMs : Math.min(backoffMaxMs, waitMs * 2)
      // Nodes that lost the same peer at the same time don't all come back at the same time.
      yield* Effect.raceFirst(Effect.sleep(waitMs * (0.5 + (yield* Random.next) / 2)), entry.hurry.await)
    }
  })

/** Greet, take its place among the peers, and stay until the link ends. */
const runLink = (state: State, accepted: Accepted, dialler: string): Effect.Effect<void, LinkError> =>
  Effect.scoped(
    Effect.gen(function* () {
      const { settings } = state
      const connection = yield* establish(accepted.socket, {
        hello: helloOf(state),
        peer: accepted.peer,
        dialler,
        certificateEndsMs: Date.parse(accepted.certificate.validTo),
        serial: accepted.certificate.serialNumber,
        helloTimeoutMs: settings.helloTimeoutMs,
        heartbeatMs: settings.heartbeatMs,
        heartbeatMissesMax: settings.heartbeatMissesMax,
        handlers: state.handlers
      })
      const entry = yield* entryOf(state, accepted.peer)
      if (!adopt(entry, connection)) return
      const end = yield* connection.closed.pipe(
        Effect.onInterrupt(() => release(state, entry, connection, "the node closes its link"))
      )
      yield* release(state, entry, connection, end.reason)
    })
  )

function helloOf({ endpoint, settings }: State): Hello {
  return {
    node: endpoint.node,
    versionMin: settings.versionMin,
    versionMax: settings.versionMax,
    features: [...settings.features, probeFeature],
    frameBytesMax: settings.frameBytesMax,
    requestsMax: settings.requestsMax
  }
}

function adopt(entry: PeerEntry, connection: Connection): boolean {
  const existing = entry.connection
  const duplicate = { code: "duplicate", reason: "there is another link between these nodes" } as const
  if (existing !== null && keepsExisting(existing.dialler, connection.dialler)) {
    connection.bye(duplicate)
    return false
  }
  entry.connection = connection
  entry.sinceMs = connection.sinceMs
  entry.lastError = null
  existing?.bye(duplicate)
  return true
}

const release = (
  state: State,
  entry: PeerEntry,
  connection: Connection,
  reason: string
): Effect.Effect<void> =>
  Effect.map(Clock.currentTimeMillis, (nowMs) => {
    if (entry.connection !== connection) return
    entry.connection = null
    entry.sinceMs = nowMs
    entry.lastError = reason
    if (entry.address === null && state.peers.get(entry.node) === entry) state.peers.delete(entry.node)
  })

function viewOf(entry: PeerEntry): Peer {
  const { connection } = entry
  return {
    node: entry.node,
    state: connection === null ? "connecting" : "connected",
    sinceMs: entry.sinceMs,
    address: entry.address,
    version: connection?.agreement.version ?? null,
    features: connection?.agreement.features ?? [],
    sample: connection?.samples.sample() ?? null,
    lastError: entry.lastError
  }
}
