/**
 * What a replica keeps as records that can be verified (ADR 12): each has its place, and a checksum over whose it is, its
 * place, what it says, and the checksum of the one before it. So a record that is changed, missing, or written to the place
 * of another is found when the file is opened. Beside the records lies a mark: up to where all of them were on the disk
 * before anything was answered by them.
 */
export interface Sealed {
  /** From 1 on, without gaps. */
  readonly sequence: number
  readonly text: string
  readonly checksum: number
}

/** What is found at a place; null where nothing can be read. */
export type Found = Sealed | null

export type Opened =
  /** All that was found. */
  | { readonly state: "whole"; readonly intact: number }
  /** What follows the first `intact` ones was never acknowledged, and is to be cut off. */
  | { readonly state: "torn"; readonly intact: number }
  /** Of what was acknowledged something is gone: whoever kept it must not take part as if it still had it. */
  | { readonly state: "damaged"; readonly intact: number }

/** The one after `previous`; its text may be anything. */
export function seal(owner: string, previous: Sealed | null, text: string): Sealed {
  const sequence = (previous?.sequence ?? 0) + 1
  return { sequence, text, checksum: checksumOf(owner, sequence, previous?.checksum ?? 0, text) }
}

/**
 * Verify records in their places. `acknowledged` is the mark, 0 for none. The first ones that are `known` were verified
 * before and not touched since.
 */
export function open(owner: string, found: ReadonlyArray<Found>, acknowledged: number, known = 0): Opened {
  let previous = known > 0 ? (found[known - 1] ?? null) : null
  let intact = previous === null ? 0 : known
  for (; intact < found.length; intact++) {
    const one = found[intact] ?? null
    if (one === null || one.sequence !== intact + 1) break
    if (one.checksum !== checksumOf(owner, one.sequence, previous?.checksum ?? 0, one.text)) break
    previous = one
  }
  if (intact < acknowledged) return { state: "damaged", intact }
  return { state: intact < found.length ? "torn" : "whole", intact }
}

const checksumOf = (owner: string, sequence: number, previous: number, text: string): number =>
  crc32c(`${owner}\0${sequence}\0${previous}\0${text}`)

/** CRC-32C (Castagnoli; RFC 3720, appendix B.4) of a text's UTF-16 code units, the lower byte first. */
export function crc32c(text: string): number {
  let crc = 0xffffffff
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at)
    crc = (table[(crc ^ unit) & 0xff] as number) ^ (crc >>> 8)
    crc = (table[(crc ^ (unit >>> 8)) & 0xff] as number) ^ (crc >>> 8)
  }
  return ~crc >>> 0
}

const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
  return crc
})
