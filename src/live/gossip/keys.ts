/**
 * The keys that datagrams of one cluster are sealed with, from secrets that all its nodes have. Several may be open at a
 * time, so that a new one can be given to all before anybody seals with it.
 */
import { createSecretKey, hkdfSync } from "node:crypto"
import type { KeyObject } from "node:crypto"
import { Schema } from "effect"

/** A secret that is none. */
export class GossipKeyError extends Schema.TaggedError<GossipKeyError>()("GossipKeyError", {
  path: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.path}: ${this.reason}`
  }
}

export const secretBytes = 32
/** Open at a time. */
const secrets_max = 8

export interface ClusterKey {
  /** Which secret it is, without saying it: 8 hexadecimal digits. */
  readonly id: string
  readonly cluster: string
  readonly master: KeyObject
}

const derived = (secret: Uint8Array | KeyObject, salt: string | Uint8Array, info: string, bytes: number) =>
  Buffer.from(hkdfSync("sha256", secret, salt, `novacron gossip 1 ${info}`, bytes))

/** By HKDF (RFC 5869), so that the same secret may serve something else, and another cluster has other keys. */
export function clusterKeys(cluster: string, secrets: ReadonlyArray<Uint8Array>): ReadonlyArray<ClusterKey> {
  if (secrets.length === 0 || secrets.length > secrets_max)
    throw new GossipKeyError({
      path: "gossip.secrets",
      reason: `${secrets.length} secrets: allowed are 1 to ${secrets_max}`
    })
  for (const [at, { length }] of secrets.entries())
    if (length !== secretBytes)
      throw new GossipKeyError({
        path: `gossip.secrets.${at}`,
        reason: `${length} bytes: a secret has ${secretBytes}`
      })
  return secrets.map((secret) => ({
    id: derived(secret, cluster, "id", 4).toString("hex"),
    cluster,
    master: createSecretKey(derived(secret, cluster, "key", 32))
  }))
}

/**
 * The key of one life of a sender, by what it drew for that: under it no nonce comes twice, however many members send for
 * however long. (Random nonces of 96 bits under one key are good for 2^32 datagrams only: NIST SP 800-38D, 8.3.)
 */
export const senderKey = ({ master }: ClusterKey, session: Uint8Array): KeyObject =>
  createSecretKey(derived(master, session, "sender", 32))
