/** The follower's side: whom it follows, what it takes into its log, and what it knows to be committed. */
import type { RaftCommand, RaftMessageOf } from "../../events/raft.ts"
import { bytesOf } from "./log.ts"
import type { Step } from "./step.ts"

/** A follower of `leader`, or, with null, of nobody yet. */
export function follow(step: Step, leader: string | null): void {
  const { now } = step
  if (step.role === "leader") resign(step)
  if (step.role !== "follower") step.become("follower")
  now.leader = leader
  if (leader !== null) {
    now.lost = null
    now.isAsked = false
  }
  now.votes = {}
  step.postpone()
}

/** What only a leader has, and whom it owes an answer. */
function resign(step: Step): void {
  const { now } = step
  // It is not to be asked again itself.
  now.leader = null
  for (const { ticket } of now.reads) step.decline(ticket, "not-leader")
  now.reads = []
  now.progress = {}
  now.rounds = []
  now.leaseMs = 0
  now.uncommittedBytes = 0
  now.transfer = null
  now.wasTransferred = false
}

/**
 * A later term is known: whoever hears of it is nobody's leader and has not voted in it. That is no reason to wait for longer
 * with an own campaign: a vote that is given is, and a leader that is heard.
 */
export function enterTerm(step: Step, term: number): void {
  const dueMs = step.role === "leader" ? Number.POSITIVE_INFINITY : step.now.deadlineMs
  step.record({ type: "raft.voted", term, vote: null })
  follow(step, null)
  step.now.deadlineMs = Math.min(step.now.deadlineMs, dueMs)
}

/** Everything up to here is decided. */
export function commitTo(step: Step, index: number): void {
  const { now } = step
  if (index <= now.commit) return
  if (index > step.log.last)
    throw new Error(`raft: ${index} is committed, but the log ends with ${step.log.last}`)
  now.commit = index
  const entries = step.log.slice(now.applied + 1, index)
  now.applied = index
  if (step.role === "leader")
    now.uncommittedBytes = Math.max(
      0,
      now.uncommittedBytes - entries.reduce((sum, one) => sum + bytesOf(one), 0)
    )
  step.ask({ port: "machine", op: "apply", entries })
}

/** A message of the leader of this term. Until an election timeout from now nobody else gets this member's vote. */
function hear(step: Step, leader: string): void {
  follow(step, leader)
  step.now.promisedMs = step.nowMs + step.settings.electionMs
}

const accept = (step: Step, leader: string, index: number, round: number) =>
  step.send(leader, {
    type: "appended",
    term: step.term,
    success: true,
    index,
    hintIndex: 0,
    hintTerm: 0,
    round
  })

export function onAppend(step: Step, from: string, message: RaftMessageOf<"append">): void {
  hear(step, from)
  const { previousIndex, previousTerm, entries, commit, round } = message
  const { now, log } = step
  // What is committed is the leader's too.
  if (previousIndex < now.commit) return accept(step, from, now.commit, round)
  if (log.termAt(previousIndex) !== previousTerm) {
    const hint = log.agreeing(Math.min(previousIndex, log.last), previousTerm)
    step.send(from, {
      type: "appended",
      term: step.term,
      success: false,
      index: previousIndex,
      hintIndex: hint.index,
      hintTerm: hint.term,
      round
    })
    return
  }
  // Only from the first entry that is not there: an old message must not cut off what a later one brought.
  const first = entries.findIndex(({ index, term }) => log.termAt(index) !== term)
  if (first >= 0) {
    const added = entries.slice(first)
    const from = (added[0]?.index ?? 0) - 1
    if (from < now.commit) throw new Error(`raft: entry ${from + 1} is committed and would be replaced`)
    now.stored = Math.min(now.stored, from)
    step.record({ type: "raft.appended", entries: added })
  }
  // Beyond the last entry of this message nothing is known to be the leader's.
  const verified = previousIndex + entries.length
  commitTo(step, Math.min(commit, verified))
  accept(step, from, verified, round)
}

export function onSnapshot(step: Step, from: string, message: RaftMessageOf<"snapshot">): void {
  hear(step, from)
  const { index, indexTerm, round } = message
  if (index > step.now.commit && step.log.termAt(index) === indexTerm) commitTo(step, index)
  if (index <= step.now.commit) return accept(step, from, step.now.commit, round)
  // It may take long: meanwhile the leader must not think that nobody hears it.
  step.send(from, { type: "snapshotReceived", term: step.term, index: 0, offset: 0, round })
  step.ask({ port: "snapshots", op: "write", from, message })
}

type Written = Extract<RaftCommand, { readonly type: "raft.snapshotWritten" }>

export function onSnapshotWritten(step: Step, written: Written): void {
  const { from, index, indexTerm, members, offset, whole, round } = written
  const { now } = step
  if (index > now.commit && !whole) {
    if (now.leader === from)
      step.send(from, { type: "snapshotReceived", term: step.term, index, offset, round })
    return
  }
  // While it was written the log came to have its last entry: what follows there may be acknowledged, and stays.
  if (index > now.commit && step.log.termAt(index) === indexTerm) commitTo(step, index)
  if (index > now.commit) {
    // The whole log goes, also what follows in it: nothing says that it follows the snapshot.
    step.record({ type: "raft.installed", index, term: indexTerm, members })
    now.commit = index
    now.applied = index
    now.stored = index
    step.ask({ port: "machine", op: "restore", index })
  }
  if (now.leader === from && step.role === "follower") accept(step, from, now.commit, round)
}
