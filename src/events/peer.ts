/** The nodes of a cluster as they are noticed: who came, was suspected, answered, failed, left, and what each tells of itself. */
import { Schema } from "effect"
import { int, Name } from "./fields.ts"
import { Mode, ModeSample } from "./link.ts"
import { PeerAddress } from "./swim.ts"
import type { PeerView } from "./swim.ts"

const Size = int(0, 1024 * 1024 * 1024 * 1024)

/** What a node tells of itself with its membership: little enough for every datagram that names it. */
export const PeerDescription = Schema.Struct({
  /** What its host offers; null when it runs no machines. */
  capacity: Schema.NullOr(Schema.Struct({ cpus: Size, memoryMib: Size, diskMib: Size })),
  /** Of its link to the kernel's node, with the last sample; null while none was measured. */
  mode: Schema.NullOr(Mode),
  sample: Schema.NullOr(ModeSample)
})
export type PeerDescription = typeof PeerDescription.Type

export const noDescription: PeerDescription = { capacity: null, mode: null, sample: null }

const isDescription = Schema.is(PeerDescription)

/**
 * As members carry it: JSON of printable ASCII, and never longer than 512. `keyring` is the version of the keys that the
 * member has, which is of use to other members and none to the journal.
 */
export function descriptionText(
  { capacity, mode, sample }: PeerDescription,
  keyring: string | null = null
): string {
  const { cpus, memoryMib, diskMib } = capacity ?? {}
  const { latencyMs, bandwidthBitsPerSecond, lossPercent, jitterMs } = sample ?? {}
  const rounded = [latencyMs, bandwidthBitsPerSecond, lossPercent, jitterMs].map((one) =>
    one === undefined ? one : Number(one.toPrecision(4))
  )
  const told = [capacity && [cpus, memoryMib, diskMib], mode, sample && rounded]
  return JSON.stringify(keyring === null ? told : [...told, keyring])
}

/** The version of the keys that a member says to have; null where it says none. */
export function keyringOf(text: string): string | null {
  if (text === "") return null
  try {
    const told: unknown = JSON.parse(text)
    const keyring: unknown = Array.isArray(told) ? told[3] : null
    return typeof keyring === "string" ? keyring : null
  } catch {
    return null
  }
}

/** Null for what another version, or no node at all, has told. */
export function readDescription(text: string): PeerDescription | null {
  if (text === "") return noDescription
  let told: unknown
  try {
    told = JSON.parse(text)
  } catch {
    return null
  }
  if (!Array.isArray(told)) return null
  const [capacity, mode, sample] = told as ReadonlyArray<unknown>
  const description = {
    capacity: named(capacity, ["cpus", "memoryMib", "diskMib"]),
    mode,
    sample: named(sample, ["latencyMs", "bandwidthBitsPerSecond", "lossPercent", "jitterMs"])
  }
  return isDescription(description) ? description : null
}

const named = (values: unknown, names: ReadonlyArray<string>): unknown =>
  Array.isArray(values)
    ? Object.fromEntries(names.map((name, at) => [name, (values as ReadonlyArray<unknown>)[at]]))
    : values

const noticed = {
  /** Which of its lives is spoken of. */
  incarnation: int(0, Number.MAX_SAFE_INTEGER),
  /** Who noticed it. */
  by: Name
}
const told = { address: PeerAddress, description: PeerDescription }

/** From the failure detector of a node; what is not news is refused. */
export const PeerCommand = Schema.Union([
  Schema.Struct({ type: Schema.tag("peer.noticeAlive"), ...noticed, ...told }),
  Schema.Struct({ type: Schema.tag("peer.noticeSuspect"), ...noticed }),
  Schema.Struct({ type: Schema.tag("peer.noticeFailed"), ...noticed }),
  Schema.Struct({ type: Schema.tag("peer.noticeLeft"), ...noticed })
])
export type PeerCommand = typeof PeerCommand.Type

export const PeerFact = Schema.Union([
  /** For the first time, or again after it failed or left. */
  Schema.Struct({ type: Schema.tag("peer.joined"), ...noticed, ...told }),
  Schema.Struct({ type: Schema.tag("peer.suspected"), ...noticed }),
  /** It was suspected, and said that it lives. */
  Schema.Struct({ type: Schema.tag("peer.refuted"), ...noticed, ...told }),
  Schema.Struct({ type: Schema.tag("peer.failed"), ...noticed }),
  Schema.Struct({ type: Schema.tag("peer.left"), ...noticed }),
  /** It tells something else of itself, or has another address. */
  Schema.Struct({ type: Schema.tag("peer.described"), ...noticed, ...told })
])
export type PeerFact = typeof PeerFact.Type

/** What a node's detector says to the peer's actor of what it learned; null where that says nothing. */
export function noticeOf({ status, incarnation, address, meta }: PeerView, by: string): PeerCommand | null {
  switch (status) {
    case "alive": {
      if (address === "") return null
      const description = readDescription(meta) ?? noDescription
      return { type: "peer.noticeAlive", incarnation, by, address, description }
    }
    case "suspect":
      return { type: "peer.noticeSuspect", incarnation, by }
    case "dead":
      return { type: "peer.noticeFailed", incarnation, by }
    case "left":
      return { type: "peer.noticeLeft", incarnation, by }
  }
}
