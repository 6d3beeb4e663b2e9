/**
 * A row of the index of streams: consecutive facts of one stream. `revision` is the first one's, `position` where it is, and
 * `places` has 32 bits for each, the lowest octet first: how far behind `position` they are, and then the hashes of their ids.
 */
import { endianness } from "node:os"
import type { DatabaseSync, StatementSync } from "node:sqlite"
import type { IdHash } from "./id-filter.ts"
import { idOf } from "./rows.ts"

/** Consecutive facts of one stream. */
export interface Part {
  readonly firstRevision: number
  readonly count: number
  /** Of the fact at this place, 0 the first one's. */
  readonly positionAt: (place: number) => number
  /** Of its id. */
  readonly hashAt: (place: number) => number
  /** The last place up to `last` whose id has this hash; -1 when there is none. */
  readonly lastOf: (hash: number, last: number) => number
}

/** One that grows. */
export class RecentPart implements Part {
  readonly firstRevision: number
  readonly #positions: Array<number> = []
  readonly #hashes: Array<number> = []

  constructor(firstRevision: number) {
    this.firstRevision = firstRevision
  }

  get count(): number {
    return this.#positions.length
  }

  positionAt(place: number): number {
    return this.#positions[place] as number
  }

  hashAt(place: number): number {
    return this.#hashes[place] as number
  }

  lastOf(hash: number, last: number): number {
    return last < 0 ? -1 : this.#hashes.lastIndexOf(hash, last)
  }

  push(position: number, hash: number): void {
    this.#positions.push(position)
    this.#hashes.push(hash)
  }

  pop(): void {
    this.#positions.pop()
    this.#hashes.pop()
  }
}

const entryBytes = 8
/** So that SQLite keeps a row in one piece: of a table without row ids up to some 1,000 octets in pages of 4 KiB. */
export const partFacts_max = 120
const offset_max = 0xffffffff

const isLittleEndian = endianness() === "LE"

/** What is damaged has fewer facts, as whoever reads on sees by the revisions, or other ones. */
export class StoredPart implements Part {
  readonly stream: number
  readonly firstRevision: number
  readonly count: number
  readonly #position: number
  readonly #offsets: Uint32Array
  readonly #hashes: Uint32Array

  constructor([stream, revision, position, places]: Row) {
    this.stream = stream
    this.firstRevision = revision
    this.count = Math.floor(places.length / entryBytes)
    this.#position = position
    const words = new Uint32Array(2 * this.count)
    const octets = Buffer.from(words.buffer)
    octets.set(places.subarray(0, octets.length))
    if (!isLittleEndian) octets.swap32()
    this.#offsets = words.subarray(0, this.count)
    this.#hashes = words.subarray(this.count)
  }

  positionAt(place: number): number {
    return this.#position + (this.#offsets[place] as number)
  }

  hashAt(place: number): number {
    return this.#hashes[place] as number
  }

  lastOf(hash: number, last: number): number {
    return last < 0 ? -1 : this.#hashes.lastIndexOf(hash, last)
  }
}

type Row = readonly [stream: number, revision: number, position: number, places: Uint8Array]

/** Within transactions of the caller. */
export class PartWriter {
  readonly #insert: StatementSync
  /** SQLite copies what it is given. */
  readonly #places = new Uint8Array(partFacts_max * entryBytes)
  readonly #view = new DataView(this.#places.buffer)

  constructor(database: DatabaseSync) {
    this.#insert = database.prepare(
      "insert into stream_index (stream, revision, position, places) values (?, ?, ?, ?)"
    )
  }

  /** As many rows as it takes. */
  write(stream: number, part: Part): void {
    for (let begin = 0; begin < part.count;) {
      const count = this.#countFrom(part, begin)
      const position = part.positionAt(begin)
      for (let place = 0; place < count; place++) {
        this.#view.setUint32(4 * place, part.positionAt(begin + place) - position, true)
        this.#view.setUint32(4 * (count + place), part.hashAt(begin + place), true)
      }
      const places = this.#places.subarray(0, entryBytes * count)
      this.#insert.run(stream, part.firstRevision + begin, position, places)
      begin += count
    }
  }

  /** How many facts from this place on fit into a row. */
  #countFrom(part: Part, begin: number): number {
    const end = Math.min(part.count, begin + partFacts_max)
    const first = part.positionAt(begin)
    let place = begin + 1
    while (place < end && part.positionAt(place) - first <= offset_max) place++
    return place - begin
  }
}

/** Within a transaction of the caller: rows for all facts there are. */
export function writeAllParts(database: DatabaseSync, hashOf: IdHash): void {
  const writer = new PartWriter(database)
  const facts = database.prepare(
    "select stream, revision, position, fact from events order by stream, revision"
  )
  facts.setReturnArrays(true)
  let of = -1
  let part = new RecentPart(0)
  for (const fact of facts.iterate()) {
    const [stream, revision, position, text] = fact as unknown as readonly [number, number, number, string]
    if (stream !== of || part.count >= partFacts_max) {
      writer.write(of, part)
      of = stream
      part = new RecentPart(revision)
    }
    // One that is damaged is found by the chain.
    part.push(position, hashOf(stream, idOf(text) ?? ""))
  }
  writer.write(of, part)
}

/** The rows, read one by one. */
export class PartReader {
  readonly #backwards: StatementSync
  readonly #from: StatementSync
  readonly #after: StatementSync

  constructor(database: DatabaseSync) {
    const prepare = (where: string) => {
      const statement = database.prepare(
        `select stream, revision, position, places from stream_index where ${where}`
      )
      statement.setReturnArrays(true)
      return statement
    }
    this.#backwards = prepare("stream = ? and revision <= ? order by revision desc")
    // The row that has the revision begins with it, or before it.
    this.#from = prepare(
      `stream = ?1 and revision >= coalesce(
         (select max(revision) from stream_index where stream = ?1 and revision <= ?2), 0) order by revision`
    )
    this.#after = prepare("(stream, revision) > (?, ?) order by stream, revision")
  }

  /** Of a stream, from the one with this revision on, towards the first. */
  backwards(stream: number, revision = Number.MAX_SAFE_INTEGER): Generator<StoredPart> {
    return read(this.#backwards, stream, revision)
  }

  /** Of a stream, from the one with this revision on, towards the last. */
  from(stream: number, revision: number): Generator<StoredPart> {
    return read(this.#from, stream, revision)
  }

  /** Of all streams, those behind this one. */
  after(stream: number, revision: number): Generator<StoredPart> {
    return read(this.#after, stream, revision)
  }
}

function* read(statement: StatementSync, stream: number, revision: number): Generator<StoredPart> {
  for (const row of statement.iterate(stream, revision)) yield new StoredPart(row as unknown as Row)
}
