/** What happens to a simulated group, besides its network and disks: crashes, pauses, partitions, and its operators. */
import type { RaftMessage } from "../../src/events/raft.ts"
import { partition } from "../world/network.ts"
import type { Network } from "../world/network.ts"
import type { Random } from "../world/random.ts"
import type { Schedule } from "../world/schedule.ts"
import type { Member } from "./member.ts"
import type { FaultOptions } from "./options.ts"

export interface FaultCounts {
  crashes: number
  blackouts: number
  restarts: number
  pauses: number
  partitions: number
  clogs: number
  ambushes: number
  transfers: number
  changes: number
}

export class Faults {
  readonly #schedule: Schedule
  readonly #random: Random
  readonly #members: ReadonlyMap<string, Member>
  readonly #network: Network<RaftMessage>
  readonly #options: FaultOptions
  #isOver = false
  #tickets = 0
  readonly counts: FaultCounts = {
    crashes: 0,
    blackouts: 0,
    restarts: 0,
    pauses: 0,
    partitions: 0,
    clogs: 0,
    ambushes: 0,
    transfers: 0,
    changes: 0
  }

  constructor(
    world: { readonly schedule: Schedule; readonly random: Random },
    members: ReadonlyMap<string, Member>,
    network: Network<RaftMessage>,
    options: FaultOptions
  ) {
    this.#schedule = world.schedule
    this.#random = world.random.split("faults")
    this.#members = members
    this.#network = network
    this.#options = options
  }

  start(): void {
    const {
      crashEveryMs,
      blackoutEveryMs,
      pauseEveryMs,
      partitionEveryMs,
      clogEveryMs,
      transferEveryMs,
      changeEveryMs
    } = this.#options
    this.#repeat(crashEveryMs, () => this.#crash(this.#any()))
    this.#repeat(blackoutEveryMs, () => {
      this.counts.blackouts++
      for (const member of this.#members.values()) this.#crash(member)
    })
    this.#repeat(pauseEveryMs, () => this.#pause())
    this.#repeat(partitionEveryMs, () => this.#partition())
    this.#repeat(clogEveryMs, () => this.#clog())
    this.#repeat(transferEveryMs, () => this.#transfer())
    this.#repeat(changeEveryMs, () => this.#change())
  }

  /** The network heals, all but these come back, and these are gone for good. */
  end(dead: ReadonlySet<string>): void {
    this.#isOver = true
    this.#network.heal()
    for (const member of this.#members.values()) {
      member.pausedMs = 0
      if (dead.has(member.id)) {
        if (member.isUp) member.crash()
      } else if (!member.isUp) member.start()
    }
  }

  #exponential(meanMs: number): number {
    return -Math.log(1 - this.#random.next()) * meanMs
  }

  #repeat(everyMs: number, happen: () => void): void {
    if (everyMs === Number.POSITIVE_INFINITY) return
    this.#schedule.after(this.#exponential(everyMs), () => {
      if (this.#isOver) return
      happen()
      this.#repeat(everyMs, happen)
    })
  }

  #any(): Member {
    const all = [...this.#members.values()]
    const leaders = all.filter((one) => one.isUp && one.role === "leader")
    // Leaders are few, and hurt most.
    const from = leaders.length > 0 && this.#random.chance(0.5) ? leaders : all
    return from[this.#random.int(0, from.length - 1)] as Member
  }

  #crash(member: Member): void {
    if (!member.isUp) return
    member.crash()
    this.counts.crashes++
    this.#schedule.after(this.#exponential(this.#options.downMeanMs), () => {
      if (this.#isOver || member.isUp) return
      this.counts.restarts++
      member.start()
    })
  }

  #pause(): void {
    this.counts.pauses++
    this.#any().pausedMs = this.#schedule.nowMs + this.#exponential(this.#options.pauseMeanMs)
  }

  #partition(loner = this.#any().id): void {
    const { partitions, partitionMeanMs } = this.#options
    if (partitions.length === 0 || this.#network.isCut) return
    const kind = partitions[this.#random.int(0, partitions.length - 1)] ?? "halves"
    this.counts.partitions++
    this.#network.cut(partition(kind, [...this.#members.keys()], loner, this.#random))
    this.#schedule.after(this.#exponential(partitionMeanMs), () => this.#network.cut(new Set()))
  }

  /** A new leader, or one with a change under way, is hit before it has settled. */
  ambush(id: string): void {
    if (this.#isOver || !this.#random.chance(this.#options.ambushes)) return
    this.#schedule.after(this.#exponential(this.#options.ambushMeanMs), () => {
      const member = this.#members.get(id)
      if (this.#isOver || member === undefined) return
      this.counts.ambushes++
      if (this.#random.chance(0.4)) this.#crash(member)
      else this.#partition(id)
    })
  }

  /** One path, or all that a member says: what it said in one term arrives in another. */
  #clog(): void {
    const from = this.#any().id
    const to = this.#random.chance(0.5) ? [this.#any().id] : [...this.#members.keys()]
    const untilMs = this.#schedule.nowMs + this.#exponential(this.#options.clogMeanMs)
    this.counts.clogs++
    for (const id of to) this.#network.clog(`${from}>${id}`, untilMs)
  }

  #ticket(): string {
    return `operator-${this.#tickets++}`
  }

  #leader(): Member | null {
    return [...this.#members.values()].find((one) => one.isUp && one.role === "leader") ?? null
  }

  #transfer(): void {
    const to = this.#any().id
    this.#leader()?.operate({ type: "raft.transfer", ticket: this.#ticket(), to }, (isPlaced) => {
      if (isPlaced) this.counts.transfers++
    })
  }

  /** One member more or less, or another place for one: voter, learner, or none. */
  #change(): void {
    const leader = this.#leader()
    if (leader === null) return
    const { voters, learners } = leader.context.history.at(-1)?.members ?? { voters: [], learners: [] }
    const { id } = this.#any()
    const place = this.#random.int(0, 2)
    const without = (some: ReadonlyArray<string>) => some.filter((one) => one !== id)
    const wanted = {
      voters: place === 0 ? [...without(voters), id] : without(voters),
      learners: place === 1 ? [...without(learners), id] : without(learners)
    }
    if (wanted.voters.length === 0) return
    leader.operate({ type: "raft.change", ticket: this.#ticket(), ...wanted }, (isPlaced) => {
      if (!isPlaced) return
      this.counts.changes++
      this.ambush(leader.id)
    })
  }
}
