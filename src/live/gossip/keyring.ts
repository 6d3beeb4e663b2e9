/**
 * The secrets of a cluster's datagrams, as every node keeps them: one, or two while it is turned over.
 *
 *     settled [a] ──▶ installing [a b]   all open with both, and seal with the old one
 *        ▲                  │            once all have both
 *        └── using [b a] ◀──┘            all seal with the new one; once all do, the old one is forgotten
 *
 * Each step is a generation. Of two rings the one of the later generation stands, and of two of the same the one with the greater
 * digest: so whoever met makes of it the same, and nobody has to agree on it before (ADR 17).
 */
import { createHash, randomBytes } from "node:crypto"
import { Effect, Schema } from "effect"
import { int } from "../../events/fields.ts"
import { makePrivateFolder, readText, replaceFile } from "../ca/files.ts"
import { dirname } from "node:path"
import { clusterKeys, secretBytes } from "./keys.ts"
import type { ClusterKey } from "./keys.ts"

/** 32 bytes, base64. */
const Secret = Schema.String.check(
  Schema.isPattern(/^[A-Za-z0-9+/]{43}=$/, { expected: `${secretBytes} bytes in base64` })
)

export const Ring = Schema.Struct({
  generation: int(1, Number.MAX_SAFE_INTEGER),
  /** Which turning over it belongs to, as the journal counts them; 0 before the first. */
  rotation: int(0, Number.MAX_SAFE_INTEGER),
  stage: Schema.Literals(["settled", "installing", "using"]),
  /** The first one seals, all open. */
  secrets: Schema.Array(Secret).check(Schema.isMinLength(1), Schema.isMaxLength(2))
})
export type Ring = typeof Ring.Type

/** What is wrong with a node's keys; never what they are. */
export class KeyringError extends Schema.TaggedError<KeyringError>()("KeyringError", {
  path: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.path}: ${this.reason}`
  }
}

const newSecret = (): string => randomBytes(secretBytes).toString("base64")

export const foundedRing = (): Ring => ({
  generation: 1,
  rotation: 0,
  stage: "settled",
  secrets: [newSecret()]
})

/** The first step of a turning over: a new secret that nobody seals with yet. */
export const begunRing = ({ generation, secrets }: Ring, rotation: number): Ring => ({
  generation: generation + 1,
  rotation,
  stage: "installing",
  secrets: [...secrets.slice(0, 1), newSecret()]
})

/** The next step, when everybody has this one. One that is settled stays. */
export function advancedRing(ring: Ring): Ring {
  const { generation, rotation, stage, secrets } = ring
  const next = { generation: generation + 1, rotation }
  if (stage === "installing") return { ...next, stage: "using", secrets: [...secrets].reverse() }
  if (stage === "using") return { ...next, stage: "settled", secrets: secrets.slice(0, 1) }
  return ring
}

/** `cluster` tells clusters apart, so that the same secret has other keys elsewhere. */
export const keysOf = (cluster: string, { secrets }: Ring): ReadonlyArray<ClusterKey> =>
  clusterKeys(
    cluster,
    secrets.map((secret) => Buffer.from(secret, "base64"))
  )

/** Generation and digest: says which ring somebody has, and nothing of its secrets. */
export function versionOf(cluster: string, ring: Ring): string {
  const ids = keysOf(cluster, ring).map(({ id }) => id)
  const said = [ring.rotation, ring.stage, ...ids].join(" ")
  return `${ring.generation}.${createHash("sha256").update(said).digest("hex").slice(0, 8)}`
}

const versionPattern = /^([1-9]\d{0,15})\.([0-9a-f]{8})$/

export const Version = Schema.String.check(
  Schema.isPattern(versionPattern, { expected: "a version of a ring, 3.0123abcd" })
)

/** Whether the first is of a later ring than the second. What is no version is of none. */
export function isLaterVersion(one: string | null, other: string | null): boolean {
  const [a, b] = [versionPattern.exec(one ?? ""), versionPattern.exec(other ?? "")]
  if (a === null) return false
  if (b === null) return true
  const [first, second] = [Number(a[1]), Number(b[1])]
  return first > second || (first === second && (a[2] ?? "") > (b[2] ?? ""))
}

const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(Ring), { onExcessProperty: "error" })

/** Null when there is no file. */
export const readRing = Effect.fn("gossip.readRing")(function* (path: string) {
  const text = yield* readText(path).pipe(
    Effect.catch((error) =>
      error.code === "missing"
        ? Effect.succeed(null)
        : Effect.fail(new KeyringError({ path, reason: error.reason }))
    )
  )
  if (text === null) return null
  // What the decoder says of it could quote a secret.
  const reason =
    "it is no keyring: generation, rotation, stage and one or two secrets in JSON are expected; without the file the node asks others for the keys"
  return yield* decode(text).pipe(Effect.mapError(() => new KeyringError({ path, reason })))
})

/** Mode 0600, in a folder of mode 0700. */
export const writeRing = (path: string, ring: Ring) =>
  makePrivateFolder(dirname(path)).pipe(
    Effect.andThen(replaceFile(path, `${JSON.stringify(ring)}\n`)),
    Effect.mapError(({ reason }) => new KeyringError({ path, reason }))
  )
