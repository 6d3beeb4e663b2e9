/** Replay equals live: facts alone, and snapshots with the facts after them, give each actor as it is, byte for byte. */
import type { RaftContext } from "../../src/actors/raft/step.ts"
import { serialize } from "../../src/kernel/turn.ts"
import type { ActorState } from "../../src/kernel/turn.ts"
import type { Member } from "../raft/member.ts"
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

/** What a restart would find on the disk is what the member of a group knows of what is kept. */
export function sameAfterReplay(member: Member): void {
  if (text(member.context) !== text(member.replayed()))
    throw new Violation("replay", `${member.id} would come back as another`)
}

const text = ({ term, vote, log, history }: RaftContext) =>
  JSON.stringify([term, vote, log.base, log.baseTerm, log.slice(log.base + 1), history])
