/** A client's command takes effect once, however often it was sent. */
import type { Entry } from "../../src/events/raft.ts"
import { commandOf } from "../raft/machine.ts"
import { Violation } from "./violation.ts"

export class ExactlyOnce {
  readonly #effects = new Map<string, number>()

  applied({ index, data }: Entry): void {
    if (data === null) return
    const { session, sequence } = commandOf(data)
    const key = `${session} ${sequence}`
    const before = this.#effects.get(key)
    if (before === undefined) this.#effects.set(key, index)
    else if (before !== index)
      throw new Violation("exactly-once", `${key} took effect at ${before} and ${index}`)
  }
}
