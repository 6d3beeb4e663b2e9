/** Which datagrams of a sender have come already: a sliding window, as IPsec has it (RFC 6479), so that they may overtake. */
const words = 32
/** A datagram that is further behind the latest than this is taken for one that came. */
export const windowSize = words * 32

export class ReplayWindow {
  #highest = -1
  /** Counter n is bit n % 32 of word (n / 32) % words. */
  readonly #seen = new Uint32Array(words)

  /** Whether it comes for the first time; afterwards it has come. */
  admit(counter: number): boolean {
    if (counter + windowSize <= this.#highest) return false
    if (counter > this.#highest) {
      this.#clear(this.#highest + 1, counter)
      this.#highest = counter
    }
    const word = Math.floor(counter / 32) % words
    const bit = 2 ** (counter % 32)
    const seen = this.#seen[word] ?? 0
    if (Math.floor(seen / bit) % 2 === 1) return false
    this.#seen[word] = seen + bit
    return true
  }

  /** What the bits from here to there stood for is out of the window now. */
  #clear(from: number, to: number): void {
    if (to - from >= windowSize) {
      this.#seen.fill(0)
      return
    }
    for (let counter = from; counter <= to; counter++) {
      const word = Math.floor(counter / 32) % words
      const bit = 2 ** (counter % 32)
      const seen = this.#seen[word] ?? 0
      if (Math.floor(seen / bit) % 2 === 1) this.#seen[word] = seen - bit
    }
  }
}
