/**
 * A migration is taken back: nothing is sent any more, the destination is cleared, and only then does the guest go on at
 * the source. By post-copy it can't: its memory is on both sides, so what is left of it is ended.
 */
import type { Request } from "../../events/requests.ts"
import { abandonDestination, keepSource, releaseDestination, resumeDestination, unlock } from "./requests.ts"
import type { MigrationContext } from "./requests.ts"
import { ask, failedOp, handedOver, record } from "./steps.ts"

interface Cleared {
  readonly context: MigrationContext
  readonly event: { readonly leftover: string }
}
const release = {
  type: "request" as const,
  params: ({ context, event }: Cleared): Request => releaseDestination(context, event.leftover)
}

export const takingBack = {
  stopping: {
    on: {
      "hypervisor.migrationCancelled": {
        actions: record("hypervisor.migrationCancelled", () => ({ type: "migration.transferStopped" }))
      },
      "hypervisor.failed": {
        guard: failedOp("cancelMigration"),
        actions: record("hypervisor.failed", () => ({ type: "migration.transferStopped" }))
      },
      // It was too late: the guest can only go on at the destination.
      "hypervisor.handedOver": { guard: "tellsPostCopy" as const, actions: handedOver },
      "migration.handedOver": {
        target: "switching" as const,
        actions: ["noteHandedOver" as const, ask(resumeDestination)]
      },
      "migration.transferStopped": {
        target: "clearingDestination" as const,
        actions: ask(abandonDestination)
      }
    }
  },
  clearingDestination: {
    on: {
      "hypervisor.incomingAbandoned": {
        actions: record("hypervisor.incomingAbandoned", () => ({
          type: "migration.destinationCleared",
          leftover: ""
        }))
      },
      "hypervisor.failed": {
        guard: failedOp("abandonIncoming"),
        actions: record("hypervisor.failed", ({ event }) => ({
          type: "migration.destinationCleared",
          leftover: event.reason
        }))
      },
      "migration.destinationCleared": {
        target: "resumingSource" as const,
        actions: [release, ask(keepSource)]
      }
    }
  },
  resumingSource: {
    on: {
      "hypervisor.stopped": {
        actions: record("hypervisor.stopped", () => ({
          type: "migration.sourceKept",
          trouble: "by post-copy, its memory was on both sides: it has to start again"
        }))
      },
      "hypervisor.resumed": {
        actions: record("hypervisor.resumed", () => ({ type: "migration.sourceKept", trouble: "" }))
      },
      "hypervisor.failed": {
        guard: "keepsNot" as const,
        actions: record("hypervisor.failed", ({ event }) => ({
          type: "migration.sourceKept",
          trouble: event.reason
        }))
      },
      "migration.sourceKept": {
        target: "unlocking" as const,
        actions: ["noteKept" as const, ask(unlock)]
      }
    }
  }
}
