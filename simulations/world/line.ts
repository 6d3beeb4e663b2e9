/** A connection between two processes of a simulated world: what was asked over it is lost when it breaks. */
import { Data, Effect, Stream } from "effect"
import type { Random } from "./random.ts"

export class LineBroken extends Data.TaggedError("LineBroken")<{ readonly message: string }> {}

export interface LineOptions {
  /** One way. */
  readonly delayMeanMs: number
  /** Share of what is asked whose answer does not come back, though it was done. */
  readonly answersLost: number
}

export class Line {
  readonly #random: Random
  readonly #options: () => LineOptions
  #waiting = new Set<() => void>()
  #since = 0
  #isUp = false
  /** Of what was done. */
  answersLost = 0

  constructor(random: Random, options: () => LineOptions) {
    this.#random = random
    this.#options = options
  }

  get isUp(): boolean {
    return this.#isUp
  }

  /** Counts the times it was made; null while it is broken. */
  get since(): number | null {
    return this.#isUp ? this.#since : null
  }

  make(): void {
    if (this.#isUp) return
    this.#isUp = true
    this.#since++
  }

  break(): void {
    if (!this.#isUp) return
    this.#isUp = false
    const woken = this.#waiting
    this.#waiting = new Set()
    for (const wake of woken) wake()
  }

  /** Fails when it breaks. */
  readonly broken: Effect.Effect<never, LineBroken> = Effect.callback((resume) => {
    const wake = () => resume(Effect.fail(new LineBroken({ message: "the line is broken" })))
    if (!this.#isUp) return wake()
    this.#waiting.add(wake)
    return Effect.sync(() => {
      this.#waiting.delete(wake)
    })
  })

  readonly #delay = Effect.suspend(() =>
    Effect.sleep(-Math.log(1 - this.#random.next()) * this.#options().delayMeanMs)
  )

  readonly #comesBack = Effect.suspend(() => {
    if (!this.#random.chance(this.#options().answersLost)) return this.#delay
    this.answersLost++
    return Effect.fail(new LineBroken({ message: "the answer was lost" }))
  })

  /** Done at the other end, and heard of. */
  ask<A, E>(work: Effect.Effect<A, E>): Effect.Effect<A, E | LineBroken> {
    return Effect.raceFirst(this.broken, this.#delay.pipe(Effect.andThen(work), Effect.tap(this.#comesBack)))
  }

  /** The same of work with many answers: each comes later, or none any more. */
  follow<A, E>(work: Stream.Stream<A, E>): Stream.Stream<A, E | LineBroken> {
    return Stream.fromEffect(this.#delay).pipe(
      Stream.flatMap(() => work),
      Stream.tap(() => this.#comesBack),
      Stream.interruptWhen(this.broken)
    )
  }
}
