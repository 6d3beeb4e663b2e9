/**
 * How a node gets its first certificate, and its next ones.
 *
 *     new node                                        authority
 *       | TLS 1.3, no client certificate, ALPN novacron-join/1 |
 *       |                    open: JoinHello {ca, proof}       |   proof: the authority's signature over
 *       |<-----------------------------------------------------|   the session's exported keying material
 *       | checks the hash in the token and the proof           |
 *       | open: JoinRequest {secret, node, request}            |
 *       |----------------------------------------------------->|   uses up the token
 *       |             opened: JoinAnswer {certificate}         |
 *       |<-----------------------------------------------------|   or refuse
 *
 * The proof binds the authority's key to this very session (RFC 8446, 7.5), so the secret goes to the authority
 * or to nobody: neither a stranger in between nor a node of the cluster can take it.
 */
import { X509Certificate } from "node:crypto"
import { connect as tlsConnect } from "node:tls"
import type { TLSSocket } from "node:tls"
import { Effect, FiberSet, Schema, Stream } from "effect"
import type { Scope } from "effect"
import { Name } from "../../events/fields.ts"
import { JoinAnswer, JoinHello, JoinRequest, Refusal } from "../../events/link.ts"
import { HandlerFailed, Link } from "../../kernel/ports/link.ts"
import type { LinkError, LinkHandler } from "../../kernel/ports/link.ts"
import { acceptCertificate, isPinned } from "../ca.ts"
import type { NodeIdentity } from "../ca.ts"
import { parseAddress } from "../link/address.ts"
import { Endpoint, protocols, tlsBase } from "../link/endpoint.ts"
import { receiveFrame } from "../link/exchange.ts"
import { decodePayload, encodeJson, FrameError, frameType } from "../link/frames.ts"
import type { Frame } from "../link/frames.ts"
import { generateKeys, signingRequest, verifyBytes } from "./certificate.ts"
import { CaError } from "./files.ts"
import type { HeldKey } from "./held-key.ts"
import { parseToken } from "./tokens.ts"

const exporterLabel = "EXPORTER-novacron-join"
const answerTimeoutMs = 10_000
/** A group may have to choose a leader first. */
const decisionTimeoutMs = 20_000
const sessionBytes = (socket: TLSSocket) => socket.exportKeyingMaterial(32, exporterLabel, Buffer.alloc(0))

/** What serving needs: the key, and who decides. Nodes of tests have others. */
export interface Issuing {
  readonly key: Pick<HeldKey, "authority">
  readonly register: {
    /** PEM of a certificate, for the DER request of who shows this secret. */
    readonly join: (secret: string, node: string, request: Buffer) => Effect.Effect<string, CaError>
    /** `present`: the serial of the certificate that the other side shows. */
    readonly renew: (node: string, present: string, request: Buffer) => Effect.Effect<string, CaError>
  }
}

/** Let new nodes in at this endpoint's address until the scope closes. */
export const serveJoins = Effect.fn("ca.serveJoins")(function* (issuing: Issuing) {
  const endpoint = yield* Endpoint
  const run = yield* FiberSet.makeRuntime<never, void, never>()
  yield* endpoint.route({
    protocol: protocols.join,
    take: (socket) => {
      run(
        serveJoin(socket, issuing).pipe(
          Effect.catch((error) => Effect.logDebug(`a join ended: ${error.reason}`)),
          Effect.ensuring(Effect.sync(() => socket.destroySoon()))
        )
      )
    }
  })
})

const refusal = (reason: string): Buffer => {
  const refused: Refusal = { code: "refused", reason: reason.slice(0, 2048) }
  return encodeJson(frameType.refuse, 0, refused)
}

const serveJoin = Effect.fn("ca.serveJoin")(function* (socket: TLSSocket, { key, register }: Issuing) {
  const { authority } = key
  if (authority === null) {
    socket.write(refusal("the authority's key is not at this node, or not yet; ask another voter"))
    return
  }
  const proof = authority.signSession(sessionBytes(socket)).toString("base64")
  const hello: typeof JoinHello.Type = { ca: authority.certificate, proof }
  socket.write(encodeJson(frameType.open, 0, hello))
  const request = yield* decode(JoinRequest, frameType.open, yield* receiveFrame(socket, answerTimeoutMs))
  yield* register.join(request.secret, request.node, Buffer.from(request.request, "base64")).pipe(
    Effect.map((certificate) => encodeJson(frameType.opened, 0, { certificate })),
    Effect.catchTag("CaError", (error) => Effect.succeed(refusal(`${error.code}: ${error.reason}`))),
    Effect.map((frame) => socket.write(frame))
  )
})

