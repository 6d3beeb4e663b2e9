/** The leader's side: what it appends, counts as committed, and hands over. */
import type { Entry, Members, RaftCommand, RaftMessageOf } from "../../events/raft.ts"
import { commitTo, follow } from "./following.ts"
import { bytesOf } from "./log.ts"
import { everyone, hasQuorum, isJoint, isVoter, quorumValue, settled } from "./quorum.ts"
import { settleReads, takeRound } from "./reads.ts"
import { askForSnapshot, broadcast, followMembers, replicate, update } from "./sending.ts"
import type { Progress, Step } from "./step.ts"

/** A new leader's first entry: only with one of its own term may it count earlier ones as committed (thesis, 3.6.2). */
function startTerm(step: Step): void {
  const { now, nowMs, settings } = step
  now.leader = now.id
  now.lost = null
  now.votes = {}
  now.progress = {}
  now.round += 1
  now.rounds = [{ round: now.round, sentMs: nowMs }]
  now.leaseMs = 0
  now.heartbeatMs = nowMs + settings.heartbeatMs
  now.quorumMs = nowMs + settings.electionMs
  now.began = step.log.last + 1
  now.uncommittedBytes = step.log.bytes(now.commit + 1, step.log.last)
  now.wasTransferred = false
  followMembers(step)
  place(step, [{ data: null, members: null }])
}

type New = Pick<Entry, "data" | "members">

/** At the end of the leader's log. */
function place(step: Step, added: ReadonlyArray<New>): ReadonlyArray<Entry> {
  const first = step.log.last + 1
  const entries = added.map((one, at) => ({ index: first + at, term: step.term, ...one }))
  step.record({ type: "raft.appended", entries })
  for (const entry of entries) step.now.uncommittedBytes += bytesOf(entry)
  return entries
}

export function propose(
  step: Step,
  proposals: ReadonlyArray<{ readonly ticket: string; readonly data: string }>
): void {
  const { now, settings } = step
  const taken: Array<{ readonly ticket: string; readonly data: string }> = []
  let bytes = now.uncommittedBytes
  for (const proposal of proposals) {
    const { ticket, data } = proposal
    if (step.role !== "leader") step.decline(ticket, "not-leader")
    else if (now.transfer !== null) step.decline(ticket, "transferring")
    // One that is larger than the limit alone is taken when nothing else waits.
    else if (bytes > 0 && bytes + data.length > settings.uncommittedBytesMax) step.decline(ticket, "full")
    else {
      taken.push(proposal)
      bytes += data.length + 16
    }
  }
  if (taken.length === 0) return
  const entries = place(
    step,
    taken.map(({ data }) => ({ data, members: null }))
  )
  for (const [at, { index, term }] of entries.entries())
    step.ask({ port: "caller", op: "placed", ticket: taken[at]?.ticket ?? "", index, term })
  broadcast(step)
}

/** Other members: one change at a time, and none before the leader knows what is committed (Ongaro, raft-dev, 2015). */
export function change(
  step: Step,
  { ticket, voters, learners }: Extract<RaftCommand, { readonly type: "raft.change" }>,
  to: Members
): void {
  const { now, members, settings } = step
  if (step.role !== "leader") return step.decline(ticket, "not-leader")
  if (now.transfer !== null) return step.decline(ticket, "transferring")
  const isTwice = new Set([...voters, ...learners]).size !== voters.length + learners.length
  if (voters.length === 0 || isTwice) return step.decline(ticket, "invalid")
  if (step.membersIndex > now.commit || isJoint(members) || now.commit < now.began)
    return step.decline(ticket, "changing")
  const lags = (id: string) =>
    id !== now.id && (now.progress[id]?.match ?? 0) + settings.lagEntriesMax < now.commit
  if (voters.some((id) => !isVoter(members, id) && lags(id))) return step.decline(ticket, "behind")
  placeMembers(step, to)
  step.ask({ port: "caller", op: "placed", ticket, index: step.log.last, term: step.term })
  broadcast(step)
}

function placeMembers(step: Step, members: Members): void {
  const before = everyone(step.members)
  place(step, [{ data: null, members }])
  if (before.join() !== everyone(step.members).join()) followMembers(step)
}

export function onAppended(step: Step, from: string, message: RaftMessageOf<"appended">): void {
  const before = step.now.progress[from]
  if (step.role !== "leader" || before === undefined) return
  const own = step.ownProgress(from)
  own.active = true
  takeRound(step, from, message.round)
  if (!message.success) {
    if (partAt(step, from, before, message)) replicate(step, from)
    return
  }
  const { index } = message
  const wasProbe = before.state === "probe"
  if (before.state === "snapshot") {
    if (step.log.termAt(index) === null || index < (before.snapshot?.index ?? 0)) return
  } else if (index < before.match || (index === before.match && !wasProbe)) return replicate(step, from)
  const isKnown = before.state === "replicate"
  const next = isKnown ? Math.max(before.next, index + 1) : index + 1
  own.inflightBytes = isKnown ? inflightAfter(step, before, index, next) : 0
  own.window = Math.min(before.window + Math.max(0, index - before.match), Number.MAX_SAFE_INTEGER)
  own.match = index
  own.next = next
  own.state = "replicate"
  own.waits = false
  own.snapshot = null
  advance(step)
  if (step.role !== "leader") return
  replicate(step, from)
  offerLead(step)
}

