/**
 * A journal and its mark belong together after every transaction, as power may fail after it: whoever says to have all up to an entry
 * of the log has what all others have that say so, no more than who is further, and no less than who is not as far.
 */
import type { Mark } from "../../src/kernel/ordered.ts"
import { Violation } from "./violation.ts"

export class Marks {
  /** By entry: as many facts are in a journal that is there. */
  readonly #facts: Array<number | undefined> = []
  looked = 0

  /** Of a journal with so many facts. One into which facts are fetched is at no entry. */
  look(id: string, { index, installing }: Mark, facts: number): void {
    if (installing !== null) return
    this.looked++
    let before = index
    while (before > 0 && this.#facts[before] === undefined) before--
    let after = index
    while (after < this.#facts.length && this.#facts[after] === undefined) after++
    const least = this.#facts[before] ?? 0
    const most = this.#facts[after] ?? facts
    if (facts < least || facts > most)
      throw new Violation(
        "state-machine-safety",
        `${id} says that its ${facts} facts are all up to entry ${index}: up to ${before} there are ${least}, and up to ${after} ${most}`
      )
    this.#facts[index] = facts
  }
}
