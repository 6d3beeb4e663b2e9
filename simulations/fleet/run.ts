/**
 * One life of a small fleet, from a seed: operators work while everything breaks, then nothing breaks any more and all
 * has to come to rest as it should be. The kernel, the actors, the agents and the projections are the production's.
 */
import { sha256 } from "@noble/hashes/sha2.js"
import { bytesToHex } from "@noble/hashes/utils.js"
import { Effect } from "effect"
import { actorKinds } from "../../src/actors/kinds.ts"
import { describe } from "../../src/kernel/statechart.ts"
import { rebalancerStream } from "../../src/events/rebalancer.ts"
import type { RebalancerState } from "../../src/events/rebalancer.ts"
import { replay } from "../../src/kernel/replay.ts"
import { isBounded } from "../checkers/bounds.ts"
import { Charts } from "../checkers/charts.ts"
import { holdsWhatIsUsed, isNotOvercommitted } from "../checkers/capacity.ts"
import { happenedOnce } from "../checkers/commands.ts"
import { vmsOf } from "../checkers/fleet.ts"
import type { Seen } from "../checkers/fleet.ts"
import { noneIsLost } from "../checkers/lost.ts"
import { endedOnce } from "../checkers/migrations.ts"
import { isWhereItBelongs, runsOnce } from "../checkers/owner.ts"
import { isSameAfterReplay } from "../checkers/replay.ts"
import { Violation, violationOf } from "../checkers/violation.ts"
import type { Verdict } from "../verdict.ts"
import { makeFleet } from "../world/hypervisor.ts"
import type { Fleet } from "../world/hypervisor.ts"
import { hypervisorCounts, hypervisorFaults } from "../world/hypervisor/machine.ts"
import { Line } from "../world/line.ts"
import { makeRandom } from "../world/random.ts"
import type { Random } from "../world/random.ts"
import { Runtime } from "../world/runtime.ts"
import { Schedule } from "../world/schedule.ts"
import { faultKinds, Faults } from "./faults.ts"
import { fencingFaults, FleetFencing, HostFencing } from "./fencing.ts"
import { SimulatedHost } from "./host.ts"
import { SimulatedNode } from "./node.ts"
import { Operators, isOver } from "./operators.ts"
import { drawFenced, drawOptions } from "./options.ts"
import type { RunOptions } from "./options.ts"
import { Rebalancing } from "./rebalancing.ts"

export interface FleetVerdict extends Verdict {
  readonly options: RunOptions
}

/** Some ten times as many as the busiest runs need. */
const events_max = 20_000_000
/** A fleet that is left alone has to come to rest within this. */
const patienceMs = 1_800_000
const lookEveryMs = 20

export class World {
  readonly seed: number
  readonly options: RunOptions
  readonly random: Random
  readonly schedule: Schedule
  readonly runtime: Runtime
  readonly fleet: Fleet
  readonly charts = new Charts()
  readonly hosts = new Map<string, SimulatedHost>()
  readonly node: SimulatedNode
  readonly operators: Operators
  readonly faults: Faults
  readonly fencing: FleetFencing | null
  #looked = 0

  constructor(seed: number, isFenced = false) {
    this.seed = seed
    this.random = makeRandom(seed)
    this.options = (isFenced ? drawFenced : drawOptions)(this.random.split("options"))
    const { hostMemoryMib, bandwidthBytesPerSecond, hypervisor } = this.options
    this.schedule = new Schedule(this.random.split("schedule"), events_max)
    this.runtime = new Runtime(this.schedule, this.random.split("runtime"))
    this.fleet = makeFleet({ seed, bandwidthBytesPerSecond, faults: hypervisor })
    let isCalm = false
    const options = () => (isCalm ? calm(this.options) : this.options)
    this.becomeCalm = () => (isCalm = true)
    this.node = new SimulatedNode(this, this.hosts, options)
    this.node.onFailure = (reason) => {
      throw new Violation("crash", `the kernel did not start: ${reason}`)
    }
    const { fencing } = this.options
    this.fencing =
      fencing === null ? null : new FleetFencing(this, fencing, this.hosts, () => this.node.kernel)
    for (let index = 0; index < this.options.hosts; index++) {
      const name = `h${index}`
      const line = new Line(this.random.split(`line ${name}`), () => options().line)
      this.hosts.set(
        name,
        new SimulatedHost(
          name,
          hostMemoryMib,
          { fleet: this.fleet, runtime: this.runtime, line },
          (host) => this.node.sayFrom(host),
          this.#leasesOf(name)
        )
      )
    }
    this.operators = new Operators(this, this.node, this.options)
    this.faults = new Faults(this, this.node, this.options)
  }

