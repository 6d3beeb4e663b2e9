/**
 * An event store whose writes take their time and now and then fail. What is written counts when it is synced, in order;
 * the crash of its process keeps a part of what was not, though nobody was told.
 */
import { Effect, Semaphore } from "effect"
import { EventStore, StoreFailure } from "../../src/kernel/ports/event-store.ts"
import type { StreamAppend } from "../../src/kernel/ports/event-store.ts"
import type { Random } from "./random.ts"

export interface SlowStoreOptions {
  readonly syncMeanMs: number
  /** Share of the appends. */
  readonly fails: number
  /** Of writes that were not synced, the share that a crash loses. */
  readonly lostAtCrash: number
}

export interface StoreCounts {
  appends: number
  appendsFailed: number
  writesLost: number
  writesKept: number
}

export class SlowStore {
  readonly #inner: EventStore["Service"]
  readonly #random: Random
  readonly #options: () => SlowStoreOptions
  readonly #counts: StoreCounts
  readonly #written = new Set<ReadonlyArray<StreamAppend>>()
  readonly #order = Semaphore.makeUnsafe(1)
  #isDead = false
  readonly service: EventStore["Service"]

  constructor(
    inner: EventStore["Service"],
    random: Random,
    options: () => SlowStoreOptions,
    counts: StoreCounts
  ) {
    this.#inner = inner
    this.#random = random
    this.#options = options
    this.#counts = counts
    this.service = EventStore.of({
      ...inner,
      append: (batch) => this.#append(batch),
      saveSnapshots: (snapshots) =>
        Effect.andThen(this.#alive("saveSnapshots"), inner.saveSnapshots(snapshots)),
      head: Effect.andThen(this.#alive("head"), inner.head)
    })
  }

  #alive(operation: string): Effect.Effect<void, StoreFailure> {
    return Effect.suspend(() =>
      this.#isDead ? Effect.fail(new StoreFailure({ operation, reason: "the process is dead" })) : Effect.void
    )
  }

  #append(batch: ReadonlyArray<StreamAppend>): ReturnType<EventStore["Service"]["append"]> {
    return Effect.suspend(() => {
      this.#written.add(batch)
      this.#counts.appends++
      const sync = Effect.suspend(() => {
        this.#written.delete(batch)
        return Effect.andThen(this.#alive("append"), this.#inner.append(batch))
      })
      const work = Effect.suspend(() => {
        const { syncMeanMs, fails } = this.#options()
        const tookMs = -Math.log(1 - this.#random.next()) * syncMeanMs
        if (!this.#random.chance(fails)) return Effect.andThen(Effect.sleep(tookMs), sync)
        this.#counts.appendsFailed++
        this.#written.delete(batch)
        const failure = new StoreFailure({ operation: "append", reason: "simulated: the disk refused it" })
        return Effect.andThen(Effect.sleep(tookMs), Effect.fail(failure))
      })
      return this.#order.withPermit(work)
    })
  }

  /** In the order in which they were written a part is found again. */
  crash(): void {
    if (this.#isDead) return
    let isLost = false
    for (const batch of this.#written) {
      isLost ||= this.#random.chance(this.#options().lostAtCrash)
      if (isLost) this.#counts.writesLost++
      else {
        this.#counts.writesKept++
        Effect.runSyncExit(this.#inner.append(batch))
      }
    }
    this.#isDead = true
    this.#written.clear()
  }
}