/** Of what was sent and is not answered; what the log has forgotten meanwhile can't be subtracted. */
function inflightAfter({ log }: Step, before: Progress, index: number, next: number): number {
  if (index + 1 >= next) return 0
  return before.match < log.base
    ? log.bytes(index + 1, next - 1)
    : before.inflightBytes - log.bytes(before.match + 1, index)
}

/** Entries under way after a loss, at first. */
const windowAfterLoss = 16

/**
 * The logs part before this: look further back. Of many messages that are under way each that overtakes another, or follows one that
 * was lost, is refused: what is missing is sent anew once for all of them, and again when the member has come on since, or a later
 * round is refused; and a little of it at first, so that messages do not make more messages. False when the answer says nothing new.
 */
function partAt(step: Step, id: string, to: Progress, message: RaftMessageOf<"appended">): boolean {
  if (to.state === "snapshot") return false
  if (to.state === "replicate" ? message.index <= to.match : message.index !== to.next - 1) return false
  const agreed = step.log.agreeing(message.hintIndex, message.hintTerm).index
  const isOld = message.round <= to.partedRound && agreed <= to.partedAt
  if (to.state === "replicate" && isOld) return false
  const next = Math.max(to.match, Math.min(message.index - 1, agreed)) + 1
  update(step, id, { state: "probe", waits: false, next, inflightBytes: 0 })
  if (to.state === "replicate")
    update(step, id, { partedRound: step.now.round, partedAt: next - 1, window: windowAfterLoss })
  return true
}

/** The entry of this index and term is on the own disk; a later entry may have taken its place since. */
export function onStored(step: Step, index: number, term: number): void {
  const { now } = step
  if (index <= now.stored || step.log.termAt(index) !== term) return
  now.stored = index
  if (step.role !== "leader") return
  // The facts before an entry of this term are on the disk too.
  now.isSure ||= term === step.term
  advance(step)
}

/** Count what a quorum has. Only an entry of the own term may be counted; those before it are committed with it. */
export function advance(step: Step): void {
  const { now } = step
  const reached = quorumValue(step.members, (id) =>
    id === now.id ? now.stored : (now.progress[id]?.match ?? 0)
  )
  if (reached <= now.commit || step.log.termAt(reached) !== step.term) return
  commitTo(step, reached)
  if (now.commit >= now.began) settleReads(step)
  broadcast(step)
  leaveJoint(step)
}

/** Joint consensus is committed: settle it. What is settled may leave this leader without a place. */
function leaveJoint(step: Step): void {
  const { members, now } = step
  if (step.membersIndex > now.commit) return
  if (isJoint(members)) {
    placeMembers(step, settled(members))
    broadcast(step)
    return
  }
  if (!isVoter(members, now.id)) follow(step, null)
}

/** A leader that has not heard from a quorum for an election timeout is none. */
export function checkQuorum(step: Step): void {
  const { now } = step
  if (!hasQuorum(step.members, (id) => id === now.id || now.progress[id]?.active === true))
    return follow(step, null)
  now.quorumMs = step.nowMs + step.settings.electionMs
  for (const id of step.others) update(step, id, { active: false })
}

export function transfer(step: Step, ticket: string, to: string): void {
  const { now } = step
  if (step.role !== "leader") return step.decline(ticket, "not-leader")
  if (now.transfer !== null) return step.decline(ticket, "transferring")
  if (to === now.id || !step.members.voters.includes(to)) return step.decline(ticket, "invalid")
  now.transfer = { to, deadlineMs: step.nowMs + step.settings.electionMs }
  step.ask({ port: "caller", op: "placed", ticket, index: step.log.last, term: step.term })
  replicate(step, to)
  offerLead(step)
}

/** Whoever has all that the leader has may campaign. */
function offerLead(step: Step): void {
  const { now } = step
  if (now.transfer === null || now.progress[now.transfer.to]?.match !== step.log.last) return
  // The offer may arrive at any later time, so no lease of this term is relied on any more.
  now.wasTransferred = true
  step.send(now.transfer.to, { type: "timeoutNow", term: step.term })
}

export function onSnapshotReceived(
  step: Step,
  from: string,
  message: RaftMessageOf<"snapshotReceived">
): void {
  const to = step.now.progress[from]
  if (step.role !== "leader" || to === undefined) return
  update(step, from, { active: true })
  takeRound(step, from, message.round)
  const { index, offset, round } = message
  if (to.state !== "snapshot" || to.snapshot?.index !== index || to.snapshot.offset === offset) return
  // One that has lost what came wants earlier parts again; answers of before say the same, and are many where each is followed.
  if (offset < to.snapshot.offset) {
    if (round <= to.partedRound) return
    update(step, from, { partedRound: step.now.round })
  }
  askForSnapshot(step, from, { ...to, snapshot: { index, offset } })
}

export function lead(step: Step): void {
  step.become("leader")
  startTerm(step)
  broadcast(step)
}
