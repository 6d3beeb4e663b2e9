/** What a leader sends: entries, heartbeats with a round each, and snapshots where the log has forgotten. */
import type { RaftMessageOf } from "../../events/raft.ts"
import { bytesOf } from "./log.ts"
import { fresh } from "./step.ts"
import type { Progress, Step } from "./step.ts"

export function update(step: Step, id: string, changes: Partial<Progress>): void {
  Object.assign(step.ownProgress(id), changes)
}

/** Of a leader's members; who is new is sent everything, who is gone is forgotten. */
export function followMembers(step: Step): void {
  const { now } = step
  const next = step.log.last + 1
  now.progress = Object.fromEntries(step.others.map((id) => [id, now.progress[id] ?? fresh(next)]))
}

export function broadcast(step: Step): void {
  for (const id of step.others) replicate(step, id)
}

/** A new round: who answers it says that this is still the leader. */
export function heartbeat(step: Step): void {
  const { now, nowMs, settings } = step
  now.round += 1
  now.rounds = [...now.rounds, { round: now.round, sentMs: nowMs }]
  now.heartbeatMs = nowMs + settings.heartbeatMs
  for (const id of step.others) replicate(step, id, true)
}

/** Send what this member lacks, as many messages as the limits let; a heartbeat is sent in any case. */
export function replicate(step: Step, id: string, isHeartbeat = false): void {
  if (!sendNext(step, id, isHeartbeat)) return
  while (sendNext(step, id, false)) continue
}

/** The next message; false when none may follow it. */
function sendNext(step: Step, id: string, isHeartbeat: boolean): boolean {
  const { log, now, settings } = step
  const to = now.progress[id]
  if (to === undefined) return false
  if (to.state === "snapshot") {
    if (isHeartbeat) askForSnapshot(step, id, to)
    return false
  }
  const isProbe = to.state === "probe"
  const isFull = isProbe
    ? to.waits && !isHeartbeat
    : to.inflightBytes >= settings.inflightBytesMax ||
      to.next - 1 - to.match >= Math.min(settings.inflightEntriesMax, to.window)
  const previousIndex = to.next - 1
  const previousTerm = log.termAt(previousIndex)
  if (previousTerm === null) {
    askForSnapshot(step, id, { ...to, snapshot: null })
    return false
  }
  const entries = isFull ? [] : log.slice(to.next, log.last, settings.messageBytesMax)
  if (entries.length === 0 && !isHeartbeat && (isFull || to.toldCommit >= now.commit)) return false
  const own = step.ownProgress(id)
  own.waits = isProbe
  own.toldCommit = now.commit
  own.inflightBytes = isProbe ? 0 : to.inflightBytes + entries.reduce((sum, one) => sum + bytesOf(one), 0)
  if (!isProbe) own.next = to.next + entries.length
  const { commit, round } = now
  step.send(
    id,
    { type: "append", term: step.term, previousIndex, previousTerm, entries, commit, round },
    now.isSure
  )
  return !isProbe && entries.length > 0 && own.next <= log.last
}

/** The log no longer has what this member lacks. The process reads the part and says so by `raft.snapshotRead`. */
export function askForSnapshot(step: Step, id: string, to: Progress): void {
  const snapshot = to.snapshot ?? { index: 0, offset: 0 }
  update(step, id, { state: "snapshot", snapshot })
  step.ask({ port: "snapshots", op: "read", to: id, ...snapshot })
}

/** The process has read the part. */
export function sendSnapshot(
  step: Step,
  read: Omit<RaftMessageOf<"snapshot">, "type" | "term" | "round">,
  to: string
): void {
  if (step.role !== "leader" || step.now.progress[to]?.state !== "snapshot") return
  const { index, offset } = read
  update(step, to, { snapshot: { index, offset } })
  step.send(to, { type: "snapshot", term: step.term, ...read, round: step.now.round })
}
