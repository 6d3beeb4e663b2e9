/**
 * The key of the cluster's own certificate authority, and what a node holds from it.
 *
 *     <authority>/                0700            <identity>/    0700
 *       ca.key  ca.crt            0600              node.pem (key and certificate)  ca.crt   0600
 *
 * Every voter has the key (`ca/key-handover.ts`); which name belongs to which certificate, and which token lets in whom, the
 * group decides (`ca/register.ts`, ADR 18).
 */
import { timingSafeEqual, X509Certificate } from "node:crypto"
import type { KeyObject } from "node:crypto"
import { join } from "node:path"
import { Clock, Effect } from "effect"
import * as certificates from "./ca/certificate.ts"
import { CaError, createFile, makePrivateFolder, readText, replaceFile } from "./ca/files.ts"

/** What a node shows on every connection, and what it trusts. PEM texts; `key` is secret. */
export interface NodeIdentity {
  readonly node: string
  readonly key: string
  readonly certificate: string
  readonly ca: string
}

/** What a certificate says beside name and key. */
export interface Grant {
  /** Hexadecimal, as OpenSSL prints it. */
  readonly serial: string
  readonly issuedMs: number
  readonly notAfterMs: number
  /** Whether it may be a member of the group that decides. */
  readonly votes: boolean
}

/** The key that signs. Who may have what is decided elsewhere (`ca/register.ts`). */
export interface Authority {
  readonly certificate: string
  /** SHA-256 of the authority's public key, base64url. */
  readonly hash: string
  /** When the authority's own certificate ends: none of its nodes' lasts longer. */
  readonly notAfterMs: number
  /** A certificate for the DER request. PEM; the same grant gives one that says the same. */
  readonly sign: (node: string, request: Buffer, grant: Grant) => Effect.Effect<string, CaError>
  /** Prove to the other end of a TLS session that the authority itself is here. */
  readonly signSession: (exported: Buffer) => Buffer
  /** The private key as PEM: for another voter and for nobody else. */
  readonly exportKey: () => string
}

/** Whether an authority can be made in `folder`, where there is none, nor the certificate of one; changes nothing. */
export const caCheck = Effect.fn("ca.check")(function* (folder: string) {
  for (const file of ["ca.key", "ca.crt"]) {
    const path = join(folder, file)
    const known = yield* Effect.result(readText(path))
    if (known._tag === "Success") {
      const reason =
        file === "ca.key"
          ? "there is an authority already"
          : "there was an authority, and its key is elsewhere"
      return yield* new CaError({ code: "exists", path, reason })
    }
    if (known.failure.code !== "missing") return yield* known.failure
  }
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
  return authority({ keys, certificate: root })
})

interface Signer {
  readonly keys: certificates.KeyPair
  readonly certificate: X509Certificate
}

const authority = (signer: Signer): Authority => ({
  certificate: signer.certificate.toString(),
  hash: certificates.spkiHash(signer.keys.publicKey),
  notAfterMs: Date.parse(signer.certificate.validTo),
  sign: Effect.fn("ca.sign")(function* (node, request, { serial, issuedMs, notAfterMs, votes }) {
    const key = yield* requestedKey(node, request)
    const lifetimeMs = notAfterMs - issuedMs
    return certificates.nodeCertificate(signer, node, key, issuedMs, { votes, lifetimeMs, serial }).toString()
  }),
  signSession: (exported) => certificates.signBytes(signer.keys, exported),
  exportKey: () => certificates.keyPem(signer.keys.privateKey)
})

/** The public key of a sound request for exactly this name. */
export const requestedKey = (node: string, request: Buffer): Effect.Effect<KeyObject, CaError> => {
  const key = certificates.readSigningRequest(request, node)
  return typeof key === "string"
    ? Effect.fail(new CaError({ code: "invalid", path: "request", reason: key }))
    : Effect.succeed(key)
}

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

const ownGrant = Effect.map(Clock.currentTimeMillis, (issuedMs): Omit<Grant, "votes"> => ({
  serial: certificates.newSerial(),
  issuedMs,
  notAfterMs: issuedMs + certificates.nodeLifetimeMs
}))

/** Keys, request and certificate for a node of this authority's own process, without anybody's decision. */
export const issueIdentity = Effect.fn("ca.issueIdentity")(function* (
  ca: Authority,
  node: string,
  votes = true
) {
  const keys = certificates.generateKeys()
  const grant = { ...(yield* ownGrant), votes }
  const certificate = yield* ca.sign(node, certificates.signingRequest(keys, node), grant)
  return yield* acceptCertificate(node, keys, certificate, ca.certificate)
})

/** The same node and key, with what this authority lets its own node do now. */
export const reissueIdentity = Effect.fn("ca.reissueIdentity")(function* (
  ca: Authority,
  { node, key }: NodeIdentity
) {
  const keys = certificates.keysFromPem(key)
  const grant = { ...(yield* ownGrant), votes: true }
  const certificate = yield* ca.sign(node, certificates.signingRequest(keys, node), grant)
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
  // Read once: a renewal may put another file in its place at any time.
  const { keys, leaf } = yield* readPem(path, (pem) => ({
    keys: certificates.keysFromPem(pem),
    leaf: new X509Certificate(pem.slice(pem.indexOf("-----BEGIN CERTIFICATE")))
  }))
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
