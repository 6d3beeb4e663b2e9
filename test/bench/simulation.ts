/**
 * How fast the simulator is, by how many members a group has: the same options but for the size, faults and clients
 * among them, sizes taking turns; and lives that are drawn as `simulate raft` draws them, but for the size, with no fault left
 * out. By CPU time of this process, which is one thread: what a core does. Then how long a group is without a leader.
 */
import { drawnOptions } from "../../simulations/raft/options.ts"
import type { FaultOptions, RunOptions } from "../../simulations/raft/options.ts"
import { partitionKinds } from "../../simulations/world/network.ts"
import { runPlan } from "../../simulations/raft/run.ts"
import { failoverLives } from "./failover-lives.ts"
import { figure, hashOf, spread } from "./measure.ts"
import type { Figure, Options } from "./measure.ts"

const never = Number.POSITIVE_INFINITY

/** A datacenter in a bad hour: every size has the same of each. */
function optionsOf(members: number): RunOptions {
  const drawn = drawnOptions(1)
  const electionMs = 1000
  return {
    ...drawn,
    members,
    voters: members,
    safetyMs: 120_000,
    settings: {
      heartbeatMs: 200,
      electionMs,
      messageBytesMax: 4096,
      inflightBytesMax: 1024 * 1024,
      inflightEntriesMax: 64,
      uncommittedBytesMax: 1024 * 1024,
      readsMax: 1000,
      lagEntriesMax: 1000,
      leaseDriftPercent: 0
    },
    network: { ...drawn.network, delayMinMs: 0.1, delayMeanMs: 2, loss: 0.01, duplication: 0.01 },
    disk: { syncMinMs: 0.1, syncMeanMs: 1, stalls: 0.001, lostAtCrash: 0.8, hasRecords: false },
    clients: { ...drawn.clients, clients: 5, keys: 3, burst: 10, thinkMeanMs: 100, restMeanMs: 5000 },
    faults: {
      ...drawn.faults,
      ...{
        flapping: 0,
        wholesale: 0,
        votersWanted: 0,
        schisms: 0,
        haste: 0,
        echoes: 0,
        coups: 0,
        damages: 0,
        errors: 0
      },
      ...{
        hangUpEveryMs: never,
        oathEveryMs: never,
        fullEveryMs: never,
        stepEveryMs: never,
        jumpEveryMs: never
      },
      crashEveryMs: 10 * electionMs,
      blackoutEveryMs: 60 * electionMs,
      downMeanMs: 2 * electionMs,
      pauseEveryMs: 20 * electionMs,
      pauseMeanMs: electionMs,
      partitionEveryMs: 10 * electionMs,
      partitionMeanMs: 3 * electionMs,
      clogEveryMs: 10 * electionMs,
      clogMeanMs: electionMs,
      transferEveryMs: 20 * electionMs,
      changeEveryMs: 20 * electionMs
    },
    driftPercent: 5,
    snapshotEvery: 50,
    snapshotPartBytes: 1024
  }
}

/** Where a seed draws that something never happens, it does so often (in election timeouts), or to such a share. */
const rareElections = 20
const rareShare = 0.1
const rareDamage = 0.002

/** All that a seed draws, and of every fault something. */
function swarmOf(members: number, seed: number): RunOptions {
  const drawn = drawnOptions(seed)
  const { electionMs } = drawn.settings
  const rates = Object.entries(drawn.faults).map(([name, value]) => {
    if (name === "partitions") return [name, value.length > 0 ? value : partitionKinds]
    if (name === "votersWanted") return [name, value]
    if (value === never) return [name, electionMs * rareElections]
    if (value !== 0) return [name, value]
    return [name, name === "damages" || name === "errors" ? rareDamage : rareShare]
  })
  return {
    ...drawn,
    members,
    voters: members,
    network: {
      ...drawn.network,
      loss: drawn.network.loss || rareShare / 10,
      duplication: drawn.network.duplication || rareShare / 10
    },
    disk: { ...drawn.disk, hasRecords: true, stalls: drawn.disk.stalls || rareDamage },
    faults: Object.fromEntries(rates) as unknown as FaultOptions,
    endsTold: drawn.endsTold || rareShare
  }
}

interface Lives {
  readonly cpuSeconds: number
  readonly simulatedSeconds: number
  readonly events: number
  readonly result: string
}

function lives(optionsOf: (seed: number) => RunOptions, first: number, seeds: number): Lives {
  const began = process.cpuUsage()
  const verdicts = Array.from({ length: seeds }, (_, at) =>
    runPlan({ seed: first + at, options: optionsOf(first + at), faults: null })
  )
  const { user, system } = process.cpuUsage(began)
  const broken = verdicts.find(({ violation }) => violation !== null)
  if (broken !== undefined) throw new Error(`seed ${broken.seed}: ${broken.violation?.message}`)
  return {
    cpuSeconds: (user + system) / 1e6,
    simulatedSeconds: verdicts.reduce((sum, one) => sum + one.simulatedMs, 0) / 1000,
    events: verdicts.reduce((sum, one) => sum + one.events, 0),
    result: hashOf(verdicts.map(({ hash }) => hash))
  }
}

const yardstick = 3
const memberCounts = [1, yardstick, 5, 7, 9]
const swarmCounts = [yardstick, 5, 7]
const sizes = {
  smoke: { seeds: 1, swarmSeeds: 2, rounds: 1 },
  full: { seeds: 10, swarmSeeds: 40, rounds: 3 }
} as const

const speed = ({ simulatedSeconds, cpuSeconds }: Lives) => simulatedSeconds / cpuSeconds
const median = (values: ReadonlyArray<number>) => Math.round(spread(values).median).toLocaleString("en")

export async function* simulation(asked: Options): AsyncGenerator<Figure> {
  const { seeds, swarmSeeds } = sizes[asked.size]
  const calm = (members: number) => () => optionsOf(members)
  yield* bySize(memberCounts, calm, "", seeds, asked)
  const swarm = (members: number) => (seed: number) => swarmOf(members, seed)
  yield* bySize(swarmCounts, swarm, ", every fault", swarmSeeds, asked)
  yield* failoverLives(asked)
}

function* bySize(
  counts: ReadonlyArray<number>,
  optionsFor: (members: number) => (seed: number) => RunOptions,
  what: string,
  seeds: number,
  { size, seed }: Options
): Generator<Figure> {
  // Not how V8 learns the code.
  lives(optionsFor(yardstick), seed, seeds)
  const all = new Map(counts.map((members) => [members, [] as Array<Lives>]))
  for (let round = 0; round < sizes[size].rounds; round++)
    for (const [members, measured] of all) measured.push(lives(optionsFor(members), seed, seeds))
  const base = all.get(yardstick) ?? []
  for (const [members, measured] of all) {
    const rounded = measured.map((one, round) => ({
      value: speed(one),
      yardstick: speed(base[round] ?? one),
      result: one.result
    }))
    const perHour = median(measured.map(({ cpuSeconds }) => (seeds / cpuSeconds) * 3600))
    const events = median(measured.map((one) => one.events / one.cpuSeconds))
    const note = `${perHour} seeds/h, ${events} events/s`
    const name = `${members} ${members === 1 ? "member" : "members"}${what}`
    yield figure(name, "simulated s/CPU-s", rounded, { yardstick: `${yardstick} members${what}`, note })
  }
}
