/**
 * X.509 v3 (RFC 5280) and PKCS #10 (RFC 2986) with ECDSA P-256 and SHA-256, in the one profile NovaCron uses:
 *
 *   root  CN=NovaCron CA <id>   CA:TRUE, pathlen 0, keyCertSign            10 years
 *   node  CN=<name>             CA:FALSE, digitalSignature, server and     90 days
 *                               client authentication, SAN URI novacron://node/<name>
 *
 * Reading certificates, and every check of a signature, is left to OpenSSL behind `node:crypto`.
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  randomBytes,
  sign,
  verify,
  X509Certificate
} from "node:crypto"
import type { KeyObject } from "node:crypto"
import * as der from "./der.ts"

const oid = {
  ecdsaWithSha256: "1.2.840.10045.4.3.2",
  commonName: "2.5.4.3",
  subjectKeyIdentifier: "2.5.29.14",
  keyUsage: "2.5.29.15",
  subjectAltName: "2.5.29.17",
  basicConstraints: "2.5.29.19",
  authorityKeyIdentifier: "2.5.29.35",
  extendedKeyUsage: "2.5.29.37",
  serverAuth: "1.3.6.1.5.5.7.3.1",
  clientAuth: "1.3.6.1.5.5.7.3.2"
} as const

const dayMs = 24 * 3600 * 1000
/** Clocks of nodes may be apart by so much before a fresh certificate is refused as not yet valid. */
const clockSkewMs = 5 * 60 * 1000
export const rootLifetimeMs = 3650 * dayMs
export const nodeLifetimeMs = 90 * dayMs

const nodeName = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/
const nodeUri = "novacron://node/"
/** Of nodes that may be members of the group that decides. */
const voterUri = "novacron://role/voter"

export interface KeyPair {
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
}

export const generateKeys = (): KeyPair => generateKeyPairSync("ec", { namedCurve: "prime256v1" })
export const keyPem = (key: KeyObject) => key.export({ type: "pkcs8", format: "pem" }).toString()
export const keysFromPem = (pem: string): KeyPair => {
  const privateKey = createPrivateKey(pem)
  return { privateKey, publicKey: createPublicKey(privateKey) }
}

/** SHA-256 of the SubjectPublicKeyInfo, base64url: what a join token pins. */
export const spkiHash = (key: KeyObject) => createHash("sha256").update(spki(key)).digest("base64url")

const spki = (key: KeyObject) => key.export({ type: "spki", format: "der" })
const keyIdentifier = (key: KeyObject) => createHash("sha256").update(spki(key)).digest().subarray(0, 20)
const algorithm = der.sequence(der.objectIdentifier(oid.ecdsaWithSha256))

const commonName = (name: string) =>
  der.sequence(der.set(der.sequence(der.objectIdentifier(oid.commonName), der.utf8String(name))))

const extension = (id: string, critical: boolean, value: Uint8Array) =>
  der.sequence(der.objectIdentifier(id), ...(critical ? [der.booleanTrue()] : []), der.octetString(value))

/** ECDSA with SHA-256 over `content`, DER. */
export const signBytes = (keys: KeyPair, content: Buffer) => sign("sha256", content, keys.privateKey)
export const verifyBytes = (key: KeyObject, content: Buffer, signature: Buffer) =>
  verify("sha256", content, key, signature)

interface Certificate {
  readonly subject: string
  readonly issuer: string
  readonly publicKey: KeyObject
  readonly issuerKeys: KeyPair
  readonly notBeforeMs: number
  readonly notAfterMs: number
  readonly extensions: ReadonlyArray<Buffer>
  /** Hexadecimal; drawn unless told. */
  readonly serial?: string
}

/** 127 bits by chance, which never begin with a zero (RFC 5280, 4.1.2.2). Hexadecimal, as OpenSSL prints it. */
export function newSerial(): string {
  const serial = randomBytes(16)
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40
  return serial.toString("hex").toUpperCase()
}

function signCertificate(certificate: Certificate): X509Certificate {
  const serial = Buffer.from(certificate.serial ?? newSerial(), "hex")
  const toBeSigned = der.sequence(
    der.explicit(0, der.smallInteger(2)),
    der.integer(serial),
    algorithm,
    commonName(certificate.issuer),
    der.sequence(der.time(certificate.notBeforeMs), der.time(certificate.notAfterMs)),
    commonName(certificate.subject),
    spki(certificate.publicKey),
    der.explicit(3, der.sequence(...certificate.extensions))
  )
  return new X509Certificate(signed(toBeSigned, certificate.issuerKeys.privateKey))
}

const signed = (content: Buffer, key: KeyObject) =>
  der.sequence(content, algorithm, der.bitString(sign("sha256", content, key)))

/** The certificate authority's own certificate, signed by itself. */
export function rootCertificate(keys: KeyPair, nowMs: number): X509Certificate {
  const name = `NovaCron CA ${keyIdentifier(keys.publicKey).toString("hex").slice(0, 12)}`
  return signCertificate({
    subject: name,
    issuer: name,
    publicKey: keys.publicKey,
    issuerKeys: keys,
    notBeforeMs: nowMs - clockSkewMs,
    notAfterMs: nowMs + rootLifetimeMs,
    extensions: [
      extension(oid.basicConstraints, true, der.sequence(der.booleanTrue(), der.smallInteger(0))),
      extension(oid.keyUsage, true, der.bitString(Buffer.from([0b0000_0110]), 1)),
      extension(oid.subjectKeyIdentifier, false, der.octetString(keyIdentifier(keys.publicKey)))
    ]
  })
}

