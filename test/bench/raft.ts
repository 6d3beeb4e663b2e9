/**
 * Proposals per second of a Raft group of three in one process, with memory stores and messages handed over directly,
 * beside etcd's Raft library in Go doing the same (`etcd-raft/`): the same data, as many in flight, and what a member is
 * given waits until it is its turn. A proposal counts when the leader has applied it.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { raftActor } from "../../src/actors/raft/chart.ts"
import { wakesAtMs } from "../../src/actors/raft/decide.ts"
import { noMembers } from "../../src/actors/raft/quorum.ts"
import type { RaftContext } from "../../src/actors/raft/step.ts"
import type { Entry, RaftCommand, RaftRequest, RaftSettings } from "../../src/events/raft.ts"
import { Replica } from "../../src/kernel/replica.ts"
import { buildEtcdRaft, EtcdRaft } from "./etcd-raft.ts"
import type { Took, Work } from "./etcd-raft.ts"
import { figure, hashOf, spread } from "./measure.ts"
import type { Figure, Options } from "./measure.ts"

const settings: RaftSettings = {
  heartbeatMs: 100,
  electionMs: 1000,
  messageBytesMax: 1024 * 1024,
  inflightBytesMax: 256 * 1024 * 1024,
  inflightEntriesMax: 1_000_000,
  uncommittedBytesMax: 1024 * 1024 * 1024,
  readsMax: 1000,
  lagEntriesMax: 1000,
  leaseDriftPercent: 0
}

const voters = ["a", "b", "c"]

/** The log of a member that runs for long is not as long: it forgets when it has as many entries, except the last ones. */
const compactEvery = 10_000
const compactKeeps = 1000

/** How many different proposals there are; they are made before the clock runs. */
const different = 1024

/** A member, what it was given and has not taken yet, and what a state machine would have been given. */
class Member {
  readonly id: string
  readonly replica: Replica<RaftRequest>
  readonly applied: Array<string> = []
  readonly #group: ReadonlyMap<string, Member>
  #inbox: Array<RaftCommand> = []
  placed = 0

  constructor(id: string, group: ReadonlyMap<string, Member>) {
    this.id = id
    this.#group = group
    this.replica = new Replica(raftActor, `raft/${id}`)
    this.replica.restore([{ type: "raft.formed", members: { ...noMembers, voters } }])
    this.give({ type: "raft.begin", id, settings, chance: 0 })
  }

  get context(): RaftContext {
    return this.replica.state.context as RaftContext
  }

  give(input: RaftCommand): void {
    this.#inbox.push(input)
  }

  /** Take everything that has gathered; its store has it at once. False when there was nothing. */
  work(timeMs: number): boolean {
    const inputs = this.#inbox
    if (inputs.length === 0) return false
    this.#inbox = []
    const { now, facts } = this.replica.takeAll(inputs, timeMs)
    this.#perform(now)
    if (facts.length === 0) return true
    this.#perform(this.replica.stored(facts.length))
    const appended = facts.findLast(({ type }) => type === "raft.appended")
    const last = (appended?.["entries"] as ReadonlyArray<Entry> | undefined)?.at(-1)
    if (last === undefined) return true
    const { index, term } = last
    this.#perform(this.replica.take({ type: "raft.stored", index, term, chance: 0 }, timeMs).now)
    return true
  }

  #perform(requests: ReadonlyArray<RaftRequest>): void {
    for (const request of requests) {
      if (request.port === "peer")
        this.#group
          .get(request.to)
          ?.give({ type: "raft.receive", from: this.id, message: request.message, chance: 0 })
      else if (request.port === "machine" && request.op === "apply") {
        for (const { data } of request.entries) if (data !== null) this.applied.push(data)
        const { applied, log } = this.context
        if (applied - log.base >= compactEvery + compactKeeps)
          this.give({ type: "raft.compact", index: applied - compactKeeps })
      } else if (request.port === "caller" && request.op === "placed") this.placed++
      else throw new Error(`${this.id} asks for ${JSON.stringify(request)}`)
    }
  }
}

class Group {
  readonly members = new Map<string, Member>()
  readonly leader: Member
  #timeMs = 0

  constructor() {
    for (const id of voters) this.members.set(id, new Member(id, this.members))
    this.settle()
    this.leader = this.members.get("a") as Member
    this.#timeMs = wakesAtMs("follower", this.leader.context)
    this.leader.give({ type: "raft.tick", chance: 0 })
    this.settle()
    if (this.leader.replica.state.value !== "leader") throw new Error("nobody leads")
  }

