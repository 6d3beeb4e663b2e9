/**
 * How long a group answers nobody when its leader's process is killed, in virtual time: one kill a seed, nothing else that goes
 * wrong, clients that ask again every so often. In election timeouts, from the kill to the end of the longest pause that follows.
 */
import { leaderAmong } from "../../simulations/raft/member.ts"
import type { Member } from "../../simulations/raft/member.ts"
import { drawnOptions } from "../../simulations/raft/options.ts"
import type { RunOptions } from "../../simulations/raft/options.ts"
import { World } from "../../simulations/raft/run.ts"
import { figure, hashOf } from "./measure.ts"
import type { Figure, Options } from "./measure.ts"

const electionMs = 1000
const heartbeatMs = 100

const never = Number.POSITIVE_INFINITY
const nothing = { flapping: 0, wholesale: 0, votersWanted: 0, damages: 0, errors: 0 }
const noPlots = { ambushes: 0, schisms: 0, haste: 0, echoes: 0, coups: 0, oathEveryMs: never }
/** Nothing goes wrong by itself. */
const noFaults = {
  ...{ crashEveryMs: never, blackoutEveryMs: never, pauseEveryMs: never, partitionEveryMs: never },
  ...{ clogEveryMs: never, hangUpEveryMs: never, transferEveryMs: never, changeEveryMs: never },
  ...{ fullEveryMs: never, stepEveryMs: never, jumpEveryMs: never }
}

/** As `novacron up` has them. */
const settings = {
  ...{ heartbeatMs, electionMs, leaseDriftPercent: 0 },
  ...{ messageBytesMax: 1024 * 1024, inflightBytesMax: 16 * 1024 * 1024, inflightEntriesMax: 4096 },
  ...{ uncommittedBytesMax: 64 * 1024 * 1024, readsMax: 100_000, lagEntriesMax: 1000 }
}

interface Case {
  readonly name: string
  readonly members: number
  /** Of a message, and of a sync; more than the least of it by chance. */
  readonly delayMeanMs: number
  readonly syncMeanMs: number
  /** Share of the others that are told that the connection ended. */
  readonly endsTold: number
}

const fast = { delayMeanMs: 0.5, syncMeanMs: 2 }
/** As on a machine that other work takes: an event loop that waits for its turn, and a disk with others before it. */
const busy = { delayMeanMs: 20, syncMeanMs: 30 }

const cases: ReadonlyArray<Case> = [3, 5].flatMap((members) => [
  { name: `${members} members`, members, ...fast, endsTold: 1 },
  { name: `${members} members, slow machine`, members, ...busy, endsTold: 1 },
  { name: `${members} members, nobody told`, members, ...fast, endsTold: 0 }
])

function optionsOf({ members, delayMeanMs, syncMeanMs, endsTold }: Case): RunOptions {
  const drawn = drawnOptions(1)
  return {
    ...drawn,
    members,
    voters: members,
    settings,
    network: { ...drawn.network, delayMinMs: 0.1, delayMeanMs, loss: 0, duplication: 0, capacity: 100_000 },
    disk: { syncMinMs: 0.1, syncMeanMs, stalls: 0, lostAtCrash: 0.5, hasRecords: false },
    clients: {
      ...drawn.clients,
      ...{ clients: 6, keys: 6, burst: 1_000_000, thinkMeanMs: 40, timeoutMs: 50 },
      ...{ reads: 0, swaps: 0, readers: 0, indexed: 0, abandoned: 0 }
    },
    faults: { ...drawn.faults, ...noFaults, ...nothing, ...noPlots },
    endsTold,
    driftPercent: 1,
    snapshotEvery: 1000,
    snapshotPartBytes: 1024 * 1024
  }
}

/** It is there again after the group has gone on without it. */
const downMs = 10 * electionMs
/** Led for so long. */
const warmMs = electionMs
/** Answers that come so long after one another are of a pause that has ended. */
const calmMs = 300
const windowMs = 8 * electionMs

/** One kill. Throws what the checkers find. */
function pauseOf(seed: number, options: RunOptions): number {
  const world = new World({ seed, options, faults: null })
  world.start()
  let leader: Member | undefined
  // The first elections may follow one another: until somebody has led for a while.
  while (leader === undefined) {
    while (leaderAmong(world.members.values()) === undefined)
      world.schedule.runUntil(world.schedule.nowMs + heartbeatMs)
    // Somewhere between two heartbeats and two batches.
    world.schedule.runUntil(world.schedule.nowMs + warmMs + world.random.next() * heartbeatMs)
    leader = leaderAmong(world.members.values())
  }
  const killedMs = world.schedule.nowMs
  world.faults.inject({ kind: "crash", id: leader.id, forMs: downMs, requests: null })
  let [longest, last, seen] = [0, killedMs, 0]
  const { calls } = world.clients
  // Until somebody leads and has answered for a while: what follows is no more of this kill.
  for (let leadsMs = Number.POSITIVE_INFINITY; last < leadsMs + calmMs;) {
    world.schedule.runUntil(world.schedule.nowMs + 100)
    for (; seen < calls.length; seen++) {
      const { answeredMs } = calls[seen] as { readonly answeredMs: number }
      if (answeredMs <= killedMs) continue
      longest = Math.max(longest, answeredMs - last)
      last = answeredMs
    }
    if (leadsMs === Number.POSITIVE_INFINITY && leaderAmong(world.members.values()) !== undefined)
      leadsMs = world.schedule.nowMs
    if (world.schedule.nowMs > killedMs + windowMs)
      throw new Error(`seed ${seed}: nobody was answered for long`)
  }
  return longest / electionMs
}

const sizes = { smoke: 10, full: 1000 } as const
const part = (sorted: ReadonlyArray<number>, share: number) =>
  sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * share) - 1)] as number

export function* failoverLives({ size, seed }: Options): Generator<Figure> {
  const seeds = sizes[size]
  for (const one of cases) {
    const options = optionsOf(one)
    const pauses = Array.from({ length: seeds }, (_, at) => pauseOf(seed + at, options))
    const sorted = pauses.toSorted((a, b) => a - b)
    const at = (share: number) => part(sorted, share).toFixed(2)
    const result = hashOf([JSON.stringify(pauses)])
    yield figure(
      `leader killed, ${one.name}`,
      "election timeouts",
      sorted.map((value) => ({ value, result })),
      { note: `${seeds} seeds: p50 ${at(0.5)}, p90 ${at(0.9)}, p99 ${at(0.99)}, at most ${at(1)}` }
    )
  }
}
