/** The API on a socket: node's HTTP server with its limits, the gate, and the routes behind it. */
import { createServer } from "node:http"
import type { Server } from "node:http"
import { createServer as createTlsServer } from "node:https"
import { isIP } from "node:net"
import { NodeHttpServer } from "@effect/platform-node"
import { ByteSize, Deferred, Effect, Layer } from "effect"
import { HttpIncomingMessage, HttpMiddleware, HttpRouter, HttpServer } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { Kernel } from "../../kernel/kernel.ts"
import { Agents } from "../../kernel/ports/agents.ts"
import { Consoles } from "../../kernel/ports/consoles.ts"
import type { Unavailable } from "../../kernel/ports/consensus.ts"
import { EventStore } from "../../kernel/ports/event-store.ts"
import { Views } from "../../kernel/ports/views.ts"
import { ConsoleHub } from "../console/hub.ts"
import { Api } from "./api.ts"
import { authenticator } from "./authentication.ts"
import type { ClusterStatus } from "./bodies.ts"
import { makeCommands } from "./commands.ts"
import { makeConsole } from "./console.ts"
import { addGroup, goFirst, makeDirect } from "./direct.ts"
import type { Table } from "./direct.ts"
import { makeEvents } from "./events.ts"
import { gate, Slots } from "./gate.ts"
import type { ObserveRequest } from "./gate.ts"
import type { AuthorityHere } from "./authority.ts"
import { groups } from "./handlers.ts"
import { keepAliveMs, Request } from "./messages.ts"
import { makeOperations } from "./operations.ts"
import { Reads } from "./reads.ts"

export interface ApiServerOptions {
  readonly listen: { readonly host: string; readonly port: number } | { readonly path: string }
  /** PEM texts; without them only loopback addresses and unix sockets are listened on. */
  readonly tls?: { readonly certificate: string; readonly key: string }
  readonly token: string
  readonly node: string
  readonly version: string
  readonly ready?: Effect.Effect<boolean>
  readonly inFlight_max?: number
  readonly connections_max?: number
  readonly subscribers_max?: number
  readonly heartbeatMs?: number
  readonly observe?: ObserveRequest
  /** Whether this node takes part in the gossip by now. */
  readonly gossips?: () => boolean
  /** Of the certificate authority whose certificates this node and its cluster have. */
  readonly authority?: AuthorityHere
  /** Of a node that decides with others. */
  readonly group?: {
    readonly status: () => Omit<ClusterStatus, "position">
    /** Ends when what is read here is not older than the moment of asking. */
    readonly fresh: Effect.Effect<void, Unavailable>
  }
}

export const bodyBytes_max = 1024 * 1024
const headerBytes_max = 16 * 1024
const headersTimeoutMs = 15_000
const requestTimeoutMs = 60_000
const shutdownMs = 5_000

/** Of a node that decides by itself. */
const alone = (node: string): Omit<ClusterStatus, "position"> => ({
  node,
  role: "alone",
  term: 0,
  leader: node,
  voters: [node],
  outgoing: [],
  learners: [],
  connected: [node],
  commit: 0,
  last: 0,
  base: 0,
  removed: null
})

/** `127.0.0.0/8`, `::1` and `localhost`. */
export function isLoopback(host: string): boolean {
  if (host === "localhost" || host === "::1") return true
  return isIP(host) === 4 && host.startsWith("127.")
}

function makeServer(options: ApiServerOptions) {
  const limits = {
    IncomingMessage: Request,
    keepAliveTimeout: keepAliveMs,
    maxHeaderSize: headerBytes_max,
    headersTimeout: headersTimeoutMs,
    requestTimeout: requestTimeoutMs
  }
  const server = options.tls
    ? createTlsServer({
        ...limits,
        cert: options.tls.certificate,
        key: options.tls.key,
        minVersion: "TLSv1.3"
      })
    : createServer(limits)
  server.maxConnections = options.connections_max ?? 10_000
  // Half a request is answered by closing: the socket may be anyone's.
  server.on("clientError", (_error, socket) => socket.destroy())
  return server
}

const routesOf = Effect.fn("ApiServer.routes")(function* (
  options: ApiServerOptions,
  table: Table,
  stopping: Effect.Effect<void>
) {
  const kernel = yield* Kernel
  const store = yield* EventStore
  const reads = yield* Reads
  const operations = yield* makeOperations()
  const commands = makeCommands(kernel, operations, { views: yield* Views, agents: yield* Agents })
  const events = makeEvents(store, {
    subscribers_max: options.subscribers_max ?? 256,
    heartbeatMs: options.heartbeatMs ?? 15_000,
    stopping
  })
  const hub = yield* ConsoleHub.make({ kernel, consoles: yield* Consoles })
  const console = makeConsole({ kernel, operations, commands, hub, stopping })
  const { node, version, ready = Effect.succeed(true) } = options
  const take = addGroup(table, commands.offer)
  const clusterStatus = options.group?.status ?? (() => alone(node))
  const gossips = options.gossips ?? (() => false)
  const authority = options.authority ?? null
  const own = { node, version, ready, clusterStatus, gossips, authority, take }
  const ports = { kernel, store, reads, commands, operations, events, console, ...own }
  return HttpApiBuilder.layer(Api, { openapiPath: "/openapi.json" }).pipe(Layer.provide(groups(ports)))
})

const served = (options: ApiServerOptions, server: Server, stopping: Effect.Effect<void>) => {
  const table: Table = new Map()
  return Layer.unwrap(
    Effect.gen(function* () {
      const router = yield* HttpRouter.HttpRouter
      const limits = { slots: new Slots(options.inFlight_max ?? 1000), bodyBytes_max }
      const fresh = options.group?.fresh ?? null
      const authenticate = authenticator(options.token)
      const observe = options.observe ?? (() => {})
      const long = HttpServer.serve(gate(router.asHttpEffect(), { authenticate, fresh, ...limits, observe }))
      const short = Effect.gen(function* () {
        const context = yield* Effect.context<never>()
        const scope = yield* Effect.scope
        goFirst(server, yield* makeDirect({ table, authenticate, ...limits, observe, context, scope }))
      })
      return Layer.effectDiscard(short).pipe(Layer.provideMerge(long))
    })
  ).pipe(
    Layer.provideMerge(Layer.unwrap(routesOf(options, table, stopping))),
    Layer.provide(HttpRouter.layer)
  )
}

/**
 * Listens for as long as the layer lives, and gives the `HttpServer` with the bound address. Refuses, as a defect,
 * to listen beyond this machine without TLS: the configuration is checked for it before.
 */
export const apiServer = (options: ApiServerOptions) => {
  const { listen } = options
  if ("host" in listen && options.tls === undefined && !isLoopback(listen.host)) {
    throw new Error(`the API on ${listen.host} needs TLS certificates`)
  }
  const stopping = Deferred.makeUnsafe<void>()
  const server = makeServer(options)
  // Built last, so it is the first to be told of the end, before the server waits for its requests.
  const farewell = Layer.effectDiscard(Effect.addFinalizer(() => Deferred.succeed(stopping, undefined)))
  return farewell.pipe(
    Layer.provideMerge(served(options, server, Deferred.await(stopping))),
    Layer.provideMerge(
      NodeHttpServer.layer(() => server, { ...listen, gracefulShutdownTimeout: shutdownMs })
    ),
    Layer.provide(Layer.succeed(HttpIncomingMessage.MaxBodySize, ByteSize.bytes(bodyBytes_max))),
    // Nothing takes the spans yet, and making them for every request is not free.
    Layer.provide(Layer.succeed(HttpMiddleware.TracerDisabledWhen, () => true))
  )
}
