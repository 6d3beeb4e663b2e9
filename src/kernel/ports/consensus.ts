/**
 * The order that a group of nodes agrees on. What is proposed at any of them is decided once, in one order, and handed to
 * every one of them in that order; what it means is not this port's concern.
 */
import { Context, Schema } from "effect"
import type { Effect } from "effect"
import type { Recorded } from "../../events/envelope.ts"
import type { Entry, Members } from "../../events/raft.ts"

/** No majority, or no leader, can be asked now. Nothing was proposed, or it is not known to have been decided. */
export class Unavailable extends Schema.TaggedError<Unavailable>()("Unavailable", {
  node: Schema.String,
  /** Whether it may still be decided later; the same command may be sent again in any case. */
  mayHappen: Schema.Boolean,
  reason: Schema.String
}) {
  override get message(): string {
    const may = this.mayHappen ? "it may have taken effect" : "nothing was done"
    return `${this.node} can't order it now: ${this.reason}; ${may}; send it again under the same key`
  }
}

/** What became of a proposal, as far as the proposer is told; that it was decided is seen when it is handed over. */
export type Proposed =
  | { readonly outcome: "placed"; readonly index: number; readonly term: number }
  /** It has no place and will have none; nor will another try here, where it says so. */
  | { readonly outcome: "declined"; readonly reason: string; readonly isFinal?: true }
  /** It was sent to a leader that can't be heard any more, and may have a place. */
  | { readonly outcome: "unknown"; readonly reason: string }

/** A state that has applied up to `index` is what a snapshot stands for; `state` says which one it is. */
export interface SnapshotPlace {
  readonly index: number
  readonly term: number
  readonly state: string
}

export interface GroupStatus {
  readonly node: string
  readonly role: "follower" | "poller" | "candidate" | "leader"
  readonly term: number
  readonly leader: string | null
  readonly commit: number
  readonly last: number
  /** Index of the first entry that the log still has, less one. */
  readonly base: number
  readonly members: Members
}

/** Who is handed what was decided. */
export interface Follower {
  /** In order, each index once in a life; those of before the last restart may come again. */
  readonly decided: (entries: ReadonlyArray<Entry>) => void
  /** What a member that lacks more than the log has needs to know; null while there is nothing applied. */
  readonly snapshot: () => SnapshotPlace | null
  /** Become the state that `place` says, with the help of `from`; `done` is told when it is on the disk, or why not. */
  readonly install: (from: string, place: SnapshotPlace, done: (problem: string | null) => void) => void
  /** While something is installed `from` offers its own: it could help, too, where who began it is gone. */
  readonly offers: (from: string) => void
  /** This node leads from now on and has applied all that was decided before, or does not lead any more. */
  readonly leads: (isLeading: boolean) => void
}

export class Consensus extends Context.Service<
  Consensus,
  {
    readonly node: string
    /** Set once, before anything else; what is decided comes only after it. */
    readonly follow: (follower: Follower) => void
    /**
     * A follower forwards to its leader. `told` is called at most once, and must not throw. Gives the term in which it is proposed:
     * when an entry of a later one is decided and this was not before it, it never will be. Proposals of one node are placed in
     * the order in which they were made, or not at all.
     */
    readonly propose: (data: string, told: (proposed: Proposed) => void) => number
    /** A state that has applied up to this index is not older than this moment. */
    readonly readIndex: Effect.Effect<number, Unavailable>
    readonly status: () => GroupStatus
    /** Whether this node leads, and has heard from a majority not long ago, also where it stood still meanwhile. */
    readonly leadsNow: () => boolean
    /** Other voters and learners, by way of joint consensus; ends when it is placed. */
    readonly change: (
      voters: ReadonlyArray<string>,
      learners: ReadonlyArray<string>
    ) => Effect.Effect<void, Unavailable>
    /** From another node's journal, at most `limit` facts after this position; none where it ends. */
    readonly factsAfter: (
      node: string,
      position: number,
      limit: number
    ) => Effect.Effect<ReadonlyArray<Recorded>, Unavailable>
    readonly transfer: (to: string) => Effect.Effect<void, Unavailable>
    /** What was applied up to here is on the disk: the log may forget it, but for what members that are a little behind need. */
    readonly applied: (index: number) => void
    /** This node can't follow what is decided: it takes no part any more, until it is started again. */
    readonly halt: (reason: string) => void
  }
>()("novacron/kernel/ports/Consensus") {}
