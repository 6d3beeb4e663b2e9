/**
 * A virtual machine from its creation to its removal. It owns its place: only this actor says on which host the
 * machine is, and it is on one.
 *
 *   absent ─create▶ placing ─place▶ defining ─▶ stopped ─start▶ starting ─▶ running ─lock▶ migrating
 *     ▲                │ no host      │failed      │  ▲             │failed    │  ▲ unlock      │
 *     │                ▼              ▼            │  └─────────────┘          │  └─────────────┘
 *     │             unplaced ◀────────┘            │delete                     ├ stop, pause, reboot, snapshot …
 *     │                                            │                           ├ its host is fenced ▶ placing, or it waits
 *     └──────────────┴──deleting◀──────────────────┘                           └ crash ▶ starting, or stopped
 */
import { assign, setup } from "xstate"
import type { Report, Request } from "../../events/requests.ts"
import { typesOf } from "../../events/envelope.ts"
import { VmCommand, VmFact } from "../../events/vm.ts"
import type { VmSpec } from "../../events/vm.ts"
import { recorder } from "../../kernel/actor.ts"
import type { ActorKind, Of } from "../../kernel/actor.ts"
import {
  askPlacement,
  atHost,
  platformOf,
  releaseRoom,
  stopAtHost,
  tell,
  tellCrash,
  unborn,
  crashCounted
} from "./requests.ts"
import { crashed, crashedFact, ended, opensConsole } from "./guest.ts"
import { guards } from "./guards.ts"
import type { Event } from "./guards.ts"
import { meetsFence, meetsFenceStopped, nextAttempt, recoveryDelayed, triesAgain } from "./recovering.ts"
import type { VmContext } from "./requests.ts"
import { snapshotting, takesSnapshot } from "./snapshots.ts"
import { doubts, failsInDoubt, late, verifying } from "./verifying.ts"

const record = recorder<VmContext, Event, VmFact>()

const fails = (operation: string) => ({
  actions: record("hypervisor.failed", ({ event }) => ({
    type: "vm.operationFailed",
    operation,
    reason: event.reason
  }))
})
/** A report that only confirms what was asked. */
const confirms = <T extends Report["type"]>(report: T, fact: VmFact) => ({
  actions: record(report, () => fact)
})
const requested = <T extends VmCommand["type"]>(command: T, fact: VmFact) => ({
  actions: record(command, () => fact)
})

const unlocked = record("vm.unlock", ({ event }) => ({ type: "vm.unlocked", migration: event.migration }))
const doubtsUnlocked = record("vm.unlock", () => ({ type: "vm.doubted", state: "handed-over" }))

const notPlaced = record("vm.refusePlacement", ({ event }) => ({
  type: "vm.notPlaced",
  decision: event.decision,
  reason: event.reason
}))
const notDefined = fails("create").actions

