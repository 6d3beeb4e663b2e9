/** What a guest does by itself, and who sees it do so. */
import type { Report } from "../../events/requests.ts"
import type { VmCommand, VmFact } from "../../events/vm.ts"
import { recorder } from "../../kernel/actor.ts"
import type { Stamped } from "../../kernel/actor.ts"
import type { VmContext } from "./requests.ts"

const record = recorder<VmContext, Stamped<VmCommand> | Stamped<Report> | Stamped<VmFact>, VmFact>()

const startAgain = record("vm.reportEnded", () => ({ type: "vm.startRequested", automatic: true }))
export const crashed = record("vm.reportEnded", ({ event }) => ({ type: "vm.crashed", reason: event.reason }))

/** The guest ended by itself: only believed from the host the machine is on. */
export const ended = [
  { guard: "endedByGuest" as const, actions: record("vm.reportEnded", () => ({ type: "vm.stopped" })) },
  { guard: "mayRestart" as const, actions: [crashed, startAgain] },
  { guard: "fromOwnHost" as const, actions: crashed }
]
export const crashedFact = { target: "#vm.stopped", actions: "countCrash" as const }

/** Wherever there is a guest. Who opens its console is a fact. */
export const opensConsole = {
  "vm.openConsole": {
    actions: record("vm.openConsole", ({ event: { mode, takenFrom } }) => ({
      type: "vm.consoleOpened",
      mode,
      ...(takenFrom === undefined ? {} : { takenFrom })
    }))
  },
  "vm.consoleOpened": {}
}
