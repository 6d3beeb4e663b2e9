/** Replay equals live: facts alone, and snapshots with the facts after them, give each actor as it is, byte for byte. */
import { serialize } from "../../src/kernel/turn.ts"
import type { ActorState } from "../../src/kernel/turn.ts"
import { Violation } from "./violation.ts"

export function isSameAfterReplay(
  live: ReadonlyMap<string, ActorState>,
  replayed: ReadonlyMap<string, ActorState>,
  how: string
): void {
  for (const [stream, actor] of live) {
    const again = replayed.get(stream)
    if (again === undefined) throw new Violation("replay", `${stream} is not there by ${how}`)
    if (serialize(again) !== serialize(actor))
      throw new Violation("replay", `${stream} by ${how}: ${serialize(again)}, and live: ${serialize(actor)}`)
  }
  for (const stream of replayed.keys())
    if (!live.has(stream)) throw new Violation("replay", `${stream} is there by ${how} only`)
}
