/**
 * The writing half: facts in, rows out, one transaction a call. The last position, hash and the revisions of
 * the streams in use are kept in memory, so that an append reads nothing unless something is unusual.
 */
import type { DatabaseSync, StatementSync } from "node:sqlite"
import { Schema } from "effect"
import { chainText, genesisHash } from "../../events/envelope.ts"
import type { Draft, Recorded } from "../../events/envelope.ts"
import { Stream } from "../../events/fields.ts"
import { RevisionConflict, StoreFailure } from "../../kernel/ports/event-store.ts"
import type { Head, StreamAppend } from "../../kernel/ports/event-store.ts"
import { breaksWriting, isPassing } from "./errors.ts"
import { columns, decode, record, storableText } from "./rows.ts"
import type { Row } from "./rows.ts"
import type { StreamIndex } from "./stream-index.ts"

interface StreamEntry {
  readonly id: number
  readonly name: string
  /** Of the last fact, -1 while there is none. */
  revision: number
}

/** More than this many streams in memory and the cache is emptied; the next use of each reads one row. */
const cachedStreamsMax = 200_000

/** Of a row, beside its text, about. */
const rowBytes = 100

const isStream = Schema.is(Stream)

const factWithPrevious = `
  select ${columns.map((column) => `events.${column}`).join(", ")}, before.hash
  from events left join events as before on before.position = events.position - 1
  where events.position = ?`

export class Appender {
  head: Head
  readonly #database: DatabaseSync
  readonly #index: StreamIndex
  readonly #sha256: (text: string) => string
  readonly #streams = new Map<string, StreamEntry>()
  readonly #begin: StatementSync
  readonly #commit: StatementSync
  readonly #insert: StatementSync
  readonly #insertStream: StatementSync
  readonly #findStream: StatementSync
  readonly #findFact: StatementSync
  #lastStreamId: number
  #broken: string | null = null
  #writtenBytes = 0
  // What the open transaction has changed in memory, to be taken back when it fails.
  #position: number
  #hash: string
  #touched: Array<{ readonly entry: StreamEntry; readonly revision: number }> = []
  #added: Array<string> = []

