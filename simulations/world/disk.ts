/**
 * A disk that facts are appended to. What is written counts when it is synced; one sync is under way at a time and takes
 * with it all that was written before it began. A crash keeps a part of what was not synced, and loses the rest.
 */
import type { Message } from "../../src/events/envelope.ts"
import type { Random } from "./random.ts"
import type { Schedule } from "./schedule.ts"

export interface DiskOptions {
  readonly syncMinMs: number
  readonly syncMeanMs: number
  /** Of syncs that take a hundred times as long. */
  readonly stalls: number
  /** Of facts that were written and not synced, the share that a crash loses. */
  readonly lostAtCrash: number
}

export interface DiskCounts {
  syncs: number
  stalls: number
  lostFacts: number
  tornWrites: number
}

interface Write {
  readonly facts: ReadonlyArray<Message>
  readonly synced: () => void
}

export class Disk {
  readonly #schedule: Schedule
  readonly #random: Random
  readonly #options: DiskOptions
  /** What a restart finds. */
  readonly facts: Array<Message> = []
  #written: Array<Write> = []
  #syncing: ReadonlyArray<Write> = []
  /** A crash ends a life: what it had begun does not come to its end. */
  #life = 0
  readonly counts: DiskCounts = { syncs: 0, stalls: 0, lostFacts: 0, tornWrites: 0 }

  constructor(schedule: Schedule, random: Random, options: DiskOptions) {
    this.#schedule = schedule
    this.#random = random
    this.#options = options
  }

  /** `synced` is called when these facts would be found after a crash. */
  append(facts: ReadonlyArray<Message>, synced: () => void): void {
    this.#written.push({ facts, synced })
    if (this.#syncing.length === 0) this.#sync()
  }

  #sync(): void {
    this.#syncing = this.#written
    this.#written = []
    const { syncMinMs, syncMeanMs, stalls } = this.#options
    const isStalled = stalls > 0 && this.#random.chance(stalls)
    const tookMs = (syncMinMs - Math.log(1 - this.#random.next()) * syncMeanMs) * (isStalled ? 100 : 1)
    this.counts.syncs++
    if (isStalled) this.counts.stalls++
    const life = this.#life
    this.#schedule.after(tookMs, () => {
      if (life !== this.#life) return
      const done = this.#syncing
      this.#syncing = []
      for (const { facts } of done) this.facts.push(...facts)
      for (const { synced } of done) if (life === this.#life) synced()
      if (life === this.#life && this.#syncing.length === 0 && this.#written.length > 0) this.#sync()
    })
  }

  /** In the order in which they were written a part is found again; the rest never was. */
  crash(): void {
    this.#life++
    const unsynced = [...this.#syncing, ...this.#written].flatMap(({ facts }) => facts)
    this.#syncing = []
    this.#written = []
    let kept = 0
    while (kept < unsynced.length && !this.#random.chance(this.#options.lostAtCrash)) kept++
    if (kept > 0 && kept < unsynced.length) this.counts.tornWrites++
    this.counts.lostFacts += unsynced.length - kept
    this.facts.push(...unsynced.slice(0, kept))
  }
}
