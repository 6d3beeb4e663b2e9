/**
 * What earlier releases kept in the founder's folder, and the journal has since: tokens, and who has which certificate.
 *
 *     tokens/open/<SHA-256 of the secret>.json  tokens/used/…   nodes/<name>.json
 *
 * Taken over once; the folders are kept under other names.
 */
import { join } from "node:path"
import { Effect, Option, Schema } from "effect"
import { OldName, OldToken } from "../../events/authority.ts"
import { Name, withDefault } from "../../events/fields.ts"
import { listFolder, moveFile, readText } from "./files.ts"
import type { CaError } from "./files.ts"

const StoredToken = Schema.fromJsonString(
  Schema.Struct({
    expiresMs: Schema.Int,
    node: Schema.NullOr(Name),
    /** Whether who joins with it may vote; absent in tokens of older releases. */
    votes: withDefault(Schema.Boolean, false)
  })
)
const IssuedNode = Schema.fromJsonString(
  Schema.Struct({
    serial: Schema.String,
    spki: Schema.String,
    notAfterMs: Schema.Int,
    /** Absent in what older releases wrote. */
    votes: withDefault(Schema.Boolean, false)
  })
)

export interface Legacy {
  readonly names: ReadonlyArray<OldName>
  readonly tokens: ReadonlyArray<OldToken>
  /** Files that say nothing that could be taken over. */
  readonly unreadable: ReadonlyArray<string>
}

const folders = ["tokens", "nodes"] as const

/** Null when there is nothing of an earlier release. */
export const readLegacy = Effect.fn("ca.readLegacy")(function* (folder: string) {
  const names: Array<OldName> = []
  const tokens: Array<OldToken> = []
  const unreadable: Array<string> = []
  let files = 0
  const each = Effect.fnUntraced(function* (path: string, take: (base: string, text: string) => boolean) {
    for (const file of yield* listFolder(path)) {
      if (!file.endsWith(".json")) continue
      files += 1
      const isTaken = take(file.slice(0, -".json".length), yield* readText(join(path, file)))
      if (!isTaken) unreadable.push(join(path, file))
    }
  })
  for (const [state, isUsed] of [["open", false] as const, ["used", true] as const]) {
    yield* each(join(folder, "tokens", state), (token, text) => {
      const stored = Schema.decodeUnknownOption(StoredToken)(text)
      const old = { token, isUsed, ...Option.getOrNull(stored) }
      return Schema.is(OldToken)(old) ? tokens.push(old) > 0 : false
    })
  }
  yield* each(join(folder, "nodes"), (node, text) => {
    const old = { node, ...Option.getOrNull(Schema.decodeUnknownOption(IssuedNode)(text)) }
    return Schema.is(OldName)(old) ? names.push(old) > 0 : false
  })
  const legacy: Legacy | null = files === 0 ? null : { names, tokens, unreadable }
  return legacy
})

/** Not to be read again. */
export const setLegacyAside = (folder: string): Effect.Effect<void, CaError> =>
  Effect.forEach(
    folders,
    (name) =>
      moveFile(join(folder, name), join(folder, `${name}.taken-over`)).pipe(
        Effect.catch((error) => (error.code === "missing" ? Effect.void : Effect.fail(error)))
      ),
    { discard: true }
  )
