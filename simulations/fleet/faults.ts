/** What happens to a simulated fleet: processes, hosts and machines end, lines break, and a watcher says who is lost. */
import { Effect } from "effect"
import { killMachine, powerOff } from "../world/hypervisor.ts"
import { noFaults } from "../world/hypervisor/machine.ts"
import type { Fleet } from "../world/hypervisor.ts"
import type { Random } from "../world/random.ts"
import type { Runtime } from "../world/runtime.ts"
import type { FencingOptions } from "./fencing.ts"
import type { SimulatedHost } from "./host.ts"
import type { SimulatedNode } from "./node.ts"
import type { RunOptions } from "./options.ts"

export const faultKinds = [
  "kernelCrashes",
  "agentCrashes",
  "hostCrashes",
  "lineBreaks",
  "transferBreaks",
  "machineKills",
  "powerOffs",
  "ambushes"
] as const

/** Losses are what the watcher says of the others. */
type FaultCounts = Record<(typeof faultKinds)[number] | "losses", number>

interface World {
  readonly runtime: Runtime
  readonly random: Random
  readonly fleet: Fleet
}

const watchMs = 250

export class Faults {
  readonly #world: World
  readonly #random: Random
  readonly #node: SimulatedNode
  readonly #options: RunOptions
  readonly #cut = new Set<SimulatedHost>()
  readonly #down = new Set<SimulatedHost>()
  #isOver = false
  readonly counts: FaultCounts = {
    kernelCrashes: 0,
    agentCrashes: 0,
    hostCrashes: 0,
    lineBreaks: 0,
    transferBreaks: 0,
    machineKills: 0,
    powerOffs: 0,
    ambushes: 0,
    losses: 0
  }

  constructor(world: World, node: SimulatedNode, options: RunOptions) {
    this.#world = world
    this.#random = world.random.split("faults")
    this.#node = node
    this.#options = options
  }

  start(): void {
    const { faults } = this.#options
    this.#repeat(faults.kernelCrashEveryMs, () => this.#crashKernel())
    this.#repeat(faults.agentCrashEveryMs, () => this.#crashHost(this.#any(), false))
    this.#repeat(faults.hostCrashEveryMs, () => this.#crashHost(this.#any(), true))
    this.#repeat(faults.lineBreakEveryMs, () => this.#breakLine(this.#any()))
    this.#repeat(faults.transferBreakEveryMs, () => this.#breakTransfers())
    this.#repeat(faults.machineKillEveryMs, () => this.#end("machineKills"))
    this.#repeat(faults.powerOffEveryMs, () => this.#end("powerOffs"))
    const { fencing } = this.#options
    if (fencing !== null) this.#repeat(fencing.takeOverEveryMs, () => this.#takeOver(fencing))
    this.#watch()
  }

  /** Another kernel leads at once, and does not reach a host for about as long as it takes to start its machines elsewhere. */
  #takeOver({ leaseMs, handOverMs, marginMs }: FencingOptions): void {
    const host = this.#any()
    if (!this.#node.isUp || this.#cut.has(host)) return
    this.counts.kernelCrashes++
    this.counts.lineBreaks++
    this.#cut.add(host)
    this.#node.crash()
    const { schedule } = this.#world.runtime
    schedule.after(this.#random.next() * 300, () => {
      if (!this.#isOver) this.#node.start()
    })
    const awayMs = (2 * leaseMs + handOverMs + marginMs + 5000) * (0.5 + this.#random.next())
    schedule.after(awayMs, () => this.#cut.delete(host))
  }

  /**
   * Everything comes back, and nothing breaks any more. Half of the time lines are made anew, so that every host tells what
   * it has; else those that stand have to be enough.
   */
  end(): void {
    this.#isOver = true
    const areMadeAnew = this.#random.chance(0.5)
    this.#world.fleet.faults = noFaults
    this.#world.fleet.linkDown = false
    this.#cut.clear()
    this.#down.clear()
    if (!this.#node.isUp) this.#node.start()
    for (const host of this.#node.hosts.values()) {
      if (areMadeAnew) host.line.break()
      if (!host.isUp) host.start()
    }
  }

  /** At a fact of a migration, somebody who takes part in it. */
  ambush(): void {
    if (this.#isOver || !this.#random.chance(this.#options.faults.ambushes)) return
    this.counts.ambushes++
    const blows = [
      () => this.#crashKernel(),
      () => this.#crashHost(this.#any(), false),
      () => this.#crashHost(this.#any(), true),
      () => this.#breakLine(this.#any()),
      () => this.#breakTransfers(),
      () => this.#end("machineKills")
    ]
    const blow = blows[this.#random.int(0, blows.length - 1)]
    this.#world.runtime.schedule.after(this.#exponential(5), () => {
      if (!this.#isOver) blow?.()
    })
  }

  #exponential(meanMs: number): number {
    return -Math.log(1 - this.#random.next()) * meanMs
  }

  #repeat(everyMs: number, happen: () => void): void {
    if (everyMs === Number.POSITIVE_INFINITY) return
    this.#world.runtime.schedule.after(this.#exponential(everyMs), () => {
      if (this.#isOver) return
      happen()
      this.#repeat(everyMs, happen)
    })
  }

  #later(back: () => void): void {
    this.#world.runtime.schedule.after(this.#exponential(this.#options.faults.downMeanMs), () => {
      if (!this.#isOver) back()
    })
  }

