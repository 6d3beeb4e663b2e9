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
 * Learners, and members that were removed, wait to be asked. Who is asked counts for somebody: with a newer log it may be the only one
 * who can be elected, by those who vote by that log, and has to see through what it says (thesis, 4.2.2).
 */
const mayLead = ({ members, now }: Step): boolean => isVoter(members, now.id) || now.isAsked

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

/** In election timeouts. */
const parts = {
  /** From the loss of the leader until the first one asks for votes, and then each next one. */
  lost: 0.05,
  next: 0.3,
  /** Between two polls of one that nobody has answered; and so much more at most, by chance. */
  poll: 0.15,
  /** After votes that were split, until the first one polls again; and so much more at most, by chance. */
  split: 0.05,
  /** After a refusal to one whose log is older, each next one of those who refuse. */
  older: 0.1
}

/** How many voters come before this one by their names, without these: so those who want the same at once do it one by one. */
const rank = ({ now, members, others }: Step, ...without: ReadonlyArray<string | null>): number =>
  others.filter((id) => id < now.id && isVoter(members, id) && id !== now.lost && !without.includes(id))
    .length

/** Asks for votes after so many election timeouts, unless it does earlier. */
function hasten(step: Step, part: number, fromMs = step.nowMs): void {
  const { now, settings } = step
  now.deadlineMs = Math.min(now.deadlineMs, fromMs + Math.floor(settings.electionMs * part))
}

/**
 * The leader's connection has ended, as when its process was killed: this member asks for votes sooner, one after the other in
 * the order of their names, so that they do not split them. When the leader is there all the same, those who hear it refuse in
 * the poll, and it goes on. A promise that a leader's lease relies on is kept until it ends.
 */
export function lose(step: Step, peer: string): void {
  const { now, nowMs, kept, settings } = step
  const isLeader = now.leader === peer || (now.leader === null && kept.vote === peer)
  if (step.role !== "follower" || !isLeader) return
  now.lost = peer
  if (settings.leaseDriftPercent === 0) now.promisedMs = Math.min(now.promisedMs, nowMs)
  hasten(step, parts.lost + parts.next * rank(step), Math.max(nowMs, now.promisedMs))
}

/** Would they vote for this member? Its term stays as it is, so that one that comes back disturbs nobody. */
function startPoll(step: Step): void {
  const { now, settings, chance } = step
  step.become("poller")
  now.leader = null
  now.votes = { [now.id]: true }
  // Who still hears the leader, or has not noticed that it is gone, says nothing: it is asked again soon.
  now.deadlineMs = step.nowMs + Math.floor(settings.electionMs * parts.poll * (1 + chance))
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

/**
 * The term of who asks may be known already, from a refusal, say, and with it no leader. But one of an earlier term that was heard may
 * still rely on a lease, which a later term does not end.
 */
const isBound = (step: Step, message: RaftMessageOf<"requestVote">): boolean =>
  step.settings.leaseDriftPercent > 0 && isIgnored(step, message)

export function onRequestVote(step: Step, from: string, message: RaftMessageOf<"requestVote">): void {
  const { poll, term } = message
  const isFree = poll
    ? term > step.term
    : step.kept.vote === from ||
      (step.kept.vote === null && step.now.leader === null && !isBound(step, message))
  const isNew = step.log.isUpToDate(message.lastIndex, message.lastTerm)
  const isGranted = isFree && isNew
  if (isGranted && !poll) {
    if (step.kept.vote !== from) step.record({ type: "raft.voted", term: step.term, vote: from })
    step.postpone()
  }
  // This one has what the other lacks: it asks for itself, and at once where it is the only one.
  if (isFree && !isNew && !isPromised(step)) {
    step.now.isAsked = true
    hasten(step, parts.older * rank(step, from))
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
  if (!message.granted) fail(step, message.poll)
}

/**
 * Too many refuse, when one more does: that may be the leader that is gone. Those who refused a poll have a newer log, and ask for
 * themselves; who refused a vote gave it to another one, and nobody may have won: then one after the other polls again soon.
 */
function fail(step: Step, poll: boolean): void {
  const { now, members } = step
  const refuses = (id: string) => now.votes[id] === false
  if (isLost(members, refuses)) follow(step, null)
  else if (!isLost(members, refuses, 1)) return
  else if (poll) step.postpone()
  if (!poll) hasten(step, parts.split * (1 + step.chance) + parts.next * rank(step))
}

/** The leader wants this member to take over. */
export function onTimeoutNow(step: Step): void {
  if (step.role === "follower" && mayLead(step)) campaign(step, true)
}
