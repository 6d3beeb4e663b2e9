/**
 * Lifeguard's three parts, each reckoned once more from what a member heard: whoever is not well takes more time (4.1), a
 * suspicion gets shorter with each that confirms it (4.2), and who is suspected hears it first (4.3).
 */
import type { SwimCommand, SwimRequest, SwimSettings } from "../../../src/events/swim.ts"
import type { SwimContext } from "../../../src/actors/swim/step.ts"
import type { Peer, Suspicion } from "../../../src/actors/swim/table.ts"
import type { Member } from "../../swim/member.ts"
import { Violation } from "../violation.ts"

type Asked = ReadonlyArray<SwimRequest>

function wrong(what: string): never {
  throw new Violation("accuracy", what)
}

/** A suspicion's least, in ms, in a group of so many. */
const leastMsOf = ({ suspicion, periodMs }: SwimSettings, present: number) =>
  suspicion * Math.max(1, Math.log10(Math.max(1, present))) * periodMs

/** Lifeguard, 4.2: from the most down to the least, by the logarithm of how many have confirmed it. */
function lastsMs({ leastMs, mostMs, wanted }: Suspicion, confirmed: number): number {
  if (wanted === 0) return leastMs
  const share = Math.log(confirmed + 1) / Math.log(wanted + 1)
  return Math.max(leastMs, mostMs - (mostMs - leastMs) * share)
}

/** Clocks show whole milliseconds. */
const roundingMs = 2

export class Lifeguard {
  /** By member and suspect: who accused it, as far as the member heard. */
  readonly #accusers = new Map<string, Set<string>>()

  stepped(member: Member, input: SwimCommand, before: SwimContext, asked: Asked, nowMs: number): void {
    const { settings } = member.options
    if (settings.lifeguard.buddy) buddies(member, input, asked)
    if (settings.lifeguard.probe && before.settings !== null) health(member, input, before, asked, nowMs)
    if (member.context.table !== before.table) this.#suspicions(member, input, before, nowMs)
  }

  #suspicions(member: Member, input: SwimCommand, before: SwimContext, nowMs: number): void {
    const { context, id } = member
    const updates = input.type === "swim.receive" ? input.datagram.updates : []
    for (let place = 0; place < context.table.length; place++) {
      const peer = context.table.at(place)
      const was = before.table.get(peer.id)
      const isSame = was?.incarnation === peer.incarnation
      const key = `${id} ${peer.id}`
      if (peer.suspicion === null) {
        this.#accusers.delete(key)
        const isOver =
          isSame && was.suspicion !== null && peer.status === "dead" && input.type === "swim.tick"
        if (isOver) over(id, peer.id, was.suspicion, nowMs)
        continue
      }
      const isNew = !isSame || was.suspicion === null
      if (isNew) begun(member, peer, peer.suspicion, before.table.present, updates.length)
      const known = isNew ? undefined : this.#accusers.get(key)
      const accusers = known ?? new Set(peer.suspicion.by)
      for (const { id: accused, status, incarnation, by } of updates)
        if (accused === peer.id && status === "suspect" && incarnation === peer.incarnation) accusers.add(by)
      this.#accusers.set(key, accusers)
      lasting(id, peer.id, peer.suspicion, accusers)
    }
  }
}

/** It begins at its most when there are enough to confirm it; a datagram may change how many there are. */
function begun(
  { id, options: { settings } }: Member,
  { id: suspect }: Peer,
  { leastMs, mostMs, wanted }: Suspicion,
  present: number,
  changes: number
): void {
  const { suspicion, suspicionMax, lifeguard } = settings
  const isSlow = leastMs > leastMsOf(settings, present + changes)
  if (isSlow || leastMs < Math.floor(leastMsOf(settings, present - changes)))
    wrong(`${id} suspects ${suspect} for ${leastMs} ms at least, of ${present} members`)
  if (mostMs !== leastMs * suspicionMax) wrong(`${id} suspects ${suspect} for ${mostMs} ms at most`)
  const isFew = !lifeguard.suspicion || present + changes < suspicion
  if (isFew && wanted !== 0)
    wrong(`${id} awaits ${wanted} that suspect ${suspect} too, of ${present} members`)
  const isMany = lifeguard.suspicion && present - changes >= suspicion
  if (isMany && wanted !== suspicion - 2)
    wrong(`${id} awaits ${wanted} that suspect ${suspect} too, and not ${suspicion - 2}`)
}

