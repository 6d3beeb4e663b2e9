/**
 * Who leads: polls before campaigns (pre-vote, thesis 9.6), votes, and the promise not to vote while a leader is heard
 * (check-quorum and leases, 6.2 and 6.4.1).
 */
import type { RaftMessageOf } from "../../events/raft.ts"
import { follow } from "./following.ts"
import { hasQuorum, isLost, isVoter } from "./quorum.ts"
import { lead } from "./leading.ts"
import type { Step } from "./step.ts"

/**
 * Learners, and members that were removed, wait to be asked. But while it is not known that their removal was decided,
 * they may be the only ones who have it, and have to see it through (thesis, 4.2.2).
 */
function mayLead({ kept, now }: Step): boolean {
  const decided = kept.history.findLastIndex(({ index }) => index <= now.commit)
  return kept.history.slice(Math.max(0, decided)).some(({ members }) => isVoter(members, now.id))
}

/** The time to campaign has come. */
export function timeOut(step: Step): void {
  if (!mayLead(step)) return step.postpone()
  startPoll(step)
}

const isPromised = (step: Step): boolean => step.role === "leader" || step.nowMs < step.now.promisedMs

const granted = (step: Step): boolean => hasQuorum(step.members, (id) => step.now.votes[id] === true)

function askForVotes(step: Step, poll: boolean, forced: boolean): void {
  const { log, term } = step
  const message = {
    type: "requestVote",
    term: poll ? term + 1 : term,
    lastIndex: log.last,
    lastTerm: log.lastTerm,
    poll,
    forced
  } as const
  for (const id of step.others) if (isVoter(step.members, id)) step.send(id, message)
}

/** Parts of an election timeout until the first one asks for votes, and then each next one. */
const lostParts = { first: 0.1, next: 0.3 }

/**
 * The leader's connection has ended, as when its process was killed: this member asks for votes sooner, one after the other in
 * the order of their names, so that they do not split them. When the leader is there all the same, those who hear it refuse in
 * the poll, and it goes on. A promise that a leader's lease relies on is kept.
 */
export function lose(step: Step, peer: string): void {
  const { now, nowMs, settings } = step
  if (step.role !== "follower" || now.leader !== peer || settings.leaseDriftPercent > 0) return
  now.promisedMs = nowMs
  const before = step.others.filter((id) => id !== peer && isVoter(step.members, id) && id < now.id).length
  const parts = lostParts.first + lostParts.next * before
  now.deadlineMs = Math.min(now.deadlineMs, nowMs + Math.floor(settings.electionMs * parts))
}

/** Would they vote for this member? Its term stays as it is, so that one that comes back disturbs nobody. */
function startPoll(step: Step): void {
  const { now } = step
  step.become("poller")
  now.leader = null
  now.votes = { [now.id]: true }
  step.postpone()
  if (granted(step)) return campaign(step, false)
  askForVotes(step, true, false)
}

export function campaign(step: Step, forced: boolean): void {
  const { now } = step
  step.record({ type: "raft.voted", term: step.term + 1, vote: now.id })
  step.become("candidate")
  now.isSure = false
  now.leader = null
  now.votes = { [now.id]: true }
  step.postpone()
  if (granted(step)) return lead(step)
  askForVotes(step, false, forced)
}

/** Whether a message that asks for a vote is to be passed over, its term included. */
export const isIgnored = (step: Step, message: RaftMessageOf<"requestVote">): boolean =>
  !message.forced && isPromised(step)

export function onRequestVote(step: Step, from: string, message: RaftMessageOf<"requestVote">): void {
  const { poll, term } = message
  const isFree = poll
    ? term > step.term
    : step.kept.vote === from || (step.kept.vote === null && step.now.leader === null)
  const isGranted = isFree && step.log.isUpToDate(message.lastIndex, message.lastTerm)
  if (isGranted && !poll) {
    if (step.kept.vote !== from) step.record({ type: "raft.voted", term: step.term, vote: from })
    step.postpone()
  }
  // Who is granted a poll is answered in the term that it asked about, who is refused learns of ours.
  step.send(from, { type: "vote", term: isGranted ? term : step.term, poll, granted: isGranted })
}

export function onVote(step: Step, from: string, message: RaftMessageOf<"vote">): void {
  const { now } = step
  const isAwaited = message.poll
    ? step.role === "poller" && (!message.granted || message.term === step.term + 1)
    : step.role === "candidate" && message.term === step.term
  if (!isAwaited) return
  now.votes = { ...now.votes, [from]: message.granted }
  if (granted(step)) {
    if (message.poll) return campaign(step, false)
    // They were asked after the own vote was on the disk.
    now.isSure = true
    return lead(step)
  }
  if (isLost(step.members, (id) => now.votes[id] === false)) follow(step, null)
}

/** The leader wants this member to take over. */
export function onTimeoutNow(step: Step): void {
  if (step.role === "follower" && mayLead(step)) campaign(step, true)
}
