/** A machine's own monotonic clock, which runs a little fast or slow and counts from a moment of its own. */
export class Drifting {
  readonly #offsetMs: number
  readonly #rate: number

  /** `driftPercent` how much faster than the world; negative when slower. */
  constructor(offsetMs: number, driftPercent: number) {
    this.#offsetMs = offsetMs
    this.#rate = 1 + driftPercent / 100
  }

  /** What it shows at this time of the world. */
  shows(worldMs: number): number {
    return Math.floor(this.#offsetMs + worldMs * this.#rate)
  }

  /** When in the world it will show at least this; a microsecond later, against rounding. */
  worldMs(shownMs: number): number {
    return (shownMs - this.#offsetMs) / this.#rate + 0.001
  }
}
