/**
 * A week of a large fleet, from a seed: the production kernel, actors and projections over light hosts and a store that keeps
 * a hash chain and not the facts. What is slow with ten thousand hosts is found here.
 */
import { sha256 } from "@noble/hashes/sha2.js"
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js"
import { Context, Effect, Layer, Scope } from "effect"
import { actorKinds } from "../../src/actors/kinds.ts"
import type { Recorded } from "../../src/events/envelope.ts"
import { Kernel } from "../../src/kernel/kernel.ts"
import { Agents } from "../../src/kernel/ports/agents.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import { Views } from "../../src/kernel/ports/views.ts"
import { describe } from "../../src/kernel/statechart.ts"
import type { takeTurn } from "../../src/kernel/turn.ts"
import { hostsFor } from "../../src/projections/candidates.ts"
import { inventory } from "../../src/projections/inventory.ts"
import { loadsOf } from "../../src/projections/loads.ts"
import { migrations } from "../../src/projections/migrations.ts"
import { decisionsOf, placement } from "../../src/projections/placement.ts"
import { Charts } from "../checkers/charts.ts"
import { holdsWhatIsUsed, isNotOvercommitted } from "../checkers/capacity.ts"
import type { Seen } from "../checkers/fleet.ts"
import { migrationsOf, vmsOf } from "../checkers/fleet.ts"
import { Violation, violationOf } from "../checkers/violation.ts"
import { ChainStore } from "../world/chain-store.ts"
import { makeFleet } from "../world/hypervisor.ts"
import { makeRandom } from "../world/random.ts"
import type { Random } from "../world/random.ts"
import { Runtime } from "../world/runtime.ts"
import { Schedule } from "../world/schedule.ts"
import { LightHosts } from "./hosts.ts"
import type { ScaleOptions } from "./options.ts"
import { Work } from "./work.ts"

/** What a simulation does not know of itself: whoever starts it may measure it. */
export interface Instruments {
  readonly sha256: (text: string) => string
  /** Of the machine's own clock. */
  readonly nowMs: () => number
  /** Told at the end of each simulated hour. */
  readonly hour: (hours: number) => void
}

export const noInstruments: Instruments = {
  sha256: (text) => bytesToHex(sha256(utf8ToBytes(text))),
  nowMs: () => 0,
  hour: () => {}
}

export interface Utilisation {
  /** Of the hosts that have a machine: memory promised of memory there. */
  readonly ofUsedHosts: number
  readonly ofAllHosts: number
  readonly usedHosts: number
}

export interface ScaleVerdict {
  readonly seed: number
  readonly violation: Violation | null
  readonly events: number
  readonly simulatedMs: number
  readonly counts: Readonly<Record<string, number>>
  /** As of all verdicts. */
  readonly coverage: ReadonlyArray<string>
  /** When all machines of the beginning were there: what packing is worth. */
  readonly packed: Utilisation
  readonly atTheEnd: Utilisation
  /** Of each decision, by the machine's own clock: the look at the hosts, and the turn. */
  readonly decisionMs: ReadonlyArray<number>
  /** Of an answer to `why` with its facts, the longest of some. */
  readonly whyMs: number
  /** Of the facts' data. */
  readonly bytesPerFact: number
  readonly bytesPerDecision: number
  readonly hash: string
}

const hourMs = 3_600_000
const settleHours_max = 12
/** Facts of decisions that are kept, for who asks why. */
const kept_max = 5000
const asked = 200

class World {
  readonly random: Random
  readonly schedule: Schedule
  readonly runtime: Runtime
  readonly light = new LightHosts()
  readonly charts = new Charts()
  readonly store: ChainStore
  readonly options: ScaleOptions
  readonly instruments: Instruments
  readonly #keptStreams: Array<string> = []
  inventory = inventory.initial()
  placement = placement.initial()
  migrations = migrations.initial()
  readonly decisionMs: Array<number> = []
  readonly #lookMs = new Map<string, number>()
  decisions = 0
  readonly decided = {
    hostsFenced: 0,
    machinesFenced: 0,
    machinesWaiting: 0,
    recoveryDecisions: 0,
    recoveriesDelayed: 0,
    rebalanceDecisions: 0,
    rebalanceMoves: 0
  }
  #decisionBytes = 0
  kernel!: Kernel["Service"]
  work!: Work

