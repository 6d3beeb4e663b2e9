/**
 * One piece of work with any number of readers: each sees its messages from the first on, and its end. The work does
 * not depend on who reads, and may be asked about after it ended.
 */
import { Effect, Exit, Stream } from "effect"

/** Messages that are kept for who joins late; beyond it the oldest passing ones go. */
const messages_max = 64

export class SharedWork<A, E> {
  readonly #passing: (message: A) => boolean
  #waiting = new Set<() => void>()
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
    this.#wake()
  }

  end(exit: Exit.Exit<void, E>): void {
    this.#exit ??= exit
    this.#wake()
  }

  #wake(): void {
    const waiting = this.#waiting
    this.#waiting = new Set()
    for (const resume of waiting) resume()
  }

  /** Until there is more than `seen`, or the end. */
  #changeAfter(seen: number): Effect.Effect<void> {
    return Effect.callback((resume) => {
      if (this.#last > seen || this.#exit !== null) {
        resume(Effect.void)
        return
      }
      const wake = () => resume(Effect.void)
      this.#waiting.add(wake)
      return Effect.sync(() => this.#waiting.delete(wake))
    })
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
      if (this.#exit === null) return Effect.flatMap(this.#changeAfter(seen), () => this.#after(seen))
      return Exit.isSuccess(this.#exit) ? Effect.succeed(undefined) : Effect.failCause(this.#exit.cause)
    })
  }
}
