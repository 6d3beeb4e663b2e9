/**
 * At most one leader a term: nobody else speaks as one, and whoever becomes one has the votes of a majority of the latest
 * members in its log, on their disks.
 */
import type { RaftMessage } from "../../src/events/raft.ts"
import { isMajority } from "./group.ts"
import type { Group, GroupMember } from "./group.ts"
import { Violation } from "./violation.ts"

export class ElectionSafety {
  readonly #group: Group
  readonly #leaders = new Map<number, string>()

  constructor(group: Group) {
    this.#group = group
  }

  /** A voter may have gone on to a later term. The own vote may be on its way to the disk. */
  elected({ id, context }: GroupMember): void {
    const { term, history } = context
    const members = history.at(-1)?.members
    const hasVoted = (voter: string) => {
      if (voter === id) return true
      const member = this.#group.members.get(voter)
      if (member === undefined) return false
      const found = this.#group.onDisk(member)
      return found.term > term || (found.term === term && found.vote === id)
    }
    if (members === undefined || !isMajority(members, hasVoted))
      throw new Violation("election-safety", `${id} leads term ${term} without the votes of a majority`)
  }

  /** Who has not spoken as a leader yet may still forget that it was one. */
  sent({ id }: GroupMember, { type, term }: RaftMessage): void {
    if (type !== "append" && type !== "snapshot") return
    const other = this.#leaders.get(term)
    if (other === undefined) this.#leaders.set(term, id)
    else if (other !== id) throw new Violation("election-safety", `${other} and ${id} lead in term ${term}`)
  }
}