  constructor(seed: number, options: ScaleOptions, instruments: Instruments) {
    this.random = makeRandom(seed)
    this.options = options
    this.instruments = instruments
    this.schedule = new Schedule(this.random.split("schedule"), Number.MAX_SAFE_INTEGER)
    this.runtime = new Runtime(this.schedule, this.random.split("runtime"))
    this.store = new ChainStore({
      sha256: instruments.sha256,
      follow: (fact, dataBytes) => this.#follow(fact, dataBytes),
      isKept: (fact) => this.#isKept(fact)
    })
    const perSite = Math.ceil(options.hosts / options.sites)
    for (let index = 0; index < options.hosts; index++) {
      const name = `host-${String(index).padStart(5, "0")}`
      const rack = `rack-${Math.floor(index / options.hostsPerRack)}`
      const site = `site-${Math.floor(index / perSite)}`
      const host = { name, rack, site, machines: new Map(), life: 0, isUp: true, version: 1 }
      this.light.hosts.set(name, host)
    }
  }

  #follow(fact: Recorded, dataBytes: number): void {
    this.inventory = inventory.apply(this.inventory, fact)
    this.placement = placement.apply(this.placement, fact)
    this.migrations = migrations.apply(this.migrations, fact)
    this.#count(fact)
    if (fact.type === "novacron.placement.decided" || fact.type === "novacron.placement.noHost") {
      this.decisions++
      this.#decisionBytes += dataBytes
    }
  }

  #count({ type, data }: Recorded): void {
    const { decided } = this
    if (type === "novacron.host.fenced") decided.hostsFenced++
    else if (type === "novacron.vm.fenced") decided.machinesFenced++
    else if (type === "novacron.vm.waitsForHost") decided.machinesWaiting++
    else if (type === "novacron.vm.recoveryDelayed") decided.recoveriesDelayed++
    else if (type === "novacron.rebalancer.decided") {
      decided.rebalanceDecisions++
      decided.rebalanceMoves += (data["moves"] as ReadonlyArray<unknown>).length
    } else if (type === "novacron.placement.requested" && data["purpose"] === "recover")
      decided.recoveryDecisions++
  }

  #isKept({ stream, revision }: Recorded): boolean {
    if (!stream.startsWith("placement/")) return false
    if (revision === 0) this.#keptStreams.push(stream)
    if (this.#keptStreams.length > kept_max) this.store.forget(this.#keptStreams.shift() ?? "")
    return true
  }

  /** A decision is the look at the hosts and the turn of the actor that is told of them. */
  readonly #takeTurn: typeof takeTurn = (kind, actor, input, timeMs, node) => {
    if (input.message.type !== "view.hosts") return this.charts.takeTurn(kind, actor, input, timeMs, node)
    const beganMs = this.instruments.nowMs()
    const turn = this.charts.takeTurn(kind, actor, input, timeMs, node)
    const decision = input.stream.slice("placement/".length)
    this.decisionMs.push(this.instruments.nowMs() - beganMs + (this.#lookMs.get(decision) ?? 0))
    this.#lookMs.delete(decision)
    return turn
  }

  open(): void {
    const views = Views.of({
      hosts: (_, request) =>
        Effect.sync(() => {
          const beganMs = this.instruments.nowMs()
          const told = hostsFor(this.inventory, request ?? {})
          const { draw = "" } = request ?? {}
          this.#lookMs.set(draw.slice(0, draw.lastIndexOf("/")), this.instruments.nowMs() - beganMs)
          return { ...told, position: this.store.position }
        }),
      loads: (_, { most }) =>
        Effect.sync(() => ({ ...loadsOf(this.inventory, most), position: this.store.position }))
    })
    const ports = Layer.mergeAll(
      Layer.succeed(EventStore, this.store.service),
      Layer.succeed(Views, views),
      Layer.succeed(Agents, this.light.agents)
    )
    const layer = Kernel.layer({
      kinds: actorKinds,
      node: "n",
      takeTurn: this.#takeTurn,
      checkpointEvery: 100_000
    }).pipe(Layer.provide(ports))
    const context = this.runtime.run(Layer.buildWithScope(layer, Scope.makeUnsafe()), hourMs)
    this.kernel = Context.get(context, Kernel)
    this.work = new Work(this, this.kernel, this.options)
  }

  utilisation(): Utilisation {
    const hosts = [...this.inventory.hosts.values()]
    const sum = (some: typeof hosts) => ({
      used: some.reduce((all, { used }) => all + used.memoryMib, 0),
      total: Math.max(
        1,
        some.reduce((all, { total }) => all + total.memoryMib, 0)
      )
    })
    const occupied = hosts.filter(({ vms }) => vms.length > 0)
    const [those, all] = [sum(occupied), sum(hosts)]
    return {
      ofUsedHosts: those.used / those.total,
      ofAllHosts: all.used / all.total,
      usedHosts: occupied.length
    }
  }

  get seen(): Seen {
    return { fleet: makeFleet({ seed: 0 }), facts: [], actors: this.kernel.resident() }
  }

  get isSettled(): boolean {
    if ([...this.light.hosts.values()].some(({ isUp }) => !isUp)) return false
    for (const { outstanding } of this.kernel.resident().values()) if (outstanding.length > 0) return false
    return this.work.counts.hostsUpgraded === this.options.hosts
  }

  /** When all is quiet every machine runs once, where its actor says, with the room that it needs, and nowhere else. */
  check(): void {
    const { seen } = this
    isNotOvercommitted(seen)
    holdsWhatIsUsed(seen)
    const places = new Map<string, string>()
    for (const { name, machines } of this.light.hosts.values())
      for (const [vm, state] of machines) {
        if (places.has(vm)) throw new Violation("one-owner", `${vm} lies on ${places.get(vm)} and on ${name}`)
        places.set(vm, `${name} ${state}`)
      }
    for (const { vm, state, context } of vmsOf(seen)) {
      if (state === "absent" || state === "unplaced") continue
      if (places.get(vm) !== `${context.host} running` || state !== "running.idle")
        throw new Violation(
          "no-machine-lost",
          `${vm} is ${state} on ${context.host}, and is ${places.get(vm)}`
        )
      places.delete(vm)
    }
    for (const [vm, place] of places) throw new Violation("one-owner", `nobody knows of ${vm} on ${place}`)
    const open = migrationsOf(seen).find(({ state }) => !["completed", "cancelled", "failed"].includes(state))
    if (open !== undefined) throw new Violation("one-ending", `${open.id} stays ${open.state}`)
  }

  /** As `novacron why` does it: the rows of the projection with the facts of the latest decisions. */
  why(): number {
    const { nowMs } = this.instruments
    let longest = 0
    for (const stream of this.#keptStreams.slice(-asked)) {
      const beganMs = nowMs()
      const row = this.placement.decisions.get(stream.slice("placement/".length))
      const told = decisionsOf(this.placement, row?.vm ?? "").map((one) => ({
        ...one,
        facts: this.store.readStream(`placement/${one.decision}`, {})
      }))
      JSON.stringify(told)
      longest = Math.max(longest, nowMs() - beganMs)
    }
    return longest
  }

  get bytesPerDecision(): number {
    return this.#decisionBytes / Math.max(1, this.decisions)
  }
}

