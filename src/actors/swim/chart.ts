/**
 * A member of a group that finds out who is there, by SWIM with Lifeguard.
 *
 *              others are there
 *   ●──▶ alone ───────────────▶ member
 *          │  ◀─────────────────  │
 *          │    nobody is left    │ asked to leave
 *          │                      ▼
 *          └───────────────▶ leaving ── said often enough ──▶ left
 *
 * The chart holds the roles; `decide.ts` and what it imports the protocol; `step.ts` what is known. Only the own incarnation
 * is a fact that is kept: who is there has to be found out by whoever starts (ADR 11).
 */
import { assign, setup } from "xstate"
import { typesOf } from "../../events/envelope.ts"
import { SwimCommand, SwimFact, volatileSwimFacts } from "../../events/swim.ts"
import { listRecorder } from "../../kernel/actor.ts"
import type { ActorKind, Stamped } from "../../kernel/actor.ts"
import { decide } from "./decide.ts"
import { initialContext, keep } from "./step.ts"
import type { Role, SwimContext, Volatile } from "./step.ts"

type Event = Stamped<SwimCommand> | Stamped<SwimFact>
type Kept = Parameters<typeof keep>[1]
type Moment = Extract<SwimFact, { readonly changes: unknown }>

const record = listRecorder<SwimContext, Stamped<SwimCommand>, SwimFact>()

/** Every input, as this role takes it. */
const inputs = (role: Role) =>
  Object.fromEntries(
    typesOf(SwimCommand).map((type) => [
      type,
      { actions: record(({ context, event }) => decide(role, context, event, event.stamp.timeMs)) }
    ])
  )

const moment = (target: string | null) => ({
  ...(target === null ? {} : { target }),
  actions: [
    "change",
    { type: "request", params: ({ event }: { event: Event }) => (event as Moment).asks }
  ] as never
})

const chart = setup({
  types: { context: {} as SwimContext, events: {} as Event, emitted: {} as SwimFact },
  actions: {
    keep: assign(({ context, event }) => keep(context, event as Kept)),
    change: assign(({ event }) => (event as Moment).changes as Volatile)
  }
}).createMachine({
  id: "swim",
  context: initialContext,
  initial: "alone",
  on: {
    "swim.incarnated": { actions: "keep" },
    "swim.noted": moment(null),
    "swim.met": moment(".member"),
    "swim.parted": moment(".alone"),
    "swim.leaving": moment(".leaving"),
    "swim.left": moment(".left")
  },
  states: {
    alone: { on: inputs("alone") },
    member: { on: inputs("member") },
    leaving: { on: inputs("leaving") },
    left: { on: inputs("left") }
  }
})

export const swimActor: ActorKind = {
  kind: "swim",
  chart,
  commands: typesOf(SwimCommand),
  reports: [],
  facts: typesOf(SwimFact),
  volatile: volatileSwimFacts,
  snapshotVersion: 1
}
