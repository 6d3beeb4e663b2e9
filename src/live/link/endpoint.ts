/**
 * The node's one door: a TLS 1.3 listener and dialler with the node's certificate. The application protocol
 * (ALPN, RFC 7301) says what a connection is for: `novacron-link/1`, `novacron-stream/1`, `novacron-group/1`, `novacron-key/1`,
 * `novacron-join/1`. Only for the last one may the dialler come without a certificate.
 */
import { X509Certificate } from "node:crypto"
import type { Socket } from "node:net"
import { connect as tlsConnect, createServer } from "node:tls"
import type { Server, TLSSocket, TlsOptions } from "node:tls"
import { Context, Effect, Layer } from "effect"
import type { Scope } from "effect"
import { LinkError } from "../../kernel/ports/link.ts"
import { isIssuedBy, nodeOf } from "../ca/certificate.ts"
import type { NodeIdentity } from "../ca.ts"
import { parseAddress } from "./address.ts"

export const protocols = {
  link: "novacron-link/1",
  stream: "novacron-stream/1",
  group: "novacron-group/1",
  join: "novacron-join/1",
  key: "novacron-key/1"
} as const
export type Protocol = (typeof protocols)[keyof typeof protocols]

export interface EndpointOptions {
  readonly identity: NodeIdentity
  /** Where to listen; port 0 takes a free one. */
  readonly host: string
  readonly port: number
  readonly connectionsMax?: number
  readonly handshakeTimeoutMs?: number
}

/** An authenticated connection, paused. `peer` is the name in the other side's certificate. */
export interface Accepted {
  readonly socket: TLSSocket
  readonly peer: string
  readonly certificate: X509Certificate
}

/** A connection on the join protocol, where the dialler has no certificate yet. */
export type Route =
  | { readonly protocol: "novacron-join/1"; readonly take: (socket: TLSSocket) => void }
  | {
      readonly protocol: Exclude<Protocol, "novacron-join/1">
      readonly take: (accepted: Accepted) => void
    }

export class Endpoint extends Context.Service<
  Endpoint,
  {
    readonly node: string
    /** `host:port` as it is listened on. */
    readonly address: string
    /** Take connections of this protocol until the scope closes. */
    readonly route: (route: Route) => Effect.Effect<void, never, Scope.Scope>
    /** Connect to an endpoint. `expected`: the only node it may be; null takes any of the authority's. */
    readonly dial: (
      address: string,
      protocol: Protocol,
      expected: string | null
    ) => Effect.Effect<Accepted, LinkError>
    /** Show this certificate from now on; connections that exist stay. The node must be the same. */
    readonly replaceIdentity: (identity: NodeIdentity) => Effect.Effect<void>
    /** Who shows a certificate with one of these serials is not spoken with; connections that exist are cut. */
    readonly refuse: (serials: ReadonlySet<string>) => Effect.Effect<void>
  }
>()("novacron/live/link/Endpoint") {
  static readonly layer = (options: EndpointOptions) => Layer.effect(Endpoint, makeEndpoint(options))
}

const defaultConnectionsMax = 10_000
const defaultHandshakeTimeoutMs = 10_000

export const tlsBase = { minVersion: "TLSv1.3", maxVersion: "TLSv1.3" } as const

const makeEndpoint = Effect.fn("Endpoint.make")(function* (options: EndpointOptions) {
  let identity = options.identity
  const { node } = identity
  const timeoutMs = options.handshakeTimeoutMs ?? defaultHandshakeTimeoutMs
  const routes = new Map<string, Route>()
  const shown = new Shown()
  const server = yield* listen(options, timeoutMs, (socket) => take(socket, identity, routes, shown))
  const bound = server.address()
  if (bound === null || typeof bound === "string") throw new Error("a TCP listener without a port")
  const host = bound.family === "IPv6" ? `[${bound.address}]` : bound.address

  return Endpoint.of({
    node,
    address: `${host}:${bound.port}`,
    route: (route) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          if (routes.has(route.protocol)) throw new Error(`${route.protocol} is taken already`)
          routes.set(route.protocol, route)
        }),
        () => Effect.sync(() => routes.delete(route.protocol))
      ),
    dial: (address, protocol, expected) => dial(address, protocol, expected, { identity, timeoutMs, shown }),
    refuse: (serials) => Effect.sync(() => shown.refuse(serials)),
    replaceIdentity: (next) =>
      Effect.sync(() => {
        if (next.node !== node) throw new Error(`the identity of ${next.node} can't replace that of ${node}`)
        identity = next
        server.setSecureContext(secure(next))
      })
  })
})

/** Which certificates the connections that are open have shown, and which of all are refused. */
class Shown {
  readonly #open = new Map<TLSSocket, string>()
  #refused: ReadonlySet<string> = new Set()

  isRefused(serial: string): boolean {
    return this.#refused.has(serial)
  }