/** Those that it heard of count, and maybe itself, and nobody else and nobody twice. */
function lasting(id: string, suspect: string, suspicion: Suspicion, accusers: ReadonlySet<string>): void {
  const { startMs, deadlineMs, wanted } = suspicion
  const most = new Set(accusers).add(id).size - 1
  const shownMs = deadlineMs - startMs
  const longestMs = lastsMs(suspicion, Math.min(accusers.size - 1, wanted))
  const shortestMs = lastsMs(suspicion, Math.min(most, wanted))
  if (shownMs > longestMs + roundingMs || shownMs < shortestMs - roundingMs)
    wrong(
      `${id} suspects ${suspect} for ${shownMs} ms after ${accusers.size} accused it, not for ${shortestMs} to ${longestMs}`
    )
}

/** Not before its time; what the same tick finds out by itself may have confirmed it. */
function over(id: string, suspect: string, suspicion: Suspicion, nowMs: number): void {
  const confirmed = new Set(suspicion.by).add(id).size - 1
  const dueMs = suspicion.startMs + lastsMs(suspicion, Math.min(confirmed, suspicion.wanted)) - roundingMs
  if (nowMs < dueMs) wrong(`${id} takes ${suspect} for dead ${dueMs - nowMs} ms too soon`)
}

/** Whoever is pinged, or answered, hears from the one that does it when it is suspected or taken for dead. */
function buddies({ id, context }: Member, input: SwimCommand, asked: Asked): void {
  const pinging = input.type === "swim.receive" && input.datagram.head.type === "ping" ? input.datagram : null
  for (const request of asked) {
    if (request.port !== "datagram") continue
    const { head, updates } = request.datagram
    const isAnswer = pinging !== null && head.type === "ack" && request.to === pinging.from
    if (head.type !== "ping" && !isAnswer) continue
    const to = context.table.get(head.type === "ping" ? head.target : (pinging?.from ?? ""))
    if (to?.status !== "suspect" && to?.status !== "dead") continue
    const isTold = ({ id: told, status, incarnation }: (typeof updates)[number]) =>
      told === to.id && incarnation === to.incarnation && (status === "suspect" || status === "dead")
    if (!updates.some(isTold))
      wrong(`${id} takes ${to.id} for ${to.status}, and speaks to it of other things`)
  }
}

/** It gets worse by each sign that a member does not hear what it should, and what a member does takes longer by it. */
function health(
  { id, context, options: { settings }, replica, role }: Member,
  input: SwimCommand,
  before: SwimContext,
  asked: Asked,
  nowMs: number
): void {
  const { health: is, probe } = context
  // An answer in the same datagram is a sign that it is well.
  const better = input.type === "swim.receive" && input.datagram.head.type === "ack" ? 1 : 0
  const isWorse = (by: number, why: string) => {
    const least = Math.min(settings.healthMax, before.health + by) - better
    if (is < least) wrong(`${id} is as well as ${is} when it ${why}, and should be at ${least}`)
  }
  const isStall = context.graceMs !== before.graceMs
  if (isStall) isWorse(1, "stood still")
  if (input.type === "swim.receive" && context.incarnation > before.incarnation) isWorse(1, "was accused")
  if (input.type !== "swim.tick" || isStall || (role !== "alone" && role !== "member")) return
  const was = before.probe
  if (was !== null && !was.isAnswered && nowMs >= before.periodAtMs)
    isWorse(was.relays.length === 0 ? 1 : was.relays.length - was.nacks.length, "had no answer")
  for (const { nackMs, address, asked: sequence } of before.relayed) {
    const isNack = (one: SwimRequest) =>
      one.port === "datagram" &&
      one.to === address &&
      one.datagram.head.type === "nack" &&
      one.datagram.head.sequence === sequence
    if (nackMs <= nowMs && replica.held === 0 && !asked.some(isNack))
      wrong(`${id} does not tell ${address} that it heard nothing either`)
  }
  if (probe === null || probe.sequence === was?.sequence) return
  const { periodMs, timeoutMs } = settings
  for (const [what, atMs, forMs] of [
    ["period", context.periodAtMs, periodMs],
    ["timeout", probe.relayMs, timeoutMs]
  ] as const) {
    const wantedMs = forMs * (is + 1)
    if (Math.abs(atMs - nowMs - wantedMs) > roundingMs)
      wrong(`${id}, as well as ${is}, takes a ${what} of ${atMs - nowMs} ms and not of ${wantedMs}`)
  }
}
