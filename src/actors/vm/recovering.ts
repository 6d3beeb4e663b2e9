/**
 * The machine's host is fenced: nothing runs there any more. A machine that may start on another host is placed again, as often
 * as it takes and within a limit; one that may not says why, and waits for its host.
 *
 *   starting, running, resuming, stopped that was to run ──fenced──▶ placing ─▶ defining ─▶ starting
 *                                                                      │ no host, or it could not be made there
 *                                                                      ▼
 *                                                         unplaced ─a while later─▶ placing
 */
import type { Report, Request } from "../../events/requests.ts"
import { staysWithHost } from "../../events/vm.ts"
import type { VmCommand, VmFact, VmSpec } from "../../events/vm.ts"
import { recorder } from "../../kernel/actor.ts"
import type { Of, Stamped } from "../../kernel/actor.ts"
import { askPlacement, releaseRoom } from "./requests.ts"
import type { VmContext } from "./requests.ts"

type Event = Stamped<VmCommand> | Stamped<Report> | Stamped<VmFact>

const record = recorder<VmContext, Event, VmFact>()

/** Some eight hours, by the pauses below. */
const attempts_max = 100
const firstPauseMs = 5000
const pauseMs_max = 300_000

/** Before it is tried again after the attempt of this number, from 1. */
const pauseMs = (attempt: number): number => Math.min(pauseMs_max, firstPauseMs * 2 ** (attempt - 1))

export const isRecovering = ({ recovering }: VmContext): boolean => recovering > 0
export const mayRecoverLater = ({ recovering }: VmContext): boolean =>
  recovering > 0 && recovering < attempts_max

/** Said of the host that it is on, and before it was asked to run again: the host may be back, and run it. */
const isMeant = ({ host, runs }: VmContext, event: Of<Event, "vm.fence">): boolean =>
  event.host === host && event.runs === runs

export const leavesHost = (context: VmContext, event: Of<Event, "vm.fence">): boolean =>
  isMeant(context, event) && staysWithHost(context.spec as VmSpec) === null
export const waitsForHost = (context: VmContext, event: Of<Event, "vm.fence">): boolean =>
  isMeant(context, event) &&
  staysWithHost(context.spec as VmSpec) !== null &&
  context.waitsFor !== `${event.host}/${event.loss}`

const fenced = record("vm.fence", ({ event: { host, reason } }) => ({ type: "vm.fenced", host, reason }))
const waits = record("vm.fence", ({ context, event: { host, loss } }) => ({
  type: "vm.waitsForHost",
  host,
  loss,
  reason: staysWithHost(context.spec as VmSpec) as string
}))

const forget = ({ event }: { readonly event: Of<VmFact, "vm.fenced"> }): Request => ({
  port: "agents",
  op: "forget",
  host: event.host
})
/** What lies there is removed when the host is back; it must not be taken up again. */
const leaveBehind = ({ context }: { readonly context: VmContext }): Request =>
  releaseRoom(context, "its host was fenced, and it was to start elsewhere")

const ask = ({ context }: { readonly context: VmContext }): Request => askPlacement(context)

const leaving = {
  "vm.fenced": {
    target: "#vm.placing" as const,
    actions: [
      { type: "request", params: forget },
      { type: "request", params: leaveBehind },
      "leaveHost",
      { type: "request", params: ask }
    ] as never
  },
  "vm.waitsForHost": { actions: "waitForHost" as const }
}

/** In the states of a machine that runs, or is about to. */
export const meetsFence = {
  "vm.fence": [
    { guard: "leavesHost" as const, actions: fenced },
    { guard: "waitsForHost" as const, actions: waits }
  ],
  ...leaving
}
/** Of a stopped one: it may be stopped only because its host did not answer when it was started. */
export const meetsFenceStopped = {
  "vm.fence": [
    { guard: "leavesHostAndWasToRun" as const, actions: fenced },
    { guard: "waitsForHostAndWasToRun" as const, actions: waits }
  ],
  ...leaving
}

export const recoveryDelayed = <T extends "vm.refusePlacement" | "hypervisor.failed">(input: T) =>
  record(input, ({ context: { recovering } }) => ({
    type: "vm.recoveryDelayed",
    attempt: recovering,
    afterMs: pauseMs(recovering)
  }))

/** In the state of a machine that no host could take. */
export const triesAgain = {
  "vm.recoveryDelayed": {
    actions: {
      type: "request" as const,
      params: ({ event }: { readonly event: { readonly afterMs: number } }): Request => ({
        port: "timer",
        op: "start",
        name: "recover",
        afterMs: event.afterMs
      })
    }
  },
  "timer.fired": {
    guard: "isRecovering" as const,
    actions: record("timer.fired", () => ({ type: "vm.startRequested", automatic: true }))
  }
}
/** A start that somebody else asks for begins to count anew. */
export const nextAttempt = ({ recovering }: VmContext, automatic: boolean): number =>
  recovering === 0 ? 0 : automatic ? recovering + 1 : 1
