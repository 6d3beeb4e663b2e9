/** Subscribers that have read everything and wait for more; each is one callback, called once. */
import { Effect } from "effect"

export class Waiters {
  #waiting = new Set<() => void>()

  /** Returns the effect that takes the callback out again, for an interrupted subscriber. */
  add(wake: () => void): Effect.Effect<void> {
    this.#waiting.add(wake)
    return Effect.sync(() => {
      this.#waiting.delete(wake)
    })
  }

  wakeAll(): void {
    if (this.#waiting.size === 0) return
    const woken = this.#waiting
    this.#waiting = new Set()
    for (const wake of woken) wake()
  }
}
