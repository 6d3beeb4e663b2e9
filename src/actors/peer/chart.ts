/**
 * A node of the cluster, as the others notice it.
 *
 *   unknown ──▶ alive ──▶ suspect ──▶ failed
 *                 ▲ ▲        │          │
 *                 │ └────────┘ refuted  │
 *                 └───── joined ◀───── left, failed
 *
 * The failure detectors of several nodes say the same thing, late and more than once. As in SWIM, a word counts when it is of
 * a later incarnation than what is known, or of the same one and says more: alive, suspect, failed, left. Whatever does not
 * count is refused, so repeating a word changes nothing.
 */
import { assign, setup } from "xstate"
import { typesOf } from "../../events/envelope.ts"
import { noDescription, PeerCommand, PeerFact } from "../../events/peer.ts"
import type { PeerDescription } from "../../events/peer.ts"
import { recorder } from "../../kernel/actor.ts"
import type { ActorKind, Of, Stamped } from "../../kernel/actor.ts"

type Event = Stamped<PeerCommand> | Stamped<PeerFact>

export interface PeerContext {
  /** Of its latest life that is known. */
  readonly incarnation: number
  readonly address: string
  readonly description: PeerDescription
  /** Who said the last of it. */
  readonly by: string
  /** Since when it is in its state. */
  readonly sinceMs: number
}

type Notice = Of<Event, PeerCommand["type"]>
type Told = Of<Event, "peer.joined" | "peer.refuted">

const record = recorder<PeerContext, Event, PeerFact>()

const isNewer = ({ context, event }: { context: PeerContext; event: Event }) =>
  (event as Notice).incarnation > context.incarnation
const isCurrent = ({ context, event }: { context: PeerContext; event: Event }) =>
  (event as Notice).incarnation >= context.incarnation

const alive = (type: "peer.joined" | "peer.refuted" | "peer.described") =>
  record("peer.noticeAlive", ({ event: { incarnation, by, address, description } }) => ({
    type,
    incarnation,
    by,
    address,
    description
  }))
const suspected = record("peer.noticeSuspect", ({ event: { incarnation, by } }) => ({
  type: "peer.suspected",
  incarnation,
  by
}))
const failed = record("peer.noticeFailed", ({ event: { incarnation, by } }) => ({
  type: "peer.failed",
  incarnation,
  by
}))
const left = record("peer.noticeLeft", ({ event: { incarnation, by } }) => ({
  type: "peer.left",
  incarnation,
  by
}))

const chart = setup({
  types: { context: {} as PeerContext, events: {} as Event, emitted: {} as PeerFact },
  guards: { isNewer, isCurrent },
  actions: {
    told: assign(({ event }) => {
      const { incarnation, by, address, description, stamp } = event as Told
      return { incarnation, by, address, description, sinceMs: stamp.timeMs }
    }),
    described: assign(({ event }) => {
      const { incarnation, by, address, description } = event as Of<Event, "peer.described">
      return { incarnation, by, address, description }
    }),
    noticed: assign(({ event }) => {
      const { incarnation, by, stamp } = event as Of<Event, "peer.suspected">
      return { incarnation, by, sinceMs: stamp.timeMs }
    })
  }
}).createMachine({
  id: "peer",
  context: { incarnation: -1, address: "", description: noDescription, by: "", sinceMs: 0 },
  initial: "unknown",
  on: {
    "peer.joined": { target: ".alive", actions: "told" },
    "peer.refuted": { target: ".alive", actions: "told" },
    "peer.described": { target: ".alive", actions: "described" },
    "peer.suspected": { target: ".suspect", actions: "noticed" },
    "peer.failed": { target: ".failed", actions: "noticed" },
    "peer.left": { target: ".left", actions: "noticed" }
  },
  states: {
    // Of somebody that was never there it is not worth knowing that it is gone.
    unknown: { on: { "peer.noticeAlive": { actions: alive("peer.joined") } } },
    alive: {
      on: {
        "peer.noticeAlive": { guard: "isNewer", actions: alive("peer.described") },
        "peer.noticeSuspect": { guard: "isCurrent", actions: suspected },
        "peer.noticeFailed": { guard: "isCurrent", actions: failed },
        "peer.noticeLeft": { guard: "isCurrent", actions: left }
      }
    },
    suspect: {
      on: {
        "peer.noticeAlive": { guard: "isNewer", actions: alive("peer.refuted") },
        "peer.noticeSuspect": { guard: "isNewer", actions: suspected },
        "peer.noticeFailed": { guard: "isCurrent", actions: failed },
        "peer.noticeLeft": { guard: "isCurrent", actions: left }
      }
    },
    failed: {
      on: {
        "peer.noticeAlive": { guard: "isNewer", actions: alive("peer.joined") },
        "peer.noticeLeft": { guard: "isCurrent", actions: left }
      }
    },
    left: { on: { "peer.noticeAlive": { guard: "isNewer", actions: alive("peer.joined") } } }
  }
})

export const peerActor: ActorKind = {
  kind: "peer",
  chart,
  commands: typesOf(PeerCommand),
  reports: [],
  facts: typesOf(PeerFact),
  snapshotVersion: 2
}
