/**
 * Whom to probe next: all members in a random order, and then all in another (SWIM, 4.3), so that nobody waits for longer
 * than two rounds. The order is a permutation by a key, a Feistel network over the places: nothing of it has to be kept.
 */
export interface Round {
  readonly key: number
  readonly size: number
  /** How many were taken. */
  readonly taken: number
}

export const noRound: Round = { key: 0, size: 0, taken: 0 }

function scrambled(value: number, key: number): number {
  let z = Math.imul(value ^ key ^ (key >>> 15), 0x2c1b3c6d)
  z = Math.imul(z ^ (z >>> 12), 0x297a2d39)
  return (z ^ (z >>> 15)) >>> 0
}

/** Where `index` of a permutation of `size` places lands; each from 0 to `size - 1` once. */
export function permuted(index: number, size: number, key: number): number {
  if (size <= 1) return 0
  const half = Math.ceil(Math.log2(size) / 2)
  const mask = 2 ** half - 1
  let place = index
  // What falls outside goes around again; at most one in four stays inside.
  do {
    let [left, right] = [place >>> half, place & mask]
    for (let turn = 0; turn < 4; turn++)
      [left, right] = [right, left ^ (scrambled(right, key + turn * 0x9e3779b9) & mask)]
    place = (left << half) | right
  } while (place >= size)
  return place
}
