/**
 * One life of a cluster, from a seed: nodes that vote, hosts, operators and readers while everything breaks; then a quorum that is
 * left alone has to answer everybody, and all has to come to rest as it should be.
 */
import { sha256 } from "@noble/hashes/sha2.js"
import { bytesToHex } from "@noble/hashes/utils.js"
import { Effect } from "effect"
import { actorKinds } from "../../src/actors/kinds.ts"
import { clusterStream } from "../../src/events/cluster.ts"
import type { GroupMessage } from "../../src/kernel/group-node.ts"
import { replay } from "../../src/kernel/replay.ts"
import { describe } from "../../src/kernel/statechart.ts"
import { isBounded } from "../checkers/bounds.ts"
import { holdsWhatIsUsed, isNotOvercommitted } from "../checkers/capacity.ts"
import { Charts } from "../checkers/charts.ts"
import { ClusterChecker, Revisions, States } from "../checkers/cluster.ts"
import { happenedOnce } from "../checkers/commands.ts"
import { vmsOf } from "../checkers/fleet.ts"
import type { Seen } from "../checkers/fleet.ts"
import { Journals } from "../checkers/journals.ts"
import { noneIsLost } from "../checkers/lost.ts"
import { Marks } from "../checkers/marks.ts"
import { endedOnce } from "../checkers/migrations.ts"
import { isWhereItBelongs, runsOnce } from "../checkers/owner.ts"
import { Patience } from "../checkers/patience.ts"
import { isSameAfterReplay } from "../checkers/replay.ts"
import { Noticed, Violation, violationOf } from "../checkers/violation.ts"
import { isOver } from "../fleet/operators.ts"
import { Atlas } from "../raft/atlas.ts"
import { Clock } from "../world/clock.ts"
import { makeFleet } from "../world/hypervisor.ts"
import type { Fleet } from "../world/hypervisor.ts"
import { makeRandom } from "../world/random.ts"
import type { Random } from "../world/random.ts"
import { Runtime } from "../world/runtime.ts"
import { Schedule } from "../world/schedule.ts"
import { Wires } from "../world/wires.ts"
import type { Verdict } from "../verdict.ts"
import { Clients } from "./clients.ts"
import { countsOf, injected } from "./counts.ts"
import type { TimedFault } from "./fault.ts"
import { Faults } from "./faults.ts"
import { ClusterHost } from "./host.ts"
import { Nemesis } from "./nemesis.ts"
import { ClusterNode } from "./node.ts"
import type { Watcher } from "./node.ts"
import { drawOptions } from "./options.ts"
import type { RunOptions } from "./options.ts"
import { Saying } from "./saying.ts"
import { Watch } from "./watch.ts"

export interface ClusterVerdict extends Verdict {
  readonly options: RunOptions
  /** What befell it, in order. */
  readonly faults: ReadonlyArray<TimedFault>
}

/** Null for faults that are drawn. */
interface ClusterPlan {
  readonly seed: number
  readonly options: RunOptions
  readonly faults: ReadonlyArray<TimedFault> | null
}

/** Some ten times as many as the busiest runs need. */
const events_max = 20_000_000
/** A group has to be founded within this, and a cluster that is left alone to come to rest. */
const foundedMs = 60_000
const patienceMs = 300_000
/** A node whose disk is damaged takes no part: that it is to be admitted is given up after a quarter of an hour. */
const admissionMs = 1_000_000
const lookEveryMs = 20
const left_max = 100

export class World implements Watcher {
  readonly options: RunOptions
  readonly random: Random
  readonly schedule: Schedule
  readonly runtime: Runtime
  readonly fleet: Fleet
  readonly charts = new Charts()
  readonly nodes = new Map<string, ClusterNode>()
  readonly hosts = new Map<string, ClusterHost>()
  readonly wires: Wires<GroupMessage>
  readonly checker: ClusterChecker
  readonly journals = new Journals()
  readonly states = new States()
  readonly revisions = new Revisions()
  readonly noticed = new Noticed()
  readonly marks = new Marks()
  readonly patience: Patience
  readonly saying: Saying
  readonly clients: Clients
  readonly atlas: Atlas
  readonly faults: Faults
  readonly nemesis: Nemesis
  readonly watch: Watch
  readonly watcher = this
  readonly #script: ReadonlyArray<TimedFault> | null
  /** By node, facts whose actors were looked at. */
  readonly #looked = new Map<string, number>()
  #isCalm = false

