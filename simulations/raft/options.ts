/** What a run is: every knob drawn from the seed, each of them sometimes at nothing (swarm testing, Groce 2012). */
import type { RaftSettings } from "../../src/events/raft.ts"
import type { DiskOptions } from "../world/disk.ts"
import type { NetworkOptions } from "../world/network.ts"
import { partitionKinds } from "../world/network.ts"
import type { PartitionKind } from "../world/network.ts"
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
  /** Share of new leaders, and of changes of the members, that are hit at once. */
  readonly ambushes: number
  readonly ambushMeanMs: number
  readonly transferEveryMs: number
  readonly changeEveryMs: number
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
    ambushes: share(random, 0.6),
    ambushMeanMs: electionMs * 0.01 * 50 ** random.next(),
    transferEveryMs: often(1, 20),
    changeEveryMs: often(0.5, 20)
  }
}

/** What a run is mostly about, besides everything else. */
const focuses = ["anything", "anything", "elections", "members", "reads", "storage"] as const

function focused(random: Random, options: RunOptions): RunOptions {
  const { settings, clients, faults, network } = options
  const { electionMs, heartbeatMs } = settings
  const soon = electionMs * (0.3 + random.next() * 3)
  switch (pick(random, focuses)) {
    case "anything":
      return options
    case "elections":
      // Leaders that get a part of their entries to a part of the members.
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
    case "members":
      return { ...options, faults: { ...faults, changeEveryMs: soon, ambushes: 0.3 + random.next() * 0.5 } }
    case "reads": {
      // Many at the same time, at a leader that may be none any more.
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
        transferEveryMs: soon,
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
        faults: { ...faults, ...leaving }
      }
    }
    case "storage":
      return {
        ...options,
        disk: { ...options.disk, syncMeanMs: electionMs / 10, lostAtCrash: 1 },
        faults: { ...faults, crashEveryMs: soon, ambushes: 0.5 }
      }
  }
}

/** All that a seed decides. */
export const drawOptions = (random: Random): RunOptions => focused(random, drawAll(random))

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
      lostAtCrash: pick(random, [0, 0.2, 0.8, 1])
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
    faults: faultsOf(random, settings.electionMs),
    driftPercent: random.chance(1 / 3) ? 0 : driftOf(settings),
    snapshotEvery: pick(random, [8, 50, 1000]),
    snapshotPartBytes: pick(random, [32, 1024, 1024 * 1024])
  }
}
