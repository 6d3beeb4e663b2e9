/**
 * Which ids may be stored: a Bloom filter (Bloom 1970, "Space/time trade-offs in hash coding with allowable errors"), by their
 * hashes. It never denies an id that was added; of those that were not, it denies all but some in a thousand while it is not full.
 */
const probes = 6
const bitsPerId = 16
const ids_min = 1 << 17
/** 32 MiB of bits; beyond it more ids are looked for in vain, and none is missed. */
const ids_max = 1 << 24

export class IdFilter {
  readonly #words: Uint32Array
  readonly #mask: number
  #ids = 0

  /** For this many ids, and at least as many again. */
  constructor(ids: number) {
    const wanted = Math.min(ids_max, Math.max(ids_min, 2 * ids))
    const bits = bitsPerId * 2 ** Math.ceil(Math.log2(wanted))
    this.#words = new Uint32Array(bits / 32)
    this.#mask = bits - 1
  }

  /** A larger one would deny more. */
  get isFull(): boolean {
    const capacity = (this.#mask + 1) / bitsPerId
    return this.#ids >= capacity && capacity < ids_max
  }

  add(hash: number): void {
    this.#ids++
    let bit = mixed(hash)
    const step = mixed(hash ^ 0x9e3779b9) | 1
    for (let probe = 0; probe < probes; probe++) {
      const at = bit & this.#mask
      this.#words[at >>> 5] = (this.#words[at >>> 5] as number) | (1 << (at & 31))
      bit += step
    }
  }

  mayHave(hash: number): boolean {
    let bit = mixed(hash)
    const step = mixed(hash ^ 0x9e3779b9) | 1
    for (let probe = 0; probe < probes; probe++) {
      const at = bit & this.#mask
      if (((this.#words[at >>> 5] as number) & (1 << (at & 31))) === 0) return false
      bit += step
    }
    return true
  }
}

/** 32 bits of a stream's id, FNV-1a (Fowler, Noll, Vo) over the characters. They are stored, so they stay as they are. */
export function hashOf(stream: number, id: string): number {
  let hash = Math.imul(0x811c9dc5 ^ stream, 0x01000193)
  for (let place = 0; place < id.length; place++) hash = Math.imul(hash ^ id.charCodeAt(place), 0x01000193)
  return hash >>> 0
}

/** The finalizer of MurmurHash3 (Appleby): every bit of what comes out depends on every bit of what went in. */
function mixed(hash: number): number {
  let bits = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35)
  return (bits ^ (bits >>> 16)) >>> 0
}
