/**
 * The part of DER (X.690) that two kinds of certificate and one kind of request need: a writer, and a reader that
 * accepts definite lengths in their shortest form and nothing else.
 */

export const tag = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  objectIdentifier: 0x06,
  utf8String: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31
} as const

/** One element: its tag, the contents, and the element as it lies in the input. */
export interface Element {
  readonly tag: number
  readonly content: Buffer
  readonly whole: Buffer
}

export function element(tagByte: number, ...parts: ReadonlyArray<Uint8Array>): Buffer {
  const content = Buffer.concat(parts)
  return Buffer.concat([Buffer.from([tagByte]), lengthOctets(content.length), content])
}

function lengthOctets(length: number): Buffer {
  if (length < 0x80) return Buffer.from([length])
  const digits: Array<number> = []
  for (let rest = length; rest > 0; rest = Math.floor(rest / 256)) digits.unshift(rest % 256)
  return Buffer.from([0x80 | digits.length, ...digits])
}

export const sequence = (...parts: ReadonlyArray<Uint8Array>) => element(tag.sequence, ...parts)
export const set = (...parts: ReadonlyArray<Uint8Array>) => element(tag.set, ...parts)
export const octetString = (content: Uint8Array) => element(tag.octetString, content)
export const utf8String = (text: string) => element(tag.utf8String, Buffer.from(text, "utf8"))
export const booleanTrue = () => element(tag.boolean, Buffer.from([0xff]))
/** `[n]` explicit, constructed. */
export const explicit = (n: number, ...parts: ReadonlyArray<Uint8Array>) => element(0xa0 | n, ...parts)
/** `[n]` implicit, primitive. */
export const implicit = (n: number, content: Uint8Array) => element(0x80 | n, content)

/** A non-negative integer from its big-endian bytes. */
export function integer(bytes: Uint8Array): Buffer {
  let start = 0
  while (start < bytes.length - 1 && bytes[start] === 0) start += 1
  const trimmed = Buffer.from(bytes.subarray(start))
  const negative = ((trimmed[0] ?? 0) & 0x80) !== 0
  return element(tag.integer, negative ? Buffer.concat([Buffer.from([0]), trimmed]) : trimmed)
}

export const smallInteger = (value: number) => integer(Buffer.from([value]))

/** `unusedBits` counts from the last byte's lowest bit. */
export const bitString = (content: Uint8Array, unusedBits = 0) =>
  element(tag.bitString, Buffer.from([unusedBits]), content)

export function objectIdentifier(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number)
  const bytes: Array<number> = [first * 40 + second]
  for (const arc of rest) {
    const digits = [arc % 128]
    for (let high = Math.floor(arc / 128); high > 0; high = Math.floor(high / 128)) {
      digits.unshift((high % 128) | 0x80)
    }
    bytes.push(...digits)
  }
  return element(tag.objectIdentifier, Buffer.from(bytes))
}

/** RFC 5280, 4.1.2.5: UTCTime to 2049, GeneralizedTime from 2050, whole seconds, Zulu. */
export function time(timeMs: number): Buffer {
  const text = new Date(timeMs).toISOString().replace(/[-:T]|\.\d+/g, "")
  return new Date(timeMs).getUTCFullYear() < 2050
    ? element(tag.utcTime, Buffer.from(text.slice(2)))
    : element(tag.generalizedTime, Buffer.from(text))
}

/** The elements that fill `input` exactly, or null when it is not such DER. */
export function readElements(input: Buffer): ReadonlyArray<Element> | null {
  const found: Array<Element> = []
  let offset = 0
  while (offset < input.length) {
    const next = readElement(input, offset)
    if (next === null) return null
    found.push(next)
    offset += next.whole.length
  }
  return found
}

function readElement(input: Buffer, offset: number): Element | null {
  const tagByte = input[offset]
  const first = input[offset + 1]
  if (tagByte === undefined || first === undefined || (tagByte & 0x1f) === 0x1f) return null
  let length = first
  let start = offset + 2
  if (first >= 0x80) {
    const count = first & 0x7f
    if (count < 1 || count > 4 || start + count > input.length) return null
    length = input.readUIntBE(start, count)
    if (length < 0x80 || (count > 1 && input[start] === 0)) return null
    start += count
  }
  const end = start + length
  if (end > input.length) return null
  return { tag: tagByte, content: input.subarray(start, end), whole: input.subarray(offset, end) }
}
