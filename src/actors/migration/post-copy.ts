/** The guest runs at the destination while its memory still comes: what is different then. */
import { clearSource } from "./requests.ts"
import { ask, failedOp, record } from "./steps.ts"

export const progressed = record("hypervisor.progressed", ({ event }) => ({
  type: "migration.progressed",
  progress: event.progress
}))

/** How far the rest of it is, after the hand-over. */
export const byPostCopy = {
  "hypervisor.progressed": { guard: "isPostCopy" as const, actions: progressed },
  "migration.progressed": {}
}

const lossOf = (reason: string): string =>
  `the guest ran at the destination, and the rest of its memory did not come: ${reason}`.slice(0, 4096)

/** Nothing more will be sent. Only the destination knows whether that was all, and ends what is not whole. */
export const settlingArrival = {
  on: {
    "hypervisor.arrivalSettled": [
      {
        guard: "isWhole" as const,
        actions: record("hypervisor.arrivalSettled", () => ({ type: "migration.arrivalConfirmed" }))
      },
      {
        actions: record("hypervisor.arrivalSettled", ({ context }) => ({
          type: "migration.guestLost",
          reason: lossOf(context.reason)
        }))
      }
    ],
    "hypervisor.failed": {
      guard: failedOp("settleArrival"),
      actions: record("hypervisor.failed", ({ context, event }) => ({
        type: "migration.guestLost",
        reason: lossOf(`${context.reason}; it is not known to be ended: ${event.reason}`)
      }))
    },
    "migration.arrivalConfirmed": { target: "clearing" as const, actions: ask(clearSource) },
    "migration.guestLost": {
      target: "clearing" as const,
      actions: ["noteLoss" as const, ask(clearSource)]
    }
  }
}
