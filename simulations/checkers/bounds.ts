/** Everything has a limit: what waits at the kernel's door, and what an actor has asked and not been answered. */
import type { ActorState } from "../../src/kernel/turn.ts"
import { Violation } from "./violation.ts"

/** No chart asks more at once: two releases, an unlock, and the transfer that goes on beside them. */
const outstanding_max = 8

/** `waiting` inputs in line; those beyond the limit answer requests of our own, of which `outstanding` are open. */
export function isBounded(
  waiting: number,
  waiting_max: number,
  actors: ReadonlyMap<string, ActorState>
): void {
  let open = 0
  for (const { stream, outstanding } of actors.values()) {
    open += outstanding.length
    if (outstanding.length > outstanding_max)
      throw new Violation("bounded", `${stream} waits for ${outstanding.length} answers`)
  }
  if (waiting > waiting_max + 2 * open + 1)
    throw new Violation("bounded", `${waiting} inputs wait, of ${waiting_max} and ${open} answers`)
}
