/**
 * The cluster's own certificate authority, and what a node holds from it.
 *
 *     <authority>/                0700            <identity>/    0700
 *       ca.key  ca.crt            0600              node.pem (key and certificate)  ca.crt   0600
 *       tokens/open  tokens/used
 *       nodes/<name>.json         who has which certificate
 *
 * A name belongs to the key it was first given to until its certificate ends; a token made for that very name,
 * or a renewal by its holder, moves it to a new key.
 */
import { timingSafeEqual, X509Certificate } from "node:crypto"
import type { KeyObject } from "node:crypto"
import { join } from "node:path"
import { Clock, Effect, Schema } from "effect"
import { withDefault } from "../events/fields.ts"
import * as certificates from "./ca/certificate.ts"
import { CaError, createFile, makePrivateFolder, readText, replaceFile } from "./ca/files.ts"
import { TokenStore, tokenLifetimeMs } from "./ca/tokens.ts"

/** What a node shows on every connection, and what it trusts. PEM texts; `key` is secret. */
export interface NodeIdentity {
  readonly node: string
  readonly key: string
  readonly certificate: string
  readonly ca: string
}

const IssuedNode = Schema.fromJsonString(
  Schema.Struct({
    serial: Schema.String,
    spki: Schema.String,
    notAfterMs: Schema.Int,
    /** Absent in what older releases wrote. */
    votes: withDefault(Schema.Boolean, false)
  })
)

export interface Authority {
  readonly certificate: string
  /** SHA-256 of the authority's public key, base64url. */
  readonly hash: string
  /** The text of a new join token. `node`: only that node may use it. `votes`: it may become a voter. */
  readonly createToken: (options?: {
    readonly lifetimeMs?: number
    readonly votes?: boolean
    readonly node?: string
  }) => Effect.Effect<{ readonly token: string; readonly expiresMs: number }, CaError>
  /** Whether `createToken` would make one; changes nothing. */
  readonly checkToken: (node: string | null) => Effect.Effect<void, CaError>
  /** Use up a token's secret and issue a certificate for the DER request. PEM. */
  readonly join: (secret: string, node: string, request: Buffer) => Effect.Effect<string, CaError>
  /** A new certificate for a node that has proved, by its present one, to be `node`. PEM. */
  readonly renew: (node: string, request: Buffer) => Effect.Effect<string, CaError>
  /** Prove to the other end of a TLS session that the authority itself is here. */
  readonly signSession: (exported: Buffer) => Buffer
  /** Issue a certificate without a token: for the node that the authority lives on. */
  readonly issue: (node: string, request: Buffer) => Effect.Effect<string, CaError>
}

/** Whether an authority can be made in `folder`; changes nothing. */
export const caCheck = Effect.fn("ca.check")(function* (folder: string) {
  const path = join(folder, "ca.key")
  const known = yield* Effect.result(readText(path))
  if (known._tag === "Success") {
    return yield* new CaError({ code: "exists", path, reason: "there is an authority already" })
  }
  if (known.failure.code !== "missing") return yield* known.failure
})

/** Make a new authority in `folder`; `exists` when there is one. */
export const caInit = Effect.fn("ca.init")(function* (folder: string) {
  yield* caCheck(folder)
  yield* makePrivateFolder(folder)
  const keys = certificates.generateKeys()
  const root = certificates.rootCertificate(keys, yield* Clock.currentTimeMillis)
  yield* createFile(join(folder, "ca.key"), certificates.keyPem(keys.privateKey))
  yield* replaceFile(join(folder, "ca.crt"), root.toString())
  return yield* caOpen(folder)
})

/** The authority that lives in `folder`. */
export const caOpen = Effect.fn("ca.open")(function* (folder: string) {
  const keys = yield* readPem(join(folder, "ca.key"), certificates.keysFromPem)
  const root = yield* readPem(join(folder, "ca.crt"), (pem) => new X509Certificate(pem))
  if (!root.checkPrivateKey(keys.privateKey)) {
    const reason = "the certificate is not the key's"
    return yield* new CaError({ code: "invalid", path: join(folder, "ca.crt"), reason })
  }
  const tokens = new TokenStore(join(folder, "tokens"))
  yield* tokens.prepare
  yield* makePrivateFolder(join(folder, "nodes"))
  return authority(folder, { keys, certificate: root }, tokens)
})

