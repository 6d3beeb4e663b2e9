/**
 * Raft (Ongaro, "Consensus: Bridging Theory and Practice", 2014): what the members of a group say to one another, what
 * one of them is told and asks, and what it records. A group orders inputs; what they mean is not its concern.
 */
import { Schema } from "effect"
import { int, Name, text } from "./fields.ts"

const Index = int(0, Number.MAX_SAFE_INTEGER)
const Term = Index
const Ids = Schema.Array(Name).check(Schema.isMaxLength(64))

/**
 * Who decides. While `outgoing` is not empty the group is in joint consensus: a majority of `voters` and one of `outgoing`.
 * Learners are sent everything and decide nothing; `learnersNext` become learners when joint consensus ends.
 */
export const Members = Schema.Struct({
  voters: Ids,
  outgoing: Ids,
  learners: Ids,
  learnersNext: Ids
})
export type Members = typeof Members.Type

/** An entry of the log: an input, other members, or, with neither, a leader's first entry of its term. */
export const Entry = Schema.Struct({
  index: Index,
  term: Term,
  data: Schema.NullOr(Schema.String),
  members: Schema.NullOr(Members)
})
export type Entry = typeof Entry.Type

export const RaftMessage = Schema.Union([
  Schema.Struct({
    type: Schema.tag("requestVote"),
    /** Of a poll (pre-vote) the term that would follow; the sender is not in it. */
    term: Term,
    lastIndex: Index,
    lastTerm: Term,
    poll: Schema.Boolean,
    /** The leader asked for this campaign: its lease does not stand against it. */
    forced: Schema.Boolean
  }),
  Schema.Struct({ type: Schema.tag("vote"), term: Term, poll: Schema.Boolean, granted: Schema.Boolean }),
  Schema.Struct({
    type: Schema.tag("append"),
    term: Term,
    previousIndex: Index,
    previousTerm: Term,
    entries: Schema.Array(Entry),
    commit: Index,
    /** Counts the leader's heartbeats: an answer with it says that the leader was one after it was sent. */
    round: Index
  }),
  Schema.Struct({
    type: Schema.tag("appended"),
    term: Term,
    success: Schema.Boolean,
    /** Highest index that is known to be the leader's too; when refused, the `previousIndex` that did not fit. */
    index: Index,
    /** When refused: where the leader may look next, and the term there. */
    hintIndex: Index,
    hintTerm: Term,
    round: Index
  }),
  Schema.Struct({
    type: Schema.tag("snapshot"),
    term: Term,
    /** Of the last entry that it stands for. */
    index: Index,
    indexTerm: Term,
    members: Members,
    offset: Index,
    data: Schema.String,
    last: Schema.Boolean,
    round: Index
  }),
  /** The next part of the snapshot of `index` that is wanted begins at `offset`; with index 0 none yet, because a part is being written. */
  Schema.Struct({
    type: Schema.tag("snapshotReceived"),
    term: Term,
    index: Index,
    offset: Index,
    round: Index
  }),
  /** Leadership transfer: campaign at once. */
  Schema.Struct({ type: Schema.tag("timeoutNow"), term: Term })
])
export type RaftMessage = typeof RaftMessage.Type
export type RaftMessageOf<T extends RaftMessage["type"]> = Extract<RaftMessage, { readonly type: T }>

export const RaftSettings = Schema.Struct({
  heartbeatMs: int(1, 600_000),
  /** The least; each is drawn between it and twice as much. A leader without a majority for so long steps down. */
  electionMs: int(2, 3_600_000),
  /** Of an append message. */
  messageBytesMax: int(1, 64 * 1024 * 1024),
  /** Sent to one member and not answered. */
  inflightBytesMax: int(1, 1024 * 1024 * 1024),
  inflightEntriesMax: int(1, 1_000_000),
  /** Of entries that are not committed; more are declined. */
  uncommittedBytesMax: int(1, 1024 * 1024 * 1024),
  readsMax: int(1, 1_000_000),
  /** A learner that is further behind may not become a voter. */
  lagEntriesMax: int(0, 1_000_000),
  /** Serve reads by the leader's lease; 0 asks a majority for each, else by how much clocks may run apart, in percent. */
  leaseDriftPercent: int(0, 50)
})
export type RaftSettings = typeof RaftSettings.Type

const chance = Schema.Number.check(Schema.isBetween({ minimum: 0, maximum: 1 }))
const Ticket = text(128)

