/**
 * What is said of members, and what becomes of it. Updates are ordered, by incarnation and then by what they say, and a
 * later one stands: so tables agree whatever the order in which updates come. A member itself is the only one that raises
 * its incarnation, and does so against whatever else is said of it (SWIM, 4.2).
 */
import type { PeerUpdate } from "../../events/swim.ts"
import { Deadlines } from "./deadlines.ts"
import { accusation } from "./step.ts"
import type { Step } from "./step.ts"
import { rankOf } from "./table.ts"
import type { Peer, Suspicion } from "./table.ts"

/** Whether what is said is from a table, and no news as such. */
export type Source = "news" | "entry"

/** Whether the first stands against the second. */
export const isLater = (
  one: Pick<PeerUpdate, "incarnation" | "status">,
  other: Pick<PeerUpdate, "incarnation" | "status">
): boolean =>
  one.incarnation > other.incarnation ||
  (one.incarnation === other.incarnation && rankOf(one.status) > rankOf(other.status))

/** `from` is whoever sent it, at `address`; null where nobody did. */
export function onUpdate(
  step: Step,
  update: PeerUpdate,
  source: Source,
  sender: { readonly from: string; readonly address: string }
): void {
  // A life is only known with where it is.
  if (update.status === "alive" && update.address === "") return
  if (update.id === step.now.id) return aboutSelf(step, update, sender.address)
  const peer = step.now.table.get(update.id)
  if (peer === null) return aboutStranger(step, update, source, sender.from)
  if (!isLater(update, peer)) {
    const isSame = update.incarnation === peer.incarnation
    if (isSame && update.status === "suspect" && peer.suspicion !== null) confirm(step, peer, update.by)
    return
  }
  switch (update.status) {
    case "alive":
      return welcome(step, update, peer, isNews(step, update, source, sender.from))
    case "suspect":
      if (peer.address === "" && update.address === "") return
      return suspect(step, { ...peer, ...whole(update, peer) }, update.by)
    case "dead":
    case "left":
      return bury(step, { ...peer, ...whole(update, peer) }, update)
  }
}

/** An accusation leaves out what only the accused says. */
const whole = ({ incarnation, address, meta }: PeerUpdate, peer: Peer) => ({
  incarnation,
  address: address === "" ? peer.address : address,
  meta: address === "" ? peer.meta : meta
})

/**
 * What others' tables hold is told on where it may be news here too: by whoever has been here for a while. Otherwise a
 * newcomer would tell everybody about everybody.
 */
function isNews(step: Step, { id }: PeerUpdate, source: Source, from: string): boolean {
  const { now, nowMs, settings, role } = step
  if (source === "news" || id === from) return true
  return role === "member" && nowMs - now.metMs > newcomerPeriods * settings.periodMs
}

const newcomerPeriods = 10

function aboutStranger(step: Step, update: PeerUpdate, source: Source, from: string): void {
  const { now, settings } = step
  if (now.table.length >= settings.membersMax) return
  const { id, incarnation, address, meta, status } = update
  const stranger = { id, incarnation, address, meta, status, sinceMs: step.nowMs, suspicion: null }
  if (status === "alive" && address !== "")
    return welcome(step, update, stranger, isNews(step, update, source, from))
  if (status === "suspect" && address !== "") return suspect(step, stranger, update.by)
  // So that an older word of its life does not stand. Tables are not a source: what all forget has to be forgotten.
  if ((status === "dead" || status === "left") && source === "news") bury(step, stranger, update)
}

/** Everything but that it lives, and a life that is not this one, is refuted. */
function aboutSelf(step: Step, update: PeerUpdate, senderAddress: string): void {
  if (step.role === "leaving" || step.role === "left") return
  const { self, now, settings } = step
  if (update.incarnation < step.incarnation) {
    // Who still says so has not heard the answer.
    if (update.status !== "alive") step.sendOnly(senderAddress, { type: "gossip" }, [self])
    return
  }
  const isSaid = update.incarnation === step.incarnation && update.status === "alive"
  if (isSaid && update.address === now.address && update.meta === now.meta) return
  renew(step, update.incarnation + 1)
  if (settings.lifeguard.probe) ail(step, 1)
}

/** Another incarnation of this member, told to all. */
export function renew(step: Step, incarnation: number): void {
  const { now, nowMs } = step
  step.incarnate(incarnation)
  const { self } = step
  now.table = now.table.set({ ...self, sinceMs: nowMs, suspicion: null })
  step.spread(self)
}

/** Local health gets worse by so much, or, below 0, better. */
export function ail(step: Step, by: number): void {
  const { now, settings } = step
  now.health = Math.min(settings.healthMax, Math.max(0, now.health + by))
}

function tell(step: Step, peer: Peer, before: Peer | null, by: string): void {
  const { id, status, incarnation, address, meta } = peer
  // Of a stranger that is gone there is nothing to tell.
  if (before === null && (status === "dead" || status === "left")) return
  const isKnown = before?.status === status && before.meta === meta && before.address === address
  if (isKnown && before.incarnation === incarnation) return
  step.ask({
    port: "peers",
    op: "changed",
    peer: { id, status, incarnation, address, meta },
    before: before?.status ?? null,
    by
  })
}

