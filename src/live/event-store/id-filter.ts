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

/** 32 bits of an id and its stream. */
export type IdHash = (stream: number, id: string) => number

export const keyBytes = 8
const finalRounds = 3

/**
 * HalfSipHash-1-3 (Aumasson and Bernstein 2012, "SipHash: a fast short-input PRF", with 32-bit words and the rounds that Linux has
 * for its tables) over the stream's 32 bits and the id's UTF-16 units, the lowest octet first. Who does not know the key, of
 * `keyBytes` octets, can't choose ids that have one hash. The hashes are stored, so they stay as they are.
 */
export function idHash(key: Uint8Array): IdHash {
  const view = new DataView(key.buffer, key.byteOffset, keyBytes)
  const [k0, k1] = [view.getInt32(0, true), view.getInt32(4, true)]
  return (stream, id) => {
    let [v0, v1, v2, v3] = [k0, k1, 0x6c796765 ^ k0, 0x74656462 ^ k1]
    const pairs = id.length >> 1
    const last = ((4 + 2 * id.length) << 24) | (id.length % 2 === 1 ? id.charCodeAt(id.length - 1) : 0)
    for (let word = -1; word <= pairs + finalRounds; word++) {
      let m = 0
      if (word < 0) m = stream
      else if (word < pairs) m = id.charCodeAt(2 * word) | (id.charCodeAt(2 * word + 1) << 16)
      else if (word === pairs) m = last
      else if (word === pairs + 1) v2 ^= 0xff
      v3 ^= m
      v0 = (v0 + v1) | 0
      v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0
      v0 = (v0 << 16) | (v0 >>> 16)
      v2 = (v2 + v3) | 0
      v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2
      v0 = (v0 + v3) | 0
      v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0
      v2 = (v2 + v1) | 0
      v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2
      v2 = (v2 << 16) | (v2 >>> 16)
      v0 ^= m
    }
    return (v1 ^ v3) >>> 0
  }
}

/** The finalizer of MurmurHash3 (Appleby): every bit of what comes out depends on every bit of what went in. */
function mixed(hash: number): number {
  let bits = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35)
  return (bits ^ (bits >>> 16)) >>> 0
}
