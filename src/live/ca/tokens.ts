/**
 * Join tokens: each lets one node in, once, for a while. The text a person carries to the new node is
 *
 *     nct1.<secret, 32 bytes, base64url>.<SHA-256 of the authority's public key, base64url>
 *
 * The secret is drawn where the person is, and never sent but to the authority by the node that joins; what is known of it
 * elsewhere is its SHA-256.
 */
import { createHash, randomBytes } from "node:crypto"

export const newSecret = (): string => randomBytes(32).toString("base64url")

/** Under which the token is known, hexadecimal. */
export const tokenHash = (secret: string): string => createHash("sha256").update(secret).digest("hex")

export const tokenText = (secret: string, caHash: string): string => `nct1.${secret}.${caHash}`

/** What a token's text says; null when it is not a token. */
export function parseToken(text: string): { readonly secret: string; readonly caHash: string } | null {
  const [version, secret, caHash, ...rest] = text.trim().split(".")
  if (version !== "nct1" || !secret || !caHash || rest.length > 0) return null
  const sound = [secret, caHash].every((part) => /^[A-Za-z0-9_-]{43}$/.test(part))
  return sound ? { secret, caHash } : null
}
