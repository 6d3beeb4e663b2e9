/** Coming and going: seeds, who is found again, and a leave that others hear of. */
import type { SwimHead } from "../../events/swim.ts"
import { compareWith } from "./comparing.ts"
import type { Step } from "./step.ts"
import type { Peer } from "./table.ts"

const never = Number.POSITIVE_INFINITY

/** Ask where others may be. While nobody is there, again in every period. */
export function join(step: Step): void {
  const { now, settings } = step
  for (const seed of now.seeds) if (seed !== now.address) compareWith(step, seed)
  now.joinAtMs = now.seeds.length === 0 ? never : step.after(settings.periodMs * (1 + step.random()))
}

/** A table knows others, or none any more. */
export function settleRole(step: Step): void {
  const { now, nowMs, settings, role } = step
  const isAlone = now.table.present <= 1
  if (role === "alone" && !isAlone) {
    step.become("member")
    now.metMs = nowMs
    now.periodAtMs = step.after(settings.periodMs * step.random())
    now.compareAtMs = step.after(settings.compareEveryMs * step.random())
    now.joinAtMs = never
    if (now.queue.length > 0 && now.gossipAtMs === never) now.gossipAtMs = nowMs
  } else if (role === "member" && isAlone) {
    step.become("alone")
    now.probe = null
    now.periodAtMs = never
    now.compareAtMs = never
    now.joinAtMs = now.seeds.length === 0 ? never : step.after(settings.periodMs * (1 + step.random()))
  }
}

/** Look for one of those that are taken for dead, and for a seed that is not there: networks that were parted meet again. */
export function reconnect(step: Step): void {
  const { now, settings } = step
  now.reconnectAtMs = step.after(settings.reconnectEveryMs * (0.5 + step.random()))
  const lost = anyDead(step)
  if (lost !== null) compareWith(step, lost.address)
  const seed = now.seeds[step.pick(now.seeds.length)]
  if (seed !== undefined && seed !== now.address && seed !== lost?.address && !isPresent(step, seed))
    compareWith(step, seed)
}

function anyDead(step: Step): Peer | null {
  const { table } = step.now
  if (table.counts.dead === 0) return null
  const first = step.pick(table.length)
  for (let n = 0; n < table.length; n++) {
    const peer = table.at((first + n) % table.length)
    if (peer.status === "dead" && peer.address !== "") return peer
  }
  return null
}

function isPresent({ now }: Step, address: string): boolean {
  const { table } = now
  for (let place = 0; place < table.length; place++) {
    const peer = table.at(place)
    if (peer.address === address && (peer.status === "alive" || peer.status === "suspect")) return true
  }
  return false
}

/** Somebody speaks whom this member does not hold for living: who it is, and who it knows, is asked, but not too often. */
export function greet(step: Step, from: string, address: string, head: SwimHead): void {
  const { now, nowMs, settings } = step
  if (nowMs < now.greetAtMs || head.type === "compare" || head.type === "entries") return
  const status = now.table.get(from)?.status
  if (status === "alive" || status === "suspect") return
  now.greetAtMs = step.after(settings.periodMs)
  compareWith(step, address)
}

/** From now on it is not there for others; it says so until enough have heard it. */
export function leave(step: Step): void {
  const { now, nowMs, settings } = step
  if (step.role === "leaving" || step.role === "left") return
  step.become("leaving")
  const { self } = step
  now.table = now.table.set({ ...self, sinceMs: nowMs, suspicion: null })
  now.probe = null
  now.periodAtMs = never
  now.compareAtMs = never
  now.reconnectAtMs = never
  now.joinAtMs = never
  now.leftAtMs = step.after(settings.leaveMs)
  step.spread({ ...self, address: "", meta: "" })
  if (now.table.present === 0) end(step)
}

/** It was said often enough, or for long enough. */
export function settleLeave(step: Step): void {
  if (step.now.queue.length === 0 || step.nowMs >= step.now.leftAtMs) end(step)
}

function end(step: Step): void {
  const { now } = step
  step.become("left")
  now.gossipAtMs = never
  now.leftAtMs = never
  now.relayed = []
  step.ask({ port: "process", op: "left" })
}
