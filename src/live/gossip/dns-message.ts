/** DNS messages (RFC 1035, 4.1) as far as multicast DNS needs them: questions, and PTR, SRV, TXT, A and AAAA records. */
export const recordTypes = { a: 1, ptr: 12, txt: 16, aaaa: 28, srv: 33 } as const

export interface Question {
  readonly name: string
  readonly type: number
}

export interface DnsRecord {
  readonly name: string
  readonly type: number
  readonly ttlSeconds: number
  /** As it stands in the message; names in it are not compressed. */
  readonly data: Buffer
}

export interface DnsMessage {
  readonly isAnswer: boolean
  readonly questions: ReadonlyArray<Question>
  readonly records: ReadonlyArray<DnsRecord>
}

const labelBytes_max = 63
const nameBytes_max = 255
/** Of each section; more are no message for this reader. */
const entries_max = 256
/** Multicast DNS: a response, with authority. */
const answerFlags = 0x8400
/** Internet; the top bit, cache flush, is not looked at. */
const internet = 1

export function encodeName(name: string): Buffer {
  const parts = name.split(".").map((label) => Buffer.from(label, "utf8"))
  if (parts.some(({ length }) => length === 0 || length > labelBytes_max))
    throw new Error(`dns: ${name} is no name`)
  return Buffer.concat([...parts.flatMap((part) => [Buffer.from([part.length]), part]), Buffer.from([0])])
}

const u16 = (...values: ReadonlyArray<number>): Buffer => {
  const bytes = Buffer.alloc(values.length * 2)
  for (const [at, value] of values.entries()) bytes.writeUInt16BE(value, at * 2)
  return bytes
}

export function encodeMessage({ isAnswer, questions, records }: DnsMessage): Buffer {
  const parts = [u16(0, isAnswer ? answerFlags : 0, questions.length, records.length, 0, 0)]
  for (const { name, type } of questions) parts.push(encodeName(name), u16(type, internet))
  for (const { name, type, ttlSeconds, data } of records)
    parts.push(encodeName(name), u16(type, internet, 0, ttlSeconds, data.length), data)
  return Buffer.concat(parts)
}

export const srvData = (port: number, target: string): Buffer =>
  Buffer.concat([u16(0, 0, port), encodeName(target)])

export const readSrv = (data: Buffer): { readonly port: number; readonly target: string } | null => {
  if (data.length < 7) return null
  const name = readName(data, 6)
  return name === null ? null : { port: data.readUInt16BE(4), target: name.name }
}

export const txtData = (texts: ReadonlyArray<string>): Buffer =>
  Buffer.concat(
    texts.map((text) => Buffer.concat([Buffer.from([Buffer.byteLength(text)]), Buffer.from(text)]))
  )

export function readTxt(data: Buffer): ReadonlyArray<string> {
  const texts: Array<string> = []
  for (let at = 0; at < data.length; at += 1 + (data[at] ?? 0))
    texts.push(data.toString("utf8", at + 1, at + 1 + (data[at] ?? 0)))
  return texts
}

/** A name, compressed or not, in lower case; and where it ends. Null when it is none. */
export function readName(
  bytes: Buffer,
  from: number
): { readonly name: string; readonly end: number } | null {
  const labels: Array<string> = []
  let [at, end, size] = [from, -1, 0]
  for (;;) {
    const length = bytes[at]
    if (length === undefined) return null
    if (length === 0) return { name: labels.join("."), end: end < 0 ? at + 1 : end }
    if (length >= 0xc0) {
      const target = ((length & 0x3f) << 8) | (bytes[at + 1] ?? 0)
      if (end < 0) end = at + 2
      // Only backwards, so that it comes to an end.
      if (target >= at) return null
      at = target
      continue
    }
    size += length + 1
    if (length > labelBytes_max || size > nameBytes_max || at + 1 + length > bytes.length) return null
    labels.push(bytes.toString("utf8", at + 1, at + 1 + length).toLowerCase())
    at += 1 + length
  }
}

/** Null for what is no message. */
export function decodeMessage(bytes: Buffer): DnsMessage | null {
  if (bytes.length < 12) return null
  const [questionCount, ...recordCounts] = [4, 6, 8, 10].map((at) => bytes.readUInt16BE(at))
  const recordCount = recordCounts.reduce((sum, one) => sum + one, 0)
  if ((questionCount ?? 0) > entries_max || recordCount > entries_max) return null
  const questions: Array<Question> = []
  const records: Array<DnsRecord> = []
  let at = 12
  for (let n = 0; n < (questionCount ?? 0); n++) {
    const name = readName(bytes, at)
    if (name === null || name.end + 4 > bytes.length) return null
    questions.push({ name: name.name, type: bytes.readUInt16BE(name.end) })
    at = name.end + 4
  }
  for (let n = 0; n < recordCount; n++) {
    const record = readRecord(bytes, at)
    if (record === null) return null
    records.push(record.record)
    at = record.end
  }
  return { isAnswer: (bytes.readUInt16BE(2) & 0x8000) !== 0, questions, records }
}

function readRecord(
  bytes: Buffer,
  from: number
): { readonly record: DnsRecord; readonly end: number } | null {
  const name = readName(bytes, from)
  if (name === null || name.end + 10 > bytes.length) return null
  const type = bytes.readUInt16BE(name.end)
  const ttlSeconds = bytes.readUInt32BE(name.end + 4)
  const start = name.end + 10
  const end = start + bytes.readUInt16BE(name.end + 8)
  if (end > bytes.length) return null
  let data: Buffer = bytes.subarray(start, end)
  // Names in them may point to other places of the message.
  if (type === recordTypes.ptr || type === recordTypes.srv) {
    const before = type === recordTypes.srv ? 6 : 0
    const inner = readName(bytes, start + before)
    if (inner === null || inner.name === "") return null
    data = Buffer.concat([data.subarray(0, before), encodeName(inner.name)])
  }
  return { record: { name: name.name, type, ttlSeconds, data }, end }
}