function live(world: World, packed: (utilisation: Utilisation) => void): void {
  const { schedule, options, instruments } = world
  world.open()
  world.work.start()
  for (let hour = 1; hour <= options.days * 24; hour++) {
    schedule.runUntil(hour * hourMs)
    instruments.hour(hour)
    if (hour === options.fillHours) packed(world.utilisation())
  }
  for (let hour = 0; !world.isSettled; hour++) {
    if (hour >= settleHours_max) throw new Violation("liveness", describeOpen(world))
    schedule.runUntil(schedule.nowMs + hourMs)
  }
  world.check()
}

function describeOpen({ kernel, work }: World): string {
  const open = [...kernel.resident().values()].filter(({ outstanding }) => outstanding.length > 0)
  const some = open.slice(0, 10).map(({ stream, chart }) => `${stream} ${describe(chart)}`)
  return `${open.length} actors wait, ${work.counts.hostsUpgraded} hosts are upgraded: ${some.join(", ")}`
}

const empty: Utilisation = { ofUsedHosts: 0, ofAllHosts: 0, usedHosts: 0 }

export function run(seed: number, options: ScaleOptions, instruments = noInstruments): ScaleVerdict {
  const world = new World(seed, options, instruments)
  let packed = empty
  const violation = violationOf(() => live(world, (utilisation) => (packed = utilisation)))
  const { store, schedule, light } = world
  const ended = migrationsOf(world.seen)
  const count = (end: string) => ended.filter(({ state }) => state === end).length
  return {
    seed,
    violation,
    events: schedule.events,
    simulatedMs: schedule.nowMs,
    counts: {
      ...world.work.counts,
      ...world.decided,
      facts: store.position,
      actors: store.streams,
      decisions: world.decisions,
      operations: light.operations,
      snapshots: store.snapshots,
      migrationsCompleted: count("completed"),
      migrationsFailed: count("failed"),
      unplaced: vmsOf(world.seen).filter(({ state }) => state === "unplaced").length
    },
    coverage: [...world.charts.coverage],
    packed,
    atTheEnd: world.utilisation(),
    decisionMs: world.decisionMs,
    whyMs: world.why(),
    bytesPerFact: store.dataBytes / Math.max(1, store.position),
    bytesPerDecision: world.bytesPerDecision,
    hash: store.hash
  }
}
