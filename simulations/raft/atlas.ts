/**
 * What is damaged where, so that a loss is never excused: whoever may come to decide, a majority of them is intact. What is
 * committed lies with a majority, so one of the intact ones has it.
 */
import type { Members } from "../../src/events/raft.ts"
import { noMembers } from "../../src/actors/raft/quorum.ts"
import { isMajority } from "../checkers/group.ts"
import type { Group } from "../checkers/group.ts"

export class Atlas {
  readonly #group: Group
  /** Members of whose disks something is gone, whether they know it or not. */
  readonly damaged = new Set<string>()

  constructor(group: Group) {
    this.#group = group
  }

  /** By any log, in memory or on a disk: the members that are committed, and those that may be. */
  possible(): ReadonlyArray<Members> {
    return [...this.#group.members.values()]
      .flatMap((one) => [this.#group.onDisk(one), ...(one.isUp ? [one.context] : [])])
      .flatMap(({ history }) => history.slice(-2).map(({ members }) => members))
      .filter(({ voters }) => voters.length > 0)
  }

  isEnough(without: ReadonlySet<string>): boolean {
    return this.possible().every((members) => isMajority(members, (id) => !without.has(id)))
  }

  mayDamage(id: string): boolean {
    return this.isEnough(new Set([...this.damaged, id]))
  }

  mayDecide(voters: ReadonlyArray<string>): boolean {
    return isMajority({ ...noMembers, voters }, (id) => !this.damaged.has(id))
  }
}
