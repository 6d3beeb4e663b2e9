/**
 * One life of a simulated group, from a seed: faults while clients work, then a quorum that is left alone and has to
 * answer everybody. Nothing enters that does not come from the seed.
 */
import { sha256 } from "@noble/hashes/sha2.js"
import { bytesToHex } from "@noble/hashes/utils.js"
import type { RaftMessage } from "../../src/events/raft.ts"
import { noMembers } from "../../src/actors/raft/quorum.ts"
import { isLinearizable } from "../checkers/linearizability.ts"
import type { Call } from "../checkers/linearizability.ts"
import { RaftChecker } from "../checkers/raft.ts"
import { Violation, violationOf } from "../checkers/violation.ts"
import { Clock } from "../world/clock.ts"
import type { DiskCounts } from "../world/disk.ts"
import { Network, noPartitions } from "../world/network.ts"
import { makeRandom } from "../world/random.ts"
import type { Random } from "../world/random.ts"
import { Schedule } from "../world/schedule.ts"
import type { Verdict } from "../verdict.ts"
import { Atlas } from "./atlas.ts"
import { Clients } from "./clients.ts"
import { allCounted } from "./fault.ts"
import type { TimedFault } from "./fault.ts"
import { Faults } from "./faults.ts"
import { leaderAmong, Member } from "./member.ts"
import { Nemesis } from "./nemesis.ts"
import { drawnOptions } from "./options.ts"
import type { RunOptions } from "./options.ts"

export type { Verdict } from "../verdict.ts"

export interface RaftVerdict extends Verdict {
  readonly options: RunOptions
  /** What befell it, in order. */
  readonly faults: ReadonlyArray<TimedFault>
  /** What its clients did; what was never answered, too. */
  readonly history: ReadonlyMap<string, ReadonlyArray<Call>>
}

/** Null for faults that are drawn. */
interface RaftPlan {
  readonly seed: number
  readonly options: RunOptions
  readonly faults: ReadonlyArray<TimedFault> | null
}

/** What members say to one another; null for the end of a connection. */
type Datagram = RaftMessage | null

export class World {
  readonly random: Random
  readonly schedule: Schedule
  readonly members = new Map<string, Member>()
  readonly network: Network<Datagram>
  readonly checker: RaftChecker
  readonly clients: Clients
  readonly atlas: Atlas
  readonly faults: Faults
  readonly nemesis: Nemesis
  readonly options: RunOptions
  /** Of a key each, that were looked at. */
  histories = 0
  /** Of these, those about which nobody could say whether they have an order. */
  undecided = 0

  readonly #script: ReadonlyArray<TimedFault> | null

