/** What a simulated cluster is: every knob drawn from the seed, each of them sometimes at nothing (swarm testing, Groce 2012). */
import type { RaftSettings } from "../../src/events/raft.ts"
import { drawOptions as drawFleet } from "../fleet/options.ts"
import type { OperatorOptions } from "../fleet/options.ts"
import type { BehindOptions } from "../world/behind-store.ts"
import type { DiskOptions } from "../world/disk.ts"
import type { Faults as HypervisorFaults } from "../world/hypervisor.ts"
import type { LineOptions } from "../world/line.ts"
import { partitionKinds } from "../world/network.ts"
import type { PartitionKind } from "../world/network.ts"
import { makeRandom } from "../world/random.ts"
import type { Random } from "../world/random.ts"
import type { WiresOptions } from "../world/wires.ts"

/** How often on average, in ms of the world; infinity for never. */
export interface FaultOptions {
  readonly crashEveryMs: number
  /** Everybody at once. */
  readonly blackoutEveryMs: number
  readonly downMeanMs: number
  /** Of crashes, the share that takes the machine's power and not only the process. */
  readonly powerFailures: number
  readonly pauseEveryMs: number
  readonly pauseMeanMs: number
  readonly partitionEveryMs: number
  readonly partitionMeanMs: number
  readonly partitions: ReadonlyArray<PartitionKind>
  readonly clogEveryMs: number
  readonly clogMeanMs: number
  /** Connections between nodes. */
  readonly breakEveryMs: number
  /** Crashes at a moment that matters (see `moments`). */
  readonly ambushEveryMs: number
  /** One node after the other is ended and started again. */
  readonly rollEveryMs: number
  readonly stallEveryMs: number
  readonly errorEveryMs: number
  readonly fullEveryMs: number
  readonly damageEveryMs: number
  /** Of wall clocks, and of steady ones. */
  readonly stepEveryMs: number
  readonly stepMeanMs: number
  readonly suspendEveryMs: number
  /** Of hosts, their agents, their lines to nodes, and their machines. */
  readonly hostCrashEveryMs: number
  readonly agentCrashEveryMs: number
  readonly lineBreakEveryMs: number
  readonly machineKillEveryMs: number
  /** The journal's disk of a node answers nothing for long, and it falls behind what is decided. */
  readonly lagEveryMs: number
  readonly lagMeanMs: number
  /** The share of these in which, meanwhile, the host to which a machine came last loses all, and whom it tells so is gone. */
  readonly losses: number
  /** A host out of reach of who performs for so long is said to be lost. */
  readonly lostAfterMs: number
}

export interface StewardOptions {
  readonly admitEveryMs: number
  readonly removeEveryMs: number
  readonly leadEveryMs: number
}

export interface ReadOptions {
  readonly readers: number
  readonly thinkMeanMs: number
  /** Share of the reads that see what there is. */
  readonly stale: number
}

export interface RunOptions {
  /** Voters at the beginning, and nodes beyond them that may join. */
  readonly voters: number
  readonly spares: number
  readonly hosts: number
  readonly hostMemoryMib: number
  readonly safetyMs: number
  readonly settings: RaftSettings
  readonly wires: WiresOptions
  readonly disk: DiskOptions
  readonly journal: BehindOptions
  /** Of a journal that another node fetches, facts that are given at once. */
  readonly pageFacts_max: number
  /** Entries that the log keeps for those who are a little behind, and applied ones between two times that it forgets. */
  readonly keepEntries: number
  readonly compactEvery: number
  /** Of a log, beyond which it is begun anew. */
  readonly logFacts_max: number
  readonly patienceMs: number
  readonly checkpointEvery: number
  readonly viewLagMeanMs: number
  readonly waiting_max: number
  readonly unreachableMs: number
  readonly driftPercent: number
  /** Up to how far the clocks of two machines are apart. */
  readonly wallSpreadMs: number
  readonly bandwidthBytesPerSecond: number
  readonly postCopy: boolean
  readonly line: LineOptions
  readonly hypervisor: HypervisorFaults
  readonly operators: OperatorOptions
  readonly reads: ReadOptions
  readonly stewards: StewardOptions
  readonly faults: FaultOptions
}

function pick<A>(random: Random, some: ReadonlyArray<A>): A {
  return some[random.int(0, some.length - 1)] as A
}

/** Nothing in a third of the runs. */
const share = (random: Random, most: number): number => (random.chance(1 / 3) ? 0 : random.next() * most)

/** Never in a third of the runs; else drawn evenly over the orders of magnitude between these. */
const every = (random: Random, leastMs: number, mostMs: number): number =>
  random.chance(1 / 3) ? Number.POSITIVE_INFINITY : leastMs * (mostMs / leastMs) ** random.next()

