/**
 * One life of simulated members, from a seed: faults while they come and go, then those that are left have to agree on who
 * is there; then all is calm, nobody may be suspected, and one that crashes and one that leaves have to be noticed in time.
 */
import { sha256 } from "@noble/hashes/sha2.js"
import { bytesToHex } from "@noble/hashes/utils.js"
import type { SwimCommand, SwimDatagram, SwimRequest } from "../../src/events/swim.ts"
import type { SwimContext } from "../../src/actors/swim/step.ts"
import { Roles } from "../checkers/roles.ts"
import { Accuracy } from "../checkers/swim/accuracy.ts"
import { Bounds } from "../checkers/swim/bounds.ts"
import { noticedWithinMs, unaware } from "../checkers/swim/completeness.ts"
import { disagreement } from "../checkers/swim/convergence.ts"
import { Dissemination } from "../checkers/swim/dissemination.ts"
import { Lifeguard } from "../checkers/swim/lifeguard.ts"
import { Precedence } from "../checkers/swim/precedence.ts"
import { Violation, violationOf } from "../checkers/violation.ts"
import type { Verdict } from "../verdict.ts"
import { Clock } from "../world/clock.ts"
import { Network } from "../world/network.ts"
import { makeRandom } from "../world/random.ts"
import type { Random } from "../world/random.ts"
import { Schedule } from "../world/schedule.ts"
import { Faults } from "./faults.ts"
import { Member } from "./member.ts"
import type { Watcher } from "./member.ts"
import { drawOptions } from "./options.ts"
import type { RunOptions } from "./options.ts"

export interface SwimVerdict extends Verdict {
  readonly options: RunOptions
}

class World implements Watcher {
  readonly random: Random
  readonly schedule: Schedule
  readonly members = new Map<string, Member>()
  readonly network: Network<SwimDatagram>
  readonly faults: Faults
  readonly options: RunOptions
  readonly precedence = new Precedence()
  readonly bounds = new Bounds()
  readonly dissemination = new Dissemination()
  readonly accuracy: Accuracy
  readonly lifeguard = new Lifeguard()
  readonly roles = new Roles("alone")
  readonly #told = sha256.create()

  constructor(seed: number) {
    this.random = makeRandom(seed)
    this.schedule = new Schedule(this.random.split("schedule"), events_max)
    this.options = drawOptions(this.random.split("options"))
    const { schedule, random, members, options } = this
    this.network = new Network(schedule, random.split("network"), options.network, (from, to, datagram) =>
      members.get(to)?.receive(from, datagram)
    )
    this.accuracy = new Accuracy(members)
    const seeds = Array.from({ length: Math.min(options.seeds, options.members) }, (_, index) => `n${index}`)
    const send = (from: string, to: string, datagram: SwimDatagram) => this.network.send(from, to, datagram)
    for (let index = 0; index < options.members + options.joiners; index++) {
      const own = random.split(`member ${index}`)
      const { settings, disk, driftPercent, bufferedMax, metaBytes } = options
      const clock = new Clock(own.int(0, 1_000_000), (own.next() * 2 - 1) * driftPercent, 0)
      const meta = ".".repeat(metaBytes)
      const member = { id: `n${index}`, meta, settings, seeds, disk, clock, bufferedMax }
      members.set(member.id, new Member({ schedule, random: own, send, watcher: this }, member))
    }
    const wiped = (member: Member) => this.precedence.wiped(member)
    this.faults = new Faults(
      { schedule, random, members, network: this.network, wiped, metaBytes: options.metaBytes },
      options.faults
    )
  }

  stepped(member: Member, input: SwimCommand, before: SwimContext, asked: ReadonlyArray<SwimRequest>): void {
    const taken = input.type === "swim.receive" ? input.datagram.head.type : input.type
    this.roles.took(this.roles.before(member), taken)
    this.roles.stepped(member)
    this.precedence.stepped(member, input, before)
    this.bounds.stepped(member)
    this.dissemination.stepped(member, input, before, this.schedule.nowMs)
    this.accuracy.stepped(member, asked)
    this.lifeguard.stepped(member, input, before, asked, member.nowMs)
    for (const one of asked)
      if (one.port === "peers")
        this.#told.update(new TextEncoder().encode(`${member.id} ${JSON.stringify(one)}\n`))
  }

  sent(member: Member, datagram: SwimDatagram): void {
    this.precedence.sent(member, datagram)
    this.bounds.sent(member, datagram)
    this.dissemination.sent(member, datagram)
  }

  run(): void {
    for (const member of [...this.members.values()].slice(0, this.options.members)) member.start()
    this.faults.start()
    this.schedule.runUntil(this.options.chaosMs)
    this.faults.end(this.#expendable())
    this.#settle()
    this.#calm()
    this.#crashOne()
    this.#leaveOne()
  }

  get up(): ReadonlyArray<Member> {
    return [...this.members.values()].filter(({ isUp }) => isUp)
  }

  #expendable(): ReadonlySet<string> {
    const others = [...this.members.keys()].filter((id) => id !== "n0")
    return new Set(others.filter(() => this.random.chance(0.25)))
  }

