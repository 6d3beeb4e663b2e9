/** Bearer tokens: one per file, made at first start, compared in constant time, never logged. */
import { hash, randomBytes, timingSafeEqual } from "node:crypto"
import {
  chmodSync,
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  statSync,
  writeSync
} from "node:fs"
import { dirname } from "node:path"
import { Effect, Schema } from "effect"
import type { Principal } from "../../events/envelope.ts"

/** The token file can't be used; `reason` never holds the token. */
export class TokenFileError extends Schema.TaggedError<TokenFileError>()("TokenFileError", {
  path: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `the token file ${this.path} can't be used: ${this.reason}`
  }
}

const prefix = "nct_"
const pattern = /^nct_[A-Za-z0-9_-]{43}$/

const failed = (path: string, cause: unknown) =>
  new TokenFileError({ path, reason: cause instanceof Error ? cause.message : String(cause) })

/** The token in the file, which is made with 256 random bits when it is missing. Refused unless it is private. */
export const readOrMakeToken = (path: string): Effect.Effect<string, TokenFileError> =>
  Effect.try({
    try: () => {
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
      const token = prefix + randomBytes(32).toString("base64url")
      try {
        const file = openSync(path, "wx", 0o600)
        try {
          writeSync(file, `${token}\n`)
          fsyncSync(file)
        } finally {
          closeSync(file)
        }
        chmodSync(path, 0o600)
        return token
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error
        return null
      }
    },
    catch: (cause) => failed(path, cause)
  }).pipe(Effect.flatMap((made) => (made === null ? readToken(path) : Effect.succeed(made))))

/** The token in the file. Refused when others than the owner may read it. */
export const readToken = (path: string): Effect.Effect<string, TokenFileError> =>
  Effect.try({
    try: () => {
      const mode = statSync(path).mode & 0o777
      if ((mode & 0o077) !== 0) {
        throw new Error(`its mode is 0${mode.toString(8)}, allowed is 0600: chmod 600 it`)
      }
      const token = readFileSync(path, "utf8").trim()
      if (!pattern.test(token)) throw new Error("it holds no token; remove it and a new one is made at start")
      return token
    },
    catch: (cause) => failed(path, cause)
  })

const digest = (text: string) => hash("sha256", text, "buffer")

/** Who shows this `Authorization` header; null for nobody we know. */
export type Authenticate = (authorization: string | undefined) => Principal | null

export function authenticator(token: string): Authenticate {
  const known = digest(token)
  const principal: Principal = { kind: "operator", name: `token-${known.toString("hex").slice(0, 8)}` }
  return (authorization) => {
    if (authorization === undefined || authorization.length > 512) return null
    if (authorization.slice(0, 7).toLowerCase() !== "bearer ") return null
    // Hashed first: equal lengths, so that the comparison takes the same time for every wrong token.
    return timingSafeEqual(digest(authorization.slice(7).trim()), known) ? principal : null
  }
}
