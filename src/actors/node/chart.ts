/**
 * A node: the start of its process in four phases (SPEC §7), and its end.
 *
 *   off ──begin──▶ starting ──all up──▶ announcing ──▶ ready
 *    ▲               │    │                 │            │ stop
 *    │     a critical│    │ stop            ▼            ▼
 *    │      component│    └────────────▶ stopping ◀──────┘
 *    │          fails▼                      │ stopped
 *    ├─────────── failing ──stopped──▶ failed
 *    └──────────────────────────────────────┘
 *
 * A node whose start is in no journal of its own tells of it afterwards: `node.report` leads from anywhere to ready, and
 * `node.reportStop` from there to off.
 *
 * A process that died says nothing. The next start finds the state it left, and records that as `node.crashed`
 * before its own `node.startBegan`; that no other process runs on this journal is what its lock is for.
 */
import { assign, setup } from "xstate"
import { typesOf } from "../../events/envelope.ts"
import { NodeCommand, NodeFact } from "../../events/node.ts"
import type { ComponentReport, Phase } from "../../events/node.ts"
import type { Report, Request } from "../../events/requests.ts"
import { recorder } from "../../kernel/actor.ts"
import type { ActorKind, Of, Stamped } from "../../kernel/actor.ts"
import {
  able,
  begun,
  isPhaseOver,
  orderProblem,
  partsOf,
  pauseMs,
  phaseAfter,
  withStanding
} from "./decide.ts"
import type { Parts } from "./decide.ts"
import {
  announce,
  initialise,
  isLimit,
  none,
  retriedBy,
  retryLater,
  startLimit,
  stop,
  stopLimit
} from "./requests.ts"
import type { NodeContext } from "./requests.ts"

type Event = Stamped<NodeCommand> | Stamped<ComponentReport> | Stamped<Report> | Stamped<NodeFact>
type Settles = Of<Event, "component.initialised"> | Of<Event, "component.failed">
type Began = Of<Event, "node.phaseBegan"> | Of<Event, "node.componentsBegan">

const record = recorder<NodeContext, Event, NodeFact>()

/** The parts once this answer is taken; `left-out` is what becomes of a failed one that is not tried again. */
const settled = ({ parts }: NodeContext, event: Settles): Parts =>
  withStanding(parts, event.component, event.type === "component.initialised" ? "up" : "left-out")

const isAwaited = ({ start, parts }: NodeContext, event: Settles): boolean => {
  const part = parts[event.component]
  return event.start === start && part?.standing === "starting" && part.attempt === event.attempt
}

const leftOut = (parts: Parts): ReadonlyArray<string> =>
  Object.values(parts).flatMap(({ name, standing }) => (standing === "left-out" ? [name] : []))

const began = record("node.begin", ({ event }) => {
  const { start, version, limitMs, components } = event
  return { type: "node.startBegan", start, version, limitMs, components }
})
const firstPhaseBegan = record("node.begin", ({ event }) => {
  const parts = partsOf(event.components)
  const phase = phaseAfter(parts, null) as Phase
  return { type: "node.phaseBegan", phase, components: able(parts, phase) }
})
const notOrdered = record("node.begin", ({ event }) => ({
  type: "node.startFailed",
  component: null,
  phase: null,
  reason: orderProblem(event.components) ?? ""
}))

type Alive = Of<NodeFact, "node.crashed">["during"]

/** Begin, after the last start ended as it should have, or did not (`during` is the state it was left in). */
const crashed = (type: "node.begin" | "node.report", during: Alive | null) => {
  const fact = record(type, ({ context }) => ({
    type: "node.crashed",
    start: context.start,
    during: during ?? "starting",
    phase: context.phase,
    underWay: Object.values(context.parts).flatMap(({ name, standing }) =>
      standing === "starting" || standing === "retrying" ? [name] : []
    )
  }))
  return during === null ? [] : [fact]
}

function begin(during: Alive | null) {
  const before = crashed("node.begin", during)
  return [
    { guard: "isOrdered" as const, actions: [...before, began, firstPhaseBegan] },
    { actions: [...before, began, notOrdered] }
  ]
}

const reported = record("node.report", ({ event }) => {
  const { start, version, phases, bootMs, leftOut } = event
  return { type: "node.reported", start, version, phases, bootMs, leftOut }
})

const beginning = (during: Alive | null) => ({
  "node.begin": begin(during),
  "node.report": { guard: "isAnotherStart" as const, actions: [...crashed("node.report", during), reported] },
  "node.reported": { target: "ready" as const, actions: ["noteReported", ask(stopLimit)] as never },
  "node.crashed": {},
  "node.startBegan": {
    target: "starting" as const,
    actions: ["beginStart", ask(startLimit)] as never
  }
})

