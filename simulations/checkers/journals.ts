/** One journal on all replicas: while they live each is a beginning of the longest, fact for fact and hash for hash; at rest all are as long. */
import type { StoredFact } from "../world/event-store.ts"
import { Violation } from "./violation.ts"

export class Journals {
  readonly facts: Array<StoredFact> = []
  readonly #verified = new Map<string, number>()

  /** Its end may have been lost in a crash. */
  crashed(id: string, length: number): void {
    this.#verified.set(id, Math.min(this.#verified.get(id) ?? 0, length))
  }

  /** What was added since it was looked at last. */
  look(id: string, journal: ReadonlyArray<StoredFact>): void {
    const from = Math.min(this.#verified.get(id) ?? 0, journal.length)
    for (let at = from; at < journal.length; at++) {
      const [found, known] = [journal[at] as StoredFact, this.facts[at]]
      if (known === undefined) this.facts.push(found)
      else if (known.hash !== found.hash || known.dataText !== found.dataText)
        throw new Violation(
          "state-machine-safety",
          `${id} has ${found.type} of ${found.causation} to ${found.stream} at position ${at + 1}, and others have ${known.type} of ${known.causation} to ${known.stream}`
        )
    }
    this.#verified.set(id, journal.length)
  }

  /** When all is quiet: nobody lacks anything. */
  finish(id: string, journal: ReadonlyArray<StoredFact>): void {
    if (journal.length !== this.facts.length)
      throw new Violation("state-machine-safety", `${id} has ${journal.length} facts of ${this.facts.length}`)
  }
}
