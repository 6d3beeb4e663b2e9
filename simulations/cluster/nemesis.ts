/** Draws what befalls a simulated cluster; what it decides it has the faults do, one by one. */
import type { GroupMessage } from "../../src/kernel/group-node.ts"
import type { StoredFact } from "../world/event-store.ts"
import type { Fleet } from "../world/hypervisor.ts"
import { noPartitions, partition } from "../world/network.ts"
import type { Random } from "../world/random.ts"
import type { Schedule } from "../world/schedule.ts"
import type { Wires } from "../world/wires.ts"
import { damageWays, failingOperations, rounded } from "./fault.ts"
import type { Faults } from "./faults.ts"
import type { ClusterHost } from "./host.ts"
import { moments } from "./node.ts"
import type { ClusterNode } from "./node.ts"
import type { FaultOptions, RunOptions } from "./options.ts"

interface World {
  readonly schedule: Schedule
  readonly random: Random
  readonly nodes: ReadonlyMap<string, ClusterNode>
  readonly hosts: ReadonlyMap<string, ClusterHost>
  readonly wires: Wires<GroupMessage>
  readonly faults: Faults
  readonly fleet: Fleet
  readonly journals: { readonly facts: ReadonlyArray<StoredFact> }
  readonly options: RunOptions
}

const comes: ReadonlySet<string> = new Set(["novacron.vm.placed", "novacron.vm.handedOver"])

export class Nemesis {
  readonly #world: World
  readonly #random: Random
  readonly #options: FaultOptions
  blackouts = 0
  readonly partitions = noPartitions()

  constructor(world: World) {
    this.#world = world
    this.#random = world.random.split("faults")
    this.#options = world.options.faults
  }