interface Signer {
  readonly keys: certificates.KeyPair
  readonly certificate: X509Certificate
}

function authority(folder: string, signer: Signer, tokens: TokenStore): Authority {
  const hash = certificates.spkiHash(signer.keys.publicKey)

  const issueNodeCertificate = Effect.fn("ca.issueNodeCertificate")(function* (
    node: string,
    request: Buffer,
    mayTakeOver: boolean,
    /** Null keeps what the node had. */
    granted: boolean | null
  ) {
    const nowMs = yield* Clock.currentTimeMillis
    const key = certificates.readSigningRequest(request, node)
    if (typeof key === "string") return yield* new CaError({ code: "invalid", path: "request", reason: key })
    const path = join(folder, "nodes", `${node}.json`)
    const known = yield* Effect.option(Effect.flatMap(readText(path), Schema.decodeUnknownEffect(IssuedNode)))
    const votes = granted ?? (known._tag === "Some" && known.value.votes)
    const certificate = certificates.nodeCertificate(signer, node, key, nowMs, { votes })
    yield* claimName({ path, node, key, certificate, mayTakeOver, nowMs, votes })
    return certificate.toString()
  })

  return {
    certificate: signer.certificate.toString(),
    hash,
    createToken: Effect.fn("ca.createToken")(function* (options = {}) {
      const lifetimeMs = options.lifetimeMs ?? tokenLifetimeMs
      const { secret, expiresMs } = yield* tokens.create({
        lifetimeMs,
        node: options.node ?? null,
        votes: options.votes ?? false
      })
      return { token: `nct1.${secret}.${hash}`, expiresMs }
    }),
    checkToken: (node) => tokens.check(node),
    join: Effect.fn("ca.join")(function* (secret, node, request) {
      const bad = certificates.readSigningRequest(request, node)
      if (typeof bad === "string")
        return yield* new CaError({ code: "invalid", path: "request", reason: bad })
      const token = yield* tokens.redeem(secret, node)
      return yield* issueNodeCertificate(node, request, token.node === node, token.votes)
    }),
    renew: (node, request) => issueNodeCertificate(node, request, true, null),
    signSession: (exported) => certificates.signBytes(signer.keys, exported),
    issue: (node, request) => issueNodeCertificate(node, request, false, true)
  }
}

/** Write down who has the name now; `name-taken` when another key holds it. */
const claimName = Effect.fn("ca.claimName")(function* ({
  path,
  node,
  key,
  certificate,
  mayTakeOver,
  nowMs,
  votes
}: {
  readonly path: string
  readonly node: string
  readonly key: KeyObject
  readonly certificate: X509Certificate
  readonly mayTakeOver: boolean
  readonly nowMs: number
  readonly votes: boolean
}) {
  const spki = certificates.spkiHash(key)
  const entry = JSON.stringify({
    serial: certificate.serialNumber,
    spki,
    notAfterMs: Date.parse(certificate.validTo),
    votes
  })
  const created = yield* createFile(path, entry).pipe(
    Effect.as(true),
    Effect.catchTag("CaError", (error) =>
      error.code === "exists" ? Effect.succeed(false) : Effect.fail(error)
    )
  )
  if (created) return
  const known = yield* readText(path).pipe(
    Effect.flatMap(Schema.decodeUnknownEffect(IssuedNode)),
    Effect.mapError((error) => new CaError({ code: "failed", path, reason: String(error) }))
  )
  if (!mayTakeOver && known.spki !== spki && known.notAfterMs > nowMs) {
    const reason = `the name ${node} belongs to another key; a token made for ${node} moves it`
    return yield* new CaError({ code: "name-taken", path: "node", reason })
  }
  yield* replaceFile(path, entry)
})