export interface NodeGrants {
  /** Whether it may be a member of the group that decides. */
  readonly votes: boolean
  readonly lifetimeMs?: number
  readonly serial?: string
}

/** A certificate with which the holder of `publicKey` is the node `name`. */
export function nodeCertificate(
  ca: { readonly keys: KeyPair; readonly certificate: X509Certificate },
  name: string,
  publicKey: KeyObject,
  nowMs: number,
  { votes, lifetimeMs = nodeLifetimeMs, serial = newSerial() }: NodeGrants = { votes: false }
): X509Certificate {
  if (!nodeName.test(name)) throw new Error(`not a node's name: ${JSON.stringify(name)}`)
  const uris = [nodeUri + name, ...(votes ? [voterUri] : [])]
  const names = uris.map((uri) => der.implicit(6, Buffer.from(uri, "latin1")))
  const authority = der.implicit(0, keyIdentifier(ca.keys.publicKey))
  return signCertificate({
    serial,
    subject: name,
    issuer: ca.certificate.subject.replace(/^CN=/, ""),
    publicKey,
    issuerKeys: ca.keys,
    notBeforeMs: nowMs - clockSkewMs,
    notAfterMs: Math.min(nowMs + lifetimeMs, Date.parse(ca.certificate.validTo)),
    extensions: [
      extension(oid.basicConstraints, true, der.sequence()),
      extension(oid.keyUsage, true, der.bitString(Buffer.from([0b1000_0000]), 7)),
      extension(
        oid.extendedKeyUsage,
        false,
        der.sequence(der.objectIdentifier(oid.serverAuth), der.objectIdentifier(oid.clientAuth))
      ),
      extension(oid.subjectAltName, false, der.sequence(...names)),
      extension(oid.subjectKeyIdentifier, false, der.octetString(keyIdentifier(publicKey))),
      extension(oid.authorityKeyIdentifier, false, der.sequence(authority))
    ]
  })
}

/** A request for a certificate as `name`, signed to show that the key is held. DER. */
export function signingRequest(keys: KeyPair, name: string): Buffer {
  const info = der.sequence(der.smallInteger(0), commonName(name), spki(keys.publicKey), der.explicit(0))
  return signed(info, keys.privateKey)
}

/** The key of a sound request for exactly this name; otherwise what is wrong with it. */
export function readSigningRequest(input: Buffer, name: string): KeyObject | string {
  const outer = der.readElements(input)
  const parts =
    outer?.length === 1 && outer[0]?.tag === der.tag.sequence ? der.readElements(outer[0].content) : null
  const [info, signatureAlgorithm, signature] = parts ?? []
  if (parts?.length !== 3 || !info || !signatureAlgorithm || !signature) return "not a PKCS #10 request"
  if (!signatureAlgorithm.whole.equals(algorithm)) return "signed with something else than ECDSA and SHA-256"
  const [version, subject, publicKeyInfo] = der.readElements(info.content) ?? []
  if (!version?.whole.equals(der.smallInteger(0)) || !subject || !publicKeyInfo) {
    return "not a PKCS #10 request of version 0"
  }
  if (!subject.whole.equals(commonName(name))) return `the subject is not CN=${name}`
  if (signature.tag !== der.tag.bitString || signature.content[0] !== 0) return "no signature"
  let key: KeyObject
  try {
    key = createPublicKey({ key: publicKeyInfo.whole, format: "der", type: "spki" })
  } catch {
    return "the public key can't be read"
  }
  if (key.asymmetricKeyType !== "ec" || key.asymmetricKeyDetails?.namedCurve !== "prime256v1") {
    return "the public key is not on P-256"
  }
  return verify("sha256", info.whole, key, signature.content.subarray(1)) ? key : "the signature is wrong"
}

/** The node that a certificate names, in its SAN and in its CN alike; null when it names none. */
export function nodeOf(certificate: X509Certificate): string | null {
  const name = /^CN=([a-z0-9-]+)$/.exec(certificate.subject)?.[1]
  if (name === undefined || !nodeName.test(name)) return null
  const named = `URI:${nodeUri}${name}`
  return [named, `${named}, URI:${voterUri}`].includes(certificate.subjectAltName ?? "") ? name : null
}

/** Whether the node that this certificate names may be a member of the group that decides. */
export const mayVote = (certificate: X509Certificate): boolean =>
  certificate.subjectAltName?.endsWith(`, URI:${voterUri}`) === true

/** Whether `certificate` was issued by `ca` and is in its time at `nowMs`. */
export function isIssuedBy(certificate: X509Certificate, ca: X509Certificate, nowMs: number): boolean {
  return (
    certificate.checkIssued(ca) &&
    certificate.verify(ca.publicKey) &&
    Date.parse(certificate.validFrom) <= nowMs &&
    nowMs < Date.parse(certificate.validTo)
  )
}
