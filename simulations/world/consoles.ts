/** The Consoles port over hosts of a simulated fleet, all in this process. */
import { Effect, Layer } from "effect"
import { ConsoleError, Consoles } from "../../src/kernel/ports/consoles.ts"
import { openConsole } from "./hypervisor/console.ts"
import type { Fleet } from "./hypervisor/machine.ts"

export const simulatedConsoles = (fleet: Fleet): Layer.Layer<Consoles> =>
  Layer.succeed(
    Consoles,
    Consoles.of({
      simulated: true,
      open: ({ vm, host }) =>
        openConsole(fleet, host, vm).pipe(
          Effect.mapError(({ reason }) => new ConsoleError({ vm, host, code: "wrong-state", reason }))
        )
    })
  )