const readPem = <A>(path: string, parse: (pem: string) => A) =>
  readText(path).pipe(
    Effect.flatMap((pem) =>
      Effect.try({
        try: () => parse(pem),
        // What OpenSSL says about a bad file could quote it; a key must not get into a log that way.
        catch: () => new CaError({ code: "invalid", path, reason: "not a readable PEM file" })
      })
    )
  )

/** Check a certificate that came for our request: issued by `ca`, for `node`, for our key, and in its time. */
export const acceptCertificate = Effect.fn("ca.acceptCertificate")(function* (
  node: string,
  keys: certificates.KeyPair,
  certificate: string,
  ca: string
) {
  const nowMs = yield* Clock.currentTimeMillis
  const sound = yield* Effect.try({
    try: () => {
      const leaf = new X509Certificate(certificate)
      return (
        certificates.nodeOf(leaf) === node &&
        leaf.checkPrivateKey(keys.privateKey) &&
        certificates.isIssuedBy(leaf, new X509Certificate(ca), nowMs)
      )
    },
    catch: () => new CaError({ code: "invalid", path: "certificate", reason: "not a readable certificate" })
  })
  if (!sound) {
    const reason = `the certificate is not one of this authority for ${node} and its key`
    return yield* new CaError({ code: "invalid", path: "certificate", reason })
  }
  const identity: NodeIdentity = { node, key: certificates.keyPem(keys.privateKey), certificate, ca }
  return identity
})

/** Keys, request and certificate for a node of this authority's own process. */
export const issueIdentity = Effect.fn("ca.issueIdentity")(function* (ca: Authority, node: string) {
  const keys = certificates.generateKeys()
  const certificate = yield* ca.issue(node, certificates.signingRequest(keys, node))
  return yield* acceptCertificate(node, keys, certificate, ca.certificate)
})

/** The same node and key, with what this authority lets its own node do now. */
export const reissueIdentity = Effect.fn("ca.reissueIdentity")(function* (
  ca: Authority,
  { node, key }: NodeIdentity
) {
  const keys = certificates.keysFromPem(key)
  const certificate = yield* ca.issue(node, certificates.signingRequest(keys, node))
  return yield* acceptCertificate(node, keys, certificate, ca.certificate)
})

/** Whether this identity may be a member of the group that decides. */
export const identityVotes = ({ certificate }: NodeIdentity): boolean =>
  certificates.mayVote(new X509Certificate(certificate))

/** Keep an identity in `folder`. `node.pem` goes last: without it there is no identity. */
export const saveIdentity = Effect.fn("ca.saveIdentity")(function* (folder: string, identity: NodeIdentity) {
  yield* makePrivateFolder(folder)
  yield* replaceFile(join(folder, "ca.crt"), identity.ca)
  // Key and certificate in one file: a renewal replaces both or neither.
  yield* replaceFile(join(folder, "node.pem"), identity.key + identity.certificate)
})

/** The identity kept in `folder`, checked: the key is the certificate's and the authority issued it. */
export const loadIdentity = Effect.fn("ca.loadIdentity")(function* (folder: string) {
  const path = join(folder, "node.pem")
  const keys = yield* readPem(path, certificates.keysFromPem)
  const leaf = yield* readPem(
    path,
    (pem) => new X509Certificate(pem.slice(pem.indexOf("-----BEGIN CERTIFICATE")))
  )
  const ca = yield* readText(join(folder, "ca.crt"))
  const node = certificates.nodeOf(leaf)
  if (node === null) {
    const reason = "the certificate names no node"
    return yield* new CaError({ code: "invalid", path, reason })
  }
  return yield* acceptCertificate(node, keys, leaf.toString(), ca)
})

/** Whether `ca` is the authority that a token pins, by its public key's hash. */
export function isPinned(ca: string, caHash: string): boolean {
  try {
    const hash = Buffer.from(certificates.spkiHash(new X509Certificate(ca).publicKey))
    const pinned = Buffer.from(caHash)
    return hash.length === pinned.length && timingSafeEqual(hash, pinned)
  } catch {
    return false
  }
}
