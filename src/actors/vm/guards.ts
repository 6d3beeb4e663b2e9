/** The conditions of a machine's commands and reports, by the names that a refusal tells. */
import type { Report } from "../../events/requests.ts"
import type { VmCommand, VmFact } from "../../events/vm.ts"
import type { Of, Stamped } from "../../kernel/actor.ts"
import { isRecovering, leavesHost, mayRecoverLater, waitsForHost } from "./recovering.ts"
import { mayRestart } from "./requests.ts"
import type { VmContext } from "./requests.ts"
import { differs, off, standing } from "./verifying.ts"

export type Event = Stamped<VmCommand> | Stamped<Report> | Stamped<VmFact>
interface Asked {
  readonly context: VmContext
  readonly event: Event
}

export const guards = {
  startsAtOnce: ({ context }: Asked) => context.start,
  fromOwnHost: ({ context, event }: Asked) => (event as Of<Event, "vm.reportEnded">).host === context.host,
  endedByGuest: ({ context, event }: Asked) => {
    const { host, cause } = event as Of<Event, "vm.reportEnded">
    return host === context.host && cause === "guest-shutdown"
  },
  isNotRunning: ({ context, event }: Asked) =>
    differs(context, event as Of<Event, "vm.observe">, ["running"]),
  isNotPaused: ({ context, event }: Asked) => differs(context, event as Of<Event, "vm.observe">, standing),
  isNotStopped: ({ context, event }: Asked) => differs(context, event as Of<Event, "vm.observe">, off),
  runsThere: ({ event }: Asked) => (event as Of<Event, "hypervisor.observed">).state === "running",
  standsThere: ({ event }: Asked) => standing.includes((event as Of<Event, "hypervisor.observed">).state),
  restarts: ({ context, event }: Asked) => mayRestart(context, event.stamp.timeMs),
  mayRestart: ({ context, event }: Asked) =>
    (event as Of<Event, "vm.reportEnded">).host === context.host && mayRestart(context, event.stamp.timeMs),
  isRecovering: ({ context }: Asked) => isRecovering(context),
  mayRecoverLater: ({ context }: Asked) => mayRecoverLater(context),
  leavesHost: ({ context, event }: Asked) => leavesHost(context, event as Of<Event, "vm.fence">),
  waitsForHost: ({ context, event }: Asked) => waitsForHost(context, event as Of<Event, "vm.fence">),
  leavesHostAndWasToRun: ({ context, event }: Asked) =>
    context.wanted && leavesHost(context, event as Of<Event, "vm.fence">),
  waitsForHostAndWasToRun: ({ context, event }: Asked) =>
    context.wanted && waitsForHost(context, event as Of<Event, "vm.fence">),
  hasSnapshot: ({ context, event }: Asked) =>
    context.snapshots.includes((event as Of<Event, "vm.restore">).snapshot),
  isNewSnapshot: ({ context, event }: Asked) =>
    !context.snapshots.includes((event as Of<Event, "vm.snapshot">).snapshot),
  isItsMigration: ({ context, event }: Asked) =>
    (event as Of<Event, "vm.unlock" | "vm.handOver">).migration === context.migration,
  isItsMigrationInDoubt: ({ context, event }: Asked) => {
    const { migration, doubtful } = event as Of<Event, "vm.unlock">
    return migration === context.migration && doubtful
  },
  itsMigrationAfterCrash: ({ context, event }: Asked) =>
    (event as Of<Event, "vm.unlock">).migration === context.migration && context.crashedWhileMigrating,
  itsMigrationAfterCrashAndRestarts: ({ context, event }: Asked) =>
    (event as Of<Event, "vm.unlock">).migration === context.migration &&
    context.crashedWhileMigrating &&
    // Its crash is counted already.
    mayRestart({ ...context, crashes: context.crashes - 1 }, event.stamp.timeMs)
}
