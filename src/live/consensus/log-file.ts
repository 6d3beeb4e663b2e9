/**
 * What a member of a group keeps (ADR 15): its facts, in files that only grow. The order of the group is durable when it lies here, at
 * a majority; the journal follows it.
 *
 *     <first record's number, 16 hexadecimal digits>.log     record | record | … | zeros
 *     record:  u32 length of the payload | u32 CRC-32 of number, length and payload | payload (codec.ts)
 *     acknowledged                                           number of the last record whose sync has ended, and its CRC-32
 *
 * Records have numbers without gaps; a record's number is not in it but in its checksum, so that one in a wrong place is none. A
 * file is extended by zeros ahead of what is written, so that a sync has no new size to write. At the opening everything is
 * read: a last record that is not whole was never acknowledged, and is cut off; anything else is damage, and the member must not
 * take part as if it had lost nothing.
 *
 * A new file begins with what is known as one record, and then the older ones go: that is how the log forgets.
 */
import {
  closeSync,
  existsSync,
  fdatasync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeSync
} from "node:fs"
import { join } from "node:path"
import { crc32 } from "node:zlib"
import { Schema } from "effect"
import type { Message } from "../../events/envelope.ts"
import { decodeFacts, encodeFacts, NotUnderstood } from "./codec.ts"

