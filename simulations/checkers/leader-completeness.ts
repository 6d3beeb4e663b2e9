/** A leader has all that was decided in the terms before its own. */
import type { GroupMember } from "./group.ts"
import { Violation } from "./violation.ts"

/** What anyone has applied, from 1 on. */
export interface Decided {
  readonly decided: number
  readonly at: (index: number) => { readonly term: number } | undefined
}

/** A leader of an old term that wakes up late is no leader of what was decided after it. */
export function leaderCompleteness({ id, context }: GroupMember, journal: Decided): void {
  const { term, log } = context
  for (let index = journal.decided; index > log.base; index--) {
    const decided = journal.at(index)
    if (decided === undefined || decided.term >= term) continue
    if (log.termAt(index) !== decided.term)
      throw new Violation(
        "leader-completeness",
        `${id} leads term ${term} without ${index} of ${decided.term}`
      )
  }
}