  constructor({ seed, options, faults }: ClusterPlan) {
    this.random = makeRandom(seed)
    this.options = options
    this.#script = faults
    const { bandwidthBytesPerSecond, hypervisor } = options
    this.schedule = new Schedule(this.random.split("schedule"), events_max)
    this.runtime = new Runtime(this.schedule, this.random.split("runtime"))
    this.fleet = makeFleet({ seed, bandwidthBytesPerSecond, faults: hypervisor })
    // The protocol bears what arrives twice; what nodes ask of one another beside it goes over one connection.
    this.wires = new Wires(
      this.schedule,
      this.random.split("wires"),
      options.wires,
      ({ kind }: GroupMessage) => kind === "raft"
    )
    this.checker = new ClusterChecker(this.nodes)
    this.atlas = new Atlas(this.checker.group)
    this.patience = new Patience(options.patienceMs, 1000 + 40 * options.journal.writeMeanMs)
    this.saying = new Saying(this)
    for (let index = 0; index < options.hosts; index++) this.#addHost(`h${index}`)
    for (let index = 0; index < options.voters + options.spares; index++) this.#addNode(index)
    this.clients = new Clients(this)
    this.clients.onRead = ({ id }, actor) => this.states.look(id, actor)
    this.faults = new Faults(this)
    this.nemesis = new Nemesis(this)
    this.watch = new Watch(this)
  }