/** What follows an answer in the same turn, from most to least: the start is over, the phase is, others may begin. */
function followedBy<T extends Settles["type"]>(type: T, said: never) {
  const phaseEnded = record(type, ({ context, event }) => ({
    type: "node.phaseEnded",
    phase: context.phase as Phase,
    durationMs: (event as Settles).stamp.timeMs - context.phaseBeganMs
  }))
  const started = record(type, ({ context, event }) => ({
    type: "node.started",
    durationMs: (event as Settles).stamp.timeMs - context.beganMs,
    leftOut: leftOut(settled(context, event as Settles))
  }))
  const nextPhaseBegan = record(type, ({ context, event }) => {
    const parts = settled(context, event as Settles)
    const phase = phaseAfter(parts, context.phase) as Phase
    return { type: "node.phaseBegan", phase, components: able(parts, phase) }
  })
  const othersBegan = record(type, ({ context, event }) => ({
    type: "node.componentsBegan",
    components: able(settled(context, event as Settles), context.phase as Phase)
  }))
  return [
    { guard: "endsStart" as const, actions: [said, phaseEnded, started] },
    { guard: "endsPhase" as const, actions: [said, phaseEnded, nextPhaseBegan] },
    { guard: "letsOthersBegin" as const, actions: [said, othersBegan] },
    { guard: "isAwaited" as const, actions: said }
  ]
}

const initialised = record("component.initialised", ({ event }) => {
  const { component, attempt, durationMs } = event
  return { type: "node.componentInitialised", component, attempt, durationMs }
})

const failedWith = (outcome: Of<NodeFact, "node.componentFailed">["outcome"]) =>
  record("component.failed", ({ context, event }) => {
    const { component, attempt, durationMs, reason } = event
    const part = context.parts[component]
    const retryMs = outcome === "tried-again" && part ? (pauseMs(part, attempt) ?? 0) : 0
    return { type: "node.componentFailed", component, attempt, durationMs, reason, outcome, retryMs }
  })
const startFailed = record("component.failed", ({ context, event }) => ({
  type: "node.startFailed",
  component: event.component,
  phase: context.phase,
  reason: event.reason
}))
const outOfTime = record("timer.fired", ({ context }) => ({
  type: "node.startFailed",
  component: null,
  phase: context.phase,
  reason: `not ready within ${context.limitMs} ms; under way: ${
    Object.values(context.parts)
      .flatMap(({ name, standing }) => (standing === "starting" ? [name] : []))
      .join(", ") || "nothing"
  }`
}))
const retried = record("timer.fired", ({ event }) => ({
  type: "node.componentsBegan",
  components: [retriedBy(event.name) ?? ""]
}))
const ready = record("component.announced", ({ event }) => ({ type: "node.ready", bootMs: event.bootMs }))
const stopReported = record("node.reportStop", ({ event }) => {
  const { start, reason } = event
  return { type: "node.stopReported", start, reason }
})
const stopped = {
  guard: "isThisStart" as const,
  actions: record("component.stopped", ({ event }) => ({
    type: "node.stopped",
    durationMs: event.durationMs
  }))
}
const stops = {
  "node.stop": {
    actions: record("node.stop", ({ event }) => ({ type: "node.stopping", reason: event.reason }))
  },
  "node.stopping": {
    target: "stopping" as const,
    actions: [
      ask(stopLimit),
      ask((context, event) =>
        stop(context, { component: null, phase: null, reason: (event as Of<Event, "node.stopping">).reason })
      )
    ]
  }
}

function ask(build: (context: NodeContext, event: Event) => Request | ReadonlyArray<Request>) {
  return {
    type: "request",
    params: ({ context, event }: { context: NodeContext; event: Event }) => build(context, event)
  } as never
}
const askComponents = ask((context, event) => initialise(context, (event as Began).components))