/**
 * Join the cluster as `node`, once, with a token's text: at the first of these addresses (`host:port`) where somebody shows that it has the
 * authority's key. The token is shown to that one only. Nothing is stored yet.
 */
export const joinCluster = Effect.fn("ca.joinCluster")(function* (
  addresses: ReadonlyArray<string>,
  token: string,
  node: string
) {
  const parsed = parseToken(token)
  if (parsed === null) {
    const reason = "not a join token: nct1.<secret>.<hash of the authority>"
    return yield* new CaError({ code: "invalid", path: "token", reason })
  }
  if (!Schema.is(Name)(node)) {
    const reason = `${JSON.stringify(node)} is not a name of 1 to 63 characters a-z, 0-9 and -`
    return yield* new CaError({ code: "invalid", path: "node", reason })
  }
  return yield* Effect.scoped(
    Effect.flatMap(dialAuthority(addresses, parsed), (reached) => join(reached, parsed, node))
  )
})

type Token = NonNullable<ReturnType<typeof parseToken>>

/** Who has shown that it has the authority's key. */
interface Reached {
  readonly address: string
  readonly socket: TLSSocket
  readonly hello: typeof JoinHello.Type
}

const caErrorAt =
  (address: string) =>
  <A, R>(work: Effect.Effect<A, { readonly reason: string }, R>): Effect.Effect<A, CaError, R> =>
    Effect.mapError(work, (error) =>
      error instanceof CaError ? error : new CaError({ code: "failed", path: address, reason: error.reason })
    )

/** At the first of these addresses where it is. */
const dialAuthority = Effect.fnUntraced(function* (
  addresses: ReadonlyArray<string>,
  { caHash }: Token
): Effect.fn.Return<Reached, CaError, Scope.Scope> {
  const dial = Effect.fnUntraced(function* (address: string) {
    const socket = yield* dialForJoin(address)
    const hello = yield* receiveHello(socket, address)
    if (isPinned(hello.ca, caHash) && provesSession(hello, socket)) return { address, socket, hello }
    const reason = "the other side is not the authority that made the token; the token was not shown to it"
    return yield* new CaError({ code: "token-refused", path: address, reason })
  })
  const failures: Array<CaError> = []
  for (const address of addresses) {
    const reached = yield* Effect.result(dial(address).pipe(caErrorAt(address)))
    if (reached._tag === "Success") return reached.success
    failures.push(reached.failure)
  }
  const [only] = failures
  if (only !== undefined && failures.length === 1) return yield* only
  const reason = failures.map((failure) => `${failure.path}: ${failure.reason}`).join("; ")
  return yield* new CaError({ code: failures.at(-1)?.code ?? "failed", path: addresses.join(), reason })
})

const join = Effect.fn("ca.joinSession")(
  function* ({ address, socket, hello }: Reached, token: Token, node: string) {
    const keys = generateKeys()
    const request = signingRequest(keys, node).toString("base64")
    const message: typeof JoinRequest.Type = { secret: token.secret, node, request }
    socket.write(encodeJson(frameType.open, 0, message))
    const frame = yield* receiveFrame(socket, decisionTimeoutMs)
    if (frame.type === frameType.refuse) {
      const refusal = yield* decode(Refusal, frameType.refuse, frame)
      return yield* new CaError({ code: "token-refused", path: address, reason: refusal.reason })
    }
    const answer = yield* decode(JoinAnswer, frameType.opened, frame)
    return yield* acceptCertificate(node, keys, answer.certificate, hello.ca)
  },
  (work, { address }) => caErrorAt(address)(work)
)

const receiveHello = Effect.fnUntraced(function* (socket: TLSSocket, address: string) {
  const frame = yield* receiveFrame(socket, answerTimeoutMs)
  if (frame.type !== frameType.refuse) return yield* decode(JoinHello, frameType.open, frame)
  const { reason } = yield* decode(Refusal, frameType.refuse, frame)
  return yield* new CaError({ code: "unavailable", path: address, reason })
})

