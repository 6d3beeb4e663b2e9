/** What a run is: every knob drawn from the seed, each of them sometimes at nothing (swarm testing, Groce 2012). */
import type { RaftSettings } from "../../src/events/raft.ts"
import type { DiskOptions } from "../world/disk.ts"
import type { NetworkOptions } from "../world/network.ts"
import { partitionKinds } from "../world/network.ts"
import type { PartitionKind } from "../world/network.ts"
import { makeRandom } from "../world/random.ts"
import type { Random } from "../world/random.ts"
import type { ClientOptions } from "./clients.ts"

/** How often on average, in ms of the world; infinity for never. */
export interface FaultOptions {
  readonly crashEveryMs: number
  /** Everybody at once. */
  readonly blackoutEveryMs: number
  readonly downMeanMs: number
  readonly pauseEveryMs: number
  readonly pauseMeanMs: number
  readonly partitionEveryMs: number
  readonly partitionMeanMs: number
  readonly partitions: ReadonlyArray<PartitionKind>
  readonly clogEveryMs: number
  readonly clogMeanMs: number
  /** Somebody is taken for gone, and is there. */
  readonly hangUpEveryMs: number
  /** Share of new leaders, and of changes of the members, that are hit at once. */
  readonly ambushes: number
  readonly ambushMeanMs: number
  readonly transferEveryMs: number
  readonly changeEveryMs: number
  /** Shares: of partitions, those that come and go; of changes, those of everybody and those that divide the group. */
  readonly flapping: number
  readonly wholesale: number
  /** Where operators want so many voters they add one when there are fewer; 0 where they want none in particular. */
  readonly votersWanted: number
  readonly schisms: number
  /** Shares of new leaders that are told to change the members at once, and that hear old answers later. */
  readonly haste: number
  readonly echoes: number
  /** Share of leaders that are asked to hand over, and hear nothing of what follows. */
  readonly coups: number
  /** Followers that promised a lease start again. */
  readonly oathEveryMs: number
  /** Shares of syncs after which something that was kept before is damaged, or after which there is an error. */
  readonly damages: number
  readonly errors: number
  readonly fullEveryMs: number
  /** Of wall clocks, and, where there are no leases, of steady ones. */
  readonly stepEveryMs: number
  readonly jumpEveryMs: number
}

export interface RunOptions {
  readonly members: number
  /** Of the members, those that vote at the beginning; the others may join. */
  readonly voters: number
  readonly safetyMs: number
  readonly settings: RaftSettings
  readonly network: NetworkOptions
  readonly disk: DiskOptions
  readonly clients: ClientOptions
  readonly faults: FaultOptions
  /** Share of the ends of a process that another is told of, by the end of their connection; from 0 to 1. */
  readonly endsTold: number
  readonly driftPercent: number
  readonly snapshotEvery: number
  readonly snapshotPartBytes: number
}

function pick<A>(random: Random, some: ReadonlyArray<A>): A {
  return some[random.int(0, some.length - 1)] as A
}

/** Nothing in a third of the runs. */
const share = (random: Random, most: number): number => (random.chance(1 / 3) ? 0 : random.next() * most)

/** Never in a third of the runs; else drawn evenly over the orders of magnitude between these. */
const every = (random: Random, leastMs: number, mostMs: number): number =>
  random.chance(1 / 3) ? Number.POSITIVE_INFINITY : leastMs * (mostMs / leastMs) ** random.next()

/** How much clocks may be off, each, so that no two are further apart than a lease takes them to be. */
const driftOf = ({ leaseDriftPercent }: RaftSettings): number =>
  leaseDriftPercent === 0 ? 20 : leaseDriftPercent / 2.5

function settingsOf(random: Random): RaftSettings {
  const heartbeatMs = pick(random, [100, 200, 500, 500, 1000])
  return {
    heartbeatMs,
    electionMs: heartbeatMs * random.int(3, 10),
    messageBytesMax: pick(random, [1, 64, 512, 4096, 1024 * 1024]),
    inflightBytesMax: pick(random, [1, 128, 4096, 1024 * 1024]),
    inflightEntriesMax: pick(random, [1, 4, 64, 1024]),
    uncommittedBytesMax: pick(random, [256, 16_384, 1024 * 1024]),
    readsMax: pick(random, [2, 1000]),
    lagEntriesMax: pick(random, [10, 1000]),
    leaseDriftPercent: random.chance(0.5) ? 0 : random.int(5, 30)
  }
}

