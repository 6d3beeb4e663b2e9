/**
 * What may befall a simulated cluster, as values: all that is drawn is in them, so that a list of them, with their times, befalls
 * another run in the same way, also with some left out.
 */
import { Schema } from "effect"
import type { Counted } from "../world/counted.ts"
import { moments } from "./node.ts"

/** In which ways what was acknowledged is no more what it was, and which operations end with an error. */
export const damageWays = ["rot", "lost", "misdirected"] as const
export const failingOperations = ["write", "sync", "journal"] as const

const Ms = Schema.Number
const Place = Schema.Number.check(Schema.isBetween({ minimum: 0, maximum: 1 }))
const lasting = { id: Schema.String, forMs: Ms }
/** `from>to`, one way each. */
const Paths = Schema.Array(Schema.String)
/** Whether the machine loses its power, and not only the process its life. */
const isPower = Schema.Boolean

export const Fault = Schema.Union([
  Schema.Struct({ kind: Schema.tag("crash"), ...lasting, isPower }),
  /** When this happens to it next: so many steps later it crashes. */
  Schema.Struct({
    kind: Schema.tag("ambush"),
    ...lasting,
    isPower,
    moment: Schema.Literals(moments),
    steps: Schema.Number
  }),
  /** When this host tells of its machines next: the node that it tells crashes. */
  Schema.Struct({ kind: Schema.tag("snare"), ...lasting }),
  /** An operator ends it. */
  Schema.Struct({ kind: Schema.tag("stop"), ...lasting }),
  /** The process stands still; its clock does not. */
  Schema.Struct({ kind: Schema.tag("pause"), ...lasting }),
  /** The whole machine stands still, and its steady clock with it. */
  Schema.Struct({ kind: Schema.tag("suspend"), ...lasting }),
  Schema.Struct({ kind: Schema.tag("partition"), paths: Paths, forMs: Ms }),
  Schema.Struct({ kind: Schema.tag("clog"), paths: Paths, forMs: Ms }),
  /** The connection between two nodes ends. */
  Schema.Struct({ kind: Schema.tag("break"), one: Schema.String, other: Schema.String }),
  /** Nothing that is on its way to the log's disk gets there before. */
  Schema.Struct({ kind: Schema.tag("stall"), ...lasting }),
  /** Nor to the journal's, of which it has applied less and less of what is decided. */
  Schema.Struct({ kind: Schema.tag("lag"), ...lasting }),
  /** The next write, or sync, ends with an error. */
  Schema.Struct({
    kind: Schema.tag("error"),
    id: Schema.String,
    operation: Schema.Literals(failingOperations)
  }),
  Schema.Struct({ kind: Schema.tag("full"), ...lasting }),
  /** Of what was acknowledged in the log something is no more what it was; nobody notices before a start. */
  Schema.Struct({
    kind: Schema.tag("damage"),
    id: Schema.String,
    how: Schema.Literals(damageWays),
    place: Place
  }),
  /** The wall clock is set. */
  Schema.Struct({ kind: Schema.tag("step"), id: Schema.String, byMs: Ms }),
  Schema.Struct({ kind: Schema.tag("hostCrash"), ...lasting }),
  Schema.Struct({ kind: Schema.tag("agentCrash"), ...lasting }),
  Schema.Struct({ kind: Schema.tag("lineBreak"), ...lasting, node: Schema.String }),
  /** One of its machines, at this place among them. */
  Schema.Struct({ kind: Schema.tag("machineKill"), id: Schema.String, place: Place })
])
export type Fault = typeof Fault.Type
export type FaultKind = Fault["kind"]

export const allCounted: ReadonlyArray<Counted<Fault>> = [
  "crash",
  "ambush",
  "snare",
  "stop",
  "pause",
  "suspend",
  "partition",
  "clog",
  "break",
  "stall",
  "lag",
  ...failingOperations.map((operation) => `error ${operation}` as const),
  "full",
  ...damageWays.map((how) => `damage ${how}` as const),
  "step",
  "hostCrash",
  "agentCrash",
  "lineBreak",
  "machineKill"
]

export interface TimedFault {
  /** Of the world. */
  readonly atMs: number
  readonly fault: Fault
}

/** To whole microseconds, so that it is written down as it is. */
export const rounded = (timeMs: number): number => Math.round(timeMs * 1000) / 1000
