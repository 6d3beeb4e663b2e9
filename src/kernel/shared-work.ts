/**
 * One piece of work with any number of readers: each sees its messages from the first on, and its end. The work does
 * not depend on who reads, and may be asked about after it ended.
 */
import { Effect, Exit, Latch, Stream } from "effect"

/** Messages that are kept for who joins late; beyond it the oldest passing ones go. */
const messages_max = 64

export class SharedWork<A, E> {
  readonly #passing: (message: A) => boolean
  readonly #changed = Latch.makeUnsafe(false)
  #messages: Array<{ readonly seq: number; readonly message: A }> = []
  #last = 0
  #exit: Exit.Exit<void, E> | null = null

  /** `passing` messages, progress for one, may be missed by who joins late. */
  constructor(passing: (message: A) => boolean) {
    this.#passing = passing
  }

  get done(): boolean {
    return this.#exit !== null
  }

  get exit(): Exit.Exit<void, E> | null {
    return this.#exit
  }

  say(message: A): void {
    if (this.#messages.length >= messages_max) {
      const oldest = this.#messages.findIndex((one) => this.#passing(one.message))
      if (oldest >= 0) this.#messages.splice(oldest, 1)
    }
    this.#messages.push({ seq: ++this.#last, message })
    // Whoever waits now is let go, whoever comes later waits again.
    this.#changed.openUnsafe()
    this.#changed.closeUnsafe()
  }

  end(exit: Exit.Exit<void, E>): void {
    this.#exit ??= exit
    this.#changed.openUnsafe()
  }

  read(): Stream.Stream<A, E> {
    return Stream.unfold(0 as number | null, (seen) =>
      seen === null ? Effect.succeed(undefined) : this.#after(seen)
    ).pipe(Stream.flattenIterable)
  }

  #after(seen: number): Effect.Effect<readonly [ReadonlyArray<A>, number | null] | undefined, E> {
    return Effect.suspend(() => {
      const fresh = this.#messages.filter((one) => one.seq > seen)
      if (fresh.length > 0) {
        const next = fresh.at(-1)?.seq ?? seen
        return Effect.succeed([fresh.map((one) => one.message), next] as const)
      }
      if (this.#exit === null) return Effect.flatMap(this.#changed.await, () => this.#after(seen))
      return Exit.isSuccess(this.#exit) ? Effect.succeed(undefined) : Effect.failCause(this.#exit.cause)
    })
  }
}
