/**
 * A member of a Raft group.
 *
 *              ┌──────── a leader, a later term, or no majority ────────┐
 *              ▼               ▲                  ▲                     │
 *   ●──────▶ follower ──▶ poller ── majority ──▶ candidate ── majority ──▶ leader
 *              │   timeout  ▲ │ timeout            ▲
 *              │            └─┘                    │
 *              └──────── asked to take over ───────┘
 *
 * The chart holds the roles; `decide.ts` and what it imports the protocol; `step.ts` what is known. Term, vote, log and
 * snapshot are facts that are kept; everything else is in facts that are not (ADR 8), so a member that
 * starts again is a follower.
 */
import { setup } from "xstate"
import { typesOf } from "../../events/envelope.ts"
import { RaftCommand, RaftFact, volatileRaftFacts } from "../../events/raft.ts"
import { listRecorder, wholeAssign } from "../../kernel/actor.ts"
import type { ActorKind, Stamped } from "../../kernel/actor.ts"
import { decide } from "./decide.ts"
import { contextOf, initialContext, keep } from "./step.ts"
import type { RaftContext, Role, Volatile } from "./step.ts"

type Event = Stamped<RaftCommand> | Stamped<RaftFact>
type Kept = Parameters<typeof keep>[1]
type Moment = Extract<RaftFact, { readonly changes: unknown }>

const whole = wholeAssign<RaftContext, Event>()
const record = listRecorder<RaftContext, Stamped<RaftCommand>, RaftFact>()

/** Every input, as this role takes it. */
const inputs = (role: Role) =>
  Object.fromEntries(
    typesOf(RaftCommand).map((type) => [
      type,
      { actions: record(({ context, event }) => decide(role, context, event, event.stamp.timeMs)) }
    ])
  )

const kept = { actions: "keep" as const }
const moment = (target: string | null) => ({
  ...(target === null ? {} : { target }),
  actions: [
    "change",
    { type: "request", params: ({ event }: { event: Event }) => (event as Moment).asks }
  ] as never
})

const chart = setup({
  types: { context: {} as RaftContext, events: {} as Event, emitted: {} as RaftFact },
  actions: {
    keep: whole(({ context, event }) => contextOf(keep(context, event as Kept), context)),
    change: whole(({ context, event }) => contextOf(context, (event as Moment).changes as Volatile))
  }
}).createMachine({
  id: "raft",
  context: initialContext,
  initial: "follower",
  on: {
    "raft.formed": kept,
    "raft.voted": kept,
    "raft.appended": kept,
    "raft.compacted": kept,
    "raft.installed": kept,
    "raft.noted": moment(null),
    "raft.followed": moment(".follower"),
    "raft.polled": moment(".poller"),
    "raft.campaigned": moment(".candidate"),
    "raft.elected": moment(".leader")
  },
  states: {
    follower: { on: inputs("follower") },
    poller: { on: inputs("poller") },
    candidate: { on: inputs("candidate") },
    leader: { on: inputs("leader") }
  }
})

export const raftActor: ActorKind = {
  kind: "raft",
  chart,
  commands: typesOf(RaftCommand),
  reports: [],
  facts: typesOf(RaftFact),
  volatile: volatileRaftFacts,
  snapshotVersion: 1
}