/** Measured by the election timeout, so that some of them fall into every phase of an election. */
function faultsOf(random: Random, electionMs: number): FaultOptions {
  // In a storm faults come as fast as leaders do, and last about as long as an election.
  const isStorm = random.chance(0.4)
  const often = (least: number, most: number) =>
    every(random, electionMs * least, electionMs * (isStorm ? Math.sqrt(least * most) : most))
  const lasting = () => electionMs * (isStorm ? 0.1 * 20 ** random.next() : 0.1 * 50 ** random.next())
  return {
    crashEveryMs: often(1, 30),
    blackoutEveryMs: often(4, 80),
    downMeanMs: lasting(),
    pauseEveryMs: often(1, 30),
    pauseMeanMs: lasting(),
    partitionEveryMs: random.chance(0.2) ? Number.POSITIVE_INFINITY : electionMs * 0.5 * 10 ** random.next(),
    partitionMeanMs: electionMs * 0.5 * 20 ** random.next(),
    partitions: partitionKinds.filter(() => random.chance(0.6)),
    clogEveryMs: often(0.5, 10),
    clogMeanMs: lasting(),
    hangUpEveryMs: often(0.5, 20),
    ambushes: share(random, 0.6),
    ambushMeanMs: electionMs * 0.01 * 50 ** random.next(),
    transferEveryMs: often(1, 20),
    changeEveryMs: often(0.5, 20),
    flapping: share(random, 0.5),
    wholesale: share(random, 0.5),
    votersWanted: 0,
    schisms: share(random, 0.3),
    haste: share(random, 0.3),
    echoes: share(random, 0.3),
    coups: share(random, 0.5),
    oathEveryMs: every(random, electionMs * 10, electionMs * 40),
    damages: 0,
    // From 0 to 10 %, as TigerBeetle's; mostly few, because each ends a process.
    errors: random.chance(0.6) ? 0 : 0.1 * random.next() ** 3,
    fullEveryMs: random.chance(0.6) ? Number.POSITIVE_INFINITY : often(4, 80),
    stepEveryMs: often(1, 40),
    jumpEveryMs: often(1, 40)
  }
}

/** What a run is mostly about, besides everything else. */
const focuses = {
  anything: (_random, options) => options,
  elections,
  members,
  reads,
  leases,
  echoes,
  storage,
  snapshots
} satisfies Readonly<Record<string, (random: Random, options: RunOptions) => RunOptions>>
type Focus = keyof typeof focuses

const drawnFocuses: ReadonlyArray<Focus> = [
  "anything",
  "anything",
  "elections",
  "elections",
  "members",
  "members",
  "reads",
  "leases",
  "echoes",
  "storage",
  "snapshots"
]

/** Leaders that get a part of their entries to a part of the members. */
function elections(random: Random, options: RunOptions): RunOptions {
  const { settings, faults, network } = options
  const { electionMs } = settings
  return {
    ...options,
    voters: Math.max(3, options.voters),
    members: Math.max(3, options.members),
    settings: { ...settings, messageBytesMax: pick(random, [1, 200]) },
    faults: {
      ...faults,
      ambushes: 0.9,
      ambushMeanMs: (network.delayMinMs + network.delayMeanMs) * (1 + random.next() * 4),
      partitionMeanMs: electionMs * (1 + random.next() * 3),
      downMeanMs: electionMs * (0.2 + random.next() * 2),
      partitions: ["isolate", "mute", "halves"]
    }
  }
}