  start(): void {
    const { faults } = this.#world
    const it = this.#options
    const down = () => this.#exponential(it.downMeanMs)
    this.#repeat(it.crashEveryMs, () => this.#crash(this.#any().id))
    this.#repeat(it.blackoutEveryMs, () => {
      this.blackouts++
      for (const id of this.#world.nodes.keys()) this.#crash(id)
    })
    this.#repeat(it.ambushEveryMs, () =>
      faults.inject({
        kind: "ambush",
        id: this.#any().id,
        forMs: down(),
        isPower: this.#random.chance(it.powerFailures),
        moment: this.#pick(moments),
        steps: this.#random.chance(0.5) ? 0 : this.#random.int(1, 8)
      })
    )
    this.#repeat(it.pauseEveryMs, () =>
      faults.inject({ kind: "pause", id: this.#any().id, forMs: this.#exponential(it.pauseMeanMs) })
    )
    this.#repeat(it.suspendEveryMs, () =>
      faults.inject({ kind: "suspend", id: this.#any().id, forMs: this.#exponential(it.pauseMeanMs) })
    )
    this.#repeat(it.partitionEveryMs, () => this.#partition(this.#any().id))
    this.#repeat(it.clogEveryMs, () => this.#clog())
    this.#repeat(it.breakEveryMs, () => {
      const [one, other] = [this.#any().id, this.#any().id]
      if (one !== other) faults.inject({ kind: "break", one, other })
    })
    this.#repeat(it.rollEveryMs, () => this.#roll())
    this.#disks(down)
    this.#hosts(down)
    this.#behind()
  }

  /** A node falls behind; then a host loses its machines, and whom it tells so is gone before something was done about it. */
  #behind(): void {
    const { faults, nodes } = this.#world
    const { lagEveryMs, lagMeanMs, losses } = this.#options
    const { electionMs } = this.#world.options.settings
    const random = this.#world.random.split("behind")
    const fall = () => {
      const id = [...nodes.keys()][random.int(0, nodes.size - 1)] ?? ""
      const forMs = this.#exponential(lagMeanMs, random)
      faults.inject({ kind: "lag", id, forMs })
      if (!random.chance(losses)) return
      const lose = () => {
        const host = this.#ranLast
        if (host === null) return
        faults.inject({ kind: "snare", id: host, forMs: this.#exponential(electionMs, random) })
        faults.inject({ kind: "hostCrash", id: host, forMs: this.#exponential(electionMs / 4, random) })
      }
      this.#after(rounded(forMs * random.next()), lose, random)
    }
    this.#repeat(lagEveryMs, fall, random)
  }

  /** The host of the machine that came to where it runs last. */
  get #ranLast(): string | null {
    const { hosts, journals, fleet } = this.#world
    for (const { type, stream } of journals.facts.toReversed()) {
      if (!comes.has(type)) continue
      const vm = stream.slice("vm/".length)
      const runsAt = (name: string) => fleet.hosts.get(name)?.machines.get(vm)?.state === "running"
      const host = [...hosts.keys()].find(runsAt)
      if (host !== undefined) return host
    }
    return null
  }

  #disks(down: () => number): void {
    const { faults } = this.#world
    const it = this.#options
    this.#repeat(it.stallEveryMs, () => faults.inject({ kind: "stall", id: this.#any().id, forMs: down() }))
    this.#repeat(it.fullEveryMs, () => faults.inject({ kind: "full", id: this.#any().id, forMs: down() }))
    this.#repeat(it.errorEveryMs, () =>
      faults.inject({
        kind: "error",
        id: this.#any().id,
        operation: this.#pick(failingOperations)
      })
    )
    this.#repeat(it.damageEveryMs, () =>
      faults.inject({
        kind: "damage",
        id: this.#any().id,
        how: this.#pick(damageWays),
        place: rounded(this.#random.next())
      })
    )
    this.#repeat(it.stepEveryMs, () => {
      const byMs = this.#exponential(it.stepMeanMs) * (this.#random.chance(0.5) ? 1 : -1)
      faults.inject({ kind: "step", id: this.#any().id, byMs })
    })
  }

  #hosts(down: () => number): void {
    const { faults, hosts, nodes } = this.#world
    const it = this.#options
    const host = () => this.#pick([...hosts.keys()])
    this.#repeat(it.hostCrashEveryMs, () => faults.inject({ kind: "hostCrash", id: host(), forMs: down() }))
    this.#repeat(it.agentCrashEveryMs, () => faults.inject({ kind: "agentCrash", id: host(), forMs: down() }))
    this.#repeat(it.lineBreakEveryMs, () => {
      const [id, forMs, isAll] = [host(), down(), this.#random.chance(0.3)]
      const some = isAll ? [...nodes.keys()] : [this.#any().id]
      for (const node of some) faults.inject({ kind: "lineBreak", id, node, forMs })
    })
    this.#repeat(it.machineKillEveryMs, () =>
      faults.inject({ kind: "machineKill", id: host(), place: rounded(this.#random.next()) })
    )
  }

  #exponential(meanMs: number, random = this.#random): number {
    return rounded(-Math.log(1 - random.next()) * meanMs)
  }

  #after(delayMs: number, happen: () => void, random = this.#random): void {
    const atMs = rounded(this.#world.schedule.nowMs + delayMs + 0.001)
    this.#world.schedule.at(
      atMs,
      () => {
        if (!this.#world.faults.isOver) happen()
      },
      random.next()
    )
  }

  #repeat(everyMs: number, happen: () => void, random = this.#random): void {
    if (everyMs === Number.POSITIVE_INFINITY) return
    const again = () => {
      happen()
      this.#repeat(everyMs, happen, random)
    }
    this.#after(this.#exponential(everyMs, random), again, random)
  }

  #pick<A>(some: ReadonlyArray<A>): A {
    return some[this.#random.int(0, some.length - 1)] as A
  }

  #any(): ClusterNode {
    const all = [...this.#world.nodes.values()]
    const leaders = all.filter((one) => one.isUp && one.role === "leader")
    // Leaders are few, and hurt most.
    return this.#pick(leaders.length > 0 && this.#random.chance(0.5) ? leaders : all)
  }

  #crash(id: string): void {
    const [forMs, isPower] = [
      this.#exponential(this.#options.downMeanMs),
      this.#random.chance(this.#options.powerFailures)
    ]
    this.#world.faults.inject({ kind: "crash", id, forMs, isPower })
  }

  #partition(loner: string): void {
    const { partitions, partitionMeanMs } = this.#options
    const { wires, nodes } = this.#world
    if (partitions.length === 0 || wires.isCut) return
    const kind = this.#pick(partitions)
    const paths = partition(kind, [...nodes.keys()], loner, this.#random)
    if (paths.length > 0) this.partitions[`partition ${kind}`]++
    this.#world.faults.inject({ kind: "partition", paths, forMs: this.#exponential(partitionMeanMs) })
  }

  /** One path, or all that a node says: what it said in one term arrives in another. */
  #clog(): void {
    const from = this.#any().id
    const to = this.#random.chance(0.5) ? [this.#any().id] : [...this.#world.nodes.keys()]
    const paths = to.filter((id) => id !== from).map((id) => `${from}>${id}`)
    const forMs = this.#exponential(this.#options.clogMeanMs)
    if (paths.length > 0) this.#world.faults.inject({ kind: "clog", paths, forMs })
  }

  /** One after the other is ended by an operator, and started again before the next one is. */
  #roll(): void {
    const { electionMs } = this.#world.options.settings
    let afterMs = 0
    for (const id of this.#world.nodes.keys()) {
      const forMs = this.#exponential(electionMs)
      this.#after(afterMs, () => this.#world.faults.inject({ kind: "stop", id, forMs }))
      afterMs += forMs + electionMs * 4
    }
  }
}