/** What lies there is not what was written, or can't be read or written at all. */
export class LogDamaged extends Schema.TaggedError<LogDamaged>()("LogDamaged", {
  path: Schema.String,
  record: Schema.Int,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.path} is damaged at record ${this.record}: ${this.reason}`
  }
}

const headerBytes = 8
/** Written ahead, so that syncs have no metadata to write. */
const growBytes = 4 * 1024 * 1024
const zeros = Buffer.alloc(growBytes)
/** No record is larger: it holds at most what one step of a member records. */
const recordBytes_max = 256 * 1024 * 1024
/** A file that is larger is begun anew when the log has forgotten something. */
const fileBytesDefault_max = 64 * 1024 * 1024

export interface LogFileOptions {
  readonly folder: string
  readonly fileBytes_max?: number
  /** A write or a sync has failed: nothing that is not acknowledged counts, and nothing more is written. */
  readonly onFailure: (error: Error) => void
}

interface Pending {
  readonly record: Buffer
  readonly stored: () => void
  /** Of the record that a new file begins with; null for all others. */
  readonly begins: number | null
}

const numberBytes = Buffer.alloc(8)

/** Over the number, the length and the payload, which begins `headerBytes` after the record does. */
function sumOf(number: number, record: Buffer): number {
  numberBytes.writeDoubleLE(number)
  const before = crc32(record.subarray(0, 4), crc32(numberBytes))
  return crc32(record.subarray(headerBytes), before)
}

function recordOf(number: number, facts: ReadonlyArray<Message>): Buffer {
  const record = encodeFacts(facts, headerBytes)
  record.writeUInt32LE(record.length - headerBytes, 0)
  record.writeUInt32LE(sumOf(number, record), 4)
  return record
}

const fileName = (first: number) => `${first.toString(16).padStart(16, "0")}.log`
const filePattern = /^[0-9a-f]{16}\.log$/

interface Found {
  readonly facts: ReadonlyArray<Message>
  /** Of the next record. */
  readonly number: number
  /** Where it goes. */
  readonly end: number
  /** Something behind is neither a record nor zeros: a write that was not finished. */
  readonly isTorn: boolean
}

/** All whole records of a file, from the first on. */
function readRecords(bytes: Buffer, first: number): Found {
  const facts: Array<Message> = []
  let [at, number] = [0, first]
  for (;;) {
    const length = at + headerBytes <= bytes.length ? bytes.readUInt32LE(at) : 0
    const end = at + headerBytes + length
    const isWhole = length > 0 && length <= recordBytes_max && end <= bytes.length
    const record = isWhole ? bytes.subarray(at, end) : null
    if (record === null || record.readUInt32LE(4) !== sumOf(number, record)) {
      const isTorn = bytes.subarray(at).some((octet) => octet !== 0)
      return { facts, number, end: at, isTorn }
    }
    facts.push(...decodeFacts(record.subarray(headerBytes)))
    at = end
    number++
  }
}

/** Whether a whole record with a later number lies behind a place where there is none: then that one is damaged. */
function hasLater(bytes: Buffer, { number, end }: Found): boolean {
  const length = end + headerBytes <= bytes.length ? bytes.readUInt32LE(end) : 0
  const next = end + headerBytes + length
  if (length === 0 || length > recordBytes_max || next >= bytes.length) return false
  return readRecords(bytes.subarray(next), number + 1).number > number + 1
}

const acknowledgedName = "acknowledged"
const acknowledgedBytes = 12

export class LogFile {
  readonly #folder: string
  readonly #options: LogFileOptions
  #descriptor: number
  #path: string
  #number: number
  /** Where the next record goes, and how far the file was filled. */
  #end: number
  #filled: number
  readonly #acknowledged: number
  readonly #line = Buffer.alloc(acknowledgedBytes)
  #pending: Array<Pending> = []
  #isSyncing = false
  #isClosed = false
  #failure: Error | null = null
  /** What the files had at the opening. */
  readonly facts: ReadonlyArray<Message>

  private constructor(
    options: LogFileOptions,
    file: {
      readonly path: string
      readonly descriptor: number
      readonly first: number
      readonly bytes: number
    },
    found: Found,
    acknowledged: number
  ) {
    this.#options = options
    this.#folder = options.folder
    this.#path = file.path
    this.#descriptor = file.descriptor
    this.#number = found.number
    this.#end = found.end
    this.#filled = file.bytes
    this.#acknowledged = acknowledged
    this.facts = found.facts
  }

  /** Makes the folder when it is missing. Throws the system's errors. */
  static open(options: LogFileOptions): LogFile | LogDamaged {
    const { folder } = options
    if (!existsSync(folder)) mkdirSync(folder, { mode: 0o700 })
    const names = readdirSync(folder)
      .filter((name) => filePattern.test(name))
      .sort()
    const acknowledged = openSync(join(folder, acknowledgedName), "a+", 0o600)
    closeSync(acknowledged)
    const told = readAcknowledged(join(folder, acknowledgedName))
    const damaged = (path: string, record: number, reason: string) => new LogDamaged({ path, record, reason })
    // The latest file that begins with a whole record has everything: an older one is left of a change of files, and so
    // is a later one that was not finished.
    for (const name of names.toReversed()) {
      const path = join(folder, name)
      const first = Number.parseInt(name.slice(0, 16), 16)
      const bytes = readFileSync(path)
      let found: Found
      try {
        found = readRecords(bytes, first)
      } catch (error) {
        if (!(error instanceof NotUnderstood)) throw error
        return damaged(path, first, `its checksum is right, and yet ${error.message}`)
      }
      if (hasLater(bytes, found))
        return damaged(path, found.number, "later records are whole, this one is not")
      if (found.number === first && name !== names[0]) continue
      if (told !== null && told >= found.number)
        return damaged(path, found.number, `up to ${told} was acknowledged, and this one is not there`)
      return LogFile.#opened(options, { path, first, bytes: bytes.length }, found, names)
    }
    if (told !== null) return damaged(folder, 0, `up to ${told} was acknowledged, and no record is there`)
    return LogFile.#opened(
      options,
      { path: join(folder, fileName(0)), first: 0, bytes: 0 },
      { facts: [], number: 0, end: 0, isTorn: false },
      names
    )
  }

  static #opened(
    options: LogFileOptions,
    file: { readonly path: string; readonly first: number; readonly bytes: number },
    found: Found,
    names: ReadonlyArray<string>
  ): LogFile {
    const descriptor = openSync(file.path, file.bytes === 0 ? "w+" : "r+", 0o600)
    if (found.isTorn) ftruncateSync(descriptor, found.end)
    fsyncSync(descriptor)
    for (const name of names) {
      const path = join(options.folder, name)
      if (path !== file.path) rmSync(path)
    }
    syncFolder(options.folder)
    const acknowledged = openSync(join(options.folder, acknowledgedName), "r+")
    const bytes = found.isTorn ? found.end : file.bytes
    return new LogFile(options, { ...file, descriptor, bytes }, found, acknowledged)
  }

  /** Whether the file is so large that it should be begun anew. */
  get isLarge(): boolean {
    return this.#end > (this.#options.fileBytes_max ?? fileBytesDefault_max)
  }

  /** `stored` is told, in the order of asking, when these facts would be found after a power failure. */
  append(facts: ReadonlyArray<Message>, stored: () => void): void {
    if (this.#failure !== null || this.#isClosed) return
    this.#pending.push({ record: recordOf(this.#number++, facts), stored, begins: null })
    if (!this.#isSyncing) this.#write()
  }

  /** A new file, which begins with these facts: they stand for all that were given before. The one before is removed. */
  rewrite(facts: ReadonlyArray<Message>): void {
    if (this.#failure !== null || this.#isClosed) return
    const number = this.#number++
    this.#pending.push({ record: recordOf(number, facts), stored: () => {}, begins: number })
    if (!this.#isSyncing) this.#write()
  }

  /** One write and one sync for all that has gathered. */
  #write(): void {
    const begins = this.#pending.findIndex((one) => one.begins !== null)
    const batch = this.#pending.splice(0, begins < 0 ? this.#pending.length : Math.max(1, begins))
    this.#isSyncing = true
    const last = this.#number - 1 - this.#pending.length
    const old = begins === 0 ? { path: this.#path, descriptor: this.#descriptor } : null
    try {
      if (old !== null) this.#begin(batch[0]?.begins ?? 0)
      const records = batch.map(({ record }) => record)
      const bytes = records.length === 1 ? (records[0] as Buffer) : Buffer.concat(records)
      this.#fill(this.#end + bytes.length)
      writeAll(this.#descriptor, bytes, this.#end)
      this.#end += bytes.length
    } catch (error) {
      return this.#fail(error as Error)
    }
    const descriptor = this.#descriptor
    fdatasync(descriptor, (error) => {
      this.#isSyncing = false
      if (old !== null) closeSync(old.descriptor)
      if (this.#isClosed) return closeSync(descriptor)
      if (error !== null) return this.#fail(error)
      if (old !== null) this.#remove(old.path)
      this.#acknowledge(last)
      // The disk goes on while those are told whom it is done with.
      if (this.#pending.length > 0) this.#write()
      for (const { stored } of batch) {
        if (this.#failure !== null || this.#isClosed) return
        stored()
      }
    })
  }

  #begin(number: number): void {
    this.#path = join(this.#folder, fileName(number))
    this.#descriptor = openSync(this.#path, "w+", 0o600)
    this.#end = 0
    this.#filled = 0
  }

  /** The new file is found after a crash before the old one is not. */
  #remove(path: string): void {
    try {
      syncFolder(this.#folder)
      rmSync(path)
    } catch (error) {
      this.#fail(error as Error)
    }
  }

  #fill(end: number): void {
    while (this.#filled < end) {
      writeAll(this.#descriptor, zeros, this.#filled)
      this.#filled += zeros.length
    }
  }

  /** Not synced: it is never ahead of the records, and after a power failure an older one only checks less. */
  #acknowledge(last: number): void {
    this.#line.writeDoubleLE(last, 0)
    this.#line.writeUInt32LE(crc32(this.#line.subarray(0, 8)), 8)
    writeSync(this.#acknowledged, this.#line, 0, acknowledgedBytes, 0)
  }

  /** The system may have let go of what it could not write, and call the next sync a success: nothing is written any more. */
  #fail(error: Error): void {
    this.#failure = error
    this.#pending = []
    this.#options.onFailure(error)
  }

  /** What is under way is not told any more. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    // A number that is closed under a running sync may by then be another file's.
    if (!this.#isSyncing) closeSync(this.#descriptor)
    closeSync(this.#acknowledged)
  }
}

function writeAll(descriptor: number, bytes: Buffer, position: number): void {
  let written = 0
  while (written < bytes.length)
    written += writeSync(descriptor, bytes, written, bytes.length - written, position + written)
}

function syncFolder(folder: string): void {
  const descriptor = openSync(folder, "r")
  try {
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
}

/** Null while nothing was acknowledged, or when nobody can tell: then less is checked. */
function readAcknowledged(path: string): number | null {
  const bytes = readFileSync(path)
  if (bytes.length !== acknowledgedBytes || bytes.readUInt32LE(8) !== crc32(bytes.subarray(0, 8))) return null
  return bytes.readDoubleLE(0)
}