/** Members that come and go while the group is divided; of even numbers, where halves are nearly majorities. */
function members(random: Random, options: RunOptions): RunOptions {
  const { settings, faults } = options
  const { electionMs } = settings
  const voters = pick(random, [2, 3, 4, 4])
  const changing: RunOptions = {
    ...options,
    voters,
    members: voters + random.int(0, 2),
    settings: { ...settings, lagEntriesMax: 1000 },
    faults: {
      ...faults,
      changeEveryMs: electionMs * (0.5 + random.next() * 3),
      wholesale: pick(random, [0, 0.5, 1]),
      schisms: 0.3 + random.next() * 0.6,
      haste: pick(random, [0.3, 0.6, 1]),
      ambushes: 0.3 + random.next() * 0.5
    }
  }
  return random.chance(0.4) ? hasty(random, changing) : changing
}

/** Every leader is told to change one member of an even number before it knows what is committed, and is divided from them. */
function hasty(random: Random, options: RunOptions): RunOptions {
  const { electionMs } = options.settings
  const never = Number.POSITIVE_INFINITY
  return {
    ...options,
    voters: pick(random, [2, 4, 4]),
    members: 5,
    network: {
      ...options.network,
      delayMeanMs: Math.min(options.network.delayMeanMs, electionMs / 100),
      loss: 0
    },
    faults: {
      ...options.faults,
      changeEveryMs: electionMs * 2,
      wholesale: 0,
      votersWanted: 4,
      schisms: 1,
      haste: 1,
      ambushes: 0.1,
      ambushMeanMs: 1,
      crashEveryMs: electionMs * 10,
      blackoutEveryMs: never,
      partitionEveryMs: never
    }
  }
}

/** Many at the same time, at a leader that may be none any more. */
function reads(random: Random, options: RunOptions): RunOptions {
  const { settings, clients, faults, network } = options
  const { electionMs, heartbeatMs } = settings
  const reading = {
    readers: 0.6,
    reads: 0.2,
    swaps: 0,
    indexed: 1,
    clients: 8,
    keys: 1,
    thinkMeanMs: heartbeatMs / 5,
    burst: 50
  }
  const leaving = {
    transferEveryMs: electionMs * (0.3 + random.next() * 3),
    partitionEveryMs: electionMs * 3,
    partitionMeanMs: electionMs * 2
  }
  const leaseDriftPercent = random.chance(0.3) ? 0 : random.int(5, 30)
  const own = { ...settings, leaseDriftPercent, readsMax: 1000 }
  return {
    ...options,
    settings: own,
    driftPercent: driftOf(own),
    network: { ...network, delayMeanMs: Math.min(network.delayMeanMs, heartbeatMs / 10), loss: 0 },
    clients: { ...clients, ...reading },
    faults: { ...faults, ...leaving, coups: share(random, 0.9) }
  }
}

/** Leases, whose promises are put to the test: nearly everybody reads, so that nobody lags behind for want of an entry. */
function leases(random: Random, options: RunOptions): RunOptions {
  const reading = reads(random, options)
  const { settings, clients, faults } = reading
  const { electionMs } = settings
  const own = { ...settings, leaseDriftPercent: random.int(5, 30) }
  const never = Number.POSITIVE_INFINITY
  return {
    ...reading,
    voters: 3,
    members: 3,
    settings: own,
    driftPercent: driftOf(own),
    disk: { ...reading.disk, syncMeanMs: 0.1, stalls: 0 },
    clients: { ...clients, readers: 0.9, reads: 0.9 },
    faults: {
      ...faults,
      oathEveryMs: electionMs * (4 + random.next() * 8),
      transferEveryMs: random.chance(0.5) ? never : faults.transferEveryMs,
      partitionEveryMs: electionMs * 10,
      crashEveryMs: never,
      blackoutEveryMs: never
    }
  }
}

/** Answers that arrive in another term than they were given in. */
function echoes(random: Random, options: RunOptions): RunOptions {
  const { settings, faults, network, disk } = options
  const { electionMs } = settings
  const voters = pick(random, [3, 3, 5])
  return {
    ...options,
    voters,
    members: voters,
    disk: { ...disk, syncMeanMs: electionMs / 20, lostAtCrash: 1 },
    network: { ...network, delayMeanMs: Math.min(network.delayMeanMs, electionMs / 50) },
    faults: {
      ...faults,
      echoes: 0.5 + random.next() * 0.5,
      ambushMeanMs: electionMs * (0.05 + 0.3 * random.next()),
      crashEveryMs: electionMs * 20,
      changeEveryMs: electionMs * 40
    }
  }
}

