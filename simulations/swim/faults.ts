/** What happens to simulated members, besides their network: crashes, pauses, partitions, and who comes and goes. */
import type { SwimDatagram } from "../../src/events/swim.ts"
import { partition } from "../world/network.ts"
import type { Network } from "../world/network.ts"
import type { Random } from "../world/random.ts"
import type { Schedule } from "../world/schedule.ts"
import type { Member } from "./member.ts"
import type { FaultOptions } from "./options.ts"

export interface FaultWorld {
  readonly schedule: Schedule
  readonly random: Random
  readonly members: ReadonlyMap<string, Member>
  readonly network: Network<SwimDatagram>
  /** Told when a member lost its disk. */
  readonly wiped: (member: Member) => void
  readonly metaBytes: number
}

export class Faults {
  readonly #world: FaultWorld
  readonly #random: Random
  readonly #options: FaultOptions
  #isOver = false
  #described = 0
  readonly counts = {
    crashes: 0,
    blackouts: 0,
    restarts: 0,
    wipes: 0,
    pauses: 0,
    partitions: 0,
    flaps: 0,
    clogs: 0,
    joins: 0,
    leaves: 0,
    descriptions: 0
  }

  constructor(world: FaultWorld, options: FaultOptions) {
    this.#world = world
    this.#random = world.random.split("faults")
    this.#options = options
  }

  start(): void {
    const options = this.#options
    this.#repeat(options.crashEveryMs, () => this.#crash(this.#any()))
    this.#repeat(options.blackoutEveryMs, () => {
      this.counts.blackouts++
      for (const member of this.#world.members.values()) this.#crash(member)
    })
    this.#repeat(options.pauseEveryMs, () => this.#pause())
    this.#repeat(options.partitionEveryMs, () => this.#partition())
    this.#repeat(options.clogEveryMs, () => this.#clog())
    this.#repeat(options.joinEveryMs, () => this.#join())
    this.#repeat(options.leaveEveryMs, () => this.#leave())
    this.#repeat(options.describeEveryMs, () => this.#describe())
  }

  /** The network heals, all but these come back unless they left, and these are gone for good. */
  end(dead: ReadonlySet<string>): void {
    this.#isOver = true
    this.#world.network.heal()
    for (const member of this.#world.members.values()) {
      member.pausedMs = 0
      if (dead.has(member.id)) {
        if (member.isUp) member.crash()
      } else if (!member.isUp && !member.hasLeft && member.life > 0) this.#start(member)
    }
  }

  #exponential(meanMs: number): number {
    return -Math.log(1 - this.#random.next()) * meanMs
  }

  #repeat(everyMs: number, happen: () => void): void {
    if (everyMs === Number.POSITIVE_INFINITY) return
    this.#world.schedule.after(this.#exponential(everyMs), () => {
      if (this.#isOver) return
      happen()
      this.#repeat(everyMs, happen)
    })
  }

  #any(): Member {
    const all = [...this.#world.members.values()]
    return all[this.#random.int(0, all.length - 1)] as Member
  }

  #start(member: Member): void {
    if (this.#random.chance(this.#options.wipes)) {
      this.counts.wipes++
      member.wipe()
      this.#world.wiped(member)
    }
    this.counts.restarts++
    member.start()
  }

  #crash(member: Member): void {
    if (!member.isUp) return
    member.crash()
    this.counts.crashes++
    this.#world.schedule.after(this.#exponential(this.#options.downMeanMs), () => {
      if (!this.#isOver && !member.isUp) this.#start(member)
    })
  }

  #pause(): void {
    this.counts.pauses++
    this.#any().pausedMs = this.#world.schedule.nowMs + this.#exponential(this.#options.pauseMeanMs)
  }

  #partition(): void {
    const { partitions, partitionMeanMs, flapping } = this.#options
    const { network, members, schedule } = this.#world
    if (partitions.length === 0 || network.isCut) return
    const kind = partitions[this.#random.int(0, partitions.length - 1)] ?? "halves"
    const cuts = partition(kind, [...members.keys()], this.#any().id, this.#random)
    this.counts.partitions++
    const untilMs = schedule.nowMs + this.#exponential(partitionMeanMs)
    const mend = network.cut(cuts)
    if (this.#random.chance(flapping)) this.#flap(cuts, mend, untilMs + partitionMeanMs)
    else schedule.at(untilMs, mend)
  }

  #flap(cuts: ReadonlyArray<string>, mend: () => void, untilMs: number): void {
    const { network, schedule } = this.#world
    schedule.after(this.#exponential(this.#options.partitionMeanMs / 5), () => {
      if (this.#isOver) return
      const isLast = schedule.nowMs >= untilMs
      this.counts.flaps++
      const wasCut = network.isCut
      mend()
      if (!isLast) this.#flap(cuts, wasCut ? () => {} : network.cut(cuts), untilMs)
    })
  }

  #clog(): void {
    const { network, members, schedule } = this.#world
    const from = this.#any().id
    const to = this.#random.chance(0.5) ? [this.#any().id] : [...members.keys()]
    this.counts.clogs++
    const untilMs = schedule.nowMs + this.#exponential(this.#options.clogMeanMs)
    for (const id of to) network.clog(`${from}>${id}`, untilMs)
  }

  /** One that never was there, or one that left. */
  #join(): void {
    const waiting = [...this.#world.members.values()].find((one) => one.life === 0 || one.hasLeft)
    if (waiting === undefined) return
    this.counts.joins++
    waiting.start()
  }

  #leave(): void {
    const member = this.#any()
    // Somebody has to be there whom the others find.
    if (member.id === "n0" || !member.isUp || member.isPaused) return
    this.counts.leaves++
    member.operate({ type: "swim.leave", chance: this.#random.next() })
  }

  #describe(): void {
    const { metaBytes } = this.#world
    this.counts.descriptions++
    this.#any().describe(`${this.#described++}`.padEnd(metaBytes, ".").slice(0, Math.max(8, metaBytes)))
  }
}
