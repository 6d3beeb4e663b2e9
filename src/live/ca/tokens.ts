/**
 * Join tokens: each lets one node in, once, for a while. The text a person carries to the new node is
 *
 *     nct1.<secret, 32 bytes, base64url>.<SHA-256 of the authority's public key, base64url>
 *
 * Stored is only the secret's SHA-256, as the name of a file; using a token moves that file from `open/` to
 * `used/`, which succeeds for one caller, whatever restarts in between.
 */
import { createHash, randomBytes } from "node:crypto"
import { readdir, unlink } from "node:fs/promises"
import { join } from "node:path"
import { Clock, Effect, Option, Schema } from "effect"
import { Name, withDefault } from "../../events/fields.ts"
import { CaError, createFile, makePrivateFolder, moveFile, readText } from "./files.ts"

export const tokenLifetimeMs = 3600 * 1000
/** So many tokens may be open at once. */
const openTokensMax = 1000

const StoredToken = Schema.fromJsonString(
  Schema.Struct({
    expiresMs: Schema.Int,
    node: Schema.NullOr(Name),
    /** Whether who joins with it may vote; absent in tokens of older releases. */
    votes: withDefault(Schema.Boolean, false)
  })
)
export type StoredToken = typeof StoredToken.Type

/** What a token's text says; null when it is not a token. */
export function parseToken(text: string): { readonly secret: string; readonly caHash: string } | null {
  const [version, secret, caHash, ...rest] = text.trim().split(".")
  if (version !== "nct1" || !secret || !caHash || rest.length > 0) return null
  const sound = [secret, caHash].every((part) => /^[A-Za-z0-9_-]{43}$/.test(part))
  return sound ? { secret, caHash } : null
}

export class TokenStore {
  readonly #open: string
  readonly #used: string

  constructor(folder: string) {
    this.#open = join(folder, "open")
    this.#used = join(folder, "used")
  }

  readonly prepare = Effect.suspend(() =>
    Effect.all([makePrivateFolder(this.#open), makePrivateFolder(this.#used)], { discard: true })
  )

  /** Whether `create` would make a token for this node; changes nothing. */
  check(node: string | null) {
    return Effect.gen({ self: this }, function* () {
      if (node !== null && !Schema.is(Name)(node)) {
        const reason = `${JSON.stringify(node)} is no node's name: 1 to 63 characters a-z, 0-9 and -`
        return yield* new CaError({ code: "invalid", path: "node", reason })
      }
      yield* this.#sweep(yield* Clock.currentTimeMillis, false)
    })
  }

  /** A new token's secret, good for `lifetimeMs`, for any new node or only for `node`. */
  create(options: { readonly lifetimeMs: number; readonly node: string | null; readonly votes: boolean }) {
    return Effect.gen({ self: this }, function* () {
      yield* this.check(options.node)
      const nowMs = yield* Clock.currentTimeMillis
      yield* this.#sweep(nowMs, true)
      const secret = randomBytes(32).toString("base64url")
      const stored: StoredToken = {
        expiresMs: nowMs + options.lifetimeMs,
        node: options.node,
        votes: options.votes
      }
      yield* createFile(join(this.#open, fileOf(secret)), JSON.stringify(stored))
      return { secret, expiresMs: stored.expiresMs }
    })
  }

  /** Use the token for `node`: it is gone from then on. A token that is not for this node stays. */
  redeem(secret: string, node: string) {
    return Effect.gen({ self: this }, function* () {
      const file = fileOf(secret)
      const path = join(this.#open, file)
      const refused = (reason: string) => new CaError({ code: "token-refused", path: "token", reason })
      const unknown = refused("the token is not known, or it was used already")
      const stored = yield* readText(path).pipe(
        Effect.flatMap(Schema.decodeUnknownEffect(StoredToken)),
        Effect.mapError(() => unknown)
      )
      if (stored.expiresMs <= (yield* Clock.currentTimeMillis)) {
        return yield* refused(`the token expired at ${new Date(stored.expiresMs).toISOString()}`)
      }
      if (stored.node !== null && stored.node !== node) {
        return yield* refused(`the token is for the node ${stored.node}, not for ${node}`)
      }
      yield* moveFile(path, join(this.#used, file)).pipe(
        Effect.mapError((error) => (error.code === "missing" ? unknown : error))
      )
      return stored
    })
  }

  /** Refuse when too many are open, and with `removes` remove what has expired. */
  #sweep(nowMs: number, removes: boolean) {
    return Effect.gen({ self: this }, function* () {
      let openCount = 0
      for (const folder of [this.#open, this.#used]) {
        for (const file of yield* listFolder(folder)) {
          const path = join(folder, file)
          const stored = yield* readText(path).pipe(
            Effect.flatMap(Schema.decodeUnknownEffect(StoredToken)),
            Effect.option
          )
          if (Option.isSome(stored) && stored.value.expiresMs <= nowMs) {
            if (removes) yield* removeFile(path)
          } else if (folder === this.#open) openCount += 1
        }
      }
      if (openCount >= openTokensMax) {
        const reason = `${openCount} tokens are open; ${openTokensMax} are allowed, and they expire by themselves`
        return yield* new CaError({ code: "limit", path: this.#open, reason })
      }
    })
  }
}

const fileOf = (secret: string) => `${createHash("sha256").update(secret).digest("hex")}.json`

const listFolder = (path: string) =>
  Effect.tryPromise({
    try: () => readdir(path),
    catch: (cause) => new CaError({ code: "failed", path, reason: String(cause) })
  })

const removeFile = (path: string) => Effect.promise(() => unlink(path).catch(() => undefined))