  #leasesOf(name: string) {
    const { fencing } = this
    if (fencing === null || this.options.fencing === null) return null
    const host = new HostFencing(name, this, this.options.fencing, fencing.counts)
    return { host, ask: (asking: SimulatedHost) => fencing.ask(asking) }
  }

  /** Nothing gets lost any more. */
  readonly becomeCalm: () => void

  get seen(): Seen {
    return {
      fleet: this.fleet,
      facts: this.node.disk.facts,
      actors: this.node.kernel?.resident() ?? new Map()
    }
  }

  run(): void {
    this.node.start()
    for (const host of this.hosts.values()) host.start()
    this.operators.start()
    this.faults.start()
    this.fencing?.start()
    const { rebalance, safetyMs } = this.options
    const rebalancing = new Rebalancing(this)
    if (rebalance !== null) rebalancing.start(rebalance, safetyMs / 2)
    this.#pass(this.options.safetyMs)
    this.operators.close()
    this.becomeCalm()
    this.faults.end()
    this.fencing?.end()
    if (rebalance !== null) rebalancing.end()
    this.#settle()
    this.#finish()
  }

  /** After every event nothing runs twice; the rest is looked at as often as it changes. */
  #pass(ms: number): void {
    const endMs = this.schedule.nowMs + ms
    while (this.schedule.nowMs < endMs) {
      const untilMs = Math.min(endMs, this.schedule.nowMs + lookEveryMs)
      while (this.schedule.step(untilMs)) runsOnce(this)
      this.schedule.runUntil(untilMs)
      this.#look()
    }
  }

  #look(): void {
    const { facts } = this.node.disk
    const seen = this.seen
    isBounded(this.node.kernel?.waiting() ?? 0, this.options.waiting_max, seen.actors)
    if (facts.length === this.#looked) return
    isNotOvercommitted(seen)
    for (const { stream } of facts.slice(this.#looked))
      if (stream.startsWith("migration/")) this.faults.ambush()
    this.#looked = facts.length
  }

  get isSettled(): boolean {
    const { kernel } = this.node
    if (kernel === null || this.operators.waiting > 0 || kernel.waiting() > 0) return false
    for (const host of this.hosts.values()) {
      const actor = kernel.resident().get(`host/${host.name}`)
      const isAway = actor?.chart.value === "lost" || actor?.chart.value === "fenced"
      if (!host.line.isUp || actor === undefined || isAway) return false
    }
    for (const { outstanding, stream, chart } of kernel.resident().values()) {
      // A machine that fits nowhere is tried again for hours.
      if (outstanding.some(({ request }) => request.port !== "timer")) return false
      if (stream.startsWith("migration/") && !isOver(describe(chart))) return false
    }
    return true
  }

  /** Quiet twice in a row: what a host has told meanwhile is heard too. */
  #settle(): void {
    const endMs = this.schedule.nowMs + patienceMs
    for (let quiet = 0; quiet < 2; quiet = this.isSettled ? quiet + 1 : 0) {
      if (this.schedule.nowMs > endMs) throw new Violation("liveness", this.describe())
      this.#pass(5000)
    }
  }

  #finish(): void {
    const { seen } = this
    isNotOvercommitted(seen)
    endedOnce(seen)
    noneIsLost(seen)
    isWhereItBelongs(seen)
    holdsWhatIsUsed(seen)
    happenedOnce(this.operators.issued, seen.facts)
    for (const snapshots of [false, true]) {
      const again = this.node.read((store) => replay(store, actorKinds, { snapshots }))
      isSameAfterReplay(
        seen.actors,
        this.runtime.run(again, 60_000),
        snapshots ? "snapshots and facts" : "facts"
      )
    }
    this.runtime.run(Effect.asVoid(this.node.read((store) => store.verify)), 60_000)
  }

  describe(): string {
    const open = [...this.seen.actors.values()].filter(({ outstanding }) => outstanding.length > 0)
    return JSON.stringify({
      up: this.node.isUp,
      operators: this.operators.waiting,
      waiting: this.node.kernel?.waiting() ?? null,
      open: open.map(({ stream, chart, outstanding }) => [stream, describe(chart), outstanding[0]?.request]),
      silent: [...this.hosts.values()].filter(({ line }) => !line.isUp).map(({ name }) => name),
      vms: vmsOf(this.seen).map(({ vm, state }) => [vm, state])
    }).slice(0, 2000)
  }
}

