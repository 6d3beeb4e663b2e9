/** Nothing grows without end: what waits for the disk, and what is taken to be under way. */
import type { Member } from "../raft/member.ts"
import { Violation } from "./violation.ts"

/** More that wait in one member than any option allows. */
const held_max = 100_000

export function bounded({ id, replica }: Member): void {
  if (replica.held > held_max) throw new Violation("bounded", `${id} holds ${replica.held} requests`)
}

/** At the end: whoever has answered for everything holds up nothing. */
export function nothingUnderWay({ context: { progress, log } }: Member): void {
  for (const [id, { match, state, inflightBytes }] of Object.entries(progress))
    if (state === "replicate" && match === log.last && inflightBytes !== 0)
      throw new Violation("bounded", `${inflightBytes} bytes to ${id} are under way for ever`)
}