  take(socket: TLSSocket, serial: string): void {
    this.#open.set(socket, serial)
    socket.once("close", () => this.#open.delete(socket))
  }

  refuse(serials: ReadonlySet<string>): void {
    this.#refused = serials
    for (const [socket, serial] of this.#open) if (serials.has(serial)) socket.destroy()
  }
}

const secure = (identity: NodeIdentity) => ({
  key: identity.key,
  cert: identity.certificate,
  ca: identity.ca,
  minVersion: tlsBase.minVersion,
  maxVersion: tlsBase.maxVersion
})

const listen = (
  options: EndpointOptions,
  handshakeTimeout: number,
  onSocket: (socket: TLSSocket) => void
): Effect.Effect<Server, LinkError, Scope.Scope> => {
  const settings: TlsOptions = {
    ...tlsBase,
    ...secure(options.identity),
    ALPNProtocols: Object.values(protocols),
    requestCert: true,
    // A joining node has no certificate; `take` turns everyone else without a good one away.
    rejectUnauthorized: false,
    handshakeTimeout
  }
  const sockets = new Set<Socket>()
  const acquire = Effect.callback<Server, LinkError>((resume) => {
    const server = createServer(settings, (socket) => {
      socket.setNoDelay(true)
      socket.on("error", () => socket.destroy())
      onSocket(socket)
    })
    server.on("connection", (socket: Socket) => {
      sockets.add(socket)
      socket.on("close", () => sockets.delete(socket))
    })
    server.maxConnections = options.connectionsMax ?? defaultConnectionsMax
    server.on("tlsClientError", (_error, socket) => socket.destroy())
    server.once("error", (error) => {
      const reason = `can't listen on ${options.host}:${options.port}: ${error.message}`
      resume(Effect.fail(new LinkError({ node: options.identity.node, code: "failed", reason })))
    })
    server.listen(options.port, options.host, () => resume(Effect.succeed(server)))
  })
  return Effect.acquireRelease(acquire, (server) =>
    Effect.callback<void>((resume) => {
      server.close(() => resume(Effect.void))
      for (const socket of sockets) socket.destroy()
    })
  )
}

function take(
  socket: TLSSocket,
  identity: NodeIdentity,
  routes: ReadonlyMap<string, Route>,
  shown: Shown
): void {
  const route = routes.get(socket.alpnProtocol || "")
  // A resumed session would carry an identity from before; nobody here resumes.
  if (route === undefined || socket.isSessionReused()) {
    socket.destroy()
    return
  }
  if (route.protocol === protocols.join) {
    route.take(socket)
    return
  }
  const accepted = authenticate(socket, identity, shown)
  if (typeof accepted === "string") socket.destroy()
  else route.take(accepted)
}

/** Who is at the other end, by its certificate; otherwise why that is not known. */
function authenticate(socket: TLSSocket, identity: NodeIdentity, shown: Shown): Accepted | string {
  const certificate = socket.getPeerX509Certificate()
  if (!socket.authorized || certificate === undefined) {
    return `no certificate of this authority: ${socket.authorizationError?.message ?? "none was shown"}`
  }
  if (!isIssuedBy(certificate, new X509Certificate(identity.ca), Date.now())) {
    return "the certificate is not one of this authority, or not in its time"
  }
  const peer = nodeOf(certificate)
  if (peer === null) return "the certificate names no node"
  if (shown.isRefused(certificate.serialNumber)) return `the certificate of ${peer} was taken back`
  shown.take(socket, certificate.serialNumber)
  return { socket, peer, certificate }
}

const dial = (
  address: string,
  protocol: Protocol,
  expected: string | null,
  {
    identity,
    timeoutMs,
    shown
  }: { readonly identity: NodeIdentity; readonly timeoutMs: number; readonly shown: Shown }
): Effect.Effect<Accepted, LinkError> =>
  Effect.callback<Accepted, LinkError>((resume) => {
    const failed = (code: LinkError["code"], reason: string) =>
      resume(Effect.fail(new LinkError({ node: expected ?? address, code, reason })))
    const target = parseAddress(address)
    if (target === null) {
      failed("unreachable", `${JSON.stringify(address)} is not [node@]host:port`)
      return
    }
    const wanted = expected ?? target.node
    const socket = tlsConnect({
      ...tlsBase,
      ...secure(identity),
      host: target.host,
      port: target.port,
      ALPNProtocols: [protocol],
      // The name that counts is in the SAN, and `authenticate` reads it; host names say nothing here.
      checkServerIdentity: () => undefined
    })
    socket.setNoDelay(true)
    socket.on("error", (error) => failed("unreachable", `${address}: ${error.message}`))
    socket.once("close", () => failed("unreachable", `${address}: the connection was closed`))
    socket.once("secureConnect", () => {
      const accepted = authenticate(socket, identity, shown)
      const problem =
        typeof accepted === "string"
          ? accepted
          : socket.alpnProtocol !== protocol
            ? `it does not speak ${protocol}`
            : wanted !== null && accepted.peer !== wanted
              ? `it is ${accepted.peer}, not ${wanted}`
              : null
      if (problem !== null || typeof accepted === "string") {
        failed("refused", `${address}: ${problem}`)
        socket.destroy()
        return
      }
      resume(Effect.succeed(accepted))
    })
    return Effect.sync(() => socket.destroy())
  }).pipe(
    Effect.timeoutOrElse({
      duration: timeoutMs,
      orElse: () => {
        const reason = `${address}: no answer within ${timeoutMs} ms`
        return Effect.fail(new LinkError({ node: expected ?? address, code: "unreachable", reason }))
      }
    })
  )