/** A leader that is cut off and goes on taking commands, while the others leave its log behind. */
function snapshots(random: Random, options: RunOptions): RunOptions {
  const { settings, clients, faults } = options
  const { electionMs, heartbeatMs } = settings
  return {
    ...options,
    voters: Math.max(3, options.voters),
    members: Math.max(3, options.members),
    settings: { ...settings, uncommittedBytesMax: 1024 * 1024 },
    clients: { ...clients, clients: 6, thinkMeanMs: heartbeatMs / 3, reads: 0.1, readers: 0 },
    snapshotEvery: pick(random, [4, 8, 16]),
    faults: {
      ...faults,
      partitions: ["isolate", "mute", "halves"],
      partitionEveryMs: electionMs * 3,
      partitionMeanMs: electionMs * (1 + random.next() * 3)
    }
  }
}

/** Disks that are slow and lose what they may; also of one who decides alone, and may speak before its disk has it. */
function storage(random: Random, options: RunOptions): RunOptions {
  const { electionMs } = options.settings
  const crashEveryMs = electionMs * (0.3 + random.next() * 3)
  const voters = pick(random, [1, 1, 2, 3, options.voters])
  return {
    ...options,
    voters,
    members: voters + random.int(1, 2),
    disk: { ...options.disk, syncMeanMs: electionMs / 10, lostAtCrash: 1 },
    faults: { ...options.faults, crashEveryMs, ambushes: 0.5, haste: 0.5 }
  }
}

/** All that a seed decides. */
export function drawnOptions(seed: number): RunOptions {
  const random = makeRandom(seed).split("options")
  const options = drawAll(random)
  return focuses[pick(random, drawnFocuses)](random, options)
}

/** Delays and faults as hard as TigerBeetle's VOPR has them, where they are the network's. */
function drawAll(random: Random): RunOptions {
  const settings = settingsOf(random)
  const voters = pick(random, [1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 5, 5, 7])
  // A network as slow as the election timeout leaves nothing to lead; half of the runs are in one datacenter.
  const delayMeanMs = random.chance(0.5)
    ? random.next() * 5
    : Math.min(30 + random.next() * 70, settings.electionMs / 4)
  const network = {
    delayMinMs: random.chance(0.5) ? 0.1 : Math.min(random.next() * 30, settings.electionMs / 10),
    delayMeanMs,
    loss: share(random, 0.3),
    duplication: share(random, 0.5),
    capacity: pick(random, [16, 128, 100_000])
  }
  const isRotten = random.chance(0.25)
  const faults = faultsOf(random, settings.electionMs)
  const safetyMs = Math.min(600_000, settings.electionMs * random.int(60, 240))
  return {
    members: voters + pick(random, [0, 0, 1, 2]),
    voters,
    safetyMs,
    settings,
    network,
    disk: {
      syncMinMs: 0.1,
      syncMeanMs: pick(random, [0.1, 1, 10, settings.electionMs / 20]),
      stalls: share(random, 0.01),
      lostAtCrash: pick(random, [0, 0.2, 0.8, 1]),
      hasRecords: isRotten
    },
    clients: {
      clients: random.int(1, 12),
      keys: random.int(1, 4),
      burst: pick(random, [1, 10, 50]),
      thinkMeanMs: settings.heartbeatMs * 0.1 * 20 ** random.next(),
      restMeanMs: safetyMs / pick(random, [10, 40]),
      timeoutMs: 2 * settings.heartbeatMs + 10 * delayMeanMs,
      reads: random.next() * 0.7,
      swaps: random.next() * 0.3,
      readers: share(random, 0.7),
      indexed: pick(random, [0, 0.5, 1]),
      abandoned: share(random, 0.5)
    },
    endsTold: random.chance(1 / 3) ? 0 : pick(random, [1, random.next()]),
    faults: { ...faults, damages: isRotten ? 0.1 * random.next() ** 2 : 0 },
    driftPercent: random.chance(1 / 3) ? 0 : driftOf(settings),
    snapshotEvery: pick(random, [8, 50, 1000]),
    snapshotPartBytes: pick(random, [32, 1024, 1024 * 1024])
  }
}
