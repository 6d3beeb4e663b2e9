/** A leader has all that was decided in the terms before its own. */
import type { Member } from "../raft/member.ts"
import type { Journal } from "./state-machine-safety.ts"
import { Violation } from "./violation.ts"

/** A leader of an old term that wakes up late is no leader of what was decided after it. */
export function leaderCompleteness({ id, context }: Member, journal: Journal): void {
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