  #any(): SimulatedHost {
    const all = [...this.#node.hosts.values()]
    return all[this.#random.int(0, all.length - 1)] as SimulatedHost
  }

  #crashKernel(): void {
    if (!this.#node.isUp) return
    this.counts.kernelCrashes++
    this.#node.crash()
    this.#later(() => this.#node.start())
  }

  #crashHost(host: SimulatedHost, wholly: boolean): void {
    if (this.#down.has(host)) return
    this.counts[wholly ? "hostCrashes" : "agentCrashes"]++
    this.#down.add(host)
    if (wholly) host.crash()
    else host.crashAgent()
    this.#later(() => {
      this.#down.delete(host)
      host.start()
    })
  }

  #breakLine(host: SimulatedHost): void {
    this.counts.lineBreaks++
    this.#cut.add(host)
    host.line.break()
    this.#later(() => this.#cut.delete(host))
  }

  #breakTransfers(): void {
    const { fleet } = this.#world
    this.counts.transferBreaks++
    fleet.linkDown = true
    this.#later(() => (fleet.linkDown = false))
  }

  #end(how: "machineKills" | "powerOffs"): void {
    const { fleet, runtime } = this.#world
    const there = [...fleet.hosts.values()].flatMap(({ name, machines }) =>
      [...machines.keys()].map((vm) => [name, vm] as const)
    )
    const one = there[this.#random.int(0, there.length - 1)]
    if (one === undefined) return
    this.counts[how]++
    runtime.fork((how === "machineKills" ? killMachine : powerOff)(fleet, ...one))
  }

  /** Makes lines where both ends are there, and says who has been silent for too long; as `watchHosts` does over links. */
  #watch(): void {
    const { schedule } = this.#world.runtime
    for (const host of this.#node.hosts.values()) {
      const isThere = this.#node.kernel !== null && host.agent !== null && !this.#cut.has(host)
      if (isThere) {
        host.line.make()
        host.silentSinceMs = null
      } else host.silentSinceMs ??= schedule.nowMs
      if (
        host.silentSinceMs !== null &&
        schedule.nowMs - host.silentSinceMs >= this.#options.faults.lostAfterMs
      )
        this.#lose(host, host.silentSinceMs)
    }
    schedule.after(watchMs, () => this.#watch())
  }

  #lose({ name }: SimulatedHost, sinceMs: number): void {
    const kernel = this.#node.kernel
    const stream = `host/${name}`
    const actor = kernel?.resident().get(stream)
    if (kernel === null || actor === undefined || away.includes(actor.chart.value)) return
    this.counts.losses++
    const command = { stream, id: `lose/${name}/${sinceMs}`, correlation: "", principal: lookout }
    const message = { type: "host.lose", reason: "it is silent" }
    this.#world.runtime.fork(Effect.ignore(kernel.submit({ ...command, message })))
  }
}

const away: ReadonlyArray<unknown> = ["lost", "fenced"]
const lookout = { kind: "node", name: "n" } as const
