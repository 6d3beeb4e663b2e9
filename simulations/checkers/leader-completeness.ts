/** A leader has all that was decided in the terms before its own (Ongaro, 2014, figure 3.2). */
import type { GroupMember } from "./group.ts"
import { Violation } from "./violation.ts"

interface Decided {
  /** Of the entry; null where the first who knew of it had it in a snapshot only. */
  readonly term: number | null
  /** In which that one was: an entry of an older term may be decided long after that. */
  readonly knownIn: number
}

export class LeaderCompleteness {
  /** By index, from 1 on, as the first who knew it to be decided had it. */
  readonly #decided: Array<Decided> = []

  stepped({ context }: GroupMember): void {
    const { term: knownIn, commit, log } = context
    for (let index = this.#decided.length + 1; index <= commit; index++)
      this.#decided.push({ term: log.termAt(index), knownIn })
  }

  /** One that was elected in an old term, and hears of it late, need not have what a later one decided. */
  elected({ id, context }: GroupMember): void {
    const { term, log } = context
    for (let index = this.#decided.length; index > log.base; index--) {
      const decided = this.#decided[index - 1] as Decided
      if (decided.term === null || decided.knownIn >= term) continue
      if (log.termAt(index) !== decided.term)
        throw new Violation(
          "leader-completeness",
          `${id} leads term ${term} without ${index} of ${decided.term}, decided in ${decided.knownIn}`
        )
    }
  }
}
