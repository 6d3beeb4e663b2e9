/**
 * Draws what befalls a simulated group: faults out of the blue, and plots against whoever leads, each made for a way in
 * which groups have been broken. What it decides it has the faults do, one by one.
 */
import type { Network } from "../world/network.ts"
import { between, noPartitions, partition } from "../world/network.ts"
import type { Random } from "../world/random.ts"
import type { Schedule } from "../world/schedule.ts"
import { damageWays, failingOperations, flapMs_min, rounded } from "./fault.ts"
import type { Faults } from "./faults.ts"
import { leaderAmong } from "./member.ts"
import type { Member } from "./member.ts"
import type { FaultOptions } from "./options.ts"

export const plots = ["blackouts", "ambushes", "schisms", "haste", "echoes", "coups", "oaths"] as const
export type Plot = (typeof plots)[number]

/** Operators have so many spare machines. */
const recruits_max = 3

interface World {
  readonly schedule: Schedule
  readonly random: Random
  readonly members: ReadonlyMap<string, Member>
  readonly network: Network<never>
  readonly faults: Faults
}

export class Nemesis {
  readonly #schedule: Schedule
  readonly #random: Random
  readonly #members: ReadonlyMap<string, Member>
  readonly #network: Network<never>
  readonly #faults: Faults
  readonly #options: FaultOptions
  readonly #electionMs: number
  /** That were drawn, by their kind; those of plots are counted as the plots are. */
  readonly partitions = noPartitions()
  readonly counts: Record<Plot, number> = {
    blackouts: 0,
    ambushes: 0,
    schisms: 0,
    haste: 0,
    echoes: 0,
    coups: 0,
    oaths: 0
  }

  constructor(world: World, options: FaultOptions, electionMs: number) {
    this.#schedule = world.schedule
    this.#random = world.random.split("faults")
    this.#members = world.members
    this.#network = world.network
    this.#faults = world.faults
    this.#options = options
    this.#electionMs = electionMs
  }

