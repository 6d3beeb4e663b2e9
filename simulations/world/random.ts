/**
 * Chance in the simulated world: sfc32 (Doty-Humphrey, PractRand), seeded through splitmix32. `split` gives an
 * independent generator for a name, so that one part's draws don't shift another's.
 */
export interface Random {
  /** From 0 up to, not including, 1. */
  readonly next: () => number
  readonly chance: (probability: number) => boolean
  /** From `low` to `high`, both included. */
  readonly int: (low: number, high: number) => number
  readonly split: (name: string) => Random
}

export function makeRandom(seed: number): Random {
  let mixed = seed >>> 0
  const mix = (): number => {
    mixed = (mixed + 0x9e3779b9) >>> 0
    let z = mixed
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad)
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
    return (z ^ (z >>> 15)) >>> 0
  }
  let [a, b, c, counter] = [mix(), mix(), mix(), 1]
  const draw = (): number => {
    const sum = (a + b + counter) >>> 0
    counter = (counter + 1) >>> 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) >>> 0
    c = (((c << 21) | (c >>> 11)) + sum) >>> 0
    return sum
  }
  for (let n = 0; n < 12; n++) draw()
  const next = () => draw() / 2 ** 32
  return {
    next,
    chance: (probability) => next() < probability,
    int: (low, high) => low + Math.floor(next() * (high - low + 1)),
    split: (name) =>
      makeRandom(Array.from(name).reduce((sum, letter) => Math.imul(sum, 31) + letter.charCodeAt(0), seed))
  }
}