/** What a member is told. `chance` is drawn by the shell, as time is stamped: from 0 up to 1. */
export const RaftCommand = Schema.Union([
  /** The process runs; first of all. */
  Schema.Struct({ type: Schema.tag("raft.begin"), id: Name, settings: RaftSettings, chance }),
  /** A new group, or a member that is not in it yet, with no members at all. Once. */
  Schema.Struct({ type: Schema.tag("raft.form"), members: Members }),
  Schema.Struct({ type: Schema.tag("raft.tick"), chance }),
  /** The connection with it has ended: a hint that it may be gone, and no more. */
  Schema.Struct({ type: Schema.tag("raft.lost"), peer: Name }),
  Schema.Struct({ type: Schema.tag("raft.receive"), from: Name, message: RaftMessage, chance }),
  Schema.Struct({
    type: Schema.tag("raft.propose"),
    proposals: Schema.Array(Schema.Struct({ ticket: Ticket, data: Schema.String }))
  }),
  Schema.Struct({ type: Schema.tag("raft.change"), ticket: Ticket, voters: Ids, learners: Ids }),
  Schema.Struct({ type: Schema.tag("raft.transfer"), ticket: Ticket, to: Name }),
  Schema.Struct({ type: Schema.tag("raft.read"), ticket: Ticket }),
  /** The entry of this index and term, and all before it, are on the disk. */
  Schema.Struct({ type: Schema.tag("raft.stored"), index: Index, term: Term, chance }),
  /** What was applied up to here is in a snapshot on the disk: the log may forget it. */
  Schema.Struct({ type: Schema.tag("raft.compact"), index: Index }),
  Schema.Struct({
    type: Schema.tag("raft.snapshotRead"),
    to: Name,
    index: Index,
    indexTerm: Term,
    members: Members,
    offset: Index,
    data: Schema.String,
    last: Schema.Boolean
  }),
  Schema.Struct({
    type: Schema.tag("raft.snapshotWritten"),
    from: Name,
    index: Index,
    indexTerm: Term,
    members: Members,
    /** Where the next part begins. */
    offset: Index,
    /** All of it is on the disk. */
    whole: Schema.Boolean,
    round: Index
  })
])
export type RaftCommand = typeof RaftCommand.Type

/** Why something was not taken. */
export type Declined = "not-leader" | "transferring" | "full" | "changing" | "behind" | "invalid"

/** What a member asks of its process. Only what is `early` may be done before everything recorded is on the disk. */
export type RaftRequest =
  | { readonly port: "peer"; readonly to: string; readonly message: RaftMessage; readonly early: boolean }
  | { readonly port: "machine"; readonly op: "apply"; readonly entries: ReadonlyArray<Entry> }
  /** Take the snapshot that was just received whole. */
  | { readonly port: "machine"; readonly op: "restore"; readonly index: number }
  /** The proposal has a place; whether it is committed is seen when that place is applied, in this term. */
  | {
      readonly port: "caller"
      readonly op: "placed"
      readonly ticket: string
      readonly index: number
      readonly term: number
    }
  | {
      readonly port: "caller"
      readonly op: "declined"
      readonly ticket: string
      readonly reason: Declined
      readonly leader: string | null
    }
  /** A state that has applied up to `index` answers the read. */
  | { readonly port: "caller"; readonly op: "readable"; readonly ticket: string; readonly index: number }
  | {
      readonly port: "snapshots"
      readonly op: "read"
      readonly to: string
      readonly index: number
      readonly offset: number
    }
  | {
      readonly port: "snapshots"
      readonly op: "write"
      readonly from: string
      readonly message: RaftMessageOf<"snapshot">
    }

/** What it changes of what a restart forgets, whole, and what it asks. */
const moment = { changes: Schema.Unknown, asks: Schema.Array(Schema.Unknown) }

export const RaftFact = Schema.Union([
  Schema.Struct({ type: Schema.tag("raft.formed"), members: Members }),
  /** The term, and whom it voted for in it. */
  Schema.Struct({ type: Schema.tag("raft.voted"), term: Term, vote: Schema.NullOr(Name) }),
  /** Takes the place of everything from the first one's index on. */
  Schema.Struct({ type: Schema.tag("raft.appended"), entries: Schema.Array(Entry) }),
  Schema.Struct({ type: Schema.tag("raft.compacted"), index: Index }),
  /** A snapshot took the place of the log. */
  Schema.Struct({ type: Schema.tag("raft.installed"), index: Index, term: Term, members: Members }),
  Schema.Struct({ type: Schema.tag("raft.noted"), ...moment }),
  Schema.Struct({ type: Schema.tag("raft.followed"), ...moment }),
  Schema.Struct({ type: Schema.tag("raft.polled"), ...moment }),
  Schema.Struct({ type: Schema.tag("raft.campaigned"), ...moment }),
  Schema.Struct({ type: Schema.tag("raft.elected"), ...moment })
])
export type RaftFact = typeof RaftFact.Type

/** Facts that are not kept: what a member forgets when its process ends, and has to (ADR 8). */
export const volatileRaftFacts = [
  "raft.noted",
  "raft.followed",
  "raft.polled",
  "raft.campaigned",
  "raft.elected"
] as const
