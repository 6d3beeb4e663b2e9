/** Nodes: how each start of one went, phase by phase and component by component, and how it ended. */
import { Schema } from "effect"
import { int, Milliseconds, Name, text } from "./fields.ts"

/** In their order. */
export const Phase = Schema.Literals(["pre-init", "core", "service", "post-init"])
export type Phase = typeof Phase.Type

/**
 * `critical`: the start fails with it. `degraded`: tried again after 1, 2 and 4 s, then the node goes on without
 * it. `warning`: tried once, and the node goes on.
 */
export const Level = Schema.Literals(["critical", "degraded", "warning"])
export type Level = typeof Level.Type

/** A component as it is planned; `needs` are names of components of its phase or an earlier one. */
export const Plan = Schema.Struct({
  name: Name.check(Schema.isMaxLength(40)),
  phase: Phase,
  level: Level,
  needs: Schema.Array(Name).check(Schema.isMaxLength(64))
})
export type Plan = typeof Plan.Type

const names = Schema.Array(Name).check(Schema.isMaxLength(64))
/** One start of one process; drawn by it, so that an answer of an earlier one is known as such. */
const ofStart = { start: text(64) }
const attempt = { component: Name, attempt: int(1, 16), durationMs: Milliseconds }
const plan = {
  ...ofStart,
  version: text(64),
  /** All phases together may take so long. */
  limitMs: int(1, 3_600_000),
  components: Schema.Array(Plan).check(Schema.isMinLength(1), Schema.isMaxLength(64))
}

const PhaseTime = Schema.Struct({ phase: Phase, durationMs: Milliseconds })
export type PhaseTime = typeof PhaseTime.Type

/** How a start went, told when it was over. */
const report = {
  ...ofStart,
  version: text(64),
  phases: Schema.Array(PhaseTime).check(Schema.isMaxLength(4)),
  /** Since the process began. */
  bootMs: Milliseconds,
  leftOut: names
}
const end = { ...ofStart, reason: text(256) }

/** What a node tells whose start is in no journal of its own: a voter's has only what was ordered, and a host without a kernel has none. */
export const NodeReport = Schema.Union([
  Schema.Struct({ type: Schema.tag("node.report"), ...report }),
  /** It is about to end, in good order. */
  Schema.Struct({ type: Schema.tag("node.reportStop"), ...end })
])
export type NodeReport = typeof NodeReport.Type

export const NodeCommand = Schema.Union([
  Schema.Struct({ type: Schema.tag("node.begin"), ...plan }),
  Schema.Struct({ type: Schema.tag("node.stop"), reason: text(256) }),
  ...NodeReport.members
])
export type NodeCommand = typeof NodeCommand.Type

const inComponents = { port: Schema.tag("component"), ...ofStart }

/** What a node's actor asks of the process that starts. */
export const ComponentRequest = Schema.Union([
  Schema.Struct({ ...inComponents, op: Schema.tag("initialise"), component: Name, attempt: int(1, 16) }),
  /** Everything is up: say so to whoever waits for it. */
  Schema.Struct({ ...inComponents, op: Schema.tag("announce"), phases: Schema.Array(PhaseTime) }),
  /** Stop what was started, in reverse; `component` is the one that failed, null when none did. */
  Schema.Struct({
    ...inComponents,
    op: Schema.tag("stop"),
    component: Schema.NullOr(Name),
    phase: Schema.NullOr(Phase),
    reason: text(2048)
  })
])
export type ComponentRequest = typeof ComponentRequest.Type

export const ComponentReport = Schema.Union([
  Schema.Struct({ type: Schema.tag("component.initialised"), ...ofStart, ...attempt }),
  Schema.Struct({ type: Schema.tag("component.failed"), ...ofStart, ...attempt, reason: text(2048) }),
  /** `bootMs` since the process began. */
  Schema.Struct({ type: Schema.tag("component.announced"), ...ofStart, bootMs: Milliseconds }),
  Schema.Struct({ type: Schema.tag("component.stopped"), ...ofStart, durationMs: Milliseconds }),
  /** The start that asked was an earlier process's; there is nothing left to do. */
  Schema.Struct({ type: Schema.tag("component.over"), ...ofStart })
])
export type ComponentReport = typeof ComponentReport.Type

export const NodeFact = Schema.Union([
  /** Told by the next start: the one before ended without a word, in this state and with these under way. */
  Schema.Struct({
    type: Schema.tag("node.crashed"),
    ...ofStart,
    during: Schema.Literals(["starting", "announcing", "ready", "stopping", "failing"]),
    phase: Schema.NullOr(Phase),
    underWay: names
  }),
  Schema.Struct({ type: Schema.tag("node.startBegan"), ...plan }),
  Schema.Struct({ type: Schema.tag("node.phaseBegan"), phase: Phase, components: names }),
  /** What they need is there now, or the pause before their next attempt is over. */
  Schema.Struct({ type: Schema.tag("node.componentsBegan"), components: names }),
  Schema.Struct({ type: Schema.tag("node.componentInitialised"), ...attempt }),
  Schema.Struct({
    type: Schema.tag("node.componentFailed"),
    ...attempt,
    reason: text(2048),
    /** What follows from it: the whole start fails, it is tried again, or the node goes on without it. */
    outcome: Schema.Literals(["start-fails", "tried-again", "left-out"]),
    /** The pause before the next attempt; 0 where there is none. */
    retryMs: Milliseconds
  }),
  Schema.Struct({ type: Schema.tag("node.phaseEnded"), phase: Phase, durationMs: Milliseconds }),
  Schema.Struct({ type: Schema.tag("node.started"), durationMs: Milliseconds, leftOut: names }),
  Schema.Struct({ type: Schema.tag("node.ready"), bootMs: Milliseconds }),
  Schema.Struct({
    type: Schema.tag("node.startFailed"),
    component: Schema.NullOr(Name),
    phase: Schema.NullOr(Phase),
    reason: text(2048)
  }),
  Schema.Struct({ type: Schema.tag("node.reported"), ...report }),
  Schema.Struct({ type: Schema.tag("node.stopReported"), ...end }),
  Schema.Struct({ type: Schema.tag("node.stopping"), reason: text(256) }),
  Schema.Struct({ type: Schema.tag("node.stopped"), durationMs: Milliseconds })
])
export type NodeFact = typeof NodeFact.Type