  /** All faults are over: those that live have to find one another, and to forget who is gone. */
  #settle(): void {
    const { settings, faults } = this.options
    const members = this.members.size
    // Health that is at its worst makes a round of probes so much longer.
    const roundsMs = 2 * (settings.healthMax + 1) * members * settings.periodMs
    const endMs =
      this.schedule.nowMs +
      2 * roundsMs +
      3 * noticedWithinMs(settings, members) +
      10 * (settings.compareEveryMs + 1.5 * settings.reconnectEveryMs) +
      settings.leaveMs +
      10 * faults.clogMeanMs
    for (let left = disagreement(this.members); left !== null; left = disagreement(this.members)) {
      if (this.schedule.nowMs >= endMs) throw new Violation("convergence", left)
      this.schedule.runUntil(this.schedule.nowMs + settings.periodMs)
    }
  }

  /** Late datagrams are over, and everybody is well again. */
  #calm(): void {
    const { settings } = this.options
    const { periodMs, healthMax } = settings
    this.schedule.runUntil(
      this.schedule.nowMs +
        (((healthMax + 1) * (healthMax + 2)) / 2 + 10) * periodMs +
        10 * this.options.faults.clogMeanMs
    )
    const left = disagreement(this.members)
    if (left !== null) throw new Violation("convergence", `${left}, after all had agreed`)
    this.accuracy.calm()
    this.dissemination.calm()
    this.schedule.runUntil(this.schedule.nowMs + 20 * periodMs)
    for (const { id, context } of this.up)
      if (context.health > 0 && this.up.length > 1)
        throw new Violation("liveness", `${id} does not get well: its health is ${context.health}`)
  }

  #crashOne(): void {
    const crashed = this.up.find(({ id }) => id !== "n0")
    if (crashed === undefined) return
    const { settings } = this.options
    crashed.crash()
    const endMs = this.schedule.nowMs + noticedWithinMs(settings, this.up.length + 1)
    for (let left = unaware(this.up, crashed.id); left.length > 0; left = unaware(this.up, crashed.id)) {
      if (this.schedule.nowMs >= endMs)
        throw new Violation("completeness", `${left.join(", ")} did not notice that ${crashed.id} is gone`)
      this.#watch(settings.periodMs)
    }
    this.#watch(10 * settings.periodMs)
  }

  #leaveOne(): void {
    const leaving = this.up.find(({ id }) => id !== "n0")
    if (leaving === undefined) return
    const { settings } = this.options
    leaving.operate({ type: "swim.leave", chance: this.random.next() })
    this.#watch(settings.leaveMs * 1.3 + noticedWithinMs(settings, this.up.length + 1))
    if (leaving.isUp) throw new Violation("liveness", `${leaving.id} does not come to leave`)
    const left = unaware(this.up, leaving.id)
    if (left.length > 0)
      throw new Violation("completeness", `${left.join(", ")} don't know that ${leaving.id} left`)
  }

  /** Let time go by, and see to it that news is told. */
  #watch(forMs: number): void {
    const endMs = this.schedule.nowMs + forMs
    while (this.schedule.nowMs < endMs) {
      this.schedule.runUntil(Math.min(endMs, this.schedule.nowMs + this.options.settings.periodMs / 2))
      this.dissemination.check(this.members.values(), this.schedule.nowMs)
    }
  }

  hash(): string {
    const { schedule } = this
    const text = JSON.stringify([schedule.events, schedule.nowMs, this.network.counts])
    return bytesToHex(this.#told.clone().update(new TextEncoder().encode(text)).digest())
  }
}

/** Some ten times as many as the busiest runs need. */
const events_max = 5_000_000

const injected: ReadonlyArray<string> = [
  ...["crashes", "blackouts", "wipes", "pauses", "partitions", "flaps", "clogs", "joins", "leaves"],
  ...["lost", "duplicated", "cut", "clogged", "overflowed", "stalls", "lostFacts"]
]

export function run(seed: number): SwimVerdict {
  const world = new World(seed)
  const violation = violationOf(() => world.run())
  const { schedule, options, accuracy } = world
  const disks = [...world.members.values()].map(({ disk }) => disk.counts)
  const sum = (of: "syncs" | "stalls" | "lostFacts") => disks.reduce((all, one) => all + one[of], 0)
  return {
    seed,
    violation,
    options,
    events: schedule.events,
    simulatedMs: schedule.nowMs,
    counts: {
      ...world.network.counts,
      overtaken: world.network.overtaken,
      ...world.faults.counts,
      syncs: sum("syncs"),
      stalls: sum("stalls"),
      lostFacts: sum("lostFacts"),
      suspicions: accuracy.suspicions,
      deaths: accuracy.deaths,
      falseDeaths: accuracy.falseDeaths
    },
    injected,
    coverage: [...world.roles.coverage],
    hash: world.hash()
  }
}
