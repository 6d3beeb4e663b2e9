/**
 * A store that is behind another log (`durability: "behind"`) in a simulated process: what is written is there at once, and counts
 * when it is synced. A power failure takes an end of what was not, a whole transaction at a time, facts and snapshots alike.
 */
import { Effect, Semaphore } from "effect"
import { EventStore, StoreFailure } from "../../src/kernel/ports/event-store.ts"
import type { Snapshot } from "../../src/kernel/ports/event-store.ts"
import type { MemoryDisk } from "./event-store.ts"
import type { Random } from "./random.ts"

export interface BehindOptions {
  /** Of an append, before it is there and again before it is answered. */
  readonly writeMeanMs: number
  readonly syncMeanMs: number
  /** Share of the appends after which the system syncs by itself. */
  readonly syncsByItself: number
  /** Of transactions that were not synced, the share that a power failure loses; what follows one that is lost is lost too. */
  readonly lostAtCrash: number
}

export interface BehindCounts {
  transactions: number
  journalSyncs: number
  transactionsLost: number
  journalErrors: number
}

interface Transaction {
  /** Facts that were there before. */
  readonly facts: number
  /** By their key on the disk, as they were before. */
  readonly snapshots: ReadonlyArray<readonly [string, Snapshot | undefined]>
}

/** What lies on a disk, and how much of it was synced. Outlives the processes that write it. */
export class BehindDisk {
  readonly memory: MemoryDisk
  readonly #random: Random
  readonly #options: BehindOptions
  #unsynced: Array<Transaction> = []
  #fails = false
  readonly counts: BehindCounts = {
    transactions: 0,
    journalSyncs: 0,
    transactionsLost: 0,
    journalErrors: 0
  }

  readonly #schedule: { readonly nowMs: number }
  #stalledMs = 0

  constructor(
    memory: MemoryDisk,
    random: Random,
    options: BehindOptions,
    schedule: { readonly nowMs: number }
  ) {
    this.memory = memory
    this.#random = random
    this.#options = options
    this.#schedule = schedule
  }

  /** Nothing is written before. */
  stall(untilMs: number): void {
    this.#stalledMs = Math.max(this.#stalledMs, untilMs)
  }

  get isStalled(): boolean {
    return this.#schedule.nowMs < this.#stalledMs
  }

  get options(): BehindOptions {
    return this.#options
  }

  /** Drawn for a write, a sync. */
  exponential(meanMs: number): number {
    return -Math.log(1 - this.#random.next()) * meanMs
  }

  /** The next write or sync ends with an error. */
  fail(): void {
    this.#fails = true
  }

  mend(): void {
    this.#fails = false
    this.#stalledMs = 0
  }

  /** Whether this one fails. */
  takeFailure(): boolean {
    if (!this.#fails) return false
    this.#fails = false
    this.counts.journalErrors++
    return true
  }

  /** What is about to be written, so that it can be taken back. */
  begin(snapshots: ReadonlyArray<Snapshot>): Transaction {
    const keys = snapshots.map(({ version, stream }) => `${version} ${stream}`)
    return {
      facts: this.memory.facts.length,
      snapshots: keys.map((key) => [key, this.memory.snapshots.get(key)] as const)
    }
  }

  wrote(transaction: Transaction): void {
    this.counts.transactions++
    this.#unsynced.push(transaction)
    if (this.#random.chance(this.#options.syncsByItself)) this.synced(this.counts.transactions)
  }

  /** All of the first so many. */
  synced(transactions: number): void {
    this.counts.journalSyncs++
    const before = this.counts.transactions - this.#unsynced.length
    this.#unsynced.splice(0, Math.max(0, transactions - before))
  }

  /** The process ends, and the machine does not: the system has all that was written. */
  kill(): void {
    this.#fails = false
  }

  /** The machine loses its power. */
  crash(): void {
    let kept = 0
    while (kept < this.#unsynced.length && !this.#random.chance(this.#options.lostAtCrash)) kept++
    const lost = this.#unsynced.splice(kept)
    this.#unsynced = []
    this.counts.transactionsLost += lost.length
    for (const { facts, snapshots } of lost.toReversed()) {
      this.memory.facts.length = facts
      for (const [key, before] of snapshots)
        if (before === undefined) this.memory.snapshots.delete(key)
        else this.memory.snapshots.set(key, before)
    }
  }
}

const failed = (operation: string) =>
  Effect.fail(new StoreFailure({ operation, reason: "simulated: the disk refused it" }))

/** Who waits for a disk that stands still looks so often whether it goes on. */
const stallLookMs = 20

/** `inner` over the same disk. Writes stand in a line, as behind the lock of a database. */
export function behindStore(inner: EventStore["Service"], disk: BehindDisk): EventStore["Service"] {
  const order = Semaphore.makeUnsafe(1)
  const { options } = disk
  const pause = (meanMs: number) =>
    Effect.suspend(() => (meanMs === 0 ? Effect.void : Effect.sleep(disk.exponential(meanMs))))
  const written = <A, E>(
    operation: string,
    snapshots: ReadonlyArray<Snapshot>,
    work: Effect.Effect<A, E>
  ): Effect.Effect<A, E | StoreFailure> =>
    Effect.suspend((): Effect.Effect<A, E | StoreFailure> => {
      if (disk.takeFailure()) return failed(operation)
      const transaction = disk.begin(snapshots)
      return Effect.tap(work, () => Effect.sync(() => disk.wrote(transaction)))
    })
  const stalled: Effect.Effect<void> = Effect.suspend(() =>
    disk.isStalled ? Effect.andThen(Effect.sleep(stallLookMs), stalled) : Effect.void
  )
  const placed = <A, E>(work: Effect.Effect<A, E>) =>
    order.withPermit(
      stalled.pipe(
        Effect.andThen(pause(options.writeMeanMs)),
        Effect.andThen(work),
        Effect.tap(pause(options.writeMeanMs))
      )
    )
  return EventStore.of({
    ...inner,
    append: (batch, mark) =>
      placed(written("append", mark === undefined ? [] : [mark], inner.append(batch, mark))),
    saveSnapshots: (snapshots) => placed(written("saveSnapshots", snapshots, inner.saveSnapshots(snapshots))),
    sync: Effect.suspend(() => {
      const covers = disk.counts.transactions
      if (disk.takeFailure()) return failed("sync")
      return Effect.map(pause(options.syncMeanMs), () => disk.synced(covers))
    })
  })
}