const chart = setup({
  types: { context: {} as NodeContext, events: {} as Event, emitted: {} as NodeFact },
  actions: {
    request: (_, _params: Request | ReadonlyArray<Request>) => {},
    beginStart: assign(({ event }) => {
      const { start, limitMs, components, stamp } = event as Of<Event, "node.startBegan">
      return { ...none, start, limitMs, parts: partsOf(components), beganMs: stamp.timeMs }
    }),
    noteReported: assign(({ event }) => {
      const { start, phases, stamp } = event as Of<Event, "node.reported">
      return { ...none, start, phaseTimes: phases, beganMs: stamp.timeMs }
    }),
    beginPhase: assign(({ context, event }) => {
      const { phase, components, stamp } = event as Of<Event, "node.phaseBegan">
      return { phase, phaseBeganMs: stamp.timeMs, parts: begun(context.parts, components) }
    }),
    beginParts: assign(({ context, event }) => ({
      parts: begun(context.parts, (event as Began).components)
    })),
    noteUp: assign(({ context, event }) => ({
      parts: withStanding(context.parts, (event as Of<Event, "node.componentInitialised">).component, "up")
    })),
    noteFailed: assign(({ context, event }) => {
      const { component, outcome } = event as Of<Event, "node.componentFailed">
      const standing = outcome === "tried-again" ? "retrying" : "left-out"
      return { parts: withStanding(context.parts, component, standing) }
    }),
    endPhase: assign(({ context, event }) => {
      const { phase, durationMs } = event as Of<Event, "node.phaseEnded">
      return { phaseTimes: [...context.phaseTimes, { phase, durationMs }] }
    })
  },
  guards: {
    isOrdered: ({ event }) => orderProblem((event as Of<Event, "node.begin">).components) === null,
    isThisStart: ({ context, event }) =>
      (event as Of<Event, "component.stopped" | "component.announced" | "node.reportStop">).start ===
      context.start,
    /** One that is told of again, longer ago than the key is remembered, is no other. */
    isAnotherStart: ({ context, event }) => (event as Of<Event, "node.report">).start !== context.start,
    isAwaited: ({ context, event }) => isAwaited(context, event as Settles),
    failsStart: ({ context, event }) =>
      isAwaited(context, event as Settles) &&
      context.parts[(event as Settles).component]?.level === "critical",
    isTriedAgain: ({ context, event }) => {
      const { component, attempt } = event as Settles
      const part = context.parts[component]
      return isAwaited(context, event as Settles) && part !== undefined && pauseMs(part, attempt) !== null
    },
    endsStart: ({ context, event }) => {
      const parts = settled(context, event as Settles)
      const isOver = isPhaseOver(parts, context.phase as Phase)
      return isAwaited(context, event as Settles) && isOver && phaseAfter(parts, context.phase) === null
    },
    endsPhase: ({ context, event }) =>
      isAwaited(context, event as Settles) &&
      isPhaseOver(settled(context, event as Settles), context.phase as Phase),
    letsOthersBegin: ({ context, event }) =>
      isAwaited(context, event as Settles) &&
      able(settled(context, event as Settles), context.phase as Phase).length > 0,
    isLimit: ({ event }) => isLimit((event as Of<Event, "timer.fired">).name),
    isRetry: ({ context, event }) => {
      const component = retriedBy((event as Of<Event, "timer.fired">).name)
      return component !== null && context.parts[component]?.standing === "retrying"
    }
  }
}).createMachine({
  id: "node",
  context: none,
  initial: "off",
  states: {
    off: { on: beginning(null) },
    starting: {
      on: {
        ...beginning("starting"),
        ...stops,
        "component.initialised": followedBy("component.initialised", initialised),
        "component.failed": [
          { guard: "failsStart", actions: [failedWith("start-fails"), startFailed] },
          { guard: "isTriedAgain", actions: failedWith("tried-again") },
          ...followedBy("component.failed", failedWith("left-out"))
        ],
        "timer.fired": [
          { guard: "isLimit", actions: outOfTime },
          { guard: "isRetry", actions: retried }
        ],
        "node.phaseBegan": { actions: ["beginPhase", askComponents] },
        "node.componentsBegan": { actions: ["beginParts", askComponents] },
        "node.componentInitialised": { actions: "noteUp" },
        "node.componentFailed": {
          actions: [
            "noteFailed",
            ask((_, event) => {
              const { component, outcome, retryMs } = event as Of<Event, "node.componentFailed">
              return outcome === "tried-again" ? retryLater(component, retryMs) : []
            })
          ]
        },
        "node.phaseEnded": { actions: "endPhase" },
        "node.started": { target: "announcing", actions: [ask(stopLimit), ask(announce)] },
        "node.startFailed": {
          target: "failing",
          actions: [ask(stopLimit), ask((context, event) => stop(context, whyOf(event)))]
        }
      }
    },
    announcing: {
      on: {
        ...beginning("announcing"),
        ...stops,
        "component.announced": { guard: "isThisStart", actions: ready },
        "node.ready": { target: "ready" }
      }
    },
    ready: {
      on: {
        ...beginning("ready"),
        ...stops,
        "node.reportStop": { guard: "isThisStart", actions: stopReported },
        "node.stopReported": { target: "off" }
      }
    },
    stopping: {
      on: { ...beginning("stopping"), "component.stopped": stopped, "node.stopped": { target: "off" } }
    },
    failing: {
      on: { ...beginning("failing"), "component.stopped": stopped, "node.stopped": { target: "failed" } }
    },
    failed: { on: beginning(null) }
  }
})

function whyOf(event: Event) {
  const { component, phase, reason } = event as Of<Event, "node.startFailed">
  return { component, phase, reason }
}

export const nodeActor: ActorKind = {
  kind: "node",
  chart,
  commands: typesOf(NodeCommand),
  reports: [
    "component.initialised",
    "component.failed",
    "component.announced",
    "component.stopped",
    "component.over",
    "timer.fired"
  ],
  facts: typesOf(NodeFact),
  snapshotVersion: 1
}
