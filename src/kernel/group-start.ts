/**
 * How a member of a group begins on what its node has kept, in any world: a founder's first facts, whether log and journal belong
 * together, and when the log is begun anew.
 */
import { Effect } from "effect"
import type { Message } from "../events/envelope.ts"
import type { GroupMember } from "./group-member.ts"
import { loadMark, markSnapshot } from "./ordered.ts"
import type { EventStore, RevisionConflict, StoreFailure } from "./ports/event-store.ts"

/** Where a member's facts are kept. */
export interface GroupLog {
  /** What was there at the opening. */
  readonly facts: ReadonlyArray<Message>
  /** `stored` is told, in the order of asking, when these facts would be found after a power failure. */
  readonly append: (facts: ReadonlyArray<Message>, stored: () => void) => void
  /** Whether it has grown so much that it should be begun anew. */
  readonly isLarge: boolean
  /** Begin anew with these facts: they stand for all that were given before. */
  readonly rewrite: (facts: ReadonlyArray<Message>) => void
}

/** A founder's log begins behind an entry that nobody has, so that whoever joins begins with its journal and not without. */
const founded = { index: 1, term: 1 }

/** What the log has; of a new group (one that joins nobody) what it begins with, and the journal says that it has that. */
export const foundedOr = Effect.fnUntraced(function* (
  { node, joins }: { readonly node: string; readonly joins: boolean },
  log: GroupLog,
  store: EventStore["Service"]
): Effect.fn.Return<ReadonlyArray<Message>, StoreFailure | RevisionConflict> {
  if (log.facts.length > 0 || joins) return log.facts
  const { index, term } = founded
  const members = { voters: [node], outgoing: [], learners: [], learnersNext: [] }
  yield* store.append([], markSnapshot({ index, term, installing: null }))
  yield* store.sync
  const facts = [
    { type: "raft.installed", index, term, members },
    { type: "raft.voted", term, vote: null }
  ]
  yield* Effect.callback<void>((resume) => log.append(facts, () => resume(Effect.void)))
  return facts
})

/** Null when the journal has everything that the log has forgotten, or is told that it has to fetch it; else what is wrong. */
export const belongTogether = (
  facts: ReadonlyArray<Message>,
  store: EventStore["Service"]
): Effect.Effect<string | null, StoreFailure> =>
  Effect.map(loadMark(store), ({ index, installing }) => {
    const forgot = facts.findLast(({ type }) => type === "raft.installed" || type === "raft.compacted")
    const base = Number(forgot?.["index"] ?? 0)
    if (installing !== null || index >= base) return null
    return (
      `the log begins behind entry ${base}, and the journal has entries up to ${index} only: they do not belong together; ` +
      "join the group anew, with an empty folder and under another name"
    )
  })

/** Keep what a member records; the log is begun anew where it is large, and has forgotten something. */
export function keepIn(
  log: GroupLog,
  member: () => GroupMember,
  facts: ReadonlyArray<Message>,
  stored: () => void
): void {
  log.append(facts, stored)
  const isShorter = facts.some(({ type }) => type === "raft.compacted" || type === "raft.installed")
  if (isShorter && log.isLarge) log.rewrite(member().kept())
}
