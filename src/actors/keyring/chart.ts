/**
 * The turning over of the key that datagrams are sealed with, as operators see it.
 *
 *     settled ──rotate──▶ rotating       one at a time
 *             ◀─rotated──
 *
 * The keys are in the nodes' own files and go from one to the next over links only (`src/live/gossip/keyring.ts`). Here is who
 * asked for a new one, why, and when everybody had it.
 */
import { assign, setup } from "xstate"
import { typesOf } from "../../events/envelope.ts"
import { KeyringCommand, KeyringFact } from "../../events/keyring.ts"
import { recorder } from "../../kernel/actor.ts"
import type { ActorKind, Of, Stamped } from "../../kernel/actor.ts"

type Event = Stamped<KeyringCommand> | Stamped<KeyringFact>

export interface KeyringContext {
  /** The last that was asked for; 0 before the first. */
  readonly rotation: number
  /** The key that came of the last one that is over; null before. */
  readonly key: string | null
}

const record = recorder<KeyringContext, Event, KeyringFact>()

const chart = setup({
  types: { context: {} as KeyringContext, events: {} as Event, emitted: {} as KeyringFact },
  guards: {
    isOfThisRotation: ({ context, event }) =>
      (event as Of<Event, "keyring.noticeRotated">).rotation === context.rotation
  },
  actions: {
    asked: assign(({ event }) => ({ rotation: (event as Of<Event, "keyring.rotationAsked">).rotation })),
    rotated: assign(({ event }) => ({ key: (event as Of<Event, "keyring.rotated">).key }))
  }
}).createMachine({
  id: "keyring",
  context: { rotation: 0, key: null },
  initial: "settled",
  states: {
    settled: {
      on: {
        "keyring.rotate": {
          actions: record("keyring.rotate", ({ context, event: { reason } }) => ({
            type: "keyring.rotationAsked",
            rotation: context.rotation + 1,
            reason
          }))
        },
        "keyring.rotationAsked": { target: "rotating", actions: "asked" }
      }
    },
    rotating: {
      on: {
        "keyring.noticeRotated": {
          guard: "isOfThisRotation",
          actions: record("keyring.noticeRotated", ({ event: { rotation, key } }) => ({
            type: "keyring.rotated",
            rotation,
            key
          }))
        },
        "keyring.rotated": { target: "settled", actions: "rotated" }
      }
    }
  }
})

export const keyringActor: ActorKind = {
  kind: "keyring",
  chart,
  commands: typesOf(KeyringCommand),
  reports: [],
  facts: typesOf(KeyringFact),
  snapshotVersion: 1
}
