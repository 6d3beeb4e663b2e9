/**
 * A process of a simulated world: what it has to do next happens in its life only, not while it stands still, and never any
 * more once it was killed, at whatever it was. Its fibers, timers and callbacks all go through here.
 */
import type { Clock } from "./clock.ts"
import { epochMs } from "./runtime.ts"
import type { Pace } from "./runtime.ts"
import type { Schedule } from "./schedule.ts"

export class Process {
  readonly clock: Clock
  readonly #schedule: Schedule
  /** Counts the times that it was started. */
  life = 0
  isUp = false
  /** Stands still until then. */
  pausedMs = 0

  constructor(schedule: Schedule, clock: Clock) {
    this.#schedule = schedule
    this.clock = clock
  }

  /** It ends before the one after so many steps. */
  #endsIn: { steps: number; readonly end: () => void } | null = null

  begin(): void {
    this.life++
    this.isUp = true
  }

  end(): void {
    this.isUp = false
    this.#endsIn = null
  }

  /** `end` is called when it has taken so many more steps, in this life. */
  endWithin(steps: number, end: () => void): void {
    this.#endsIn ??= { steps, end }
  }

  /** Not any more. */
  letLive(): void {
    this.#endsIn = null
  }

  get isAwake(): boolean {
    return this.isUp && this.pausedMs <= this.#schedule.nowMs
  }

  /** What its own steady clock shows, in whole milliseconds. */
  get nowMs(): number {
    return this.clock.shows(this.#schedule.nowMs)
  }

  /** What its own wall clock shows. */
  get wallMs(): number {
    return epochMs + this.clock.wallMs(this.#schedule.nowMs)
  }

  /** At once, or when it goes on; not in another life. */
  run(work: () => void, life: number = this.life): void {
    if (!this.isUp || this.life !== life) return
    if (this.pausedMs > this.#schedule.nowMs) this.#schedule.at(this.pausedMs, () => this.run(work, life))
    else if (this.#endsIn !== null && this.#endsIn.steps-- <= 0) this.#endsIn.end()
    else work()
  }

  /** For what runs in this life. */
  pace(): Pace {
    const { life } = this
    const schedule = this.#schedule
    return {
      wallMs: () => this.wallMs,
      steadyMs: () => this.nowMs,
      after: (delayMs, work) => schedule.after(this.#worldMs(delayMs), () => this.run(work, life)),
      cancellable: (delayMs, work) => {
        let isWanted = true
        const due = () => {
          if (isWanted) work()
        }
        const cancel = schedule.cancellable(this.#worldMs(delayMs), () => this.run(due, life))
        return () => {
          isWanted = false
          cancel()
        }
      }
    }
  }

  /** Of so much by its own clock. */
  #worldMs(ownMs: number): number {
    return ownMs <= 0 ? 0 : ownMs / this.clock.rate
  }
}
