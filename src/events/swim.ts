/**
 * SWIM (Das, Gupta and Motivala, 2002) with Lifeguard (Dadgar, Phillips and Currey, 2018): what members say to one
 * another in datagrams, what one of them is told and asks, and what it records.
 */
import { Schema } from "effect"
import { int, Name } from "./fields.ts"

const Incarnation = int(0, Number.MAX_SAFE_INTEGER)
const Sequence = int(0, 0xffffffff)

/** Where datagrams reach a member, `address:port`; the shell reads it, the protocol does not. */
export const PeerAddress = Schema.String.check(
  Schema.isPattern(/^[\x21-\x7e]{1,128}$/, { expected: "an address of 1 to 128 printable ASCII characters" })
)

/** What a member tells of itself: a document, JSON as a rule, that the protocol carries and does not read. */
export const PeerMeta = Schema.String.check(
  Schema.isPattern(/^[\x20-\x7e]{0,512}$/, { expected: "at most 512 printable ASCII characters" })
)

/** In this order a later one takes the place of an earlier one of the same incarnation. */
export const PeerStatus = Schema.Literals(["alive", "suspect", "dead", "left"])
export type PeerStatus = typeof PeerStatus.Type

/**
 * What is said of a member. Only what a member says of itself has to have its address and what it tells; both are empty
 * where they are not said.
 */
export const PeerUpdate = Schema.Struct({
  id: Name,
  status: PeerStatus,
  incarnation: Incarnation,
  /** Who noticed. */
  by: Name,
  address: Schema.Union([PeerAddress, Schema.Literal("")]),
  meta: PeerMeta
})
export type PeerUpdate = typeof PeerUpdate.Type

/** How many parts of a table are compared with another's, each by the digest of what it holds. */
export const digestParts = 128

/** What a datagram is for, besides the updates that it carries. */
export const SwimHead = Schema.Union([
  Schema.Struct({ type: Schema.tag("ping"), sequence: Sequence, target: Name }),
  /** Ping `target` for the sender, and say when nothing came back (Lifeguard's nack). */
  Schema.Struct({ type: Schema.tag("pingRequest"), sequence: Sequence, target: Name, address: PeerAddress }),
  Schema.Struct({ type: Schema.tag("ack"), sequence: Sequence }),
  Schema.Struct({ type: Schema.tag("nack"), sequence: Sequence }),
  /** Only updates. */
  Schema.Struct({ type: Schema.tag("gossip") }),
  /** Push/pull: what the sender's table holds, by digests; who differs answers with what it has there. */
  Schema.Struct({
    type: Schema.tag("compare"),
    /** Answers a comparison, and is not answered itself by another. */
    answer: Schema.Boolean,
    digests: Schema.String.check(
      Schema.isPattern(/^([0-9a-f]{8}){128}$/, { expected: "128 digests of 8 hexadecimal digits" })
    )
  }),
  /** The updates are what the sender's table holds, and not news. */
  Schema.Struct({ type: Schema.tag("entries") })
])
export type SwimHead = typeof SwimHead.Type

/** Of all messages together, 1,400 bytes as a rule, so that sealed and in IPv6 it stays one packet of 1,500. */
export const SwimDatagram = Schema.Struct({
  from: Name,
  head: SwimHead,
  updates: Schema.Array(PeerUpdate).check(Schema.isMaxLength(2048))
})
export type SwimDatagram = typeof SwimDatagram.Type

/** The parts of Lifeguard, each of which can be left out; without all of them it is plain SWIM with suspicion. */
export const Lifeguard = Schema.Struct({
  /** Local health scales the probe's period and timeout, and relays say that they heard nothing (LHA-Probe). */
  probe: Schema.Boolean,
  /** A suspicion begins long, and gets shorter with each that confirms it (LHA-Suspicion). */
  suspicion: Schema.Boolean,
  /** Who is suspected is told first (Buddy System). */
  buddy: Schema.Boolean,
  /** Not in the paper: who finds that it stood still holds nothing of what it missed against others (ADR 11). */
  stalls: Schema.Boolean
})
export type Lifeguard = typeof Lifeguard.Type

export const SwimSettings = Schema.Struct({
  /** One member is probed in each. */
  periodMs: int(10, 600_000),
  /** Until others are asked to probe it too. */
  timeoutMs: int(5, 300_000),
  /** So many others. */
  relays: int(0, 16),
  gossipEveryMs: int(5, 600_000),
  /** To so many. */
  gossipTo: int(0, 64),
  /** An update is sent this × ⌈log10(members + 1)⌉ times. */
  retransmit: int(1, 64),
  /** The least suspicion lasts this × log10(members) periods. */
  suspicion: int(1, 64),
  /** The longest lasts this × the least. */
  suspicionMax: int(1, 64),
  /** Local health goes from 0, well, up to this; it scales by one more. */
  healthMax: int(0, 64),
  /** Tables are compared so often, seldom in large groups; 32 members and more. */
  compareEveryMs: int(100, 86_400_000),
  /** One that is dead, or a seed that is not there, is looked for so often. */
  reconnectEveryMs: int(100, 86_400_000),
  /** News goes to the dead too for so long: they may be none. */
  gossipToDeadMs: int(0, 86_400_000),
  /** Then the dead, and those that left, are forgotten. */
  forgetAfterMs: int(1000, 604_800_000),
  /** Who leaves says so for so long. */
  leaveMs: int(0, 600_000),
  /** Of a datagram, before it is sealed. */
  datagramBytesMax: int(1400, 65_000),
  /** That one comparison may be answered with. */
  entryDatagramsMax: int(1, 1024),
  membersMax: int(1, 1_000_000),
  /** Updates that wait to be sent. */
  queueMax: int(16, 1_000_000),
  /** Probes for others that are under way. */
  relayedMax: int(1, 65_536),
  lifeguard: Lifeguard
}).check(
  Schema.makeFilter(
    ({ timeoutMs, periodMs }: { readonly timeoutMs: number; readonly periodMs: number }) =>
      timeoutMs < periodMs,
    { expected: "a timeout that is shorter than the period" }
  )
)
export type SwimSettings = typeof SwimSettings.Type

