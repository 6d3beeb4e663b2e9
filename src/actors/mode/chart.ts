/**
 * The network mode of one link: chosen from its samples, or forced.
 *
 *     automatic ──force──▶ forced        every switch of the mode is a fact of its own, with its reason
 *               ◀─release──
 *
 * The mode is in the context and not a state: a fact has no guards, and `mode.switched` goes to any of them.
 */
import { assign, setup } from "xstate"
import { typesOf } from "../../events/envelope.ts"
import { ModeCommand, ModeFact } from "../../events/link.ts"
import type { Mode, ModeSample } from "../../events/link.ts"
import { recorder } from "../../kernel/actor.ts"
import type { ActorKind, Of, Stamped } from "../../kernel/actor.ts"
import { chooseMode, reasonFor, withSample } from "./decide.ts"

type Event = Stamped<ModeCommand> | Stamped<ModeFact>

export interface ModeContext {
  readonly mode: Mode
  readonly forced: Mode | null
  readonly samples: ReadonlyArray<ModeSample>
}

function sampleOf(event: Of<Event, "mode.sample"> | Of<Event, "mode.sampled">): ModeSample {
  const { latencyMs, bandwidthBitsPerSecond, lossPercent, jitterMs } = event
  return { latencyMs, bandwidthBitsPerSecond, lossPercent, jitterMs }
}

const record = recorder<ModeContext, Event, ModeFact>()

const sampled = record("mode.sample", ({ event }) => ({ type: "mode.sampled", ...sampleOf(event) }))
const switchedBySample = record("mode.sample", ({ context, event }) => {
  const samples = withSample(context.samples, sampleOf(event))
  const to = chooseMode(samples, context.mode)
  return { type: "mode.switched", from: context.mode, to, reason: reasonFor(samples) }
})
const forced = record("mode.force", ({ event }) => ({ type: "mode.forced", mode: event.mode }))
const switchedByForce = record("mode.force", ({ context, event }) => ({
  type: "mode.switched",
  from: context.mode,
  to: event.mode,
  reason: `forced to ${event.mode}`
}))
const released = record("mode.release", () => ({ type: "mode.released" }))
const switchedByRelease = record("mode.release", ({ context }) => ({
  type: "mode.switched",
  from: context.mode,
  to: chooseMode(context.samples, context.mode),
  reason: `no longer forced; ${reasonFor(context.samples)}`
}))

const chart = setup({
  types: { context: {} as ModeContext, events: {} as Event, emitted: {} as ModeFact },
  actions: {
    takeSample: assign(({ context, event }) => ({
      samples: withSample(context.samples, sampleOf(event as Of<Event, "mode.sampled">))
    })),
    takeMode: assign(({ event }) => ({ mode: (event as Of<Event, "mode.switched">).to })),
    takeForced: assign(({ event }) => ({ forced: (event as Of<Event, "mode.forced">).mode }))
  },
  guards: {
    sampleSwitches: ({ context, event }) => {
      const samples = withSample(context.samples, sampleOf(event as Of<Event, "mode.sample">))
      return chooseMode(samples, context.mode) !== context.mode
    },
    forceSwitches: ({ context, event }) => (event as Of<Event, "mode.force">).mode !== context.mode,
    releaseSwitches: ({ context }) => chooseMode(context.samples, context.mode) !== context.mode
  }
}).createMachine({
  id: "mode",
  context: { mode: "hybrid", forced: null, samples: [] },
  initial: "automatic",
  on: {
    "mode.sampled": { actions: "takeSample" },
    "mode.switched": { actions: "takeMode" }
  },
  states: {
    automatic: {
      on: {
        "mode.sample": [
          { guard: "sampleSwitches", actions: [sampled, switchedBySample] },
          { actions: sampled }
        ],
        "mode.force": [{ guard: "forceSwitches", actions: [forced, switchedByForce] }, { actions: forced }],
        "mode.forced": { target: "forced", actions: "takeForced" }
      }
    },
    forced: {
      on: {
        "mode.sample": { actions: sampled },
        // Forcing the mode that is forced already records nothing, and is refused by that.
        "mode.force": { guard: "forceSwitches", actions: [forced, switchedByForce] },
        "mode.forced": { actions: "takeForced" },
        "mode.release": [
          { guard: "releaseSwitches", actions: [released, switchedByRelease] },
          { actions: released }
        ],
        "mode.released": { target: "automatic", actions: assign({ forced: null }) }
      }
    }
  }
})

export const modeActor: ActorKind = {
  kind: "mode",
  chart,
  commands: typesOf(ModeCommand),
  reports: [],
  facts: typesOf(ModeFact),
  snapshotVersion: 1
}