  start(): void {
    const { crashEveryMs, blackoutEveryMs, pauseEveryMs, partitionEveryMs, clogEveryMs } = this.#options
    const { transferEveryMs, changeEveryMs, oathEveryMs, fullEveryMs, stepEveryMs, jumpEveryMs } =
      this.#options
    const { hangUpEveryMs } = this.#options
    this.#repeat(crashEveryMs, () => this.#crash(this.#any().id))
    this.#repeat(blackoutEveryMs, () => {
      this.counts.blackouts++
      for (const { id } of this.#members.values()) this.#crash(id)
    })
    this.#repeat(pauseEveryMs, () => {
      const forMs = this.#exponential(this.#options.pauseMeanMs)
      this.#faults.inject({ kind: "pause", id: this.#any().id, forMs })
    })
    this.#repeat(partitionEveryMs, () => this.#partition(this.#any().id))
    this.#repeat(clogEveryMs, () => this.#clog())
    this.#repeat(hangUpEveryMs, () => this.#hangUp())
    this.#repeat(transferEveryMs, () => this.#coup())
    this.#repeat(changeEveryMs, () => this.#change())
    this.#repeat(oathEveryMs, () => this.#tryOath())
    this.#repeat(fullEveryMs, () => {
      const forMs = this.#exponential(this.#options.downMeanMs)
      this.#faults.inject({ kind: "full", id: this.#any().id, forMs })
    })
    this.#repeat(stepEveryMs, () => {
      const byMs = this.#exponential(this.#electionMs * 100) * (this.#random.chance(0.5) ? 1 : -1)
      this.#faults.inject({ kind: "step", id: this.#any().id, byMs })
    })
    this.#repeat(jumpEveryMs, () => {
      const [id, forMs] = [this.#any().id, this.#exponential(this.#electionMs)]
      if (this.#random.chance(0.5)) this.#faults.inject({ kind: "jump", id, byMs: forMs })
      else this.#faults.inject({ kind: "suspend", id, forMs })
    })
    if (this.#options.damages > 0) this.#repeat(this.#electionMs * 2, () => this.#repair())
  }

  /** A disk has written: a share of that goes wrong, at once or later. */
  synced(id: string): void {
    const { damages, errors } = this.#options
    if (damages > 0 && this.#random.chance(damages)) {
      const [how, place] = [this.#pick(damageWays), this.#random.next()]
      this.#after(0, () => this.#faults.inject({ kind: "damage", id, how, place: rounded(place) }))
    }
    if (errors > 0 && this.#random.chance(errors)) {
      const operation = this.#pick(failingOperations)
      this.#after(0, () => this.#faults.inject({ kind: "error", id, operation }))
    }
  }

  /** Operators see who stays out, take it out of the group, and bring in a new one that becomes a voter when it can. */
  #repair(): void {
    const leader = leaderAmong(this.#members.values())
    const members = leader?.context.history.at(-1)?.members
    if (leader === undefined || members === undefined) return
    const isOut = (id: string) => this.#members.get(id)?.isOut === true
    const fresh = [...this.#members.keys()].filter((id) => id.startsWith("r"))
    const out = [...members.voters, ...members.learners].find(isOut)
    if (out !== undefined) {
      const id = `r${fresh.length}`
      if (fresh.length < recruits_max) this.#faults.inject({ kind: "recruit", id })
      const without = (some: ReadonlyArray<string>) => some.filter((one) => one !== out)
      const voters = without(members.voters)
      if (voters.length === 0) return
      const learners = [...without(members.learners), ...(this.#members.has(id) ? [id] : [])]
      this.#faults.inject({ kind: "change", voters, learners })
    } else {
      const ready = members.learners.find((id) => fresh.includes(id))
      if (ready === undefined) return
      const learners = members.learners.filter((id) => id !== ready)
      this.#faults.inject({ kind: "change", voters: [...members.voters, ready], learners })
    }
  }

  /** Somebody leads: it may be hit before it has settled. */
  elected(id: string): void {
    const { echoes, haste } = this.#options
    this.#ambush(id)
    if (echoes > 0 && this.#random.chance(echoes)) this.#echo(id)
    if (haste > 0 && this.#random.chance(haste))
      this.#soon(this.#options.ambushMeanMs / 10, () => {
        this.counts.haste++
        this.#change(true)
      })
  }

  #exponential(meanMs: number): number {
    return rounded(-Math.log(1 - this.#random.next()) * meanMs)
  }

  #after(delayMs: number, happen: () => void): void {
    const atMs = rounded(this.#schedule.nowMs + delayMs + 0.001)
    this.#schedule.at(
      atMs,
      () => {
        if (!this.#faults.isOver) happen()
      },
      this.#random.next()
    )
  }

  #soon(meanMs: number, happen: () => void): void {
    this.#after(this.#exponential(meanMs), happen)
  }

  #repeat(everyMs: number, happen: () => void): void {
    if (everyMs === Number.POSITIVE_INFINITY) return
    this.#soon(everyMs, () => {
      happen()
      this.#repeat(everyMs, happen)
    })
  }

  #any(): Member {
    const all = [...this.#members.values()]
    const leaders = all.filter((one) => one.isUp && one.role === "leader")
    // Leaders are few, and hurt most.
    return this.#pick(leaders.length > 0 && this.#random.chance(0.5) ? leaders : all)
  }

  #pick<A>(some: ReadonlyArray<A>): A {
    return some[this.#random.int(0, some.length - 1)] as A
  }

  /** One in four ends in the middle of a step, between two of its requests. */
  #crash(id: string, forMs = this.#exponential(this.#options.downMeanMs)): void {
    const requests = this.#random.chance(0.25) ? this.#random.int(0, 4) : null
    this.#faults.inject({ kind: "crash", id, forMs, requests })
  }

  #partition(loner: string): void {
    const { partitions, partitionMeanMs, flapping } = this.#options
    if (partitions.length === 0 || this.#network.isCut) return
    const kind = this.#pick(partitions)
    const paths = partition(kind, [...this.#members.keys()], loner, this.#random)
    if (paths.length > 0) this.partitions[`partition ${kind}`]++
    const forMs = this.#exponential(partitionMeanMs)
    const flapMs = this.#random.chance(flapping)
      ? rounded(Math.max(flapMs_min, forMs / this.#random.int(2, 20)))
      : null
    this.#faults.inject({ kind: "partition", paths, forMs, flapMs })
  }

  /** A new leader, or one with a change under way, is hit before it has settled. */
  #ambush(id: string): void {
    if (!this.#random.chance(this.#options.ambushes)) return
    this.#soon(this.#options.ambushMeanMs, () => {
      this.counts.ambushes++
      if (this.#random.chance(0.4)) this.#crash(id)
      else this.#partition(id)
    })
  }

  /** One or all of the others take it for gone. */
  #hangUp(): void {
    const peer = this.#any().id
    const others = [...this.#members.keys()].filter((id) => id !== peer)
    if (others.length === 0) return
    const ids = this.#random.chance(0.5) ? [this.#pick(others)] : others
    this.#faults.inject({ kind: "hangUp", peer, ids })
  }

  /** One path, or all that a member says: what it said in one term arrives in another. */
  #clog(): void {
    const from = this.#any().id
    const to = this.#random.chance(0.5) ? [this.#any().id] : [...this.#members.keys()]
    const paths = to.filter((id) => id !== from).map((id) => `${from}>${id}`)
    this.#faults.inject({ kind: "clog", paths, forMs: this.#exponential(this.#options.clogMeanMs) })
  }

  /**
   * A leader's last entries reach one follower and not its own disk. What that follower answers is held up until the
   * leader, which has lost them in a crash, may lead again, with others in their place.
   */
  #echo(leader: string): void {
    const others = [...this.#members.keys()].filter((id) => id !== leader)
    if (others.length === 0) return
    const [one, forMs] = [this.#pick(others), rounded(this.#electionMs * (2 + 3 * this.#random.next()))]
    this.#soon(this.#options.ambushMeanMs, () => {
      this.counts.echoes++
      const apartMs = this.#exponential(this.#options.ambushMeanMs)
      this.#faults.inject({ kind: "stall", id: leader, forMs: apartMs + 1 })
      const said = this.#random.chance(0.7) ? others.concat(leader) : [leader]
      this.#clogUp(
        said.filter((id) => id !== one).map((id) => `${one}>${id}`),
        forMs
      )
      const paths = others.filter((id) => id !== one).map((id) => `${leader}>${id}`)
      if (paths.length > 0) this.#faults.inject({ kind: "partition", paths, forMs: apartMs, flapMs: null })
      this.#after(apartMs, () => {
        this.#crash(leader, rounded(forMs / 50))
        this.#clogUp([`${leader}>${one}`], forMs)
      })
    })
  }

  /** A leader hands over, and hears nothing of what follows. */
  #coup(): void {
    const leader = leaderAmong(this.#members.values())
    if (leader === undefined) return
    this.#faults.inject({ kind: "transfer", to: this.#any().id })
    if (leader.context.transfer === null || !this.#random.chance(this.#options.coups)) return
    this.counts.coups++
    const ends = [...this.#members.keys()]
    this.#soon(leader.context.wasTransferred ? 0 : this.#options.ambushMeanMs / 10, () =>
      this.#faults.inject({
        kind: "partition",
        paths: partition("deaf", ends, leader.id, this.#random),
        forMs: rounded(this.#electionMs * (0.5 + this.#random.next())),
        flapMs: null
      })
    )
  }

  #clogUp(paths: ReadonlyArray<string>, forMs: number): void {
    this.#faults.inject({ kind: "clog", paths, forMs: rounded(forMs) })
  }

  /**
   * Somebody who hears nothing of the leader asks for votes again and again, and the one that has promised to give none
   * starts again, and is cut off from the leader.
   */
  #tryOath(): void {
    const leader = leaderAmong(this.#members.values())
    const voters = leader?.context.history.at(-1)?.members.voters.filter((id) => id !== leader.id) ?? []
    if (leader === undefined || voters.length < 2) return
    this.counts.oaths++
    const ends = [...this.#members.keys()]
    const deaf = this.#pick(voters)
    const forMs = rounded(this.#electionMs * (2 + 2 * this.#random.next()))
    const paths = [`${leader.id}>${deaf}`, `${deaf}>${leader.id}`]
    this.#faults.inject({ kind: "partition", paths, forMs, flapMs: null })
    this.#after(this.#electionMs * (1 + this.#random.next()), () => {
      for (const id of voters)
        if (id !== deaf) this.#faults.inject({ kind: "crash", id, forMs: 1, requests: null })
      const alone = between(ends, (id) => id === leader.id)
      this.#faults.inject({ kind: "partition", paths: alone, forMs: this.#electionMs, flapMs: null })
    })
  }

  /** One member more or less, or another place for one; or everybody anew. */
  #change(isNew = false): void {
    const leader = leaderAmong(this.#members.values())
    if (leader === undefined) return
    const { voters, learners } = leader.context.history.at(-1)?.members ?? { voters: [], learners: [] }
    const wanted = this.#random.chance(this.#options.wholesale)
      ? this.#anew()
      : this.#otherPlace(voters, learners)
    if (wanted.voters.length === 0) return
    const before = leader.context.history.at(-1)
    this.#faults.inject({ kind: "change", ...wanted })
    if (leader.context.history.at(-1) === before) return
    if (this.#random.chance(this.#options.schisms)) this.#divide(leader.id, voters, wanted.voters, isNew)
    this.#ambush(leader.id)
  }

  #otherPlace(voters: ReadonlyArray<string>, learners: ReadonlyArray<string>) {
    const others = [...this.#members.keys()].filter((id) => !voters.includes(id))
    if (voters.length < this.#options.votersWanted && others.length > 0) {
      const id = this.#pick(others)
      return { voters: [...voters, id], learners: learners.filter((one) => one !== id) }
    }
    const { id } = this.#any()
    const place = this.#random.int(0, 2)
    const without = (some: ReadonlyArray<string>) => some.filter((one) => one !== id)
    return {
      voters: place === 0 ? [...without(voters), id] : without(voters),
      learners: place === 1 ? [...without(learners), id] : without(learners)
    }
  }

  #anew() {
    const ids = [...this.#members.keys()]
    const draws = ids.map(() => this.#random.next())
    return {
      voters: ids.filter((_, at) => (draws[at] ?? 1) < 0.6),
      learners: ids.filter((_, at) => (draws[at] ?? 0) > 0.85)
    }
  }

  /**
   * The leader, alone with whom it wants to add (but for a new one), or with as few as decide, or with some by lot, is apart from the others
   * before these know of the change.
   */
  #divide(
    leader: string,
    before: ReadonlyArray<string>,
    voters: ReadonlyArray<string>,
    isNew: boolean
  ): void {
    this.counts.schisms++
    const ends = [...this.#members.keys()]
    const inside = new Set([leader])
    const way = isNew ? this.#random.int(1, 2) : this.#random.int(0, 2)
    const draws = ends.map(() => this.#random.next())
    for (const [at, id] of ends.entries()) {
      if (
        way === 0
          ? !before.includes(id)
          : way === 1
            ? 2 * inside.size <= voters.length && voters.includes(id)
            : (draws[at] ?? 1) < 0.4
      )
        inside.add(id)
    }
    const forMs = rounded(this.#electionMs * (1.5 + 4 * this.#random.next()))
    const paths = between(ends, (id) => inside.has(id))
    this.#faults.inject({ kind: "partition", paths, forMs, flapMs: null })
    if (this.#random.chance(0.4)) this.#soon(this.#electionMs / 2, () => this.#crash(leader))
  }
}
