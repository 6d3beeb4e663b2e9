/**
 * Is it there? One member is pinged in each period, by others when it does not answer, and suspected when nobody had an
 * answer (SWIM, 3.1). Who is not well itself takes more time for it (Lifeguard, 4.1).
 */
import type { PeerUpdate, SwimHead } from "../../events/swim.ts"
import { permuted } from "./order.ts"
import { accusation } from "./step.ts"
import type { Step } from "./step.ts"
import type { Peer } from "./table.ts"
import { ail, confirm, suspect } from "./updates.ts"

/** Of a probe's timeout, when a relay says that it heard nothing: early enough to be heard. */
const nackShare = 0.8

/** How much longer everything takes for a member that is not well. */
const slowness = ({ now, settings }: Step): number => (settings.lifeguard.probe ? now.health + 1 : 1)

/** The suspect learns it from whoever speaks to it next (Lifeguard, 4.3), and so does who is wrongly taken for dead. */
export function buddyNews(step: Step, peer: Peer | null): ReadonlyArray<PeerUpdate> {
  if (peer === null || !step.settings.lifeguard.buddy) return []
  if (peer.status !== "suspect" && peer.status !== "dead") return []
  return [accusation(peer, peer.status, peer.suspicion?.by[0] ?? step.now.id)]
}

/** The period is over: what came of its probe, and the next one. */
export function nextPeriod(step: Step): void {
  const { now, settings } = step
  if (now.probe !== null && !now.probe.isAnswered) fail(step)
  now.probe = null
  now.periodAtMs = step.after(settings.periodMs * slowness(step))
  const target = nextTarget(step)
  if (target === null) return
  const sequence = step.nextSequence()
  now.probe = {
    target: target.id,
    address: target.address,
    incarnation: target.incarnation,
    sequence,
    relayMs: step.after(settings.timeoutMs * slowness(step)),
    relays: [],
    nacks: [],
    isAnswered: false
  }
  step.send(target.address, { type: "ping", sequence, target: target.id }, buddyNews(step, target))
}

function nextTarget(step: Step): Peer | null {
  const { now } = step
  const { table } = now
  for (let tries = 0; tries < 2 * table.length; tries++) {
    if (now.round.taken >= now.round.size)
      now.round = { key: Math.floor(step.random() * 2 ** 32), size: table.length, taken: 0 }
    const { key, size, taken } = now.round
    now.round = { key, size, taken: taken + 1 }
    const place = permuted(taken, size, key)
    const peer = place < table.length ? table.at(place) : null
    if (peer !== null && peer.id !== now.id && (peer.status === "alive" || peer.status === "suspect"))
      return peer
  }
  return null
}

/** Nobody had an answer. Whoever did not even hear from its relays doubts itself. */
function fail(step: Step): void {
  const { now, settings } = step
  const { probe } = now
  if (probe === null) return
  if (settings.lifeguard.probe)
    ail(step, probe.relays.length === 0 ? 1 : probe.relays.length - probe.nacks.length)
  const peer = now.table.get(probe.target)
  if (peer === null || peer.incarnation !== probe.incarnation) return
  if (peer.status === "alive") suspect(step, peer, now.id)
  else if (peer.status === "suspect") confirm(step, peer, now.id)
}

/** No answer in time: others are asked to try. */
export function askRelays(step: Step): void {
  const { now, settings } = step
  const { probe } = now
  if (probe === null) return
  const relays = someAlive(step, settings.relays, probe.target)
  now.probe = { ...probe, relayMs: Number.POSITIVE_INFINITY, relays: relays.map(({ id }) => id) }
  const { sequence, target, address } = probe
  for (const relay of relays) step.send(relay.address, { type: "pingRequest", sequence, target, address })
}

/** Up to so many, none twice. */
function someAlive(step: Step, count: number, except: string): ReadonlyArray<Peer> {
  const { table, id } = step.now
  const some: Array<Peer> = []
  for (let tries = 0; some.length < count && tries < 3 * count + table.length && tries < 64; tries++) {
    const peer = table.at(step.pick(table.length))
    if (peer.status === "alive" && peer.id !== id && peer.id !== except && !some.includes(peer))
      some.push(peer)
  }
  return some
}

type Head<T extends SwimHead["type"]> = Extract<SwimHead, { readonly type: T }>

export function onPing(step: Step, from: string, address: string, { sequence, target }: Head<"ping">): void {
  // Somebody else had this address before.
  if (target !== step.now.id) return
  step.send(address, { type: "ack", sequence }, buddyNews(step, step.now.table.get(from)))
}

export function onPingRequest(step: Step, address: string, asked: Head<"pingRequest">): void {
  const { now, settings } = step
  if (now.relayed.length >= settings.relayedMax) return
  const sequence = step.nextSequence()
  now.relayed = [
    ...now.relayed,
    {
      sequence,
      target: asked.target,
      address,
      asked: asked.sequence,
      nackMs: step.after(settings.timeoutMs * nackShare)
    }
  ]
  const news = buddyNews(step, now.table.get(asked.target))
  step.send(asked.address, { type: "ping", sequence, target: asked.target }, news)
}

export function onAck(step: Step, from: string, { sequence }: Head<"ack">): void {
  const { now, settings } = step
  const { probe } = now
  const relayed = now.relayed.find((one) => one.sequence === sequence && one.target === from)
  if (relayed !== undefined) {
    now.relayed = now.relayed.filter((one) => one !== relayed)
    step.send(relayed.address, { type: "ack", sequence: relayed.asked })
  }
  if (probe === null || probe.sequence !== sequence || probe.isAnswered) return
  if (from !== probe.target && !probe.relays.includes(from)) return
  now.probe = { ...probe, isAnswered: true, relayMs: Number.POSITIVE_INFINITY }
  if (settings.lifeguard.probe) ail(step, -1)
}

export function onNack(step: Step, from: string, { sequence }: Head<"nack">): void {
  const { probe } = step.now
  if (probe === null || probe.sequence !== sequence) return
  if (!probe.relays.includes(from) || probe.nacks.includes(from)) return
  step.now.probe = { ...probe, nacks: [...probe.nacks, from] }
}

/** Probes for others that were not answered. */
export function onRelayed(step: Step): void {
  const { now, nowMs, settings } = step
  if (!now.relayed.some(({ nackMs }) => nackMs <= nowMs)) return
  for (const { nackMs, address, asked } of now.relayed)
    if (nackMs <= nowMs && settings.lifeguard.probe) step.send(address, { type: "nack", sequence: asked })
  now.relayed = now.relayed.filter(({ nackMs }) => nackMs > nowMs)
}