function settingsOf(random: Random): RaftSettings {
  const heartbeatMs = pick(random, [50, 100, 100, 200])
  return {
    heartbeatMs,
    electionMs: heartbeatMs * random.int(4, 10),
    messageBytesMax: pick(random, [4096, 1024 * 1024]),
    inflightBytesMax: pick(random, [65_536, 1024 * 1024]),
    inflightEntriesMax: pick(random, [4, 1024]),
    uncommittedBytesMax: pick(random, [65_536, 1024 * 1024]),
    readsMax: pick(random, [2, 1000]),
    lagEntriesMax: pick(random, [10, 1000]),
    leaseDriftPercent: 0
  }
}

/** Measured by the election timeout, so that some of them fall into every phase of an election. */
function faultsOf(random: Random, electionMs: number): FaultOptions {
  const often = (least: number, most: number) => every(random, electionMs * least, electionMs * most)
  const lasting = () => electionMs * 0.1 * 50 ** random.next()
  const rare = (least: number, most: number) =>
    random.chance(0.5) ? Number.POSITIVE_INFINITY : often(least, most)
  return {
    crashEveryMs: often(1, 30),
    blackoutEveryMs: rare(8, 80),
    downMeanMs: lasting(),
    powerFailures: pick(random, [0, 0.5, 1]),
    pauseEveryMs: often(2, 30),
    pauseMeanMs: lasting(),
    partitionEveryMs: often(1, 20),
    partitionMeanMs: electionMs * 0.5 * 20 ** random.next(),
    partitions: partitionKinds.filter(() => random.chance(0.6)),
    clogEveryMs: often(1, 20),
    clogMeanMs: lasting(),
    breakEveryMs: often(0.5, 20),
    ambushEveryMs: often(1, 20),
    rollEveryMs: rare(20, 80),
    stallEveryMs: rare(4, 40),
    errorEveryMs: rare(4, 80),
    fullEveryMs: rare(8, 80),
    damageEveryMs: random.chance(0.8) ? Number.POSITIVE_INFINITY : often(8, 80),
    stepEveryMs: rare(2, 40),
    stepMeanMs: pick(random, [electionMs, electionMs * 10, 3_600_000]),
    suspendEveryMs: rare(4, 40),
    hostCrashEveryMs: rare(10, 80),
    agentCrashEveryMs: rare(10, 80),
    lineBreakEveryMs: often(2, 40),
    machineKillEveryMs: rare(10, 80),
    lostAfterMs: pick(random, [2000, 10_000]),
    lagEveryMs: never,
    lagMeanMs: 0,
    losses: 0
  }
}

function stewardsOf(random: Random, electionMs: number): StewardOptions {
  const rare = (least: number, most: number) =>
    random.chance(0.4) ? Number.POSITIVE_INFINITY : every(random, electionMs * least, electionMs * most)
  return {
    admitEveryMs: rare(4, 40),
    removeEveryMs: rare(4, 40),
    leadEveryMs: rare(2, 40)
  }
}

/** An answer takes a round of the group at least, which is much less than an election timeout. */
const operatorsOf = (random: Random, electionMs: number): OperatorOptions => ({
  ...drawFleet(random).operators,
  timeoutMs: electionMs * pick(random, [2, 4, 10]),
  operators: random.int(1, 5),
  thinkMeanMs: 40 * 20 ** random.next(),
  machines: random.int(1, 6)
})

/** All that a seed decides. */
export function drawOptions(seed: number): RunOptions {
  const options = drawMore(seed)
  const random = makeRandom(seed).split("clash")
  return random.chance(0.15) ? { ...options, ...clashing(random, options) } : options
}

/**
 * Many who want different things of one machine, over connections that end all the time: what was refused is accepted a
 * moment later, and nobody hears what became of it.
 */
function clashing(random: Random, { voters, faults, operators, settings }: RunOptions): Partial<RunOptions> {
  const { electionMs } = settings
  const opposed = { start: 2, stop: 2, pause: 2, resume: 2, create: 1, delete: 0.3 }
  const none = Object.fromEntries(Object.keys(operators.weights).map((name) => [name, 0]))
  return {
    voters: Math.max(voters, 3),
    patienceMs: 10_000,
    waiting_max: 10_000,
    faults: {
      ...faults,
      breakEveryMs: electionMs * 0.02 * 10 ** random.next(),
      crashEveryMs: never,
      blackoutEveryMs: never
    },
    operators: {
      ...operators,
      operators: 8,
      machines: 1,
      thinkMeanMs: 20 + 40 * random.next(),
      timeoutMs: electionMs * 10,
      weights: { ...operators.weights, ...none, ...opposed }
    }
  }
}

