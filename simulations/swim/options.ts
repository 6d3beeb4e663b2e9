/** What a run is: every knob drawn from the seed, each of them sometimes at nothing (swarm testing, Groce 2012). */
import type { SwimSettings } from "../../src/events/swim.ts"
import { lanSettings } from "../../src/events/swim.ts"
import type { DiskOptions } from "../world/disk.ts"
import type { NetworkOptions, PartitionKind } from "../world/network.ts"
import { partitionKinds } from "../world/network.ts"
import type { Random } from "../world/random.ts"

/** How often on average, in ms of the world; infinity for never. */
export interface FaultOptions {
  readonly crashEveryMs: number
  /** Everybody at once. */
  readonly blackoutEveryMs: number
  readonly downMeanMs: number
  /** Of restarts, those that find an empty disk. */
  readonly wipes: number
  readonly pauseEveryMs: number
  readonly pauseMeanMs: number
  readonly partitionEveryMs: number
  readonly partitionMeanMs: number
  readonly partitions: ReadonlyArray<PartitionKind>
  /** Of partitions, those that come and go many times. */
  readonly flapping: number
  readonly clogEveryMs: number
  readonly clogMeanMs: number
  readonly joinEveryMs: number
  readonly leaveEveryMs: number
  readonly describeEveryMs: number
}

export interface RunOptions {
  /** At the beginning; others may join. */
  readonly members: number
  readonly joiners: number
  /** The first so many are where others are looked for; the very first one is never gone for good. */
  readonly seeds: number
  readonly chaosMs: number
  readonly settings: SwimSettings
  readonly network: NetworkOptions
  readonly disk: DiskOptions
  readonly faults: FaultOptions
  readonly driftPercent: number
  readonly bufferedMax: number
  readonly metaBytes: number
}

function pick<A>(random: Random, some: ReadonlyArray<A>): A {
  return some[random.int(0, some.length - 1)] as A
}

/** Nothing in a third of the runs. */
const share = (random: Random, most: number): number => (random.chance(1 / 3) ? 0 : random.next() * most)

/** Never in a third of the runs; else drawn evenly over the orders of magnitude between these. */
const every = (random: Random, leastMs: number, mostMs: number): number =>
  random.chance(1 / 3) ? Number.POSITIVE_INFINITY : leastMs * (mostMs / leastMs) ** random.next()

function settingsOf(random: Random): SwimSettings {
  const periodMs = pick(random, [200, 500, 1000])
  const isPlain = random.chance(0.2)
  const part = () => !isPlain && random.chance(0.8)
  return {
    ...lanSettings,
    periodMs,
    timeoutMs: periodMs / pick(random, [2, 4]),
    relays: pick(random, [0, 1, 3, 3]),
    gossipEveryMs: periodMs / 5,
    gossipTo: pick(random, [1, 3, 3]),
    retransmit: pick(random, [3, 4, 6]),
    suspicion: pick(random, [2, 4, 5]),
    suspicionMax: pick(random, [1, 3, 6]),
    healthMax: pick(random, [0, 2, 8]),
    compareEveryMs: periodMs * random.int(4, 20),
    reconnectEveryMs: periodMs * random.int(5, 20),
    gossipToDeadMs: pick(random, [0, periodMs * 10]),
    forgetAfterMs: periodMs * pick(random, [100, 1000, 100_000]),
    leaveMs: periodMs * 5,
    entryDatagramsMax: pick(random, [1, 2, 64]),
    queueMax: pick(random, [64, 65_536]),
    relayedMax: pick(random, [2, 256]),
    lifeguard: { probe: part(), suspicion: part(), buddy: part(), stalls: part() }
  }
}

/** Measured by the period, so that some of them fall into every phase of a probe and of a suspicion. */
function faultsOf(random: Random, periodMs: number): FaultOptions {
  const often = (least: number, most: number) => every(random, periodMs * least, periodMs * most)
  const lasting = () => periodMs * 0.2 * 100 ** random.next()
  return {
    crashEveryMs: often(3, 60),
    blackoutEveryMs: often(30, 300),
    downMeanMs: lasting(),
    wipes: share(random, 0.3),
    pauseEveryMs: often(2, 60),
    pauseMeanMs: lasting(),
    partitionEveryMs: often(3, 60),
    partitionMeanMs: lasting(),
    partitions: partitionKinds.filter(() => random.chance(0.6)),
    flapping: share(random, 0.7),
    clogEveryMs: often(2, 40),
    clogMeanMs: lasting(),
    joinEveryMs: often(5, 60),
    leaveEveryMs: often(10, 100),
    describeEveryMs: often(3, 60)
  }
}

/** All that a seed decides. */
export function drawOptions(random: Random): RunOptions {
  const settings = settingsOf(random)
  const members = pick(random, [1, 2, 2, 3, 3, 4, 5, 5, 6, 8, 10, 12])
  return {
    members,
    joiners: pick(random, [0, 1, 3]),
    seeds: pick(random, [1, 1, 2, 3]),
    chaosMs: settings.periodMs * random.int(40, 160),
    settings,
    // So little that, with nothing lost, no probe is late: what is late is held up by a clog.
    network: {
      delayMinMs: 0.1,
      delayMeanMs: (settings.timeoutMs / 25) * random.next(),
      loss: share(random, 0.3),
      duplication: share(random, 0.5),
      capacity: pick(random, [16, 100_000])
    },
    disk: {
      syncMinMs: 0.1,
      syncMeanMs: pick(random, [0.1, 5, settings.periodMs / 50]),
      stalls: share(random, 0.05),
      lostAtCrash: pick(random, [0, 0.5, 1]),
      hasRecords: false
    },
    faults: faultsOf(random, settings.periodMs),
    driftPercent: share(random, 5),
    bufferedMax: pick(random, [8, 64, 1024]),
    metaBytes: pick(random, [0, 16, 512])
  }
}
