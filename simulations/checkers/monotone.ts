/** Terms and commits never go back: within a life as it is known, and over all lives as it was spoken. */
import type { RaftMessage } from "../../src/events/raft.ts"
import type { Group, GroupMember } from "./group.ts"
import { Violation } from "./violation.ts"

interface Seen {
  life: number
  term: number
  commit: number
}

export class Monotone {
  readonly #group: Group
  readonly #seen = new Map<string, Seen>()
  readonly #spoken = new Map<string, number>()

  constructor(group: Group) {
    this.#group = group
  }

  stepped({ id, context, life }: GroupMember): void {
    const { term, commit } = context
    const seen = this.#seen.get(id)
    if (seen === undefined) {
      this.#seen.set(id, { life, term, commit })
      return
    }
    if (life === seen.life && term < seen.term)
      throw new Violation("monotone", `${id} went from term ${seen.term} to ${term}`)
    if (life === seen.life && commit < seen.commit)
      throw new Violation("monotone", `${id} went from commit ${seen.commit} to ${commit}`)
    Object.assign(seen, { life, term, commit })
  }

  /** A term that was spoken in outlives a crash: it is on the disk. */
  sent(member: GroupMember, { term }: RaftMessage): void {
    const { id } = member
    if (this.#group.onDisk(member).term < term)
      throw new Violation("monotone", `${id} speaks in term ${term}, and a crash would forget it`)
    const before = this.#spoken.get(id) ?? 0
    if (term < before) throw new Violation("monotone", `${id} spoke in term ${before} and then in ${term}`)
    this.#spoken.set(id, term)
  }
}
