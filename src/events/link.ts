/** What nodes say to one another on a link, and what the mode actor of a link is told, decides and records. */
import { Schema } from "effect"
import { int, Milliseconds, Name, text } from "./fields.ts"

/** First frame of both sides. The highest version that both know is spoken. */
export const Hello = Schema.Struct({
  node: Name,
  versionMin: int(1, 65_535),
  versionMax: int(1, 65_535),
  features: Schema.Array(text(64)).check(Schema.isMaxLength(64)),
  /** Longest frame this side takes, counted from its type octet. */
  frameBytesMax: int(4096, 64 * 1024 * 1024),
  /** Requests this side serves at a time. */
  requestsMax: int(1, 65_535)
})
export type Hello = typeof Hello.Type

/** Why a connection or a stream is not to be; the sender closes after it. */
export const Refusal = Schema.Struct({
  code: Schema.Literals(["version", "identity", "duplicate", "unknown", "refused", "busy", "failed"]),
  reason: text(2048)
})
export type Refusal = typeof Refusal.Type

export const LinkRequest = Schema.Struct({
  kind: text(128),
  /** Replies that may be under way before the caller grants more. */
  credit: int(1, 1024),
  payload: Schema.Unknown
})
export const LinkFailure = Schema.Struct({
  code: Schema.Literals(["unknown-kind", "busy", "too-large", "failed"]),
  reason: text(2048)
})
export const LinkCredit = Schema.Struct({ credit: int(1, 1024) })

/** First frame of a stream connection: which channel of which accepted transfer; null only asks. */
export const StreamOpen = Schema.Struct({
  version: int(1, 65_535),
  transfer: text(128),
  channel: Schema.NullOr(Name)
})
export const StreamOpened = Schema.Struct({ channels: Schema.Array(Name).check(Schema.isMaxLength(256)) })

/** The authority's greeting to a node without a certificate, the node's request, and the answer. */
export const JoinHello = Schema.Struct({
  ca: text(16_384),
  /** Signature of the authority over the exported keying material of this very TLS session, base64. */
  proof: text(512)
})
export const JoinRequest = Schema.Struct({
  secret: text(64),
  node: Name,
  /** PKCS #10, DER, base64. */
  request: text(8192)
})
export const JoinAnswer = Schema.Struct({ certificate: text(16_384) })

export const Mode = Schema.Literals(["datacenter", "internet", "hybrid"])
export type Mode = typeof Mode.Type

const sample = {
  /** One way: half of the round trip. */
  latencyMs: Milliseconds,
  bandwidthBitsPerSecond: Schema.Number.check(Schema.isGreaterThanOrEqualTo(0)),
  lossPercent: Schema.Number.check(Schema.isBetween({ minimum: 0, maximum: 100 })),
  jitterMs: Milliseconds
}
export const ModeSample = Schema.Struct(sample)
export type ModeSample = typeof ModeSample.Type

export const ModeCommand = Schema.Union([
  Schema.Struct({ type: Schema.tag("mode.sample"), ...sample }),
  Schema.Struct({ type: Schema.tag("mode.force"), mode: Mode }),
  Schema.Struct({ type: Schema.tag("mode.release") })
])
export type ModeCommand = typeof ModeCommand.Type

export const ModeFact = Schema.Union([
  Schema.Struct({ type: Schema.tag("mode.sampled"), ...sample }),
  Schema.Struct({ type: Schema.tag("mode.switched"), from: Mode, to: Mode, reason: text(512) }),
  Schema.Struct({ type: Schema.tag("mode.forced"), mode: Mode }),
  Schema.Struct({ type: Schema.tag("mode.released") })
])
export type ModeFact = typeof ModeFact.Type