const calm = (options: RunOptions): RunOptions => ({
  ...options,
  line: { ...options.line, answersLost: 0 },
  store: { ...options.store, fails: 0 }
})

export const run = (seed: number): FleetVerdict => verdictOf(new World(seed))

const injected: ReadonlyArray<string> = [
  ...faultKinds,
  ...hypervisorFaults,
  ...["appendsFailed", "writesLost", "answersLost", "repeated"]
]

export function verdictOf(world: World): FleetVerdict {
  const violation = violationOf(() => world.run())
  const { seed, schedule, node, operators, faults, fleet, options } = world
  const facts = node.disk.facts
  return {
    seed,
    violation,
    options,
    events: schedule.events,
    simulatedMs: schedule.nowMs,
    counts: {
      ...faults.counts,
      ...hypervisorCounts(fleet),
      ...node.counts,
      answersLost: answersLost(world),
      ...world.fencing?.counts,
      facts: facts.length,
      commands: operators.issued.length,
      refused: operators.issued.filter(({ answer }) => answer === "refused").length,
      repeated: operators.repeated,
      overloaded: operators.overloaded,
      ...Object.fromEntries(Object.entries(operators.done).map(([name, count]) => [`${name} done`, count])),
      ...endingsOf(facts),
      rebalances: facts.filter(({ type }) => type === "novacron.rebalancer.decided").length,
      "rebalance moves": movesOf(world)
    },
    injected: world.fencing === null ? injected : [...injected, ...fencingFaults],
    coverage: [...world.charts.coverage],
    hash: hashOf(world)
  }
}

/** To operators, and to hosts and the node that ask one another, for leases too. */
const answersLost = ({ node, hosts }: World): number =>
  [...hosts.values()].reduce((all, { line }) => all + line.answersLost, node.line.answersLost)

function endingsOf(facts: ReadonlyArray<{ readonly type: string }>): Record<string, number> {
  const counts = { "migrations completed": 0, "migrations cancelled": 0, "migrations failed": 0 }
  for (const { type } of facts) {
    const name = type.replace("novacron.migration.", "migrations ")
    if (name in counts) counts[name as keyof typeof counts]++
  }
  return counts
}

const movesOf = ({ seen }: World): number => {
  const state = seen.actors.get(rebalancerStream)?.chart.context as RebalancerState | undefined
  return state?.moves ?? 0
}

function hashOf({ node, schedule, operators }: World): string {
  const journal = node.disk.facts.at(-1)?.hash ?? ""
  const text = JSON.stringify([journal, schedule.events, schedule.nowMs, operators.issued])
  return bytesToHex(sha256(new TextEncoder().encode(text)))
}
