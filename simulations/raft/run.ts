/**
 * One life of a simulated group, from a seed: faults while clients work, then a quorum that is left alone and has to
 * answer everybody. Nothing enters that does not come from the seed.
 */
import { sha256 } from "@noble/hashes/sha2.js"
import { bytesToHex } from "@noble/hashes/utils.js"
import type { RaftMessage } from "../../src/events/raft.ts"
import { hasQuorum, noMembers } from "../../src/actors/raft/quorum.ts"
import { isLinearizable } from "../checkers/linearizability.ts"
import { RaftChecker } from "../checkers/raft.ts"
import { Violation } from "../checkers/violation.ts"
import { Drifting } from "../world/clock.ts"
import { Network } from "../world/network.ts"
import { makeRandom } from "../world/random.ts"
import type { Random } from "../world/random.ts"
import { Schedule } from "../world/schedule.ts"
import { Clients } from "./clients.ts"
import { Faults } from "./faults.ts"
import { Member } from "./member.ts"
import { drawOptions } from "./options.ts"
import type { RunOptions } from "./options.ts"

export interface Verdict {
  readonly seed: number
  /** Null when every promise was kept. */
  readonly violation: Violation | null
  readonly options: RunOptions
  readonly events: number
  readonly simulatedMs: number
  readonly counts: Readonly<Record<string, number>>
  /** The pairs of a role and an input that occurred. */
  readonly coverage: ReadonlyArray<string>
  /** Over what was decided, in order, and when it ended: equal for equal seeds. */
  readonly hash: string
}

class World {
  readonly random: Random
  readonly schedule: Schedule
  readonly members = new Map<string, Member>()
  readonly network: Network<RaftMessage>
  readonly checker: RaftChecker
  readonly clients: Clients
  readonly faults: Faults
  readonly options: RunOptions
  /** Histories of a key about which nobody could say whether they have an order. */
  undecided = 0

  constructor(seed: number, options: RunOptions | null) {
    this.random = makeRandom(seed)
    this.schedule = new Schedule(this.random.split("schedule"), events_max)
    this.options = options ?? drawOptions(this.random.split("options"))
    const { schedule, random, members } = this
    this.network = new Network(schedule, random.split("network"), this.options.network, (from, to, message) =>
      members.get(to)?.receive(from, message)
    )
    this.checker = new RaftChecker(members, (id) => this.faults.ambush(id))
    const send = (from: string, to: string, message: RaftMessage) => this.network.send(from, to, message)
    for (let index = 0; index < this.options.members; index++) {
      const own = random.split(`member ${index}`)
      const { settings, disk, snapshotEvery, snapshotPartBytes, driftPercent } = this.options
      const clock = new Drifting(own.int(0, 1_000_000), (own.next() * 2 - 1) * driftPercent)
      const member = { id: `n${index}`, settings, disk, clock, snapshotEvery, snapshotPartBytes }
      const world = { schedule, random: own, send, watcher: this.checker }
      members.set(member.id, new Member(world, member))
    }
    this.clients = new Clients(this, members, this.options.clients, this.options.network)
    this.faults = new Faults(this, members, this.network, this.options.faults)
  }

  start(): void {
    const voters = [...this.members.keys()].slice(0, this.options.voters)
    for (const [id, member] of this.members) {
      // A group is formed before anybody relies on it.
      if (voters.includes(id))
        member.disk.facts.push({ type: "raft.formed", members: { ...noMembers, voters } })
      member.start()
    }
    this.clients.start()
    this.faults.start()
  }

  /** As many as a quorum can do without, whatever members are or become the ones that count. */
  expendable(): ReadonlySet<string> {
    const dead = new Set<string>()
    const possible = [...this.members.values()]
      .flatMap((one) => [one.replayed(), ...(one.isUp ? [one.context] : [])])
      .flatMap(({ history }) => history.slice(-2).map(({ members }) => members))
      .filter(({ voters }) => voters.length > 0)
    const left = [...this.members.keys()]
    while (left.length > 0) {
      const [id = ""] = left.splice(this.random.int(0, left.length - 1), 1)
      if (!this.random.chance(0.5)) continue
      dead.add(id)
      if (!possible.every((members) => hasQuorum(members, (one) => !dead.has(one)))) dead.delete(id)
    }
    return dead
  }

  /** Everybody was answered, and all that are up and count have applied the same. */
  get isSettled(): boolean {
    if (this.clients.waiting > 0) return false
    const leader = [...this.members.values()].find((one) => one.isUp && one.role === "leader")
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
    const texts = new Map<number, string>()
    for (const { machine, id, isUp } of this.members.values()) {
      if (!isUp) continue
      const text = texts.get(machine.applied) ?? machine.text()
      if (text !== machine.text()) throw new Violation("state-machine-safety", `${id} has another state`)
      texts.set(machine.applied, text)
    }
  }

  #judge(key: string, isOrdered: boolean | null, calls: number): void {
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
        if (!one.isUp) return `${one.id} down`
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

/** With other options than the seed's own where they are given. */
export function run(seed: number, given: RunOptions | null = null): Verdict {
  const world = new World(seed, given)
  let violation: Violation | null = null
  try {
    world.run()
  } catch (error) {
    violation =
      error instanceof Violation
        ? error
        : new Violation("crash", error instanceof Error ? (error.stack ?? error.message) : String(error))
  }
  const { schedule, clients, checker, options } = world
  const disks = [...world.members.values()].map(({ disk }) => disk.counts)
  const sum = (of: "syncs" | "stalls" | "lostFacts" | "tornWrites") =>
    disks.reduce((all, one) => all + one[of], 0)
  return {
    seed,
    violation,
    options,
    events: schedule.events,
    simulatedMs: schedule.nowMs,
    counts: {
      ...world.network.counts,
      ...world.faults.counts,
      syncs: sum("syncs"),
      stalls: sum("stalls"),
      lostFacts: sum("lostFacts"),
      tornWrites: sum("tornWrites"),
      elections: checker.elections,
      decided: checker.decided,
      answered: clients.answered,
      abandoned: clients.abandoned,
      retried: clients.retried,
      undecided: world.undecided
    },
    coverage: [...checker.coverage],
    hash: hashOf(world)
  }
}

function hashOf({ checker, schedule, clients }: World): string {
  const text = JSON.stringify([checker.journal(), schedule.events, schedule.nowMs, clients.calls])
  return bytesToHex(sha256(new TextEncoder().encode(text)))
}
