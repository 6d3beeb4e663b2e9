/**
 * A machine's two clocks. The steady one counts from a moment of its own, a little fast or slow, and never goes back; but
 * it may jump ahead, and stand still while the machine does. The wall clock is off by something, and is set now and then.
 */
export class Clock {
  #offsetMs: number
  /** How much of its time passes in one of the world's. */
  readonly rate: number
  #wallMs: number

  /** `driftPercent` how much faster than the world; negative when slower. */
  constructor(offsetMs: number, driftPercent: number, wallMs: number) {
    this.#offsetMs = offsetMs
    this.rate = 1 + driftPercent / 100
    this.#wallMs = wallMs
  }

  /** What the steady one shows at this time of the world. */
  shows(worldMs: number): number {
    return Math.floor(this.#offsetMs + worldMs * this.rate)
  }

  /** When in the world it will show at least this; a microsecond later, against rounding. */
  worldMs(shownMs: number): number {
    return (shownMs - this.#offsetMs) / this.rate + 0.001
  }

  wallMs(worldMs: number): number {
    return Math.floor(this.#wallMs + worldMs)
  }

  /** The wall clock is set forwards, or backwards. */
  step(byMs: number): void {
    this.#wallMs += byMs
  }

  /** The steady one jumps ahead, or, for whom it stood still meanwhile, has lost so much. */
  jump(byMs: number): void {
    this.#offsetMs += byMs
  }
}
