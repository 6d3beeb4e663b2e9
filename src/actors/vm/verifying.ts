/**
 * What a host says of a machine when it takes part again may be old by the time it is heard, so it only raises a
 * doubt: the host is asked for the machine now, and the answer decides. The journal gives way to what is there.
 */
import type { Report, Request } from "../../events/requests.ts"
import type { VmCommand, VmFact, VmState } from "../../events/vm.ts"
import { recorder } from "../../kernel/actor.ts"
import type { Of, Stamped } from "../../kernel/actor.ts"
import { atHost } from "./requests.ts"
import type { VmContext } from "./requests.ts"

type Event = Stamped<VmCommand> | Stamped<Report> | Stamped<VmFact>

const record = recorder<VmContext, Event, VmFact>()

/** It is there, whole, and its guest does not run. */
export const standing: ReadonlyArray<VmState> = ["paused", "incoming", "handed-over"]
export const off: ReadonlyArray<VmState> = ["defined", "absent"]

/** Only believed of the host that the machine is on. */
export const differs = (
  { host }: VmContext,
  event: Of<Event, "vm.observe">,
  expected: ReadonlyArray<VmState>
): boolean => event.host === host && !expected.includes(event.state)

/** Whoever failed at it may have done it, or a part of it, or something else was in the way: the host is asked how it is. */
export const failsInDoubt = (operation: string) => ({
  actions: [
    record("hypervisor.failed", ({ event }) => ({
      type: "vm.operationFailed",
      operation,
      reason: event.reason
    })),
    record("hypervisor.failed", () => ({ type: "vm.doubted" }))
  ]
})

/** What was asked before the guest ended, and done after it was started again: it came too late to be what is wanted now. */
const comesLate = <T extends Report["type"]>(report: T) => ({
  [report]: { actions: record(report, () => ({ type: "vm.doubted" })) }
})
export const late = {
  running: { ...comesLate("hypervisor.paused"), ...comesLate("hypervisor.stopped") },
  paused: { ...comesLate("hypervisor.stopped"), ...comesLate("hypervisor.rebooted") },
  stopped: { ...comesLate("hypervisor.resumed"), ...comesLate("hypervisor.rebooted") }
}

export const doubts = <Guard extends string>(guard: Guard) => ({
  "vm.observe": {
    guard,
    actions: record("vm.observe", ({ event }) => ({ type: "vm.doubted", state: event.state }))
  },
  "vm.doubted": {
    target: "verifying" as const,
    actions: {
      type: "request" as const,
      params: ({ context }: { context: VmContext }): Request => atHost(context, { op: "observe" })
    }
  }
})

const observed = (fact: VmFact) => record("hypervisor.observed", () => fact)
const foundRunning = observed({ type: "vm.foundRunning" })
const foundPaused = observed({ type: "vm.foundPaused" })
const resumes = observed({ type: "vm.resumeRequested" })
const crashed = record("hypervisor.observed", ({ event }) => ({
  type: "vm.crashed",
  reason: event.state === "absent" ? "the host has no such machine any more" : "its host found it not running"
}))
const startsAgain = observed({ type: "vm.startRequested", automatic: true })

/** What follows when it is not running and not standing still. */
const gone = {
  running: [{ guard: "restarts" as const, actions: [crashed, startsAgain] }, { actions: crashed }],
  paused: [{ actions: crashed }],
  stopped: [{ actions: observed({ type: "vm.foundStopped" }) }]
}

/** The state within `origin` in which the host's answer is waited for; `idle` is its sibling. */
export const verifying = (origin: keyof typeof gone) => ({
  on: {
    "hypervisor.observed": [
      { guard: "runsThere" as const, actions: foundRunning },
      // A guest that should run and stands still was not told to go on: a migration's answer was lost.
      { guard: "standsThere" as const, actions: origin === "running" ? [foundPaused, resumes] : foundPaused },
      ...gone[origin]
    ],
    "hypervisor.failed": {
      actions: record("hypervisor.failed", ({ event }) => ({
        type: "vm.operationFailed",
        operation: "observe",
        reason: event.reason
      }))
    },
    "vm.foundRunning": { target: "#vm.running" as const, actions: "countRun" as const },
    "vm.foundPaused": { target: "#vm.paused" as const },
    "vm.foundStopped": { target: "#vm.stopped" as const },
    "vm.crashed": { target: "#vm.stopped" as const, actions: "countCrash" as const },
    "vm.operationFailed": { target: "idle" as const }
  }
})
