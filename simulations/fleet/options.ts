/** What a simulated fleet is: every knob drawn from the seed, each of them sometimes at nothing (swarm testing, Groce 2012). */
import { drawFencing } from "./fencing.ts"
import type { FencingOptions } from "./fencing.ts"
import type { LineOptions } from "../world/line.ts"
import type { Faults } from "../world/hypervisor.ts"
import { noFaults } from "../world/hypervisor/machine.ts"
import type { Random } from "../world/random.ts"
import type { RebalancePolicy } from "../../src/events/rebalancer.ts"
import { drawRebalance } from "./rebalancing.ts"
import type { SlowStoreOptions } from "../world/slow-store.ts"

/** How often on average, in ms of the world; infinity for never. */
export interface FaultOptions {
  readonly kernelCrashEveryMs: number
  readonly agentCrashEveryMs: number
  readonly hostCrashEveryMs: number
  readonly lineBreakEveryMs: number
  readonly transferBreakEveryMs: number
  readonly machineKillEveryMs: number
  readonly powerOffEveryMs: number
  readonly downMeanMs: number
  /** A host out of reach for so long is said to be lost. */
  readonly lostAfterMs: number
  /** Share of the facts of a migration that are followed by a crash of somebody at once. */
  readonly ambushes: number
}

export interface OperatorOptions {
  readonly operators: number
  readonly thinkMeanMs: number
  /** How many machines there may be. */
  readonly machines: number
  /** Then a command is sent again under its id. */
  readonly timeoutMs: number
  /** Share of answered commands that are sent once more, later. */
  readonly repeats: number
  readonly weights: Readonly<Record<CommandName, number>>
}

export const commandNames = [
  "create",
  "clone",
  "start",
  "stop",
  "pause",
  "resume",
  "reboot",
  "snapshot",
  "restore",
  "delete",
  "migrate",
  "cancel",
  "drain",
  "activate"
] as const
export type CommandName = (typeof commandNames)[number]

export interface RunOptions {
  readonly hosts: number
  readonly hostMemoryMib: number
  readonly safetyMs: number
  readonly unreachableMs: number
  readonly waiting_max: number
  readonly checkpointEvery: number
  readonly viewLagMeanMs: number
  readonly bandwidthBytesPerSecond: number
  readonly postCopy: boolean
  readonly line: LineOptions
  readonly store: SlowStoreOptions
  readonly hypervisor: Faults
  readonly faults: FaultOptions
  readonly operators: OperatorOptions
  /** Null where no host holds a lease, and none is fenced. */
  readonly fencing: FencingOptions | null
  /** Null where nobody starts the rebalancer. */
  readonly rebalance: RebalancePolicy | null
}

function pick<A>(random: Random, some: ReadonlyArray<A>): A {
  return some[random.int(0, some.length - 1)] as A
}

/** Nothing in a third of the runs. */
const share = (random: Random, most: number): number => (random.chance(1 / 3) ? 0 : random.next() * most)

/** Never in a third of the runs; else drawn evenly over the orders of magnitude between these. */
const every = (random: Random, leastMs: number, mostMs: number): number =>
  random.chance(1 / 3) ? Number.POSITIVE_INFINITY : leastMs * (mostMs / leastMs) ** random.next()

const drawFaults = (random: Random): FaultOptions => ({
  kernelCrashEveryMs: every(random, 2000, 60_000),
  agentCrashEveryMs: every(random, 2000, 60_000),
  hostCrashEveryMs: every(random, 5000, 60_000),
  lineBreakEveryMs: every(random, 1000, 30_000),
  transferBreakEveryMs: every(random, 2000, 30_000),
  machineKillEveryMs: every(random, 2000, 60_000),
  powerOffEveryMs: every(random, 5000, 60_000),
  downMeanMs: 100 * 100 ** random.next(),
  lostAfterMs: pick(random, [1000, 10_000, 30_000]),
  ambushes: share(random, 0.3)
})

const drawHypervisor = (random: Random): Faults => ({
  ...noFaults,
  operationFails: share(random, 0.2),
  answerLost: share(random, 0.1),
  slow: share(random, 0.2),
  linkCut: share(random, 0.02),
  crash: share(random, 0.01)
})

const drawOperators = (random: Random): OperatorOptions => {
  const weights = Object.fromEntries(
    commandNames.map((name) => [name, random.chance(0.2) ? 0 : random.next()])
  )
  return {
    operators: random.int(1, 6),
    thinkMeanMs: 100 * 30 ** random.next(),
    machines: random.int(1, 8),
    timeoutMs: pick(random, [200, 1000, 5000]),
    repeats: share(random, 0.3),
    // Without these nothing happens.
    weights: {
      ...(weights as Record<CommandName, number>),
      create: 1,
      start: 0.5,
      migrate: random.next() * 2
    }
  }
}

export function drawOptions(random: Random): RunOptions {
  return {
    hosts: random.int(2, 8),
    hostMemoryMib: pick(random, [512, 1024, 4096, 262_144]),
    safetyMs: random.int(10_000, 60_000),
    unreachableMs: pick(random, [500, 3000, 10_000]),
    waiting_max: pick(random, [2, 16, 10_000]),
    checkpointEvery: pick(random, [10, 1000]),
    viewLagMeanMs: pick(random, [0, 1, 200]),
    bandwidthBytesPerSecond: pick(random, [20, 100, 1000]) * 1024 * 1024,
    postCopy: random.chance(0.3),
    line: { delayMeanMs: pick(random, [0.1, 1, 50]), answersLost: share(random, 0.05) },
    store: {
      syncMeanMs: pick(random, [0.01, 1, 20]),
      fails: share(random, 0.05),
      lostAtCrash: random.next()
    },
    hypervisor: drawHypervisor(random),
    faults: drawFaults(random),
    operators: drawOperators(random),
    fencing: null,
    rebalance: drawRebalance(random.split("rebalance"))
  }
}

/** What leaves a machine that does not run. */
const rare = ({ stop, pause, delete: removal }: OperatorOptions["weights"]) => ({
  ...{ stop: stop * 0.2, pause: pause * 0.2, delete: removal * 0.2 }
})

/** Where hosts are away for longer than a lease, and soon said to be lost: else there is little to fence. */
export function drawFenced(random: Random): RunOptions {
  const options = drawOptions(random)
  const own = random.split("fencing")
  const { weights } = options.operators
  return {
    ...options,
    safetyMs: own.int(30_000, 90_000),
    faults: {
      ...options.faults,
      hostCrashEveryMs: every(own, 5000, 40_000),
      lineBreakEveryMs: every(own, 3000, 30_000),
      downMeanMs: 2000 * 10 ** own.next(),
      lostAfterMs: pick(own, [500, 1000, 5000])
    },
    operators: {
      ...options.operators,
      thinkMeanMs: 300 * 10 ** own.next(),
      machines: own.int(2, 8),
      weights: { ...weights, migrate: weights.migrate * own.next(), ...rare(weights) }
    },
    fencing: drawFencing(own)
  }
}
