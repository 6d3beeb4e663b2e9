/**
 * Linearizable reads without an entry (thesis, 6.4): what is committed when a read is asked answers it, once a quorum has
 * said after that moment that there is no later leader; by a lease, they have said so in advance.
 */
import { quorumValue } from "./quorum.ts"
import { heartbeat } from "./sending.ts"
import type { Step } from "./step.ts"

const hasLease = ({ now, nowMs, settings }: Step): boolean =>
  settings.leaseDriftPercent > 0 && !now.wasTransferred && nowMs < now.leaseMs

export function read(step: Step, ticket: string): void {
  const { now, settings } = step
  if (step.role !== "leader") return step.decline(ticket, "not-leader")
  if (now.reads.length >= settings.readsMax) return step.decline(ticket, "full")
  // Until an entry of its own term is committed, a new leader may not know what is.
  const knows = now.commit >= now.began
  if (knows && hasLease(step)) {
    step.ask({ port: "caller", op: "readable", ticket, index: now.commit })
    return
  }
  // A round that is under way may have begun before this read: the next one is for it.
  now.reads = [...now.reads, { ticket, index: Math.max(now.commit, now.began), round: now.round + 1 }]
  settleReads(step)
}

/** A member has answered a round: it knew of no later leader then, and promised to wait with its vote. */
export function takeRound(step: Step, from: string, round: number): void {
  const { now, settings } = step
  if (round <= (now.progress[from]?.round ?? 0) || round > now.round) return
  step.ownProgress(from).round = round
  const answered = answeredRound(step)
  const [oldest] = now.rounds
  if (oldest === undefined || oldest.round > answered) return
  const last = now.rounds.findLast((one) => one.round <= answered)
  now.rounds = now.rounds.filter((one) => one.round > answered)
  if (last !== undefined)
    now.leaseMs = last.sentMs + Math.floor(settings.electionMs * (1 - settings.leaseDriftPercent / 100))
  settleReads(step)
}

const answeredRound = ({ now, members }: Step): number =>
  quorumValue(members, (id) => (id === now.id ? now.round : (now.progress[id]?.round ?? 0)))

export function settleReads(step: Step): void {
  const { now } = step
  if (now.reads.length === 0 || now.commit < now.began) return
  const answered = answeredRound(step)
  for (const { ticket, index, round } of now.reads)
    if (round <= answered) step.ask({ port: "caller", op: "readable", ticket, index })
  now.reads = now.reads.filter(({ round }) => round > answered)
  // Those that came while a round was under way wait for it together.
  if (now.reads.length === 0 || now.reads.some(({ round }) => round <= now.round)) return
  heartbeat(step)
  if (answeredRound(step) >= now.round) settleReads(step)
}
