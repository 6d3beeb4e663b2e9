/**
 * Relieves hosts that have promised much more than the others, by live migrations of running machines.
 *
 *     off ──start──▶ waiting ──timer──▶ looking
 *      ▲               │  ▲               │ loads: decided, which asks for the moves
 *      └─────stop──────┘  └───────────────┘
 *
 * Each decision is a fact with what it was made from, also one that nothing is to be done. In its shadow mode moves are said, and not
 * asked for. Where a machine goes, and whether it may, its migration and placement decide.
 */
import { assign, setup } from "xstate"
import { typesOf } from "../../events/envelope.ts"
import { RebalancerCommand, RebalancerFact } from "../../events/rebalancer.ts"
import type { RebalancePolicy, RebalancerReport, RebalancerState } from "../../events/rebalancer.ts"
import type { MigrationPolicy, Report, Request } from "../../events/requests.ts"
import { recorder } from "../../kernel/actor.ts"
import type { ActorKind, Of, Stamped } from "../../kernel/actor.ts"
import { afterDecision, afterShadow, decideRebalance } from "./decide.ts"

type Event =
  | Stamped<RebalancerCommand>
  | Stamped<RebalancerReport>
  | Stamped<Of<Report, "actor.refused" | "timer.fired">>
  | Stamped<RebalancerFact>

/** Hosts that a decision looks at, of those that have promised most. */
const most_max = 16

/** A machine that is only to make room is not harmed: neither throttled, nor moved by post-copy. */
const gently = ({ moveTimeoutMs }: RebalancePolicy): MigrationPolicy => ({
  downtimeBudgetMs: 300,
  bandwidthBytesPerSecond: 0,
  postCopy: false,
  throttle: false,
  timeoutMs: moveTimeoutMs
})

const record = recorder<RebalancerState, Event, RebalancerFact>()

const started = record("rebalancer.start", ({ event: { policy } }) => ({
  type: "rebalancer.started",
  policy
}))
const stopped = record("rebalancer.stop", ({ event: { reason } }) => ({ type: "rebalancer.stopped", reason }))
const moveRefused = record("actor.refused", ({ event: { to, reason } }) => ({
  type: "rebalancer.moveRefused",
  migration: to.slice("migration/".length),
  reason
}))

const timer = (afterMs: number): Request => ({ port: "timer", op: "start", name: "look", afterMs })
const noTimer: Request = { port: "timer", op: "stop", name: "look" }

const asks = ({ context, event }: { context: RebalancerState; event: Event }): ReadonlyArray<Request> => {
  const { moves, shadow } = event as Of<Event, "rebalancer.decided">
  const policy = context.policy as RebalancePolicy
  const asked = (shadow ? [] : moves).map(({ vm, migration, reason }): Request => ({
    port: "actor",
    to: `migration/${migration}`,
    command: { type: "migration.request", vm, policy: gently(policy), reason }
  }))
  return [...asked, timer(policy.everyMs)]
}

const chart = setup({
  types: { context: {} as RebalancerState, events: {} as Event, emitted: {} as RebalancerFact },
  actions: {
    request: (_, _params: Request | ReadonlyArray<Request>) => {},
    started: assign(({ context, event }) => ({
      policy: (event as Of<Event, "rebalancer.started">).policy,
      held: {},
      moved: afterShadow(context)
    })),
    stopped: assign(({ context }) => ({ policy: null, held: {}, moved: afterShadow(context) })),
    decided: assign(({ context, event }) => {
      const { stamp, type: _, ...decision } = event as Of<Event, "rebalancer.decided">
      return afterDecision(context, decision, stamp.timeMs)
    })
  }
}).createMachine({
  id: "rebalancer",
  context: { policy: null, held: {}, moved: {}, moves: 0, last: null },
  initial: "off",
  on: {
    "actor.refused": { actions: moveRefused },
    "rebalancer.moveRefused": {}
  },
  states: {
    off: {
      on: {
        "rebalancer.start": { actions: started },
        "rebalancer.started": {
          target: "waiting",
          actions: ["started", { type: "request", params: ({ event }) => timer(event.policy.everyMs) }]
        }
      }
    },
    waiting: {
      on: {
        // A policy of now takes the place of the one before.
        "rebalancer.start": { actions: started },
        "rebalancer.started": {
          actions: ["started", { type: "request", params: ({ event }) => timer(event.policy.everyMs) }]
        },
        "rebalancer.stop": { actions: stopped },
        "rebalancer.stopped": { target: "off", actions: ["stopped", { type: "request", params: noTimer }] },
        "timer.fired": { actions: record("timer.fired", () => ({ type: "rebalancer.looked" })) },
        "rebalancer.looked": {
          target: "looking",
          actions: { type: "request", params: { port: "view", op: "loads", most: most_max } as Request }
        }
      }
    },
    looking: {
      on: {
        "rebalancer.start": { actions: started },
        "rebalancer.started": { actions: "started" },
        "rebalancer.stop": { actions: stopped },
        "rebalancer.stopped": { target: "off", actions: "stopped" },
        "view.loads": {
          actions: record("view.loads", ({ context, event: { stamp, type: _, ...loads } }) => ({
            type: "rebalancer.decided",
            ...decideRebalance({ ...context, policy: context.policy as RebalancePolicy }, loads, stamp.timeMs)
          }))
        },
        "rebalancer.decided": { target: "waiting", actions: ["decided", { type: "request", params: asks }] }
      }
    }
  }
})

export const rebalancerActor: ActorKind = {
  kind: "rebalancer",
  chart,
  commands: typesOf(RebalancerCommand),
  reports: ["view.loads", "timer.fired", "actor.refused"],
  facts: typesOf(RebalancerFact),
  snapshotVersion: 1
}
