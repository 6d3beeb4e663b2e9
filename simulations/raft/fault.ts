/**
 * What may befall a simulated group, as values: all that is drawn is in them, so that a list of them, with their times,
 * befalls another run in the same way, also with some left out.
 */
import { Schema } from "effect"
import type { Counted } from "../world/counted.ts"

/** In which ways what was acknowledged is no more what it was, and which operations end with an error. */
export const damageWays = ["rot", "lost", "misdirected", "snapshot"] as const
export const failingOperations = ["write", "sync"] as const

const id = Schema.String
const Ms = Schema.Number
/** Less, and a run would do nothing else. */
export const flapMs_min = 1
const FlapMs = Schema.Number.check(Schema.isGreaterThanOrEqualTo(flapMs_min))
const lasting = { id, forMs: Ms }
const Ids = Schema.Array(id)
/** `from>to`, one way each. */
const Paths = Schema.Array(Schema.String)

export const Fault = Schema.Union([
  /** The process ends, at once, or in its next step after so many requests; and is started again. */
  Schema.Struct({ kind: Schema.tag("crash"), ...lasting, requests: Schema.NullOr(Schema.Number) }),
  /** The process stands still; its clock does not. */
  Schema.Struct({ kind: Schema.tag("pause"), ...lasting }),
  /** `flapMs` is how long the paths are cut, and then open, and then cut; null when they stay cut. */
  Schema.Struct({ kind: Schema.tag("partition"), paths: Paths, forMs: Ms, flapMs: Schema.NullOr(FlapMs) }),
  Schema.Struct({ kind: Schema.tag("clog"), paths: Paths, forMs: Ms }),
  /** These take their connection with that one for ended, though it is there. */
  Schema.Struct({ kind: Schema.tag("hangUp"), peer: id, ids: Ids }),
  /** Nothing that is on its way to the disk gets there before. */
  Schema.Struct({ kind: Schema.tag("stall"), ...lasting }),
  /** Of what was acknowledged something is no more what it was, at a place from 0 up to 1; nobody notices before a start. */
  Schema.Struct({
    kind: Schema.tag("damage"),
    id,
    how: Schema.Literals(damageWays),
    place: Schema.Number.check(Schema.isBetween({ minimum: 0, maximum: 1 }))
  }),
  /** The next write, or sync, ends with an error. */
  Schema.Struct({ kind: Schema.tag("error"), id, operation: Schema.Literals(failingOperations) }),
  Schema.Struct({ kind: Schema.tag("full"), ...lasting }),
  /** The wall clock is set. */
  Schema.Struct({ kind: Schema.tag("step"), id, byMs: Ms }),
  /** The steady clock jumps ahead. */
  Schema.Struct({ kind: Schema.tag("jump"), id, byMs: Ms }),
  /** The whole machine stands still, and its steady clock with it. */
  Schema.Struct({ kind: Schema.tag("suspend"), ...lasting }),
  /** Operators have a new member, on an empty disk, for one that stays out. */
  Schema.Struct({ kind: Schema.tag("recruit"), id }),
  /** Operators ask whoever leads. */
  Schema.Struct({ kind: Schema.tag("transfer"), to: id }),
  Schema.Struct({ kind: Schema.tag("change"), voters: Ids, learners: Ids })
])
export type Fault = typeof Fault.Type
export type FaultKind = Fault["kind"]

export const allCounted: ReadonlyArray<Counted<Fault>> = [
  "crash",
  "pause",
  "partition",
  "clog",
  "hangUp",
  "stall",
  ...damageWays.map((how) => `damage ${how}` as const),
  ...failingOperations.map((operation) => `error ${operation}` as const),
  "full",
  "step",
  "jump",
  "suspend",
  "recruit",
  "transfer",
  "change"
]

export interface TimedFault {
  /** Of the world. */
  readonly atMs: number
  readonly fault: Fault
}

/** To whole microseconds, so that it is written down as it is. */
export const rounded = (timeMs: number): number => Math.round(timeMs * 1000) / 1000
