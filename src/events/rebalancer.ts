/** Relief of hosts that have promised much more than the others: what the rebalancer is told, and each of its decisions, whole. */
import { Schema } from "effect"
import { int, Name, text, withDefault } from "./fields.ts"

/** There is one. */
export const rebalancerStream = "rebalancer/fleet"

export const RebalancePolicy = Schema.Struct({
  /** Decide and record, and move nothing. */
  shadow: withDefault(Schema.Boolean, false),
  /** Between two looks at the hosts. */
  everyMs: withDefault(int(1000, 86_400_000), 300_000),
  /** A host is too full when it has promised so many points more of itself than the hosts have in the mean. */
  marginPercent: withDefault(int(1, 100), 20),
  /** And that at so many looks in a row. */
  hold: withDefault(int(1, 100), 3),
  /** Machines that are moved after one look. */
  movesAtOnce: withDefault(int(1, 16), 2),
  /** A machine that was moved stays for so long. */
  cooldownMs: withDefault(int(0, 604_800_000), 3_600_000),
  /** A move that takes longer is given up, and its machine stays. */
  moveTimeoutMs: withDefault(int(1000, 604_800_000), 1_800_000)
})
export type RebalancePolicy = typeof RebalancePolicy.Type

/** What of itself a host has promised, in percent of the scarcer of its processors and its memory. */
const Percent = Schema.Number.check(Schema.isGreaterThanOrEqualTo(0))

/** A machine that may be moved: it runs, and nothing moves it yet. */
const Movable = Schema.Struct({
  vm: Name,
  /** By so much less its host would have promised. */
  percent: Percent,
  /** What its move has to carry. */
  memoryMib: Schema.Int
})

const HostLoad = Schema.Struct({ host: Name, percent: Percent, machines: Schema.Array(Movable) })
export type HostLoad = typeof HostLoad.Type

/** The hosts that take part, and those of them that have promised most, first. What moves away from a host is not counted there. */
export const RebalancerReport = Schema.Union([
  Schema.Struct({
    type: Schema.tag("view.loads"),
    hosts: Schema.Int,
    meanPercent: Percent,
    most: Schema.Array(HostLoad),
    position: Schema.Int
  })
])
export type RebalancerReport = typeof RebalancerReport.Type
export type Loads = Omit<RebalancerReport, "type">

export const RebalancerCommand = Schema.Union([
  Schema.Struct({ type: Schema.tag("rebalancer.start"), policy: RebalancePolicy }),
  Schema.Struct({ type: Schema.tag("rebalancer.stop"), reason: withDefault(text(256), "") })
])
export type RebalancerCommand = typeof RebalancerCommand.Type

/** A host that is too full: how often in a row it was, and why no machine of it is moved now; null where one is. */
const TooFull = Schema.Struct({
  host: Name,
  percent: Percent,
  held: Schema.Int,
  stays: Schema.NullOr(text(256))
})
const Move = Schema.Struct({ vm: Name, from: Name, migration: Name, percent: Percent, reason: text(512) })
export type Move = typeof Move.Type

const decision = {
  viewPosition: Schema.Int,
  hosts: Schema.Int,
  meanPercent: Percent,
  tooFull: Schema.Array(TooFull),
  moves: Schema.Array(Move),
  /** Whether the moves are only said, and not asked for. */
  shadow: Schema.Boolean,
  reason: text(512)
}
export const RebalanceDecision = Schema.Struct(decision)
export type RebalanceDecision = typeof RebalanceDecision.Type

export const RebalancerFact = Schema.Union([
  Schema.Struct({ type: Schema.tag("rebalancer.started"), policy: RebalancePolicy }),
  Schema.Struct({ type: Schema.tag("rebalancer.stopped"), reason: text(256) }),
  Schema.Struct({ type: Schema.tag("rebalancer.looked") }),
  Schema.Struct({ type: Schema.tag("rebalancer.decided"), ...decision }),
  Schema.Struct({ type: Schema.tag("rebalancer.moveRefused"), migration: Name, reason: text(2048) })
])
export type RebalancerFact = typeof RebalancerFact.Type

/** What its actor knows. */
export interface RebalancerState {
  readonly policy: RebalancePolicy | null
  /** By host that was too full at the last look: at how many in a row. */
  readonly held: Readonly<Record<string, number>>
  /** By machine: when its move was decided, in ms since the Unix epoch; none that is over its cooldown. */
  readonly moved: Readonly<Record<string, number>>
  /** All that were decided: each move's migration has a number. */
  readonly moves: number
  readonly last: (RebalanceDecision & { readonly timeMs: number }) | null
}
