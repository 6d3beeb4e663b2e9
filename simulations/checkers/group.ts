/** What checkers look at: the members, what lies on their disks, and majorities by a count of their own. */
import type { Members } from "../../src/events/raft.ts"
import { initialContext, keep } from "../../src/actors/raft/step.ts"
import type { Durable, RaftContext } from "../../src/actors/raft/step.ts"
import type { Message } from "../../src/events/envelope.ts"

/** A member of a simulated group, whatever it decides about. */
export interface GroupMember {
  readonly id: string
  readonly isUp: boolean
  /** Its disk has lost what it had acknowledged, and it knows. */
  readonly isOut: boolean
  /** Counts the times it was started. */
  readonly life: number
  /** What its own clock shows. */
  readonly nowMs: number
  readonly role: string
  readonly context: RaftContext
  readonly disk: { readonly facts: ReadonlyArray<Message>; readonly generation: number }
}

export class Group {
  readonly members: ReadonlyMap<string, GroupMember>
  readonly #disks = new Map<string, { generation: number; facts: number; durable: Durable }>()

  constructor(members: ReadonlyMap<string, GroupMember>) {
    this.members = members
  }

  /** What a restart of this member would find, folded as it grows. */
  onDisk({ id, disk }: GroupMember): Durable {
    let found = this.#disks.get(id)
    if (found?.generation !== disk.generation)
      this.#disks.set(id, (found = { generation: disk.generation, facts: 0, durable: initialContext }))
    for (; found.facts < disk.facts.length; found.facts++)
      found.durable = keep(found.durable, disk.facts[found.facts] as unknown as Parameters<typeof keep>[1])
    return found.durable
  }
}

/** Nobody is no majority; of those before, in joint consensus, there has to be one too. */
export function isMajority({ voters, outgoing }: Members, agrees: (id: string) => boolean): boolean {
  const most = (some: ReadonlyArray<string>) => 2 * some.filter(agrees).length > some.length
  return most(voters) && (outgoing.length === 0 || most(outgoing))
}

export const isAmong = ({ voters, outgoing }: Members, id: string): boolean =>
  voters.includes(id) || outgoing.includes(id)