  #addHost(name: string): void {
    const world = {
      fleet: this.fleet,
      runtime: this.runtime,
      random: this.random,
      line: () => this.#line,
      say: (host: ClusterHost) => this.saying.from(host)
    }
    this.hosts.set(name, new ClusterHost(name, this.options.hostMemoryMib, world))
  }

  #addNode(index: number): void {
    const id = `n${index}`
    const random = this.random.split(`clock ${id}`)
    const { driftPercent, wallSpreadMs } = this.options
    const clock = new Clock(
      random.int(0, 1_000_000),
      (random.next() * 2 - 1) * driftPercent,
      random.int(-wallSpreadMs, wallSpreadMs)
    )
    const node: ClusterNode = new ClusterNode(id, this, clock, index > 0)
    node.onFailure = (reason) => {
      throw new Violation("crash", `${id} did not start: ${reason}`)
    }
    node.onHalt = () => this.faults.halted(node)
    node.vouched = (peer) =>
      [...this.nodes.values()].some(
        (one) =>
          node.members.includes(one.id) && this.wires.connected(id, one.id) && one.members.includes(peer)
      )
    this.nodes.set(id, node)
  }

  /** Nothing gets lost any more, at the end. */
  get #line() {
    const { line } = this.options
    return this.#isCalm ? { ...line, answersLost: 0 } : line
  }

  stepped(node: ClusterNode): void {
    this.noticed.within(() => this.checker.stepped(node))
  }

  sent(...[node, message]: Parameters<Watcher["sent"]>): void {
    this.noticed.within(() => this.checker.sent(node, message))
  }

  decided(...[node, entries]: Parameters<Watcher["decided"]>): void {
    this.noticed.within(() => this.checker.told(node, entries))
  }

  leads(node: ClusterNode): void {
    this.noticed.within(() => this.checker.leads(node))
  }

  marked(...[node, mark]: Parameters<Watcher["marked"]>): void {
    this.noticed.within(() => this.marks.look(node.id, mark, node.journal.memory.facts.length))
  }

  moment(...[node, moment]: Parameters<Watcher["moment"]>): void {
    if (moment === "journal appended")
      this.noticed.within(() => this.journals.look(node.id, node.journal.memory.facts))
    this.faults.moment(node, moment)
  }

  crashed({ id, journal }: ClusterNode): void {
    const { length } = journal.memory.facts
    this.journals.crashed(id, length)
    this.#looked.set(id, Math.min(this.#looked.get(id) ?? 0, length))
  }

  /** Of the group, and not on a disk that has lost something. */
  mayRemove(id: string): boolean {
    const { faults } = this.options
    return faults.damageEveryMs === Number.POSITIVE_INFINITY || this.atlas.damaged.has(id)
  }

  /** Who performs: what its kernel knows is what is so. */
  get leader(): ClusterNode | null {
    let found: ClusterNode | null = null
    for (const node of this.nodes.values())
      if (node.kernel?.isPerforming() === true && !(node.context.term <= (found?.context.term ?? -1)))
        found = node
    return found
  }

  get seen(): Seen {
    return {
      fleet: this.fleet,
      facts: this.journals.facts,
      actors: this.leader?.kernel?.resident() ?? new Map()
    }
  }

  run(): void {
    this.#found()
    this.clients.start()
    if (this.#script === null) this.nemesis.start()
    else this.faults.script(this.#script)
    this.#pass(this.options.safetyMs)
    this.clients.close()
    this.#isCalm = true
    this.faults.end(this.#expendable())
    this.#settle()
    this.#finish()
  }

  /** One node founds the group, and takes in the others. */
  #found(): void {
    for (const node of this.nodes.values()) node.start()
    for (const host of this.hosts.values()) host.start()
    this.watch.start()
    const endMs = this.schedule.nowMs + foundedMs
    const first = [...this.nodes.keys()].slice(0, this.options.voters)
    for (;;) {
      const voters = this.leader?.context.history.at(-1)?.members.voters ?? []
      const isSettled = this.seen.actors.get(clusterStream)?.chart.value !== "changing"
      const missing = first.find((id) => !voters.includes(id))
      if (missing === undefined && isSettled) return
      if (this.schedule.nowMs > endMs) throw new Violation("liveness", `no group: ${this.describe()}`)
      if (missing !== undefined && voters.length > 0 && isSettled && !this.clients.isChanging)
        this.clients.errand("admit", missing)
      this.#pass(lookEveryMs)
    }
  }

  /** As many as a quorum can do without; nobody while it changes who that is. */
  #expendable(): ReadonlySet<string> {
    const dead = new Set<string>()
    if (this.clients.isChanging || this.#isChanging) return dead
    const left = [...this.nodes.keys()]
    while (left.length > 0) {
      const [id = ""] = left.splice(this.random.int(0, left.length - 1), 1)
      if (!this.random.chance(0.5)) continue
      dead.add(id)
      if (!this.atlas.isEnough(new Set([...this.atlas.damaged, ...dead]))) dead.delete(id)
    }
    return dead
  }

  /** In any journal, or in any log. */
  get #isChanging(): boolean {
    for (const { kernel, context } of this.nodes.values()) {
      const actor = kernel?.resident().get(clusterStream)
      if (actor?.chart.value === "changing" || (context.history.at(-1)?.members.outgoing.length ?? 0) > 0)
        return true
    }
    const last = this.journals.facts.findLast(({ stream }) => stream === clusterStream)
    return last !== undefined && !/\.cluster\.(un)?changed$/.test(last.type)
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
    this.noticed.look()
    for (const node of this.nodes.values()) {
      const { kernel, id, journal } = node
      const { facts } = journal.memory
      this.journals.look(id, facts)
      this.patience.look(node, journal.isStalled)
      if (kernel === null) continue
      const actors = kernel.resident()
      // A kernel that performs no more leaves behind what it had said, until it is decided or its time is over.
      isBounded(kernel.waiting(), this.options.waiting_max + left_max, actors)
      const from = this.#looked.get(id) ?? 0
      if (from >= facts.length) continue
      this.#looked.set(id, facts.length)
      for (const stream of new Set(facts.slice(from).map((fact) => fact.stream))) {
        const actor = actors.get(stream)
        if (actor !== undefined) this.states.look(id, actor)
      }
      isNotOvercommitted({ fleet: this.fleet, facts, actors })
    }
  }

  /** Members that are up, as whoever leads knows them. */
  get #memberNodes(): ReadonlyArray<ClusterNode> {
    const members = this.leader?.members ?? []
    return [...this.nodes.values()].filter(({ id, isUp }) => isUp && members.includes(id))
  }

  get isSettled(): boolean {
    const { leader, clients } = this
    // A host that is not heard yet may have lost machines: a node that hears no leader has its whole patience first.
    if (leader?.kernel == null || clients.waiting > 0 || this.saying.open.size > 0) return false
    const { commit, log } = leader.context
    if (commit !== log.last) return false
    const { position } = last(leader)
    for (const node of this.#memberNodes) {
      if (node.kernel === null || node.kernel.waiting() > 0) return false
      if (node.context.commit !== commit || last(node).position !== position) return false
    }
    const actors = leader.kernel.resident()
    for (const host of this.hosts.values()) {
      const actor = actors.get(`host/${host.name}`)
      if (!host.lineTo(leader.id).isUp || actor === undefined || actor.chart.value === "lost") return false
    }
    for (const { outstanding, stream, chart } of actors.values()) {
      if (outstanding.length > 0) return false
      if (stream.startsWith("migration/") && !isOver(describe(chart))) return false
    }
    return true
  }

  /** Quiet twice in a row: what a host has told meanwhile is heard too. */
  #settle(): void {
    const beganMs = this.schedule.nowMs
    let limitMs = patienceMs
    for (let quiet = 0; quiet < 2; quiet = this.isSettled ? quiet + 1 : 0) {
      if (this.#admitsTheDamaged) limitMs = admissionMs
      if (this.schedule.nowMs - beganMs > limitMs) throw new Violation("liveness", this.describe())
      this.#pass(3000)
    }
  }

  get #admitsTheDamaged(): boolean {
    const asked = this.seen.actors.get(clusterStream)?.outstanding ?? []
    return asked.some(
      ({ request }) =>
        request.port === "group" && request.op === "admit" && this.nodes.get(request.node)?.isOut === true
    )
  }

  #finish(): void {
    const { seen } = this
    this.checker.finish([...this.nodes.values()].filter(({ isUp }) => isUp))
    isNotOvercommitted(seen)
    endedOnce(seen)
    noneIsLost(seen)
    isWhereItBelongs(seen)
    holdsWhatIsUsed(seen)
    happenedOnce(this.clients.commands(), seen.facts)
    for (const node of this.#memberNodes) {
      this.journals.finish(node.id, node.journal.memory.facts)
      for (const snapshots of [false, true]) {
        const again = node.read((store) => replay(store, actorKinds, { snapshots }))
        isSameAfterReplay(
          node.kernel?.resident() ?? new Map(),
          this.runtime.run(again, 60_000),
          snapshots ? "snapshots and facts" : "facts"
        )
      }
      this.runtime.run(Effect.asVoid(node.read((store) => store.verify)), 60_000)
    }
  }

  describe(): string {
    const open = [...this.seen.actors.values()].filter(({ outstanding }) => outstanding.length > 0)
    const nodes = [...this.nodes.values()].map((node) => {
      const { voters = [], outgoing = [], learners = [] } = node.context.history.at(-1)?.members ?? {}
      const { term, commit, applied, log, leader } = node.context
      return `${node.id} ${node.isOut ? "out" : node.isGone ? "gone" : node.isUp ? node.role : "down"} term ${term} leader ${leader} log ${log.base}-${log.last} commit ${commit} applied ${applied} facts ${last(node).position} waiting ${node.kernel?.waiting()} of ${voters.join("+")}/${outgoing.join("+")}/${learners.join("+")}`
    })
    return JSON.stringify({
      operators: this.clients.operators.waiting,
      errands: this.clients.isChanging,
      saying: [...this.saying.open],
      nodes,
      performs: this.leader?.id ?? null,
      open: open.map(({ stream, chart, outstanding }) => [stream, describe(chart), outstanding[0]?.request]),
      vms: vmsOf(this.seen).map(({ vm, state }) => [vm, state])
    }).slice(0, 3000)
  }
}

const last = (node: ClusterNode) => node.journal.memory.facts.at(-1) ?? { position: 0, hash: "" }

/** All of it is drawn. */
export const run = (seed: number): ClusterVerdict =>
  runPlan({ seed, options: drawOptions(seed), faults: null })

export function runPlan(plan: ClusterPlan): ClusterVerdict {
  const world = new World(plan)
  const violation = violationOf(() => world.run())
  const { schedule, options, checker, charts, faults } = world
  return {
    seed: plan.seed,
    violation,
    options,
    events: schedule.events,
    simulatedMs: schedule.nowMs,
    counts: countsOf(world),
    injected,
    coverage: [...checker.coverage, ...charts.coverage],
    hash: hashOf(world),
    faults: faults.list
  }
}

function hashOf({ journals, schedule, clients }: World): string {
  const text = JSON.stringify([
    journals.facts.at(-1)?.hash ?? "",
    schedule.events,
    schedule.nowMs,
    clients.commands()
  ])
  return bytesToHex(sha256(new TextEncoder().encode(text)))
}
