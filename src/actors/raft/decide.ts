/** What a member makes of an input, by its role: one step, ended as facts. */
import type { RaftCommand, RaftFact, RaftMessage } from "../../events/raft.ts"
import { isIgnored, lose, onRequestVote, onTimeoutNow, onVote, timeOut } from "./elections.ts"
import { enterTerm, onAppend, onSnapshot, onSnapshotWritten } from "./following.ts"
import {
  change,
  checkQuorum,
  onAppended,
  onSnapshotReceived,
  onStored,
  propose,
  transfer
} from "./leading.ts"
import { changeTo } from "./quorum.ts"
import { read } from "./reads.ts"
import { heartbeat, sendSnapshot } from "./sending.ts"
import { Step } from "./step.ts"
import type { RaftContext, Role } from "./step.ts"

type Command<T extends RaftCommand["type"]> = Extract<RaftCommand, { readonly type: T }>

function receive(step: Step, { from, message }: Command<"raft.receive">): void {
  if (message.term > step.term) {
    if (message.type === "requestVote" && isIgnored(step, message)) return
    // A poll asks about a term that nobody is in yet.
    const isPoll =
      (message.type === "requestVote" && message.poll) ||
      (message.type === "vote" && message.poll && message.granted)
    if (!isPoll) enterTerm(step, message.term)
  } else if (message.term < step.term) return answerPast(step, from, message)
  else if (message.type === "requestVote" && message.poll && isIgnored(step, message)) return
  dispatch(step, from, message)
}

/** Whoever is behind learns of the term, so that a leader steps down and a candidate catches up. */
function answerPast(step: Step, from: string, message: RaftMessage): void {
  const { term } = step
  if (message.type === "append" || message.type === "snapshot") {
    const index = message.type === "append" ? message.previousIndex : message.index
    const hint = { index, hintIndex: 0, hintTerm: 0, round: message.round }
    step.send(from, { type: "appended", term, success: false, ...hint })
  } else if (message.type === "requestVote")
    step.send(from, { type: "vote", term, poll: message.poll, granted: false })
}

function dispatch(step: Step, from: string, message: RaftMessage): void {
  switch (message.type) {
    case "requestVote":
      return onRequestVote(step, from, message)
    case "vote":
      return onVote(step, from, message)
    case "append":
      return step.role === "leader" ? undefined : onAppend(step, from, message)
    case "appended":
      return onAppended(step, from, message)
    case "snapshot":
      return step.role === "leader" ? undefined : onSnapshot(step, from, message)
    case "snapshotReceived":
      return onSnapshotReceived(step, from, message)
    case "timeoutNow":
      return onTimeoutNow(step)
  }
}

function tick(step: Step): void {
  const { now, nowMs } = step
  if (step.role !== "leader") {
    if (nowMs >= now.deadlineMs) timeOut(step)
    return
  }
  if (now.transfer !== null && nowMs >= now.transfer.deadlineMs) now.transfer = null
  if (nowMs >= now.quorumMs) checkQuorum(step)
  if (step.role === "leader" && nowMs >= now.heartbeatMs) heartbeat(step)
}

/** Nothing is known but what was kept. Votes wait, because a leader may rely on a promise that this restart forgot. */
function begin(step: Step, { id, settings }: Command<"raft.begin">): void {
  const { now, log, nowMs } = step
  now.id = id
  now.settings = settings
  now.commit = log.base
  now.applied = log.base
  now.stored = log.last
  now.promisedMs = settings.leaseDriftPercent > 0 && step.term > 0 ? nowMs + settings.electionMs : nowMs
  step.postpone()
}

function compact(step: Step, index: number): void {
  if (index > step.log.base && index <= step.now.applied) step.record({ type: "raft.compacted", index })
}

function take(step: Step, input: RaftCommand): void {
  switch (input.type) {
    case "raft.begin":
      return begin(step, input)
    case "raft.form":
      // Once, and not over what a leader has sent meanwhile.
      if (step.log.last === 0 && step.members.voters.length === 0)
        step.record({ type: "raft.formed", members: input.members })
      return
    case "raft.tick":
      return tick(step)
    case "raft.lost":
      return lose(step, input.peer)
    case "raft.receive":
      return receive(step, input)
    case "raft.propose":
      return propose(step, input.proposals)
    case "raft.change":
      return change(step, input, changeTo(step.members, input.voters, input.learners))
    case "raft.transfer":
      return transfer(step, input.ticket, input.to)
    case "raft.read":
      return read(step, input.ticket)
    case "raft.stored":
      return onStored(step, input.index, input.term)
    case "raft.compact":
      return compact(step, input.index)
    case "raft.snapshotRead": {
      const { type: _, to, ...part } = input
      return sendSnapshot(step, part, to)
    }
    case "raft.snapshotWritten":
      return onSnapshotWritten(step, input)
  }
}

/** The facts of one input; the last one is what is not kept, with what is asked. */
export function decide(
  role: Role,
  context: RaftContext,
  input: RaftCommand,
  timeMs: number
): ReadonlyArray<RaftFact> {
  const settings = input.type === "raft.begin" ? input.settings : context.settings
  const { chance = 0 } = input as { readonly chance?: number }
  const step = new Step(context, role, timeMs, chance, settings)
  take(step, input)
  return step.facts()
}

/** When the next `raft.tick` is due, at the latest. */
export function wakesAtMs(
  role: string,
  { deadlineMs, heartbeatMs, quorumMs, transfer }: RaftContext
): number {
  if (role !== "leader") return deadlineMs
  return Math.min(heartbeatMs, quorumMs, transfer?.deadlineMs ?? Number.POSITIVE_INFINITY)
}