/** Whether who is at `address` has the key of the authority with this certificate, and can show it. */
export const provesAuthority = (address: string, ca: string): Effect.Effect<boolean> =>
  Effect.scoped(
    Effect.flatMap(dialForJoin(address), (socket) =>
      Effect.map(receiveHello(socket, address), (hello) => hello.ca === ca && provesSession(hello, socket))
    )
  ).pipe(Effect.orElseSucceed(() => false))

function provesSession(hello: typeof JoinHello.Type, socket: TLSSocket): boolean {
  const { publicKey } = new X509Certificate(hello.ca)
  return verifyBytes(publicKey, sessionBytes(socket), Buffer.from(hello.proof, "base64"))
}

const decode = <S extends Schema.ConstraintDecoder<unknown>>(schema: S, type: number, frame: Frame) =>
  Effect.try({
    try: (): S["Type"] => {
      if (frame.type === type) return decodePayload(schema, frame)
      throw new FrameError({ code: "type", reason: `frame ${frame.type} instead of ${type}` })
    },
    catch: (error) => {
      if (error instanceof FrameError) return error
      throw error
    }
  })

const dialForJoin = (address: string) =>
  Effect.acquireRelease(
    Effect.callback<TLSSocket, CaError>((resume) => {
      const failed = (reason: string) =>
        resume(Effect.fail(new CaError({ code: "unreachable", path: address, reason })))
      const target = parseAddress(address)
      if (target === null) {
        failed("not a host:port")
        return
      }
      const socket = tlsConnect({
        ...tlsBase,
        host: target.host,
        port: target.port,
        ALPNProtocols: [protocols.join],
        // Nothing is trusted until the proof over this session is checked against the token's hash.
        rejectUnauthorized: false
      })
      socket.on("error", (error) => failed(error.message))
      socket.once("close", () => failed("the connection was closed"))
      socket.once("secureConnect", () => resume(Effect.succeed(socket)))
      return Effect.sync(() => socket.destroy())
    }).pipe(
      Effect.timeoutOrElse({
        duration: answerTimeoutMs,
        orElse: () => {
          const reason = `no answer within ${answerTimeoutMs} ms`
          return Effect.fail(new CaError({ code: "unreachable", path: address, reason }))
        }
      })
    ),
    (socket) => Effect.sync(() => socket.destroy())
  )

export const renewKind = "ca.renew"
const RenewRequest = Schema.Struct({ request: JoinRequest.fields.request })

const reasonOf = (error: CaError | LinkError | Schema.SchemaError) =>
  "reason" in error ? error.reason : error.message

/** Serves `ca.renew` where there is a kernel: a new certificate for whoever the link says is asking. */
export const renewHandler =
  ({ register }: Pick<Issuing, "register">): LinkHandler =>
  (peer, payload, serial) =>
    Stream.fromEffect(
      Schema.decodeUnknownEffect(RenewRequest)(payload).pipe(
        Effect.flatMap(({ request }) => register.renew(peer, serial, Buffer.from(request, "base64"))),
        Effect.map((certificate): typeof JoinAnswer.Type => ({ certificate })),
        Effect.mapError((error) => new HandlerFailed({ reason: reasonOf(error) }))
      )
    )

/** A new key and certificate for this node from whichever of these nodes gives one, over their links. */
export const renewIdentity = Effect.fn("ca.renewIdentity")(function* (
  identity: NodeIdentity,
  nodes: ReadonlyArray<string>
) {
  const link = yield* Link
  const keys = generateKeys()
  // The same to each: an answer that was lost is given again.
  const request = signingRequest(keys, identity.node).toString("base64")
  const askedOf = (node: string) =>
    link.call(node, renewKind, { request }).pipe(
      Stream.take(1),
      Stream.runCollect,
      Effect.flatMap((replies) => Schema.decodeUnknownEffect(JoinAnswer)(replies[0])),
      Effect.timeoutOrElse({
        duration: decisionTimeoutMs,
        orElse: () => Effect.fail({ reason: `no answer within ${decisionTimeoutMs} ms` })
      }),
      Effect.mapError((error) => `${node}: ${"reason" in error ? error.reason : error.message}`)
    )
  const tried: Array<string> = []
  for (const node of nodes) {
    const said = yield* Effect.result(askedOf(node))
    if (said._tag === "Success")
      return yield* acceptCertificate(identity.node, keys, said.success.certificate, identity.ca)
    tried.push(said.failure)
  }
  const reason = tried.length === 0 ? "no node with a kernel is known" : tried.join("; ").slice(0, 2000)
  return yield* new CaError({ code: "failed", path: renewKind, reason })
})
