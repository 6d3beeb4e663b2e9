/** A snapshot of a machine's disks, which a stopped machine and a running one may take. */
import type { Report } from "../../events/requests.ts"
import type { VmCommand, VmFact } from "../../events/vm.ts"
import { recorder } from "../../kernel/actor.ts"
import type { Stamped } from "../../kernel/actor.ts"
import { takeSnapshot } from "./requests.ts"
import type { VmContext } from "./requests.ts"

const record = recorder<VmContext, Stamped<VmCommand> | Stamped<Report> | Stamped<VmFact>, VmFact>()

export const takesSnapshot = {
  "vm.snapshot": {
    guard: "isNewSnapshot" as const,
    actions: record("vm.snapshot", ({ event }) => ({
      type: "vm.snapshotRequested",
      snapshot: event.snapshot
    }))
  },
  "vm.snapshotRequested": {
    target: "snapshotting" as const,
    actions: ["nameSnapshot", { type: "request", params: takeSnapshot }] as never
  }
}

export const snapshotting = <T extends string>(back: T) => ({
  on: {
    "hypervisor.snapshotTaken": {
      actions: record("hypervisor.snapshotTaken", ({ context, event }) => ({
        type: "vm.snapshotTaken",
        snapshot: context.snapshot as string,
        bytes: event.bytes
      }))
    },
    "hypervisor.failed": {
      actions: record("hypervisor.failed", ({ event }) => ({
        type: "vm.operationFailed",
        operation: "snapshot",
        reason: event.reason
      }))
    },
    "vm.snapshotTaken": { target: back, actions: "keepSnapshot" as const },
    "vm.operationFailed": { target: back }
  }
})