/** memberlist's for a LAN. */
export const lanSettings: SwimSettings = {
  periodMs: 1000,
  timeoutMs: 500,
  relays: 3,
  gossipEveryMs: 200,
  gossipTo: 3,
  retransmit: 4,
  suspicion: 4,
  suspicionMax: 6,
  healthMax: 8,
  compareEveryMs: 30_000,
  reconnectEveryMs: 30_000,
  gossipToDeadMs: 30_000,
  forgetAfterMs: 86_400_000,
  leaveMs: 5000,
  datagramBytesMax: 1400,
  entryDatagramsMax: 64,
  membersMax: 10_000,
  queueMax: 65_536,
  relayedMax: 256,
  lifeguard: { probe: true, suspicion: true, buddy: true, stalls: true }
}

/** SWIM as it was published, with its suspicion: for comparison. */
export const plainSettings: SwimSettings = {
  ...lanSettings,
  lifeguard: { probe: false, suspicion: false, buddy: false, stalls: false }
}

const chance = Schema.Number.check(Schema.isBetween({ minimum: 0, maximum: 1 }))
const Seeds = Schema.Array(PeerAddress).check(Schema.isMaxLength(64))

/** What a member is told. `chance` is drawn by the shell, as time is stamped: from 0 up to 1. */
export const SwimCommand = Schema.Union([
  /** The process runs; first of all. */
  Schema.Struct({
    type: Schema.tag("swim.begin"),
    id: Name,
    address: PeerAddress,
    meta: PeerMeta,
    settings: SwimSettings,
    chance
  }),
  Schema.Struct({ type: Schema.tag("swim.tick"), chance }),
  Schema.Struct({
    type: Schema.tag("swim.receive"),
    /** Where it came from. */
    address: PeerAddress,
    datagram: SwimDatagram,
    chance
  }),
  /** Where others may be found; in the place of those that were known. */
  Schema.Struct({ type: Schema.tag("swim.join"), seeds: Seeds, chance }),
  Schema.Struct({ type: Schema.tag("swim.leave"), chance }),
  /** What this member tells of itself. */
  Schema.Struct({ type: Schema.tag("swim.describe"), meta: PeerMeta, chance })
])
export type SwimCommand = typeof SwimCommand.Type

/** What is known of a member. */
export interface PeerView {
  readonly id: string
  readonly status: PeerStatus
  readonly incarnation: number
  readonly address: string
  readonly meta: string
}

/** What a member asks of its process. */
export type SwimRequest =
  | { readonly port: "datagram"; readonly to: string; readonly datagram: SwimDatagram }
  /** Something else is known of this peer; `before` is null for one that was not known. */
  | {
      readonly port: "peers"
      readonly op: "changed"
      readonly peer: PeerView
      readonly before: PeerStatus | null
      readonly by: string
    }
  /** A peer is forgotten. */
  | { readonly port: "peers"; readonly op: "forgotten"; readonly id: string }
  /** The leave was said for long enough: the process may end. */
  | { readonly port: "process"; readonly op: "left" }

/** What it changes of what a restart forgets, whole, and what it asks. */
const moment = { changes: Schema.Unknown, asks: Schema.Array(Schema.Unknown) }

export const SwimFact = Schema.Union([
  /** Nothing of a lower incarnation is this member's any more. */
  Schema.Struct({ type: Schema.tag("swim.incarnated"), incarnation: Incarnation }),
  Schema.Struct({ type: Schema.tag("swim.noted"), ...moment }),
  /** Others are there. */
  Schema.Struct({ type: Schema.tag("swim.met"), ...moment }),
  /** Nobody is there any more. */
  Schema.Struct({ type: Schema.tag("swim.parted"), ...moment }),
  Schema.Struct({ type: Schema.tag("swim.leaving"), ...moment }),
  Schema.Struct({ type: Schema.tag("swim.left"), ...moment })
])
export type SwimFact = typeof SwimFact.Type

/** Facts that are not kept: a member that starts again knows its incarnation and nobody (ADR 11). */
export const volatileSwimFacts = [
  "swim.noted",
  "swim.met",
  "swim.parted",
  "swim.leaving",
  "swim.left"
] as const