function put(step: Step, peer: Peer, by: string): void {
  const before = step.now.table.get(peer.id)
  step.now.table = step.now.table.set(peer)
  tell(step, peer, before, by)
}

function welcome(step: Step, update: PeerUpdate, peer: Peer, isToBeTold: boolean): void {
  const { incarnation, address, meta, by } = update
  const { nowMs } = step
  put(step, { id: peer.id, status: "alive", incarnation, address, meta, sinceMs: nowMs, suspicion: null }, by)
  if (isToBeTold) step.spread(update)
}

/** How long a suspicion lasts that so many others have confirmed (Lifeguard, 4.2). */
export function suspicionMs({ leastMs, mostMs, wanted }: Suspicion, confirmed: number): number {
  if (wanted === 0) return leastMs
  const share = Math.log(Math.min(confirmed, wanted) + 1) / Math.log(wanted + 1)
  return Math.max(leastMs, Math.floor(mostMs - (mostMs - leastMs) * share))
}

/** `peer` as it would be, but for the suspicion. */
export function suspect(step: Step, peer: Peer, by: string): void {
  const { now, nowMs, settings } = step
  const { suspicion: factor, suspicionMax, periodMs, lifeguard } = settings
  const { present } = now.table
  const leastMs = Math.floor(factor * Math.max(1, Math.log10(Math.max(1, present))) * periodMs)
  // Of few members not so many can confirm it: not this one, not the suspect, not who accuses it.
  const wanted = lifeguard.suspicion && present - 2 >= factor - 2 ? Math.max(0, factor - 2) : 0
  const begun = {
    startMs: nowMs,
    leastMs,
    mostMs: leastMs * suspicionMax,
    wanted,
    by: [by],
    deadlineMs: 0
  }
  const suspicion = { ...begun, deadlineMs: step.after(suspicionMs(begun, 0)) }
  put(step, { ...peer, status: "suspect", sinceMs: nowMs, suspicion }, by)
  remind(step, suspicion.deadlineMs, peer.id)
  step.spread(accusation(peer, "suspect", by))
}

/** Somebody else, independently, does not reach it either: the suspicion gets shorter, and that is news too. */
export function confirm(step: Step, peer: Peer, by: string): void {
  const { now } = step
  const { suspicion } = peer
  if (suspicion === null || suspicion.by.includes(by) || suspicion.by.length > suspicion.wanted) return
  const confirmed = [...suspicion.by, by]
  const deadlineMs = suspicion.startMs + suspicionMs(suspicion, confirmed.length - 1)
  now.table = now.table.set({ ...peer, suspicion: { ...suspicion, by: confirmed, deadlineMs } })
  remind(step, deadlineMs, peer.id)
  step.spread(accusation(peer, "suspect", by))
}

/** Those that are due no more are cleared away when they are most of them. */
function remind({ now, settings }: Step, atMs: number, id: string): void {
  now.deadlines = now.deadlines.add(atMs, id)
  if (now.deadlines.length <= 8 * now.table.length + 64) return
  now.deadlines = Deadlines.empty
  for (let place = 0; place < now.table.length; place++) {
    const peer = now.table.at(place)
    const dueMs = peer.suspicion?.deadlineMs ?? peer.sinceMs + settings.forgetAfterMs
    if (peer.status !== "alive") now.deadlines = now.deadlines.add(dueMs, peer.id)
  }
}

/** It is dead, or left. */
function bury(step: Step, peer: Peer, { status, by }: Pick<PeerUpdate, "status" | "by">): void {
  const { nowMs, settings } = step
  put(step, { ...peer, status, sinceMs: nowMs, suspicion: null }, by)
  remind(step, step.after(settings.forgetAfterMs), peer.id)
  const { id, incarnation } = peer
  step.spread({ id, status, incarnation, by, address: "", meta: "" })
}

/** Suspicions that nobody refuted in time are deaths; the dead are forgotten when they were dead for long. */
export function onDeadlines(step: Step): void {
  const { now, nowMs, settings } = step
  while (now.deadlines.nextMs <= nowMs) {
    const peer = now.table.get(now.deadlines.next ?? "")
    now.deadlines = now.deadlines.rest()
    if (peer === null) continue
    if (peer.suspicion !== null) {
      const dueMs = Math.max(peer.suspicion.deadlineMs, now.graceMs)
      if (dueMs <= nowMs) bury(step, peer, { status: "dead", by: now.id })
      else if (peer.suspicion.deadlineMs <= nowMs) now.deadlines = now.deadlines.add(dueMs, peer.id)
    } else if (peer.status !== "alive" && peer.sinceMs + settings.forgetAfterMs <= nowMs) {
      now.table = now.table.without(peer.id)
      step.ask({ port: "peers", op: "forgotten", id: peer.id })
    }
  }
}
