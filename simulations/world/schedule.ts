/**
 * Virtual time: what is to happen, in order. Of what is due at the same time the seed says what comes first, so that
 * other seeds see other interleavings.
 */
import type { Random } from "./random.ts"

interface Due {
  readonly atMs: number
  readonly order: number
  /** What was taken back does nothing when it is due. */
  run: () => void
}

const nothing = () => {}

const isBefore = (one: Due, other: Due): boolean =>
  one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order)

export class Schedule {
  readonly #random: Random
  /** A binary heap: each is before the two at `2n + 1` and `2n + 2`. */
  readonly #heap: Array<Due> = []
  #nowMs = 0
  #done = 0
  readonly #events_max: number

  /** More than `events_max` is a world that goes round in circles: it throws. */
  constructor(random: Random, events_max: number) {
    this.#random = random
    this.#events_max = events_max
  }

  /** Milliseconds since the world began. */
  get nowMs(): number {
    return this.#nowMs
  }

  /** How much has happened. */
  get events(): number {
    return this.#done
  }

  /** Of `order`s that are equal none is first: whoever gives its own, below 0 to be before all others, tells them apart. */
  at(atMs: number, run: () => void, order: number = this.#random.next()): void {
    this.#put({ atMs: Math.max(atMs, this.#nowMs), order, run })
  }

  after(delayMs: number, run: () => void): void {
    this.at(this.#nowMs + delayMs, run)
  }

  /** `after` that can be taken back: by what it returns. */
  cancellable(delayMs: number, run: () => void): () => void {
    const due: Due = { atMs: this.#nowMs + Math.max(0, delayMs), order: this.#random.next(), run }
    this.#put(due)
    return () => {
      due.run = nothing
    }
  }

  #put(due: Due): void {
    const heap = this.#heap
    let place = heap.length
    heap.push(due)
    while (place > 0) {
      const parent = (place - 1) >> 1
      const above = heap[parent] as Due
      if (!isBefore(due, above)) break
      heap[place] = above
      place = parent
    }
    heap[place] = due
  }

  /** Let everything happen that is due by then. */
  runUntil(endMs: number): void {
    while (this.step(endMs));
    this.#nowMs = Math.max(this.#nowMs, endMs)
  }

  /** Let the next thing happen; false when nothing is due by then. */
  step(endMs: number): boolean {
    const next = this.#heap[0]
    if (next === undefined || next.atMs > endMs) return false
    this.#take()
    this.#nowMs = next.atMs
    if (this.#done++ >= this.#events_max)
      throw new Error(`more than ${this.#events_max} events by ${this.#nowMs} ms of the world`)
    next.run()
    return true
  }

  #take(): void {
    const heap = this.#heap
    const last = heap.pop()
    if (last === undefined || heap.length === 0) return
    let place = 0
    for (;;) {
      let child = 2 * place + 1
      if (child >= heap.length) break
      const right = heap[child + 1]
      if (right !== undefined && isBefore(right, heap[child] as Due)) child++
      const least = heap[child] as Due
      if (!isBefore(least, last)) break
      heap[place] = least
      place = child
    }
    heap[place] = last
  }
}