const chart = setup({
  types: { context: {} as VmContext, events: {} as Event, emitted: {} as VmFact },
  actions: {
    request: (_, _params: Request) => {},
    countCrash: assign(({ context, event }) => crashCounted(context, event.stamp.timeMs)),
    nameSnapshot: assign(({ event }) => ({
      snapshot: (event as Of<Event, "vm.snapshotRequested" | "vm.restoreRequested">).snapshot
    })),
    keepSnapshot: assign(({ context, event }) => ({
      snapshots: [...context.snapshots, (event as Of<Event, "vm.snapshotTaken">).snapshot]
    })),
    countStart: assign(({ context, event }) => ({
      crashes: (event as Of<Event, "vm.startRequested">).automatic ? context.crashes : 0,
      runs: context.runs + 1,
      wanted: true
    })),
    countRun: assign(({ context }) => ({ runs: context.runs + 1 })),
    stopped: assign({ wanted: false }),
    settled: assign({ recovering: 0 }),
    leaveHost: assign(({ context }) => ({
      ...{ host: null, decision: null, cloneOf: null, pinned: null, start: true },
      ...{ recovering: 1, decisions: context.decisions + 1 }
    })),
    waitForHost: assign(({ event }) => {
      const { host, loss } = event as Of<Event, "vm.waitsForHost">
      return { waitsFor: `${host}/${loss}` }
    })
  },
  guards
}).createMachine({
  id: "vm",
  context: unborn,
  initial: "absent",
  states: {
    absent: {
      on: {
        "vm.create": {
          actions: record("vm.create", ({ event }) => ({
            type: "vm.created",
            name: event.stamp.self.slice("vm/".length),
            spec: event.spec,
            ...(event.host === undefined ? {} : { host: event.host }),
            start: event.start,
            ...(event.cloneOf === undefined ? {} : { cloneOf: event.cloneOf })
          }))
        },
        "vm.created": {
          target: "placing",
          actions: [
            assign(({ context, event }) => ({
              name: event.name,
              spec: event.spec,
              cloneOf: event.cloneOf ?? null,
              pinned: event.host ?? null,
              start: event.start,
              decisions: context.decisions + 1
            })),
            { type: "request", params: ({ context }) => askPlacement(context) }
          ]
        }
      }
    },
    placing: {
      on: {
        "vm.place": {
          actions: record("vm.place", ({ event }) => ({
            type: "vm.placed",
            host: event.host,
            decision: event.decision
          }))
        },
        "vm.refusePlacement": [
          { guard: "mayRecoverLater", actions: [notPlaced, recoveryDelayed("vm.refusePlacement")] },
          { actions: notPlaced }
        ],
        "vm.placed": {
          target: "defining",
          actions: [
            assign(({ event }) => ({ host: event.host, decision: event.decision })),
            {
              type: "request",
              params: ({ context }) =>
                atHost(context, {
                  op: "define",
                  spec: context.spec as VmSpec,
                  ...(context.cloneOf ? { cloneOf: context.cloneOf } : {})
                })
            }
          ]
        },
        "vm.notPlaced": { target: "unplaced" }
      }
    },
    /** No host could take it. Starting it asks again; deleting it is immediate. */
    unplaced: {
      on: {
        ...triesAgain,
        "vm.start": requested("vm.start", { type: "vm.startRequested", automatic: false }),
        "vm.startRequested": {
          target: "placing",
          actions: [
            assign(({ context, event }) => ({
              ...{ start: true, decisions: context.decisions + 1 },
              recovering: nextAttempt(context, event.automatic)
            })),
            { type: "request", params: ({ context }) => askPlacement(context) }
          ]
        },
        "vm.delete": requested("vm.delete", { type: "vm.deleted" }),
        "vm.deleted": { target: "absent", actions: "settled" }
      }
    },
    defining: {
      on: {
        "hypervisor.defined": [
          {
            guard: "startsAtOnce",
            actions: [
              record("hypervisor.defined", () => ({ type: "vm.defined" })),
              record("hypervisor.defined", () => ({ type: "vm.startRequested", automatic: false }))
            ]
          },
          confirms("hypervisor.defined", { type: "vm.defined" })
        ],
        "hypervisor.failed": [
          { guard: "mayRecoverLater", actions: [notDefined, recoveryDelayed("hypervisor.failed")] },
          { actions: notDefined }
        ],
        "vm.defined": { target: "stopped" },
        "vm.operationFailed": {
          target: "unplaced",
          actions: [
            { type: "request", params: ({ context, event }) => releaseRoom(context, event.reason) },
            assign({ host: null, decision: null })
          ]
        }
      }
    },
    stopped: {
      initial: "idle",
      on: {
        ...meetsFenceStopped,
        "vm.startRequested": {
          target: "starting",
          actions: [
            "countStart",
            { type: "request", params: ({ context }) => atHost(context, { op: "start" }) }
          ]
        }
      },
      states: {
        verifying: verifying("stopped"),
        idle: {
          on: {
            ...doubts("isNotStopped"),
            ...late.stopped,
            "vm.start": requested("vm.start", { type: "vm.startRequested", automatic: false }),
            ...takesSnapshot,
            "vm.restore": {
              guard: "hasSnapshot",
              actions: record("vm.restore", ({ event }) => ({
                type: "vm.restoreRequested",
                snapshot: event.snapshot
              }))
            },
            "vm.restoreRequested": {
              target: "restoring",
              actions: [
                "nameSnapshot",
                {
                  type: "request",
                  params: ({ context, event }) => atHost(context, { op: "restore", snapshot: event.snapshot })
                }
              ]
            },
            "vm.delete": requested("vm.delete", { type: "vm.deleteRequested" }),
            "vm.deleteRequested": {
              target: "#vm.deleting",
              actions: { type: "request", params: ({ context }) => atHost(context, { op: "remove" }) }
            }
          }
        },
        snapshotting: snapshotting("idle"),
        restoring: {
          on: {
            "hypervisor.restored": {
              actions: record("hypervisor.restored", ({ context }) => ({
                type: "vm.restored",
                snapshot: context.snapshot as string
              }))
            },
            "hypervisor.failed": fails("restore"),
            "vm.restored": { target: "idle" },
            "vm.operationFailed": { target: "idle" }
          }
        }
      }
    },
    starting: {
      on: {
        "hypervisor.started": {
          actions: record("hypervisor.started", ({ event }) => ({
            type: "vm.started",
            accelerator: event.accelerator,
            ...(event.machine === undefined ? {} : { machine: event.machine })
          }))
        },
        "hypervisor.failed": failsInDoubt("start"),
        "vm.started": {
          target: "running",
          actions: assign(({ event }) => ({ platform: platformOf(event), recovering: 0 }))
        },
        "vm.operationFailed": { target: "stopped", actions: "settled" },
        ...meetsFence
      }
    },
    running: {
      initial: "idle",
      on: {
        ...opensConsole,
        ...meetsFence,
        "vm.reportEnded": ended,
        "vm.stopped": { target: "stopped", actions: "stopped" },
        "vm.crashed": crashedFact
      },
      states: {
        verifying: verifying("running"),
        idle: {
          on: {
            ...doubts("isNotRunning"),
            ...late.running,
            "vm.stop": {
              actions: record("vm.stop", ({ event }) => ({ type: "vm.stopRequested", force: event.force }))
            },
            "vm.stopRequested": { target: "#vm.stopping", actions: { type: "request", params: stopAtHost } },
            "vm.pause": requested("vm.pause", { type: "vm.pauseRequested" }),
            "vm.pauseRequested": {
              target: "pausing",
              actions: { type: "request", params: ({ context }) => atHost(context, { op: "pause" }) }
            },
            "vm.reboot": requested("vm.reboot", { type: "vm.rebootRequested" }),
            "vm.rebootRequested": {
              target: "rebooting",
              actions: { type: "request", params: ({ context }) => atHost(context, { op: "reboot" }) }
            },
            ...takesSnapshot,
            "vm.lock": {
              actions: record("vm.lock", ({ event }) => ({ type: "vm.locked", migration: event.migration }))
            },
            "vm.locked": {
              target: "#vm.migrating",
              actions: [
                assign(({ event }) => ({ migration: event.migration, crashedWhileMigrating: false })),
                {
                  type: "request",
                  params: ({ context, event }) =>
                    tell(`migration/${event.migration}`, {
                      type: "migration.begin",
                      from: context.host,
                      decision: context.decision,
                      spec: context.spec,
                      ...(context.platform === null ? {} : { platform: context.platform })
                    })
                }
              ]
            }
          }
        },
        pausing: {
          on: {
            "hypervisor.paused": confirms("hypervisor.paused", { type: "vm.paused" }),
            "hypervisor.failed": failsInDoubt("pause"),
            "vm.paused": { target: "#vm.paused" },
            "vm.operationFailed": { target: "idle" }
          }
        },
        rebooting: {
          on: {
            "hypervisor.rebooted": confirms("hypervisor.rebooted", { type: "vm.rebooted" }),
            "hypervisor.failed": failsInDoubt("reboot"),
            "vm.rebooted": { target: "idle" },
            "vm.operationFailed": { target: "idle" }
          }
        },
        snapshotting: snapshotting("idle")
      }
    },
    paused: {
      initial: "idle",
      on: {
        ...opensConsole,
        "vm.reportEnded": ended,
        "vm.stopped": { target: "stopped", actions: "stopped" },
        "vm.crashed": crashedFact,
        "vm.resumeRequested": {
          target: "resuming",
          actions: [
            "countRun",
            { type: "request", params: ({ context }) => atHost(context, { op: "resume" }) }
          ]
        }
      },
      states: {
        verifying: verifying("paused"),
        idle: {
          on: {
            ...doubts("isNotPaused"),
            ...late.paused,
            "vm.resume": requested("vm.resume", { type: "vm.resumeRequested" }),
            "vm.stop": {
              actions: record("vm.stop", ({ event }) => ({ type: "vm.stopRequested", force: event.force }))
            },
            "vm.stopRequested": { target: "#vm.stopping", actions: { type: "request", params: stopAtHost } }
          }
        }
      }
    },
    resuming: {
      on: {
        ...opensConsole,
        ...meetsFence,
        "hypervisor.resumed": confirms("hypervisor.resumed", { type: "vm.resumed" }),
        "hypervisor.failed": failsInDoubt("resume"),
        "vm.resumed": { target: "running" },
        "vm.operationFailed": { target: "paused" },
        "vm.reportEnded": ended,
        "vm.stopped": { target: "stopped", actions: "stopped" },
        "vm.crashed": crashedFact
      }
    },
    stopping: {
      on: {
        ...opensConsole,
        "hypervisor.stopped": confirms("hypervisor.stopped", { type: "vm.stopped" }),
        "hypervisor.failed": failsInDoubt("stop"),
        "vm.stopped": { target: "stopped", actions: "stopped" },
        "vm.operationFailed": { target: "running" }
      }
    },
    /** Locked: the migration decides what happens to the guest, and says on which host it ended. */
    migrating: {
      on: {
        ...opensConsole,
        "vm.handOver": {
          guard: "isItsMigration",
          actions: record("vm.handOver", ({ context, event }) => ({
            type: "vm.handedOver",
            migration: event.migration,
            from: context.host as string,
            to: event.host,
            decision: event.decision
          }))
        },
        "vm.handedOver": {
          actions: [assign(({ event }) => ({ host: event.to, decision: event.decision })), "countRun"]
        },
        "vm.reportEnded": { guard: "fromOwnHost", actions: crashed },
        "vm.crashed": {
          actions: ["countCrash", { type: "request", params: tellCrash }]
        },
        "vm.unlock": [
          {
            guard: "itsMigrationAfterCrashAndRestarts",
            actions: [
              unlocked,
              record("vm.unlock", () => ({ type: "vm.stopped" })),
              record("vm.unlock", () => ({ type: "vm.startRequested", automatic: true }))
            ]
          },
          {
            guard: "itsMigrationAfterCrash",
            actions: [unlocked, record("vm.unlock", () => ({ type: "vm.stopped" }))]
          },
          { guard: "isItsMigrationInDoubt", actions: [unlocked, doubtsUnlocked] },
          { guard: "isItsMigration", actions: unlocked }
        ],
        "vm.unlocked": { target: "running", actions: assign({ migration: null }) }
      }
    },
    deleting: {
      on: {
        "hypervisor.removed": confirms("hypervisor.removed", { type: "vm.deleted" }),
        "hypervisor.failed": fails("delete"),
        "vm.deleted": {
          target: "absent",
          actions: [
            { type: "request", params: ({ context }) => releaseRoom(context) },
            assign({ host: null, decision: null, spec: null, cloneOf: null, snapshots: [], crashes: 0 })
          ]
        },
        "vm.operationFailed": { target: "stopped" }
      }
    }
  }
})

export const vmActor: ActorKind = {
  kind: "vm",
  chart,
  commands: typesOf(VmCommand),
  reports: [
    "hypervisor.defined",
    "hypervisor.started",
    "hypervisor.stopped",
    "hypervisor.paused",
    "hypervisor.resumed",
    "hypervisor.rebooted",
    "hypervisor.removed",
    "hypervisor.snapshotTaken",
    "hypervisor.restored",
    "hypervisor.observed",
    "hypervisor.failed",
    "timer.fired"
  ],
  facts: typesOf(VmFact),
  snapshotVersion: 4
}