function drawMore(seed: number): RunOptions {
  const options = drawFirst(seed)
  // Drawn for themselves: whoever adds to these leaves all that is drawn below as it is.
  const random = makeRandom(seed).split("more options")
  const { electionMs } = options.settings
  const pageFacts_max = pick(random, [1, 3, 20, 1000])
  const isNarrow = random.chance(0.25)
  const wires = { ...options.wires, underWay_max: pick(random, [3, 10, 40]) }
  const narrowed = { ...options, pageFacts_max, wires: isNarrow ? wires : options.wires }
  if (random.chance(0.6)) return narrowed
  const lags = {
    lagEveryMs: electionMs * 10 ** random.next(),
    lagMeanMs: electionMs * 2 * 10 ** random.next()
  }
  const losses = share(random, 1)
  if (random.chance(0.3)) return { ...narrowed, faults: { ...options.faults, ...lags, losses } }
  const faults = { ...fewer(random, options.faults), ...lags, losses }
  return { ...narrowed, ...crowded(random, options), faults }
}

/** Many machines that come and run, and move, and hosts that each have few of them. */
function crowded(random: Random, { operators }: RunOptions): Pick<RunOptions, "hosts" | "operators"> {
  const { weights } = operators
  const rarely = { stop: 0.02, pause: 0.02, delete: 0.05, drain: 0.02 }
  return {
    hosts: random.int(2, 5),
    operators: {
      ...operators,
      operators: random.int(2, 6),
      machines: random.int(3, 10),
      weights: { ...weights, ...rarely, create: 1, start: 1, migrate: random.next() * 4 }
    }
  }
}

/** Half of what befalls nodes, so that machines come and go. */
function fewer(random: Random, faults: FaultOptions): FaultOptions {
  const names = [
    "crash",
    "blackout",
    "pause",
    "partition",
    "clog",
    "break",
    "ambush",
    "stall",
    "error"
  ] as const
  const none = names.filter(() => random.chance(0.5)).map((name) => [`${name}EveryMs`, never] as const)
  return { ...faults, ...Object.fromEntries(none) }
}

const never = Number.POSITIVE_INFINITY

function drawFirst(seed: number): RunOptions {
  const random = makeRandom(seed).split("options")
  const settings = settingsOf(random)
  const { electionMs } = settings
  const fleet = drawFleet(random)
  const faults = faultsOf(random, electionMs)
  const isShort = random.chance(0.6)
  return {
    voters: pick(random, [1, 2, 3, 3, 3, 3, 3, 4, 5, 5]),
    spares: pick(random, [0, 1, 1, 2]),
    hosts: random.int(1, 4),
    hostMemoryMib: pick(random, [512, 4096, 262_144]),
    safetyMs: Math.min(12_000, electionMs * random.int(15, 40)),
    settings,
    wires: {
      delayMinMs: random.chance(0.5) ? 0.1 : Math.min(random.next() * 10, electionMs / 20),
      delayMeanMs: random.chance(0.5) ? random.next() * 2 : electionMs * 0.1 * random.next(),
      crossings: share(random, 0.3),
      duplication: share(random, 0.3),
      tendEveryMs: pick(random, [20, 250]),
      underWay_max: pick(random, [500, 10_000])
    },
    disk: {
      syncMinMs: 0.1,
      syncMeanMs: pick(random, [0.1, 1, electionMs / 20]),
      stalls: share(random, 0.01),
      lostAtCrash: pick(random, [0, 0.2, 0.8, 1]),
      hasRecords: true
    },
    journal: {
      writeMeanMs: pick(random, [0, 0.1, 2, electionMs / 20]),
      syncMeanMs: pick(random, [0.1, 5]),
      syncsByItself: share(random, 0.2),
      lostAtCrash: pick(random, [0, 0.05, 0.5, 1])
    },
    pageFacts_max: 1000,
    keepEntries: isShort ? pick(random, [0, 2, 10]) : 10_000,
    compactEvery: isShort ? pick(random, [2, 10, 40]) : 5000,
    logFacts_max: isShort ? pick(random, [4, 30, 200]) : 100_000,
    patienceMs: pick(random, [electionMs * 4, 10_000]),
    checkpointEvery: pick(random, [10, 1000]),
    viewLagMeanMs: pick(random, [0, 1, 100]),
    waiting_max: pick(random, [2, 16, 10_000]),
    unreachableMs: electionMs * 2 + pick(random, [100, 3000]),
    driftPercent: random.chance(1 / 3) ? 0 : 10,
    wallSpreadMs: pick(random, [0, 10, 1000]),
    bandwidthBytesPerSecond: fleet.bandwidthBytesPerSecond,
    postCopy: fleet.postCopy,
    line: { delayMeanMs: pick(random, [0.1, 1, 20]), answersLost: share(random, 0.05) },
    hypervisor: fleet.hypervisor,
    operators: operatorsOf(random, electionMs),
    reads: { readers: random.int(0, 3), thinkMeanMs: 30 * 20 ** random.next(), stale: share(random, 1) },
    stewards: stewardsOf(random, electionMs),
    faults
  }
}
