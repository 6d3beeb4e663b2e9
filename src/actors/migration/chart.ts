/**
 * One move of a running machine, from the question to exactly one of completed, cancelled and failed.
 *
 *   idle ─▶ locking ─▶ placing ─▶ checking ─▶ preparing ─▶ transferring ─handedOver─▶ switching ─▶ clearing ─▶ unlocking
 *              │          │           │           │              │                        │                        │
 *              ▼          ▼           └───────────┴──────┬───────┘    never ran there     │                        ▼
 *            failed    unlocking                   rolling back ◀─────────────────────────┘                    completed
 *                                 stopping ─▶ clearing the destination ─▶ resuming the source ─▶ unlocking ─▶ cancelled, failed
 *
 * Two rules keep one machine from running twice. Before the hand-over the destination is paused and nothing asks
 * it to run. After it the guest is run at the destination only, and again at the source only when the destination
 * says that it has never run there and is gone.
 *
 * By post-copy the guest runs at the destination while its memory still comes. When nothing more will come the
 * destination is asked whether that was all; it ends a guest that is not whole, the migration has failed, and the
 * machine starts again from its disks as its policy says:
 *
 *     changing owner ─arrivalDoubted─▶ settling the arrival ─whole or lost─▶ clearing ─▶ unlocking ─▶ completed, failed
 */
import { assign, setup } from "xstate"
import { typesOf } from "../../events/envelope.ts"
import { MigrationCommand, MigrationFact } from "../../events/migration.ts"
import type { Request } from "../../events/requests.ts"
import type { ActorKind, Of } from "../../kernel/actor.ts"
import { byPostCopy, progressed, settlingArrival } from "./post-copy.ts"
import {
  askPlacement,
  checkDestination,
  clearSource,
  handOver,
  lock,
  migrate,
  none,
  prepare,
  releaseSource,
  resumeDestination,
  settleArrival,
  stopTransfer,
  unlock
} from "./requests.ts"
import type { MigrationContext } from "./requests.ts"
import { ask, failedOp, handedOver, record } from "./steps.ts"
import type { Event, Failed } from "./steps.ts"
import { takingBack } from "./taking-back.ts"

const rollBack = (why: string) =>
  record("hypervisor.failed", ({ event }) => ({
    type: "migration.rollingBack",
    outcome: "failed",
    reason: `${why}: ${event.reason}`
  }))
/** A cancel that waited for an answer which had to be known first. */
const rollBackCancelled = record("migration.cancel", ({ context }) => ({
  type: "migration.rollingBack",
  outcome: "cancelled",
  reason: context.cancelReason
}))
const givenUpCancelled = ({ cancelReason }: MigrationContext) =>
  ({ type: "migration.givenUp", outcome: "cancelled", reason: cancelReason }) as const
const givesUp = { target: "unlocking", actions: ["noteOutcome", ask(unlock)] as never }
const noteCancel = record("migration.cancel", ({ event }) => ({
  type: "migration.cancelRequested",
  reason: event.reason
}))
const cancelWaits = {
  "migration.cancel": { guard: "notCancelled" as const, actions: noteCancel },
  "migration.cancelRequested": { actions: "noteCancel" as const }
}
const startsRollingBack = { target: "stopping", actions: ["noteOutcome", ask(stopTransfer)] as never }
const askHandOver = { target: "changingOwner" as const, actions: ask(handOver) }
const clearing = record("actor.accepted", () => ({ type: "migration.sourceClearing" }))
const measuredNow = record("hypervisor.migrated", ({ event }) => ({
  type: "migration.measured",
  totalMs: event.totalMs,
  downtimeMs: event.downtimeMs,
  transferredBytes: event.transferredBytes
}))
const notMeasured = record("hypervisor.failed", ({ event }) => ({
  type: "migration.notMeasured",
  reason: event.reason
}))
const arrivalDoubted = record("hypervisor.failed", ({ event }) => ({
  type: "migration.arrivalDoubted",
  reason: event.reason
}))
const givenUpByOperator = record("migration.cancel", ({ event }) => ({
  type: "migration.arrivalDoubted",
  reason: event.reason === "" ? "given up" : `given up: ${event.reason}`
}))
const ownerChanged = record("actor.accepted", () => ({ type: "migration.ownerChanged" }))