  constructor(database: DatabaseSync, index: StreamIndex, sha256: (text: string) => string, head: Head) {
    this.#database = database
    this.#index = index
    this.#sha256 = sha256
    this.head = head
    this.#position = head.position
    this.#hash = head.hash
    this.#begin = database.prepare("begin immediate")
    this.#commit = database.prepare("commit")
    this.#insert = database.prepare(
      `insert into events (${columns.join(", ")}) values (${columns.map(() => "?").join(", ")})`
    )
    this.#insertStream = database.prepare("insert into streams (id, name) values (?, ?)")
    this.#findStream = database.prepare("select id from streams where name = ?")
    this.#findFact = database.prepare(factWithPrevious)
    this.#findFact.setReturnArrays(true)
    this.#lastStreamId = Number(database.prepare("select max(id) as id from streams").get()?.["id"] ?? 0)
  }

  /**
   * See the port; `beside` writes in the same transaction. Throws `RevisionConflict`, `StoreFailure` and SQLite's errors; nothing
   * is kept then.
   */
  append(batch: ReadonlyArray<StreamAppend>, beside: (() => void) | null): ReadonlyArray<Recorded> {
    this.#checkWritable()
    if (this.#streams.size > cachedStreamsMax) this.#streams.clear()
    const recorded: Array<Recorded> = []
    try {
      this.#begin.run()
      for (const append of batch) this.#appendToStream(append, recorded)
      beside?.()
      this.#commit.run()
    } catch (error) {
      this.#rollback(error)
      throw error
    }
    this.#touched = []
    this.#added = []
    this.#index.commit()
    if (this.#position !== this.head.position) this.head = { position: this.#position, hash: this.#hash }
    return recorded
  }

  /** Whether this stream has a fact with this id. */
  holds(stream: string, id: string): boolean {
    const known = this.#streams.get(stream)?.id ?? this.#findStream.get(stream)?.["id"]
    return known !== undefined && this.#index.find(Number(known), id) !== null
  }

  /** About so many bytes of data were written since the last call. */
  takeWrittenBytes(): number {
    const bytes = this.#writtenBytes
    this.#writtenBytes = 0
    return bytes
  }

  /** What can be done for the index when nobody waits. What is appended is kept, come what may. */
  tendIndex(): void {
    if (this.#broken !== null) return
    try {
      this.#index.learn()
      if (!this.#index.isDue) return
      this.transaction(() => this.#index.write())
      this.#index.written()
    } catch (error) {
      // Of an index that can't be written for want of room, or while a backup holds the file, nothing is lost but time.
      if (!isPassing(error)) this.#broken = (error as Error).message
    }
  }

  /** Run `write` in a transaction of its own, under the same rules as an append. */
  transaction(write: () => void): void {
    this.#checkWritable()
    try {
      this.#begin.run()
      write()
      this.#commit.run()
    } catch (error) {
      this.#rollback(error)
      throw error
    }
  }

  /** The disk refused what was committed: nothing is written any more until the store is opened again. */
  breakOff(error: Error): void {
    this.#broken ??= error.message
  }

  #checkWritable(): void {
    if (this.#broken === null) return
    const reason = `an earlier write failed (${this.#broken}); the store must be opened again`
    throw new StoreFailure({ operation: "append", reason })
  }

  #rollback(error: unknown): void {
    if (breaksWriting(error)) this.#broken = (error as Error).message
    for (const { entry, revision } of this.#touched.reverse()) entry.revision = revision
    for (const name of this.#added) this.#streams.delete(name)
    this.#lastStreamId -= this.#added.length
    this.#index.rollback()
    this.#touched = []
    this.#added = []
    this.#position = this.head.position
    this.#hash = this.head.hash
    try {
      // SQLite has already rolled back by itself after some errors, a full disk among them.
      if (this.#database.isTransaction) this.#database.exec("rollback")
    } catch (second) {
      this.#broken = (second as Error).message
    }
  }

  #appendToStream(append: StreamAppend, recorded: Array<Recorded>): void {
    const { facts, expectedRevision } = append
    if (facts.length === 0) return
    const entry = this.#entry(append.stream)
    if (entry.revision !== expectedRevision) {
      this.#alreadyStored(append, entry, recorded)
      return
    }
    this.#touched.push({ entry, revision: entry.revision })
    for (const [place, draft] of facts.entries()) {
      if (this.#index.find(entry.id, draft.id) === null) {
        recorded.push(this.#insertFact(entry, draft))
        continue
      }
      // Its id is stored: a repetition when it is the first, and else the one before it was new.
      if (place > 0) throw conflictOrRepetition(append, expectedRevision)
      this.#alreadyStored(append, entry, recorded)
      return
    }
  }

  #insertFact(entry: StreamEntry, draft: Draft): Recorded {
    const position = this.#position + 1
    const revision = entry.revision + 1
    const previousHash = this.#hash
    const dataText = JSON.stringify(draft.data)
    const fact = record(position, entry.name, revision, draft, dataText, previousHash)
    const text = storableText(draft, dataText)
    const hash = this.#sha256(chainText(previousHash, position, entry.name, revision, text))
    fact.hash = hash
    // `run` would make an object that says what was changed.
    this.#insert.get(position, entry.id, revision, text, hash)
    this.#index.add(entry.id, revision, draft.id, position)
    this.#writtenBytes += rowBytes + text.length
    this.#position = position
    this.#hash = hash
    entry.revision = revision
    return fact
  }

  #alreadyStored(append: StreamAppend, entry: StreamEntry, recorded: Array<Recorded>): void {
    for (const draft of append.facts) {
      const position = this.#index.find(entry.id, draft.id)
      if (position === null) throw conflictOrRepetition(append, entry.revision)
      // The index has looked whose it is.
      const row = this.#findFact.get(position) as unknown as Row
      const previousHash = position === 1 ? genesisHash : row[5]
      if (typeof previousHash !== "string")
        throw new StoreFailure({ operation: "append", reason: `the fact at ${position - 1} is missing` })
      recorded.push(decode(row, entry.name, previousHash))
    }
  }

  #entry(name: string): StreamEntry {
    const cached = this.#streams.get(name)
    if (cached !== undefined) return cached
    const row = this.#findStream.get(name)
    let entry: StreamEntry
    if (row === undefined) {
      if (!isStream(name))
        throw new StoreFailure({
          operation: "append",
          reason: `stream ${JSON.stringify(name)} is not kind/name`
        })
      entry = { id: this.#lastStreamId + 1, name, revision: -1 }
      this.#insertStream.run(entry.id, name)
      this.#lastStreamId = entry.id
      this.#added.push(name)
    } else {
      const id = Number(row["id"])
      entry = { id, name, revision: this.#index.lastRevision(id) }
    }
    this.#streams.set(name, entry)
    return entry
  }
}

function conflictOrRepetition(append: StreamAppend, actual: number): RevisionConflict | StoreFailure {
  const { stream, expectedRevision, facts } = append
  const ids = new Set<string>()
  for (const { id } of facts) {
    if (ids.has(id))
      return new StoreFailure({ operation: "append", reason: `${stream}: id ${id} is twice in one append` })
    ids.add(id)
  }
  return new RevisionConflict({ stream, expected: expectedRevision, actual })
}
