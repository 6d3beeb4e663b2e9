/** What is measured of clusters: how soon a crash is noticed and known, what that costs, and who is accused wrongly. */
import type { SwimSettings } from "../../src/events/swim.ts"
import { Cluster, lan } from "./cluster.ts"
import type { Changed } from "./cluster.ts"
import type { Member } from "./member.ts"

export interface Detection {
  /** From the crash, in periods: until the probe that failed was over and its target suspected. */
  readonly suspected: number
  /** From the first suspicion, in ms, until all knew of it. */
  readonly spreadMs: number
  /** From the crash, in periods, until all took it for dead; infinity when that was not awaited. */
  readonly dead: number
}

interface Victim {
  readonly crashedMs: number
  suspectedMs: number
  knownMs: number
  deadMs: number
  readonly knowing: Set<string>
  readonly burying: Set<string>
}

export interface DetectionRun {
  readonly detections: ReadonlyArray<Detection>
  /** Deaths of members that live, and suspicions of them. */
  readonly falseDeaths: number
  readonly falseSuspicions: number
  /** While nothing happens, of one member in a second. */
  readonly datagramsPerSecond: number
}

/** Members crash one after the other, `everyMs` apart; `waits` until all take them for dead. */
export function measureDetection(
  seed: number,
  members: number,
  settings: SwimSettings,
  { crashes, everyMs, waits }: { readonly crashes: number; readonly everyMs: number; readonly waits: boolean }
): DetectionRun {
  const victims = new Map<string, Victim>()
  let [falseDeaths, falseSuspicions] = [0, 0]
  const changed = (member: Member, { peer }: Changed) => {
    if (peer.status !== "suspect" && peer.status !== "dead") return
    const victim = victims.get(peer.id)
    const nowMs = cluster.schedule.nowMs
    if (victim === undefined) {
      if (peer.status === "dead") falseDeaths++
      else falseSuspicions++
      return
    }
    if (victim.knowing.size === 0) victim.suspectedMs = nowMs
    victim.knowing.add(member.id)
    if (peer.status === "dead") victim.burying.add(member.id)
    judge(victim)
  }
  const living = () => members - victims.size
  const judge = (victim: Victim) => {
    const { schedule } = cluster
    if (victim.knowing.size === living()) victim.knownMs = Math.min(victim.knownMs, schedule.nowMs)
    if (victim.burying.size === living()) victim.deadMs = Math.min(victim.deadMs, schedule.nowMs)
  }
  const cluster = new Cluster({ seed, members, settings, network: lan, bufferedMax: 1000, changed })
  cluster.start()
  const { random, schedule, network } = cluster
  const quietPeriods = 5
  cluster.run(settings.periodMs)
  const before = network.counts.sent
  cluster.run(quietPeriods * settings.periodMs)
  const datagramsPerSecond =
    (network.counts.sent - before) / members / ((quietPeriods * settings.periodMs) / 1000)
  for (let crash = 0; crash < crashes; crash++) {
    cluster.run(everyMs * (0.5 + random.next()))
    const up = cluster.members.filter(({ isUp }) => isUp)
    const member = up[random.int(0, up.length - 1)] as Member
    const never = Number.POSITIVE_INFINITY
    victims.set(member.id, {
      crashedMs: schedule.nowMs,
      suspectedMs: never,
      knownMs: never,
      deadMs: never,
      knowing: new Set(),
      burying: new Set()
    })
    member.crash()
    for (const victim of victims.values()) {
      victim.knowing.delete(member.id)
      victim.burying.delete(member.id)
      judge(victim)
    }
  }
  const endMs = schedule.nowMs + periods_max * settings.periodMs
  const isOpen = () =>
    [...victims.values()].some(
      ({ knownMs, deadMs }) => (waits ? deadMs : knownMs) === Number.POSITIVE_INFINITY
    )
  while (isOpen() && schedule.nowMs < endMs) cluster.run(settings.periodMs)
  const detections = [...victims.values()].map(({ crashedMs, suspectedMs, knownMs, deadMs }) => ({
    suspected: (suspectedMs - crashedMs) / settings.periodMs,
    spreadMs: knownMs - suspectedMs,
    dead: (deadMs - crashedMs) / settings.periodMs
  }))
  return { detections, falseDeaths, falseSuspicions, datagramsPerSecond }
}

/** Then what was not noticed counts as infinity. */
const periods_max = 200

export interface Pauses {
  /** The whole process, or only its messages, while its timers run. */
  readonly stops: "process" | "messages"
  /** Share of the members that stand still again and again. */
  readonly share: number
  readonly leastMs: number
  readonly mostMs: number
  /** Between two pauses of a member, drawn evenly over the orders of magnitude. */
  readonly awakeLeastMs: number
  readonly awakeMostMs: number
  readonly durationMs: number
  /** Of the network, one way. */
  readonly delayMeanMs: number
}

/** A tenth of the members, for up to ten seconds: the figure that is wanted. */
export const aTenth = {
  share: 0.1,
  leastMs: 1000,
  mostMs: 10_000,
  awakeLeastMs: 1,
  awakeMostMs: 16_384,
  delayMeanMs: lan.delayMeanMs
}

export interface PauseRun {
  /** Somebody took a member for dead that lives and never stood still: as Lifeguard's paper counts. */
  readonly falseDeaths: number
  /** Of these, what members learned that did not stand still themselves. */
  readonly falseDeathsAtHealthy: number
  /** Members that never stood still, that were ever taken for dead, by episodes: each once until it was alive again for all. */
  readonly accused: number
  /** Somebody took a member for dead that stood still, or had. */
  readonly pausedDeaths: number
  readonly suspicions: number
}

export function measurePauses(
  seed: number,
  members: number,
  settings: SwimSettings,
  pauses: Pauses
): PauseRun {
  const pausing = new Set<string>()
  let [falseDeaths, falseDeathsAtHealthy, pausedDeaths, suspicions] = [0, 0, 0, 0]
  const accused = new Set<string>()
  const cluster = new Cluster({
    seed,
    members,
    settings,
    network: { ...lan, delayMeanMs: pauses.delayMeanMs },
    bufferedMax: 1000,
    changed: (member, { peer }) => {
      if (peer.status === "suspect") suspicions++
      if (peer.status !== "dead") return
      if (pausing.has(peer.id)) pausedDeaths++
      else {
        falseDeaths++
        if (!pausing.has(member.id)) falseDeathsAtHealthy++
        accused.add(`${peer.id} ${peer.incarnation}`)
      }
    }
  })
  const { random, schedule } = cluster
  const order = cluster.members
    .map((member) => ({ member, at: random.next() }))
    .toSorted((a, b) => a.at - b.at)
  const between = (leastMs: number, mostMs: number) => leastMs + (mostMs - leastMs) * random.next()
  const pause = (member: Member) => {
    const forMs = between(pauses.leastMs, pauses.mostMs)
    if (pauses.stops === "process") member.pausedMs = schedule.nowMs + forMs
    else member.heldUpMs = schedule.nowMs + forMs
    const { awakeLeastMs, awakeMostMs } = pauses
    const awakeMs = awakeLeastMs * (awakeMostMs / awakeLeastMs) ** random.next()
    schedule.after(forMs + awakeMs, () => pause(member))
  }
  for (const { member } of order.slice(0, Math.round(members * pauses.share))) {
    pausing.add(member.id)
    schedule.after(between(0, pauses.awakeMostMs), () => pause(member))
  }
  cluster.start()
  cluster.run(pauses.durationMs)
  return { falseDeaths, falseDeathsAtHealthy, accused: accused.size, pausedDeaths, suspicions }
}