const chart = setup({
  types: { context: {} as MigrationContext, events: {} as Event, emitted: {} as MigrationFact },
  actions: {
    request: (_, _params: Request) => {},
    noteCancel: assign(({ event }) => ({
      cancelled: true,
      cancelReason: (event as Of<Event, "migration.cancelRequested">).reason
    })),
    noteOutcome: assign(({ event }) => {
      const { outcome, reason } = event as Of<Event, "migration.rollingBack" | "migration.givenUp">
      return { outcome, reason }
    }),
    noteHandedOver: assign(({ event }) => ({
      postCopy: (event as Of<Event, "migration.handedOver">).postCopy === true,
      // By post-copy also a cancel may have come too late.
      outcome: "completed" as const,
      reason: ""
    })),
    noteDoubt: assign({ doubtful: true }),
    noteLoss: assign(({ event }) => ({
      outcome: "failed" as const,
      reason: (event as Of<Event, "migration.guestLost">).reason,
      doubtful: true
    })),
    noteKept: assign(({ event }) => ({
      doubtful: (event as Of<Event, "migration.sourceKept">).trouble !== ""
    })),
    noteNotMeasured: assign(({ context, event }) => ({
      measured: true,
      lost: context.postCopy,
      reason: (event as Of<Event, "migration.notMeasured">).reason
    }))
  },
  guards: {
    notCancelled: ({ context }) => !context.cancelled,
    cancelled: ({ context }) => context.cancelled,
    hasBlockers: ({ event }) => (event as Of<Event, "hypervisor.checked">).blockers.length > 0,
    answersOp: ({ event }, { op }: { op: string }) => (event as Failed).op === op,
    neverRan: ({ event }) => (event as Failed).op === "resume" && (event as Failed).code === "not-found",
    sourceAnswers: ({ context, event }) => (event as Failed).op === "migrate" && context.ownerChanged,
    ownerIsChanged: ({ context }) => context.ownerChanged,
    isPostCopy: ({ context }) => context.postCopy,
    sourceAnswersLost: ({ context, event }) =>
      (event as Failed).op === "migrate" && context.ownerChanged && context.postCopy,
    forced: ({ context, event }) =>
      context.postCopy && context.ownerChanged && (event as Of<Event, "migration.cancel">).force === true,
    isComing: ({ context }) => context.postCopy && context.ownerChanged,
    isLost: ({ context, event }) =>
      context.lost && (event as Of<Event, "actor.accepted">).command === "vm.handOver",
    isMeasured: ({ context, event }) =>
      context.measured && (event as Of<Event, "actor.accepted">).command === "vm.handOver",
    acceptsHandOver: ({ event }) => (event as Of<Event, "actor.accepted">).command === "vm.handOver",
    acceptsUnlock: ({ event }) => (event as Of<Event, "actor.accepted">).command === "vm.unlock",
    tellsPostCopy: ({ event }) => (event as Of<Event, "hypervisor.handedOver">).postCopy === true,
    isWhole: ({ event }) => (event as Of<Event, "hypervisor.arrivalSettled">).whole,
    keepsNot: ({ event }) => ["resume", "stop"].includes((event as Failed).op),
    refusesLockCancelled: ({ context, event }) =>
      context.cancelled && (event as Of<Event, "actor.refused">).command === "vm.lock",
    refusesLock: ({ event }) => (event as Of<Event, "actor.refused">).command === "vm.lock",
    endsCancelled: ({ context, event }) =>
      (event as Of<Event, "actor.accepted">).command === "vm.unlock" && context.outcome === "cancelled",
    endsFailed: ({ context, event }) =>
      (event as Of<Event, "actor.accepted">).command === "vm.unlock" && context.outcome === "failed"
  }
}).createMachine({
  id: "migration",
  context: none,
  initial: "idle",
  states: {
    idle: {
      on: {
        "migration.request": {
          actions: record("migration.request", ({ event }) => ({
            type: "migration.requested",
            migration: event.stamp.self.slice("migration/".length),
            vm: event.vm,
            ...(event.to === undefined ? {} : { to: event.to }),
            policy: event.policy,
            reason: event.reason
          }))
        },
        "migration.requested": {
          target: "locking",
          actions: [
            assign(({ event }) => ({
              id: event.migration,
              vm: event.vm,
              pinned: event.to ?? null,
              policy: event.policy
            })),
            ask(lock)
          ]
        }
      }
    },
    locking: {
      on: {
        ...cancelWaits,
        "migration.begin": [
          {
            guard: "cancelled",
            actions: record("migration.begin", ({ context }) => givenUpCancelled(context))
          },
          {
            actions: record("migration.begin", ({ event }) => ({
              type: "migration.begun",
              from: event.from,
              decision: event.decision,
              spec: event.spec,
              ...(event.platform === undefined ? {} : { platform: event.platform })
            }))
          }
        ],
        "migration.begun": {
          target: "placing",
          actions: [
            assign(({ event: { from, decision, spec, platform = null } }) => ({
              ...{ from, spec, platform },
              sourceDecision: decision
            })),
            ask(askPlacement)
          ]
        },
        "actor.refused": [
          {
            guard: "refusesLockCancelled",
            actions: record("actor.refused", ({ context }) => ({
              type: "migration.cancelled",
              reason: context.cancelReason
            }))
          },
          {
            guard: "refusesLock",
            actions: record("actor.refused", ({ event }) => ({
              type: "migration.failed",
              reason: event.reason
            }))
          }
        ],
        "migration.givenUp": givesUp,
        "migration.cancelled": { target: "cancelled" },
        "migration.failed": { target: "failed" }
      }
    },
    placing: {
      on: {
        ...cancelWaits,
        "migration.place": [
          { guard: "cancelled", actions: [placed(), rollBackCancelled] },
          { actions: placed() }
        ],
        "migration.placed": {
          target: "checking",
          actions: [
            assign(({ event }) => ({ to: event.to, address: event.address, decision: event.decision })),
            ask(checkDestination)
          ]
        },
        "migration.refusePlacement": [
          {
            guard: "cancelled",
            actions: record("migration.refusePlacement", ({ context }) => givenUpCancelled(context))
          },
          {
            actions: record("migration.refusePlacement", ({ event }) => ({
              type: "migration.givenUp",
              outcome: "failed",
              reason: event.reason
            }))
          }
        ],
        "migration.givenUp": givesUp
      }
    },
    checking: {
      on: {
        ...cancelWaits,
        "hypervisor.checked": [
          { guard: "cancelled", actions: rollBackCancelled },
          {
            guard: "hasBlockers",
            actions: record("hypervisor.checked", ({ event }) => ({
              type: "migration.rollingBack",
              outcome: "failed",
              reason: `the destination can't take it: ${event.blockers.join("; ")}`.slice(0, 4000)
            }))
          },
          { actions: record("hypervisor.checked", () => ({ type: "migration.checked" })) }
        ],
        "hypervisor.failed": { actions: rollBack("the destination could not be checked") },
        "migration.checked": { target: "preparing", actions: ask(prepare) },
        "migration.rollingBack": startsRollingBack
      }
    },
    preparing: {
      on: {
        ...cancelWaits,
        "hypervisor.incomingPrepared": [
          { guard: "cancelled", actions: rollBackCancelled },
          {
            actions: record("hypervisor.incomingPrepared", ({ event }) => ({
              type: "migration.prepared",
              channels: event.channels
            }))
          }
        ],
        "hypervisor.failed": { actions: rollBack("the destination could not be prepared") },
        "migration.prepared": {
          target: "transferring",
          actions: [assign(({ event }) => ({ channels: event.channels })), ask(migrate)]
        },
        "migration.rollingBack": startsRollingBack
      }
    },
    transferring: {
      on: {
        "migration.cancel": {
          actions: [
            noteCancel,
            record("migration.cancel", ({ event }) => ({
              type: "migration.rollingBack",
              outcome: "cancelled",
              reason: event.reason
            }))
          ]
        },
        "migration.cancelRequested": { actions: "noteCancel" },
        "hypervisor.progressed": { actions: progressed },
        "migration.progressed": {},
        "hypervisor.handedOver": { actions: handedOver },
        "hypervisor.failed": { guard: failedOp("migrate"), actions: rollBack("the transfer failed") },
        "migration.handedOver": {
          target: "switching",
          actions: ["noteHandedOver", ask(resumeDestination)]
        },
        "migration.rollingBack": startsRollingBack
      }
    },
    /** The guest stands still until the destination has resumed it. Cancelling is over: both answers are known soon. */
    switching: {
      on: {
        ...byPostCopy,
        "hypervisor.resumed": {
          actions: record("hypervisor.resumed", () => ({ type: "migration.resumed" }))
        },
        "hypervisor.migrated": { actions: measuredNow },
        "hypervisor.failed": [
          {
            guard: "neverRan",
            actions: rollBack("the destination's machine was gone before it ran")
          },
          {
            guard: failedOp("resume"),
            actions: record("hypervisor.failed", ({ event }) => ({
              type: "migration.destinationLost",
              reason: event.reason
            }))
          },
          { guard: failedOp("migrate"), actions: notMeasured }
        ],
        "migration.measured": { actions: assign({ measured: true }) },
        "migration.notMeasured": { actions: "noteNotMeasured" },
        "migration.resumed": askHandOver,
        "migration.destinationLost": {
          ...askHandOver,
          actions: ["noteDoubt", ask(handOver)]
        },
        "migration.rollingBack": startsRollingBack
      }
    },
    changingOwner: {
      on: {
        ...byPostCopy,
        "actor.accepted": [
          {
            guard: "isLost",
            actions: [
              ownerChanged,
              record("actor.accepted", ({ context }) => ({
                type: "migration.arrivalDoubted",
                reason: context.reason
              }))
            ]
          },
          { guard: "isMeasured", actions: [ownerChanged, clearing] },
          { guard: "acceptsHandOver", actions: ownerChanged }
        ],
        "hypervisor.migrated": [
          { guard: "ownerIsChanged", actions: [measuredNow, clearing] },
          { actions: measuredNow }
        ],
        "migration.cancel": { guard: "forced", actions: [noteCancel, givenUpByOperator] },
        "migration.cancelRequested": { actions: "noteCancel" },
        "migration.reportCrash": {
          guard: "isComing",
          actions: record("migration.reportCrash", ({ event }) => ({
            type: "migration.arrivalDoubted",
            reason: event.reason
          }))
        },
        "hypervisor.failed": [
          { guard: "sourceAnswersLost", actions: [notMeasured, arrivalDoubted] },
          { guard: "sourceAnswers", actions: [notMeasured, clearing] },
          { guard: failedOp("migrate"), actions: notMeasured }
        ],
        "migration.measured": { actions: assign({ measured: true }) },
        "migration.notMeasured": { actions: "noteNotMeasured" },
        "migration.ownerChanged": { actions: assign({ ownerChanged: true }) },
        "migration.sourceClearing": { target: "clearing", actions: ask(clearSource) },
        "migration.arrivalDoubted": {
          target: "settlingArrival",
          actions: [assign(({ event }) => ({ reason: event.reason })), ask(settleArrival)]
        }
      }
    },
    settlingArrival,
    clearing: {
      on: {
        "hypervisor.removed": {
          actions: record("hypervisor.removed", () => ({ type: "migration.sourceCleared", leftover: "" }))
        },
        "hypervisor.failed": {
          guard: failedOp("remove"),
          actions: record("hypervisor.failed", ({ event }) => ({
            type: "migration.sourceCleared",
            leftover: event.reason
          }))
        },
        "migration.sourceCleared": {
          target: "unlocking",
          actions: [
            {
              type: "request",
              params: ({ context, event }) => releaseSource(context, event.leftover)
            },
            ask(unlock)
          ]
        }
      }
    },
    ...takingBack,
    unlocking: {
      on: {
        "actor.accepted": [
          {
            guard: "endsCancelled",
            actions: record("actor.accepted", ({ context }) => ({
              type: "migration.cancelled",
              reason: context.reason
            }))
          },
          {
            guard: "endsFailed",
            actions: record("actor.accepted", ({ context }) => ({
              type: "migration.failed",
              reason: context.reason
            }))
          },
          {
            guard: "acceptsUnlock",
            actions: record("actor.accepted", () => ({ type: "migration.completed" }))
          }
        ],
        "migration.completed": { target: "completed" },
        "migration.cancelled": { target: "cancelled" },
        "migration.failed": { target: "failed" }
      }
    },
    completed: {},
    cancelled: {},
    failed: {}
  }
})

function placed() {
  return record("migration.place", ({ event }) => ({
    type: "migration.placed",
    to: event.host,
    address: event.address,
    decision: event.decision
  }))
}

export const migrationActor: ActorKind = {
  kind: "migration",
  chart,
  commands: typesOf(MigrationCommand),
  reports: [
    "actor.accepted",
    "actor.refused",
    "hypervisor.checked",
    "hypervisor.incomingPrepared",
    "hypervisor.progressed",
    "hypervisor.handedOver",
    "hypervisor.migrated",
    "hypervisor.migrationCancelled",
    "hypervisor.incomingAbandoned",
    "hypervisor.resumed",
    "hypervisor.removed",
    "hypervisor.stopped",
    "hypervisor.arrivalSettled",
    "hypervisor.failed"
  ],
  facts: typesOf(MigrationFact),
  snapshotVersion: 4
}
