/** The same index is the same entry for everyone who applies it, and equal journals make equal states. */
import type { Entry } from "../../src/events/raft.ts"
import { stampOf } from "../raft/machine.ts"
import type { Member } from "../raft/member.ts"
import { Violation } from "./violation.ts"

export class Journal {
  /** By index, as the first who applied it did. */
  readonly #entries: Array<Entry> = []
  #stampMs = Number.NEGATIVE_INFINITY

  /** Entries that anyone has applied. */
  get decided(): number {
    return this.#entries.length
  }

  get entries(): ReadonlyArray<Entry> {
    return this.#entries
  }

  at(index: number): Entry | undefined {
    return this.#entries[index - 1]
  }

  /** Whether it is the first time. */
  applied({ id }: Member, entry: Entry): boolean {
    const { index, term, data } = entry
    const decided = this.#entries[index - 1]
    if (decided === undefined) {
      if (index !== this.#entries.length + 1)
        throw new Violation("state-machine-safety", `${id} applied ${index} before the one before it`)
      this.#entries.push(entry)
      if (data !== null) this.#happened(index, stampOf(data))
      return true
    }
    if (decided.term !== term || decided.data !== data)
      throw new Violation(
        "state-machine-safety",
        `${index} is of term ${decided.term}, and of ${term} at ${id}`
      )
    return false
  }

  /** Clocks are set back; what is kept never says so. */
  #happened(index: number, stampMs: number): void {
    if (stampMs < this.#stampMs)
      throw new Violation("monotone", `${index} is stamped ${stampMs}, after ${this.#stampMs}`)
    this.#stampMs = stampMs
  }

  /** At the end: whoever has applied as much is in the same state. */
  finish(up: ReadonlyArray<Member>): void {
    const texts = new Map<number, string>()
    for (const { machine, id } of up) {
      const text = machine.text()
      if ((texts.get(machine.applied) ?? text) !== text)
        throw new Violation("state-machine-safety", `${id} has another state`)
      texts.set(machine.applied, text)
    }
  }
}