  /** One member after the other does what it has to do. False when nobody had anything. */
  pump(): boolean {
    let isBusy = false
    for (const member of this.members.values()) if (member.work(this.#timeMs)) isBusy = true
    return isBusy
  }

  settle(): void {
    while (this.pump());
  }
}

/** The same as `round` in `etcd-raft/main.go`. */
export function ours({ count, inFlight, bytes, seed }: Work): Took {
  const proposals = Array.from({ length: different }, (_, n) => `${seed}.${n}.`.padEnd(bytes, "x"))
  const group = new Group()
  const { applied } = group.leader
  const cpuBegan = process.cpuUsage()
  const beganMs = performance.now()
  for (let proposed = 0; applied.length < count;) {
    const next: Array<{ readonly ticket: string; readonly data: string }> = []
    for (; proposed < count && proposed - applied.length < inFlight; proposed++)
      next.push({ ticket: String(proposed), data: proposals[proposed % different] as string })
    if (next.length > 0) group.leader.give({ type: "raft.propose", proposals: next })
    if (!group.pump()) throw new Error(`stands still after ${applied.length} of ${count}`)
  }
  const seconds = (performance.now() - beganMs) / 1000
  const { user, system } = process.cpuUsage(cpuBegan)
  group.settle()
  const result = hashOf(applied)
  for (const member of group.members.values())
    if (hashOf(member.applied) !== result) throw new Error(`${member.id} has applied something else`)
  return { seconds, cpuSeconds: (user + system) / 1e6, result }
}

/** Ways to run the yardstick; the better one of a figure is what it is compared with. */
interface Way {
  readonly name: string
  readonly process: EtcdRaft
  readonly together: boolean
}

function waysOf(one: EtcdRaft, all: EtcdRaft, inFlight: number): ReadonlyArray<Way> {
  const processes = [["GOMAXPROCS=1", one] as const, ["GOMAXPROCS unset", all] as const]
  return processes.flatMap(([name, process]) =>
    inFlight === 1
      ? [{ name, process, together: false }]
      : [
          { name: `${name}, each alone`, process, together: false },
          { name: `${name}, together`, process, together: true }
        ]
  )
}

const perSecond = (work: Work, all: ReadonlyArray<Took>) =>
  spread(all.map(({ seconds }) => work.count / seconds)).median
const perCpuSecond = (work: Work, all: ReadonlyArray<Took>) =>
  Math.round(spread(all.map(({ cpuSeconds }) => work.count / cpuSeconds)).median)

/** All take turns in every round. */
async function compared(work: Work, rounds: number, ways: ReadonlyArray<Way>): Promise<Figure> {
  const own: Array<Took> = []
  const theirs = ways.map((way) => ({ ...way, took: [] as Array<Took> }))
  for (let round = 0; round < rounds; round++) {
    const took = ours(work)
    own.push(took)
    for (const way of theirs) {
      const other = await way.process.round(work, way.together)
      if (other.result !== took.result) throw new Error(`etcd-raft has applied something else: ${way.name}`)
      way.took.push(other)
    }
  }
  const [best] = theirs.toSorted((a, b) => perSecond(work, b.took) - perSecond(work, a.took))
  const each = theirs.map(({ name, took }) => `${name} ${Math.round(perSecond(work, took))}/s`)
  const cpu = `a CPU-second: ${perCpuSecond(work, own)}`
  const note =
    best === undefined ? cpu : `${cpu}, etcd's ${perCpuSecond(work, best.took)}; ${each.join("; ")}`
  const measured = own.map(({ seconds, result }, round) => {
    const other = best?.took[round]
    const yardstick = other === undefined ? {} : { yardstick: work.count / other.seconds }
    return { value: work.count / seconds, result, ...yardstick }
  })
  const name = `${work.inFlight} in flight, ${work.bytes} bytes, ${work.count} proposals`
  const yardstick = best === undefined ? {} : { yardstick: `etcd's library (${best.name})` }
  return figure(name, "proposals/s", measured, { note, ...yardstick })
}

const sizes = {
  smoke: { counts: [2000], rounds: 1 },
  full: { counts: [10_000, 100_000], rounds: 7 }
} as const

async function* figures({ size, seed }: Options, program: string | null): AsyncGenerator<Figure> {
  const { counts, rounds } = sizes[size]
  const processes =
    program === null ? null : ([new EtcdRaft(program, 1), new EtcdRaft(program, null)] as const)
  try {
    for (const inFlight of [1, 64])
      for (const bytes of [64, 1024])
        for (const count of counts) {
          const ways = processes === null ? [] : waysOf(...processes, inFlight)
          yield await compared({ count, inFlight, bytes, seed }, rounds, ways)
        }
  } finally {
    for (const process of processes ?? []) await process.end()
  }
}

export async function* raft(options: Options): AsyncGenerator<Figure> {
  // The shortest round is not to be about how V8 learns the code.
  ours({ count: options.size === "smoke" ? 500 : 50_000, inFlight: 1, bytes: 64, seed: options.seed })
  const folder = mkdtempSync(join(tmpdir(), "novacron-bench-"))
  try {
    // A few seconds are not for the network: what was fetched before is used.
    const program = await buildEtcdRaft(folder, options.size === "full").catch((error: unknown) => {
      console.error(`\nNOT COMPARED: etcd's Raft library can't be built here: ${String(error)}\n`)
      return null
    })
    yield* figures(options, program)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
