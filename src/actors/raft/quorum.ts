/** Majorities, also of joint consensus: of the voters, and of the outgoing ones while there are any. */
import type { Members } from "../../events/raft.ts"

export const noMembers: Members = { voters: [], outgoing: [], learners: [], learnersNext: [] }

export const isJoint = ({ outgoing }: Members): boolean => outgoing.length > 0

export const isVoter = ({ voters, outgoing }: Members, id: string): boolean =>
  voters.includes(id) || outgoing.includes(id)

/** Everyone who is sent the log, each once. */
export const everyone = ({ voters, outgoing, learners }: Members): ReadonlyArray<string> => [
  ...new Set([...voters, ...outgoing, ...learners])
]

const majority = (voters: ReadonlyArray<string>): number => Math.floor(voters.length / 2) + 1

const has = (voters: ReadonlyArray<string>, agrees: (id: string) => boolean, spare = 0): boolean => {
  let count = 0
  for (const id of voters) if (agrees(id)) count++
  return count >= majority(voters) + spare
}

/** Whether enough agree. Nobody is no majority. */
export const hasQuorum = ({ voters, outgoing }: Members, agrees: (id: string) => boolean): boolean =>
  has(voters, agrees) && (outgoing.length === 0 || has(outgoing, agrees))

/** Whether so many are against it that it can't come any more, when so many more are. */
export const isLost = (
  { voters, outgoing }: Members,
  refuses: (id: string) => boolean,
  more = 0
): boolean => {
  const lost = (some: ReadonlyArray<string>) => some.length > 0 && !has(some, (id) => !refuses(id), more)
  return lost(voters) || lost(outgoing)
}

function reachedBy(voters: ReadonlyArray<string>, valueOf: (id: string) => number): number {
  if (voters.length === 0) return Number.POSITIVE_INFINITY
  // The highest first; there are few.
  const values: Array<number> = []
  for (const id of voters) {
    const value = valueOf(id)
    let at = values.length
    for (; at > 0 && (values[at - 1] as number) < value; at--) values[at] = values[at - 1] as number
    values[at] = value
  }
  return values[majority(voters) - 1] as number
}

/** The highest value that a quorum has reached; each one's only grows. */
export const quorumValue = ({ voters, outgoing }: Members, valueOf: (id: string) => number): number =>
  voters.length === 0 ? 0 : Math.min(reachedBy(voters, valueOf), reachedBy(outgoing, valueOf))

/** The way to these voters and learners: joint, unless the voters stay the same. */
export function changeTo(
  from: Members,
  voters: ReadonlyArray<string>,
  learners: ReadonlyArray<string>
): Members {
  const stays = voters.length === from.voters.length && voters.every((id) => from.voters.includes(id))
  if (stays) return { ...noMembers, voters: from.voters, learners }
  return {
    voters,
    outgoing: from.voters,
    // Who still votes is no learner yet.
    learners: learners.filter((id) => !from.voters.includes(id)),
    learnersNext: learners.filter((id) => from.voters.includes(id))
  }
}

/** The end of joint consensus. */
export const settled = ({ voters, learners, learnersNext }: Members): Members => ({
  ...noMembers,
  voters,
  learners: [...learners, ...learnersNext]
})