  /** Null for faults that are drawn. */
  constructor({ seed, options, faults }: RaftPlan) {
    this.random = makeRandom(seed)
    this.schedule = new Schedule(this.random.split("schedule"), events_max)
    this.options = options
    this.#script = faults
    const { schedule, random, members } = this
    this.network = new Network<Datagram>(
      schedule,
      random.split("network"),
      options.network,
      (from, to, said) => (said === null ? members.get(to)?.lost(from) : members.get(to)?.receive(from, said))
    )
    this.checker = new RaftChecker(members, (id) => {
      if (this.#script === null) this.nemesis.elected(id)
    })
    this.atlas = new Atlas(this.checker.group)
    for (let index = 0; index < this.options.members; index++) this.recruit(`n${index}`)
    this.clients = new Clients(this, members, this.options.clients, this.options.network)
    this.faults = new Faults(this)
    this.nemesis = new Nemesis(this, this.options.faults, this.options.settings.electionMs)
  }

  /** A process that was not started yet, on an empty disk. */
  readonly recruit = (id: string): Member => {
    const random = this.random.split(`member ${id}`)
    const { settings, disk, snapshotEvery, snapshotPartBytes, driftPercent } = this.options
    const clock = new Clock(
      random.int(0, 1_000_000),
      (random.next() * 2 - 1) * driftPercent,
      random.int(-1_000_000, 1_000_000)
    )
    const restartMs = settings.electionMs / 4
    const options = { id, settings, disk, clock, snapshotEvery, snapshotPartBytes, restartMs }
    const send = (from: string, to: string, message: RaftMessage) => this.network.send(from, to, message)
    const ends = random.split("ends")
    const ended = (from: string) => {
      for (const to of this.members.keys())
        if (ends.chance(this.options.endsTold) && to !== from) this.network.sendLast(from, to, null)
    }
    const member = new Member(
      { schedule: this.schedule, random, send, ended, watcher: this.checker },
      options
    )
    if (this.#script === null) member.disk.onSync = () => this.nemesis.synced(id)
    this.members.set(id, member)
    return member
  }

  start(): void {
    const voters = [...this.members.keys()].slice(0, this.options.voters)
    for (const [id, member] of this.members) {
      // A group is formed before anybody relies on it.
      if (voters.includes(id)) member.disk.format({ type: "raft.formed", members: { ...noMembers, voters } })
      member.start()
    }
    this.clients.start()
    if (this.#script === null) this.nemesis.start()
    else this.faults.script(this.#script)
  }

  /** As many as a quorum can do without, whatever members are or become the ones that count. */
  expendable(): ReadonlySet<string> {
    const dead = new Set<string>()
    const left = [...this.members.keys()]
    while (left.length > 0) {
      const [id = ""] = left.splice(this.random.int(0, left.length - 1), 1)
      if (!this.random.chance(0.5)) continue
      dead.add(id)
      if (!this.atlas.isEnough(new Set([...this.atlas.damaged, ...dead]))) dead.delete(id)
    }
    return dead
  }

  /** Everybody was answered, and all that are up and count have applied the same. */
  get isSettled(): boolean {
    if (this.clients.waiting > 0) return false
    const leader = leaderAmong(this.members.values())
    if (leader === undefined) return false
    const { commit, log, history } = leader.context
    const { voters = [], learners = [] } = history.at(-1)?.members ?? {}
    const isThere = (id: string) => {
      const member = this.members.get(id)
      return member === undefined || !member.isUp || member.machine.applied === commit
    }
    return commit === log.last && [...voters, ...learners].every(isThere)
  }

  run(): void {
    const { safetyMs } = this.options
    this.start()
    this.schedule.runUntil(safetyMs)
    this.clients.close()
    this.faults.end(this.expendable())
    this.#settle()
    this.checker.finish()
    for (const [key, calls] of this.clients.history()) this.#judge(key, isLinearizable(calls), calls.length)
  }

  #judge(key: string, isOrdered: boolean | null, calls: number): void {
    this.histories++
    if (isOrdered === false)
      throw new Violation("linearizability", `no order explains the ${calls} calls on ${key}`)
    if (isOrdered === null) this.undecided++
  }

  /** However slow a group is made by its limits, it has to come on. */
  #settle(): void {
    const { settings, clients, faults } = this.options
    const patienceMs = patience * (settings.electionMs + clients.timeoutMs) + 10 * faults.clogMeanMs
    let [reached, sinceMs] = ["", this.schedule.nowMs]
    while (!this.isSettled) {
      const members = [...this.members.values()].filter(({ isUp }) => isUp)
      const now = JSON.stringify([
        this.clients.waiting,
        members.map(({ context }) => [context.commit, context.stored])
      ])
      if (now !== reached) [reached, sinceMs] = [now, this.schedule.nowMs]
      if (this.schedule.nowMs - sinceMs >= patienceMs)
        throw new Violation(
          "liveness",
          `${this.clients.waiting} clients wait, or members differ; ${this.describe()}`
        )
      this.schedule.runUntil(this.schedule.nowMs + settings.heartbeatMs)
    }
  }

  describe(): string {
    return [...this.members.values()]
      .map((one) => {
        if (!one.isUp) return `${one.id} ${one.isOut ? "out" : "down"}`
        const { term, commit, log, history } = one.context
        const { voters = [], outgoing = [], learners = [] } = history.at(-1)?.members ?? {}
        return `${one.id} ${one.role} term ${term} log ${log.base}-${log.last} commit ${commit} applied ${one.machine.applied} of ${voters.join("+")}/${outgoing.join("+")}/${learners.join("+")}`
      })
      .join("; ")
  }
}

/** Some ten times as many as the busiest runs need. */
const events_max = 5_000_000

/** For how many election and client timeouts a group that is left alone may stand still. */
const patience = 60

const injected: ReadonlyArray<string> = [
  ...allCounted,
  ...Object.keys(noPartitions()),
  ...["flapping", "lost", "duplicated", "overtaken", "cut", "clogged", "overflowed", "stalls"],
  ...["lostFacts", "tornWrites", "writeErrors", "syncErrors", "fullErrors"]
]

/** All of it is drawn. */
export const run = (seed: number): RaftVerdict => runPlan({ seed, options: drawnOptions(seed), faults: null })

export function runPlan(plan: RaftPlan): RaftVerdict {
  const world = new World(plan)
  const violation = violationOf(() => world.run())
  const { schedule, clients, checker, options } = world
  const disks = [...world.members.values()].map(({ disk }) => disk.counts)
  const sum = (of: keyof DiskCounts) => disks.reduce((all, one) => all + one[of], 0)
  return {
    seed: plan.seed,
    violation,
    options,
    events: schedule.events,
    simulatedMs: schedule.nowMs,
    counts: {
      ...world.network.counts,
      overtaken: world.network.overtaken,
      ...world.faults.counts,
      ...world.nemesis.partitions,
      flapping: world.faults.flapping,
      restarts: world.faults.restarts,
      ...world.nemesis.counts,
      syncs: sum("syncs"),
      stalls: sum("stalls"),
      lostFacts: sum("lostFacts"),
      tornWrites: sum("tornWrites"),
      writeErrors: sum("writeErrors"),
      syncErrors: sum("syncErrors"),
      fullErrors: sum("fullErrors"),
      ends: [...world.members.values()].reduce((all, { errors }) => all + errors, 0),
      outs: [...world.members.values()].filter(({ isOut }) => isOut).length,
      elections: checker.elections,
      decided: checker.decided,
      answered: clients.answered,
      abandoned: clients.abandoned,
      retried: clients.retried,
      histories: world.histories,
      undecided: world.undecided
    },
    injected,
    coverage: [...checker.coverage],
    hash: hashOf(world),
    faults: world.faults.list,
    history: clients.history()
  }
}

function hashOf({ checker, schedule, clients, network }: World): string {
  const text = JSON.stringify([checker.journal(), network.counts, schedule.nowMs, clients.calls])
  return bytesToHex(sha256(new TextEncoder().encode(text)))
}
