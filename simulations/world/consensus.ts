/**
 * The Consensus port of a simulated process: the production's member and node of a group (`src/kernel/group-node.ts`), with its log
 * on a simulated disk, wires for connections, and the process's own clocks. As `src/live/consensus.ts` has it.
 */
import { Effect } from "effect"
import type { Message } from "../../src/events/envelope.ts"
import type { Entry, RaftMessage, RaftSettings } from "../../src/events/raft.ts"
import type { Protocol } from "../../src/kernel/group-member.ts"
import { GroupNode } from "../../src/kernel/group-node.ts"
import type { GroupMessage } from "../../src/kernel/group-node.ts"
import { belongTogether, foundedOr, keepIn } from "../../src/kernel/group-start.ts"
import type { GroupLog } from "../../src/kernel/group-start.ts"
import { Consensus } from "../../src/kernel/ports/consensus.ts"
import type { EventStore } from "../../src/kernel/ports/event-store.ts"
import type { Disk } from "./disk.ts"
import type { Process } from "./process.ts"
import type { Random } from "./random.ts"
import type { Runtime } from "./runtime.ts"
import type { Schedule } from "./schedule.ts"
import type { Wires } from "./wires.ts"

/** Sees what a member does. */
export interface Watched {
  readonly stepped: () => void
  readonly sent: (message: RaftMessage) => void
  readonly decided: (entries: ReadonlyArray<Entry>) => void
  readonly leads: (isLeading: boolean) => void
}

export interface SimulatedConsensus {
  readonly id: string
  /** It joins a group that there is, and founds none. */
  readonly joins: boolean
  readonly settings: RaftSettings
  readonly protocol: Protocol
  readonly keepEntries: number
  /** Of its journal it gives others no more at once, whatever they ask for. */
  readonly pageFacts_max: number
  /** Of the log: beyond so many it is begun anew. */
  readonly facts_max: number
  readonly disk: Disk
  readonly process: Process
  readonly runtime: Runtime
  readonly schedule: Schedule
  readonly random: Random
  readonly wires: Wires<GroupMessage>
  readonly store: EventStore["Service"]
  readonly watched: Watched
  /** The process can't go on: its disk refuses, or it has been told to take no part any more. */
  readonly halt: (reason: string) => void
}

/** Whoever writes to a disk that refuses is over. */
function logOn({ disk, facts_max, process, halt }: SimulatedConsensus): GroupLog {
  const { life } = process
  return {
    facts: [...disk.facts],
    append: (facts, stored) => {
      if (!process.isUp || process.life !== life) return
      if (!disk.append(facts, () => process.run(stored, life))) halt("its disk refuses")
    },
    get isLarge() {
      return disk.facts.length > facts_max
    },
    rewrite: (facts) => disk.rewrite(facts)
  }
}

/** One timer; a later one takes its place. */
class Timer {
  readonly #options: SimulatedConsensus
  #set = 0

  constructor(options: SimulatedConsensus) {
    this.#options = options
  }

  wake(atMs: number, work: () => void): void {
    const { process, schedule } = this.#options
    const { life } = process
    const set = ++this.#set
    if (!Number.isFinite(atMs)) return
    const dueMs = Math.max(process.clock.worldMs(atMs), schedule.nowMs + 0.001)
    schedule.at(dueMs, () =>
      process.run(() => {
        if (set === this.#set) work()
      }, life)
    )
  }
}

export interface MadeConsensus {
  readonly node: GroupNode
  readonly service: Consensus["Service"]
  /** What was due later by the process's clock is due now, or the other way round. */
  readonly clockJumped: () => void
  /** Nobody is listened to before. */
  readonly isStarted: () => boolean
}

/** What is wrong with what was found is given as a text. */
export const makeConsensus = Effect.fnUntraced(function* (options: SimulatedConsensus) {
  const { id, joins, settings, protocol, process, runtime, random, wires, store, watched, halt } = options
  const log = logOn(options)
  const facts: ReadonlyArray<Message> = yield* foundedOr({ node: id, joins }, log, store)
  const problem = yield* belongTogether(facts, store)
  if (problem !== null) return problem
  const timer = new Timer(options)
  let wokenMs = Number.POSITIVE_INFINITY
  const wake = (atMs: number) => {
    wokenMs = atMs
    timer.wake(atMs, () => node.member.tick())
  }
  let isStarted = false
  const life = String(process.life)
  const node: GroupNode = new GroupNode(id, life, settings, protocol, {
    nowMs: () => process.nowMs,
    timeMs: () => process.wallMs,
    chance: () => random.next(),
    send: (to, message) => {
      if (message.kind === "raft") watched.sent(message.message)
      return wires.send(id, to, message)
    },
    keep: (kept, stored) => keepIn(log, () => node.member, kept, stored),
    wake: (atMs) => {
      wake(atMs)
      watched.stepped()
    },
    readFacts: (after, limit, done) =>
      void runtime.fork(
        Effect.match(store.readAll({ from: after + 1, limit: Math.min(limit, options.pageFacts_max) }), {
          onSuccess: (found) => done(found, null),
          onFailure: (error) => done(null, error.message)
        })
      ),
    keepEntries: options.keepEntries,
    halt
  })
  const service = node.service()
  const made: MadeConsensus = {
    node,
    isStarted: () => isStarted,
    clockJumped: () => wake(wokenMs),
    service: Consensus.of({
      ...service,
      follow: (follower) => {
        service.follow({
          ...follower,
          decided: (entries) => {
            watched.decided(entries)
            follower.decided(entries)
          },
          leads: (isLeading) => {
            watched.leads(isLeading)
            follower.leads(isLeading)
          }
        })
        isStarted = true
        node.member.start(facts)
      }
    })
  }
  return made
})
