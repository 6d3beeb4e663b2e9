/** What a member makes of an input, by its role: one step, ended as facts. */
import type { SwimCommand, SwimFact } from "../../events/swim.ts"
import { compareEveryMs, compareWithAny, onCompare } from "./comparing.ts"
import { greet, join, leave, reconnect, settleLeave, settleRole } from "./joining.ts"
import { askRelays, nextPeriod, onAck, onNack, onPing, onPingRequest, onRelayed } from "./probing.ts"
import { Step } from "./step.ts"
import type { Role, SwimContext } from "./step.ts"
import { ail, onDeadlines, onUpdate, renew } from "./updates.ts"

type Command<T extends SwimCommand["type"]> = Extract<SwimCommand, { readonly type: T }>

const never = Number.POSITIVE_INFINITY

/** When the next `swim.tick` is due, at the latest. */
export function wakesAtMs(role: string, context: Omit<SwimContext, "incarnation">): number {
  if (role === "left" || context.settings === null) return never
  const { gossipAtMs, leftAtMs, relayed, probe, deadlines } = context
  let dueMs = Math.min(gossipAtMs, leftAtMs)
  for (const { nackMs } of relayed) dueMs = Math.min(dueMs, nackMs)
  if (role === "leaving") return dueMs
  const { periodAtMs, compareAtMs, reconnectAtMs, joinAtMs, graceMs } = context
  if (probe !== null && !probe.isAnswered) dueMs = Math.min(dueMs, probe.relayMs)
  return Math.min(
    dueMs,
    periodAtMs,
    compareAtMs,
    reconnectAtMs,
    joinAtMs,
    deadlines.nextMs === never ? never : Math.max(deadlines.nextMs, graceMs)
  )
}

/** A member that is later than this part of a probe's timeout with what it wanted to do stood still. */
const lateShare = 0.5

/**
 * It stood still: its process or its machine was stopped, or had too much to do. Whatever was answered meanwhile waits to be
 * read, so nothing that was due may be held against others now (ADR 11).
 */
function noticeStall(step: Step): void {
  const { now, nowMs, settings, role } = step
  if (!settings.lifeguard.stalls || role === "left") return
  if (nowMs - wakesAtMs(role, now) <= settings.timeoutMs * lateShare) return
  now.graceMs = step.after(settings.periodMs)
  now.probe = null
  now.relayed = []
  if (settings.lifeguard.probe) ail(step, 1)
  // The own timers begin anew, so that this stall is noticed once.
  now.periodAtMs = now.periodAtMs === never ? never : step.after(settings.timeoutMs * step.random())
  now.gossipAtMs = now.gossipAtMs === never ? never : nowMs
  now.compareAtMs = Math.max(now.compareAtMs, nowMs)
  now.reconnectAtMs = Math.max(now.reconnectAtMs, nowMs)
  now.joinAtMs = Math.max(now.joinAtMs, nowMs)
  now.leftAtMs = Math.max(now.leftAtMs, nowMs)
}

/** Nobody is known but itself, in an incarnation that nobody has heard of. */
function begin(step: Step, { id, address, meta, settings }: Command<"swim.begin">): void {
  const { now } = step
  Object.assign(now, { id, address, meta, settings })
  now.sequence = Math.floor(step.random() * 2 ** 32)
  now.reconnectAtMs = step.after(settings.reconnectEveryMs * (0.5 + step.random()))
  renew(step, step.incarnation + 1)
}

function describe(step: Step, meta: string): void {
  if (step.now.meta === meta || step.role === "leaving" || step.role === "left") return
  step.now.meta = meta
  renew(step, step.incarnation + 1)
}

function receive(step: Step, { address, datagram }: Command<"swim.receive">): void {
  const { from, head, updates } = datagram
  // Its own words, sent back to it, say nothing.
  if (from === step.now.id || step.role === "left") return
  const source = head.type === "entries" ? "entry" : "news"
  for (const update of updates) onUpdate(step, update, source, { from, address })
  switch (head.type) {
    case "ping":
      onPing(step, from, address, head)
      break
    case "pingRequest":
      onPingRequest(step, address, head)
      break
    case "ack":
      onAck(step, from, head)
      break
    case "nack":
      onNack(step, from, head)
      break
    case "compare":
      if (step.role !== "leaving") onCompare(step, address, head)
      break
    case "gossip":
    case "entries":
  }
  if (step.role !== "leaving") greet(step, from, address, head)
}

function gossip(step: Step): void {
  const { now, nowMs, settings } = step
  const { table } = now
  const told = new Set<string>([now.id])
  for (let tries = 0; told.size <= settings.gossipTo && tries < 16 * settings.gossipTo; tries++) {
    if (now.queue.length === 0) break
    const peer = table.at(step.pick(table.length))
    const isMourned = peer.status === "dead" && nowMs - peer.sinceMs < settings.gossipToDeadMs
    if (told.has(peer.id) || peer.status === "left" || peer.address === "") continue
    if (peer.status === "dead" && !isMourned) continue
    told.add(peer.id)
    step.send(peer.address, { type: "gossip" })
  }
  // Without anybody to tell it news is none.
  const isDone = now.queue.length === 0 || (table.present <= 1 && told.size === 1)
  now.gossipAtMs = isDone ? never : step.after(settings.gossipEveryMs)
}

function tick(step: Step): void {
  const { now, nowMs, role } = step
  if (role === "left") return
  onRelayed(step)
  if (role === "leaving") {
    if (nowMs >= now.gossipAtMs) gossip(step)
    return settleLeave(step)
  }
  if (now.probe !== null && !now.probe.isAnswered && nowMs >= now.probe.relayMs) askRelays(step)
  if (nowMs >= now.periodAtMs) nextPeriod(step)
  if (nowMs >= Math.max(now.deadlines.nextMs, now.graceMs)) onDeadlines(step)
  if (nowMs >= now.gossipAtMs) gossip(step)
  if (nowMs >= now.compareAtMs) {
    now.compareAtMs = step.after(compareEveryMs(step))
    compareWithAny(step)
  }
  if (nowMs >= now.reconnectAtMs) reconnect(step)
  if (nowMs >= now.joinAtMs) join(step)
}

function take(step: Step, input: SwimCommand): void {
  switch (input.type) {
    case "swim.begin":
      return begin(step, input)
    case "swim.tick":
      return tick(step)
    case "swim.receive":
      return receive(step, input)
    case "swim.join":
      if (step.role === "leaving" || step.role === "left") return
      step.now.seeds = input.seeds
      if (step.role === "alone") join(step)
      return
    case "swim.leave":
      return leave(step)
    case "swim.describe":
      return describe(step, input.meta)
  }
}

/** The facts of one input; the last one is what is not kept, with what is asked. */
export function decide(
  role: Role,
  context: SwimContext,
  input: SwimCommand,
  timeMs: number
): ReadonlyArray<SwimFact> {
  const settings = input.type === "swim.begin" ? input.settings : context.settings
  const step = new Step(context, role, timeMs, input.chance, settings)
  if (input.type !== "swim.begin") noticeStall(step)
  take(step, input)
  settleRole(step)
  return step.facts()
}
