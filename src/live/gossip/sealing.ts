/**
 * Datagrams as they are on the wire: encrypted and authenticated with AES-256-GCM.
 *
 *     version  key id  session  counter  sent at  |  text, encrypted  |  tag
 *        1        4       12       8        8     |       n           |  16    bytes
 *
 * All that is not encrypted is authenticated, with the cluster's name. The session is drawn by each sender when it starts; its
 * key is its own, and the counter is the nonce. What came already is refused, and what is older than a while, so that nothing
 * can be replayed when the receiver has forgotten a session.
 */
import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto"
import type { KeyObject } from "node:crypto"
import { senderKey } from "./keys.ts"
import type { ClusterKey } from "./keys.ts"
import { ReplayWindow } from "./replays.ts"

const version = 1
const sessionBytes = 12
const headerBytes = 1 + 4 + sessionBytes + 8 + 8
const tagBytes = 16
/** What sealing adds to a text. */
export const sealBytes = headerBytes + tagBytes

/** Of what is not taken, why. */
export type Refused = "malformed" | "unknown-key" | "forged" | "stale" | "replayed"

export type Opened =
  { readonly ok: true; readonly text: string } | { readonly ok: false; readonly reason: Refused }

interface Session {
  readonly key: KeyObject
  readonly window: ReplayWindow
}

export interface SealingOptions {
  /** The first one seals, all open. */
  readonly keys: ReadonlyArray<ClusterKey>
  /** How old a datagram may be, and how far clocks may be apart. */
  readonly ageMsMax: number
  /** Senders whose datagrams are told apart from replays. */
  readonly sessionsMax: number
  readonly wallClockMs: () => number
}

export class Sealing {
  readonly #options: SealingOptions
  #keys: ReadonlyArray<ClusterKey>
  #session = Buffer.alloc(0)
  #own: KeyObject | null = null
  #counter = 0
  /** In the order in which they were last used. */
  readonly #sessions = new Map<string, Session>()

  constructor(options: SealingOptions) {
    this.#options = options
    this.#keys = options.keys
    this.#renew()
  }

  /** From now on the first of these seals, and all open. */
  replaceKeys(keys: ReadonlyArray<ClusterKey>): void {
    this.#keys = keys
    this.#renew()
  }

  #renew(): void {
    this.#session = randomBytes(sessionBytes)
    this.#counter = 0
    const [key] = this.#keys
    this.#own = key === undefined ? null : senderKey(key, this.#session)
  }

  seal(text: string): Buffer {
    const [key] = this.#keys
    if (key === undefined || this.#own === null) throw new Error("gossip: no key to seal with")
    const header = Buffer.alloc(headerBytes)
    header.writeUInt8(version, 0)
    header.write(key.id, 1, "hex")
    this.#session.copy(header, 5)
    header.writeBigUInt64BE(BigInt(this.#counter++), 5 + sessionBytes)
    header.writeBigUInt64BE(BigInt(this.#options.wallClockMs()), 13 + sessionBytes)
    const cipher = createCipheriv("aes-256-gcm", this.#own, nonceOf(header))
    cipher.setAAD(authenticated(header, key))
    return Buffer.concat([header, cipher.update(text, "utf8"), cipher.final(), cipher.getAuthTag()])
  }

  open(datagram: Uint8Array): Opened {
    const bytes = Buffer.from(datagram.buffer, datagram.byteOffset, datagram.byteLength)
    if (bytes.length < sealBytes || bytes[0] !== version) return { ok: false, reason: "malformed" }
    const header = bytes.subarray(0, headerBytes)
    const id = header.toString("hex", 1, 5)
    const key = this.#keys.find((one) => one.id === id)
    if (key === undefined) return { ok: false, reason: "unknown-key" }
    const counter = header.readBigUInt64BE(5 + sessionBytes)
    const sentMs = Number(header.readBigUInt64BE(13 + sessionBytes))
    if (counter > BigInt(Number.MAX_SAFE_INTEGER)) return { ok: false, reason: "malformed" }
    const name = header.toString("hex", 1, 5 + sessionBytes)
    const session = this.#sessions.get(name) ?? {
      key: senderKey(key, header.subarray(5, 5 + sessionBytes)),
      window: new ReplayWindow()
    }
    const text = decrypted(session.key, key, bytes)
    if (text === null) return { ok: false, reason: "forged" }
    if (Math.abs(this.#options.wallClockMs() - sentMs) > this.#options.ageMsMax)
      return { ok: false, reason: "stale" }
    this.#remember(name, session)
    return session.window.admit(Number(counter)) ? { ok: true, text } : { ok: false, reason: "replayed" }
  }

  /** Only senders that have the key are remembered. */
  #remember(name: string, session: Session): void {
    this.#sessions.delete(name)
    this.#sessions.set(name, session)
    if (this.#sessions.size <= this.#options.sessionsMax) return
    const [oldest] = this.#sessions.keys()
    if (oldest !== undefined) this.#sessions.delete(oldest)
  }
}

/** The counter, in twelve bytes. */
const nonceOf = (header: Buffer): Buffer =>
  Buffer.concat([Buffer.alloc(4), header.subarray(5 + sessionBytes, 13 + sessionBytes)])

const authenticated = (header: Buffer, { cluster }: ClusterKey): Buffer =>
  Buffer.concat([header, Buffer.from(`novacron gossip ${version} ${cluster}`)])

function decrypted(key: KeyObject, cluster: ClusterKey, bytes: Buffer): string | null {
  const header = bytes.subarray(0, headerBytes)
  const decipher = createDecipheriv("aes-256-gcm", key, nonceOf(header), { authTagLength: tagBytes })
  decipher.setAAD(authenticated(header, cluster))
  decipher.setAuthTag(bytes.subarray(bytes.length - tagBytes))
  try {
    const text = decipher.update(bytes.subarray(headerBytes, bytes.length - tagBytes))
    return Buffer.concat([text, decipher.final()]).toString("utf8")
  } catch {
    return null
  }
}
