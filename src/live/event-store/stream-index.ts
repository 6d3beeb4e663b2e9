/**
 * Where the facts of a stream lie in the journal, by revision and by id.
 *
 * The leaves of such an index lie apart for each stream, and to keep it up with every commit costs several times what
 * the facts themselves cost. So the places of the latest facts are in memory only, made again from the facts at opening;
 * when there are enough of them they are written in one transaction, a row for many facts of a stream (`parts.ts`). Rows
 * have the facts up to the mark in `indexed`, memory has those behind it, and no fact is in both.
 *
 * An id is looked for by its hash, among all of the stream's facts. Most that are looked for are new: a filter says so
 * without a look, once it was told of all that is there.
 */
import type { DatabaseSync, StatementSync } from "node:sqlite"
import { StoreDamaged, StoreFailure } from "../../kernel/ports/event-store.ts"
import { idHash, IdFilter, keyBytes } from "./id-filter.ts"
import type { IdHash } from "./id-filter.ts"
import type { IntegritySource } from "./integrity.ts"
import { PartReader, PartWriter, RecentPart, writeAllParts } from "./parts.ts"
import type { Part, StoredPart } from "./parts.ts"
import { idOf } from "./rows.ts"

const chunkFacts = 1000
/** Some tenths of a millisecond. */
const learntAtOnce = 4096
const beforeAll: { readonly stream: number; readonly revision: number } = { stream: -1, revision: 0 }
const factAt = "select stream, revision, fact from events where position = ?"
type FactAt = readonly [stream: number, revision: number, text: string]

interface Range {
  readonly from: number
  /** A position. */
  readonly last: number
  readonly direction: 1 | -1
  readonly limit: number
}

const readMark = (database: DatabaseSync): number =>
  Number(database.prepare("select position from indexed").get()?.["position"] ?? Number.NaN)

/** By the file's own key; null when that is damaged. */
function readHash(database: DatabaseSync): IdHash | null {
  const key = database.prepare("select key from indexed").get()?.["key"]
  return key instanceof Uint8Array && key.length === keyBytes ? idHash(key) : null
}

/** Every fact that there is has its entry. */
function markAll(database: DatabaseSync): void {
  const last = database.prepare("select max(position) as position from events").get()
  database.prepare("update indexed set position = ?").run(Number(last?.["position"] ?? 0))
}

/** Within a transaction of the caller: the whole index of a file that has none. */
export function writeWholeIndex(database: DatabaseSync): void {
  writeAllParts(database, readHash(database) as IdHash)
  markAll(database)
}

export class StreamIndex {
  readonly #source: IntegritySource
  readonly #parts: PartReader
  readonly #writer: PartWriter
  readonly #writtenAfterFacts: number
  readonly #factAt: StatementSync
  readonly #idHash: IdHash
  /** By stream, its facts behind the mark. */
  readonly #recents = new Map<number, RecentPart>()
  /** Where the open transaction's facts were added, in order, to be taken back when it fails. */
  readonly #open: Array<RecentPart> = []
  /** Knows all ids that are stored; null as long as there is none that does. */
  #filter: IdFilter | null
  /** One that will know all when it was told of the rows behind this one, too. */
  #learning: { readonly filter: IdFilter; after: typeof beforeAll } | null
  #recentFacts = 0
  #dueAtFacts: number
  /** Whoever adds an id has looked for it before. */
  #hashed = { stream: -1, id: "", hash: 0 }

  /** Knows no facts behind the mark yet, which is at `mark`: see `openIndex`. */
  constructor(source: IntegritySource, hashOf: IdHash, mark: number, writtenAfterFacts: number) {
    const { database } = source
    this.#source = source
    this.#idHash = hashOf
    this.#parts = new PartReader(database)
    this.#writer = new PartWriter(database)
    this.#writtenAfterFacts = writtenAfterFacts
    this.#dueAtFacts = writtenAfterFacts
    this.#factAt = database.prepare(factAt)
    this.#factAt.setReturnArrays(true)
    const filter = new IdFilter(mark)
    this.#filter = mark === 0 ? filter : null
    this.#learning = mark === 0 ? null : { filter, after: beforeAll }
  }

  /** There are as many facts behind the mark as are written at once. */
  get isDue(): boolean {
    return this.#recentFacts >= this.#dueAtFacts
  }

  /** A fact of the open transaction, the next of its stream. */
  add(stream: number, revision: number, id: string, position: number): void {
    let recent = this.#recents.get(stream)
    if (recent === undefined) this.#recents.set(stream, (recent = new RecentPart(revision)))
    const hash = this.#hashOf(stream, id)
    recent.push(position, hash)
    this.#filter?.add(hash)
    this.#learning?.filter.add(hash)
    this.#open.push(recent)
    this.#recentFacts++
  }

  /** What was added is committed. */
  commit(): void {
    this.#open.length = 0
  }

  /** What was added since the last commit is gone; the filters may go on to think that it is there. */
  rollback(): void {
    for (const recent of this.#open) recent.pop()
    this.#recentFacts -= this.#open.length
    this.#open.length = 0
  }

  /** The last revision of a stream, -1 when it has no facts. */
  lastRevision(stream: number): number {
    const recent = this.#recents.get(stream)
    if (recent !== undefined) return recent.firstRevision + recent.count - 1
    for (const part of this.#parts.backwards(stream)) return part.firstRevision + part.count - 1
    return -1
  }

  /** Where the fact with this id is, or null when the stream has none. Throws `StoreFailure` when led to another's fact. */
  find(stream: number, id: string): number | null {
    const hash = this.#hashOf(stream, id)
    if (this.#filter !== null && !this.#filter.mayHave(hash)) return null
    const recent = this.#recents.get(stream)
    const found = recent === undefined ? null : this.#findIn(recent, stream, id, hash)
    if (found !== null || recent?.firstRevision === 0) return found
    for (const part of this.#parts.backwards(stream)) {
      const position = this.#findIn(part, stream, id, hash)
      if (position !== null) return position
    }
    return null
  }

  /** Positions of a stream's facts, from a revision on, in the direction of reading; none behind `last`. */
  positions(stream: number, { from, last, direction, limit }: Range): ReadonlyArray<number> {
    const found: Array<number> = []
    const take = (part: Part) => {
      const first = from - part.firstRevision
      const begin = direction === 1 ? Math.max(0, first) : Math.min(part.count - 1, first)
      for (let at = begin; at >= 0 && at < part.count && found.length < limit; at += direction) {
        const position = part.positionAt(at)
        if (position <= last) found.push(position)
      }
    }
    const recent = this.#recents.get(stream)
    if (direction === -1 && recent !== undefined) take(recent)
    if (found.length >= limit) return found
    const parts = direction === 1 ? this.#parts.from(stream, from) : this.#parts.backwards(stream, from)
    for (const part of parts) {
      take(part)
      if (found.length >= limit) return found
    }
    if (direction === 1 && recent !== undefined) take(recent)
    return found
  }

  /** Tell a filter of some more ids that are stored, while none knows all of them; asked now and then. */
  learn(): void {
    if (this.#learning === null) {
      if (this.#filter?.isFull !== true) return
      const filter = new IdFilter(readMark(this.#source.database))
      for (const recent of this.#recents.values()) addAll(filter, recent)
      this.#learning = { filter, after: beforeAll }
    }
    const { filter, after } = this.#learning
    let learnt = 0
    for (const part of this.#parts.after(after.stream, after.revision)) {
      addAll(filter, part)
      this.#learning.after = { stream: part.stream, revision: part.firstRevision }
      learnt += part.count
      if (learnt >= learntAtOnce) return
    }
    this.#filter = filter
    this.#learning = null
  }

  /** Within a transaction of the caller, who says `written` when it is committed. */
  write(): void {
    // Should it fail, for want of room say, it is tried again when as many facts more are there.
    this.#dueAtFacts = this.#recentFacts + this.#writtenAfterFacts
    // Sorted, because that is what makes it cheap when there are many streams: a leaf is written once.
    const sorted = [...this.#recents].sort(([a], [b]) => a - b)
    for (const [stream, recent] of sorted) this.#writer.write(stream, recent)
    markAll(this.#source.database)
  }

  /** What was written is committed. */
  written(): void {
    this.#recents.clear()
    this.#recentFacts = 0
    this.#dueAtFacts = this.#writtenAfterFacts
  }

  /** Whoever still holds the closed store is not to hold this. */
  close(): void {
    this.#recents.clear()
    this.#filter = null
    this.#learning = null
  }

  #hashOf(stream: number, id: string): number {
    const { stream: of, id: hashed, hash } = this.#hashed
    if (of === stream && hashed === id) return hash
    this.#hashed = { stream, id, hash: this.#idHash(stream, id) }
    return this.#hashed.hash
  }

  /** Different ids may have one hash: the fact itself says what its id is. */
  #findIn(part: Part, stream: number, id: string, hash: number): number | null {
    for (let at = part.lastOf(hash, part.count - 1); at >= 0; at = part.lastOf(hash, at - 1)) {
      const position = part.positionAt(at)
      const fact = this.#factAt.get(position) as unknown as FactAt | undefined
      if (fact?.[0] !== stream || fact[1] !== part.firstRevision + at)
        throw new StoreFailure({
          operation: "append",
          reason: `${this.#source.path}: the fact at ${position} is not what the index of streams says: the store is damaged`
        })
      if (idOf(fact[2]) === id) return position
    }
    return null
  }
}

function addAll(filter: IdFilter, part: Part): void {
  for (let at = 0; at < part.count; at++) filter.add(part.hashAt(at))
}

const damaged = (source: IntegritySource, position: number, reason: string): StoreDamaged =>
  new StoreDamaged({ path: source.path, position, reason })

/** Where a row of the index says that this fact is, and what it has for its id; null when none has it. */
function indexedAt(database: DatabaseSync, { stream, revision }: Place) {
  for (const part of new PartReader(database).backwards(stream, revision)) {
    const place = revision - part.firstRevision
    return place < part.count ? { position: part.positionAt(place), hash: part.hashAt(place) } : null
  }
  return null
}

interface Place {
  readonly stream: number
  readonly revision: number
  readonly id: string
}

function placeOf(database: DatabaseSync, position: number): Place | null {
  const fact = database.prepare(factAt).get(position)
  if (fact === undefined) return null
  const { stream, revision, fact: text } = fact
  return { stream: Number(stream), revision: Number(revision), id: idOf(String(text)) ?? "" }
}

/** The mark says what is written and what isn't: it is looked at from both sides, and whether the key is the one it was. */
function checkMark({ database }: IntegritySource, hashOf: IdHash, mark: number, head: number): string | null {
  if (!Number.isSafeInteger(mark) || mark < 0 || mark > head)
    return `the index of streams ends at ${mark}, allowed is 0 to ${head}`
  const [last, next] = [placeOf(database, mark), placeOf(database, mark + 1)]
  const found = last === null ? null : indexedAt(database, last)
  if (mark > 0 && found?.position !== mark) return "the index of streams should have it, and has not"
  if (last !== null && found?.hash !== hashOf(last.stream, last.id))
    return "the index of streams has another hash of its id"
  return next !== null && indexedAt(database, next) !== null
    ? `the index of streams has the fact at ${mark + 1}, which it should not`
    : null
}

/** The index of the store's streams, with the facts behind the mark, up to the position `head`. Throws SQLite's errors. */
export function openIndex(
  source: IntegritySource,
  head: number,
  writtenAfterFacts: number
): StreamIndex | StoreDamaged {
  const { database } = source
  const mark = readMark(database)
  const hashOf = readHash(database)
  if (hashOf === null) return damaged(source, 0, "the key of the index of streams is damaged")
  const problem = checkMark(source, hashOf, mark, head)
  if (problem !== null) return damaged(source, Number.isSafeInteger(mark) ? mark : 0, problem)
  const index = new StreamIndex(source, hashOf, mark, writtenAfterFacts)
  const behind = database.prepare(
    "select stream, revision, fact, position from events where position > ? order by position"
  )
  behind.setReturnArrays(true)
  const rows = behind.iterate(mark) as unknown as Iterable<readonly [number, number, string, number]>
  for (const [stream, revision, text, position] of rows) {
    const id = idOf(text)
    if (id === null) return damaged(source, position, "its content is damaged")
    const next = index.lastRevision(stream) + 1
    if (revision !== next)
      return damaged(source, position, `its revision is ${revision}, the next of its stream is ${next}`)
    index.add(stream, revision, id, position)
  }
  index.commit()
  return index
}

/** Looks whether the written index says what the facts say, in steps, so that a caller can let others run in between. */
export class IndexWalk {
  readonly #source: IntegritySource
  readonly #parts: PartReader
  readonly #factAt: StatementSync
  readonly #hashOf: IdHash | null
  #after = beforeAll
  /** The revision that comes next in the stream of the last row. */
  #nextRevision = 0
  #facts = 0

  constructor(source: IntegritySource) {
    const { database } = source
    this.#source = source
    this.#parts = new PartReader(database)
    this.#hashOf = readHash(database)
    this.#factAt = database.prepare(factAt)
    this.#factAt.setReturnArrays(true)
  }

  /** The next chunk: "more" when there is more to do. Throws SQLite's errors. */
  step(): "more" | "done" | StoreDamaged {
    const until = this.#facts + chunkFacts
    for (const part of this.#parts.after(this.#after.stream, this.#after.revision)) {
      const problem = this.#look(part)
      if (problem !== null) return problem
      if (this.#facts >= until) return "more"
    }
    // Every entry is of another fact, so there must be as many as facts.
    const mark = readMark(this.#source.database)
    if (this.#facts === mark) return "done"
    return damaged(this.#source, 0, `the index of streams has ${this.#facts} entries for ${mark} facts`)
  }

  #look(part: StoredPart): StoreDamaged | null {
    const { stream, firstRevision, count } = part
    const expected = stream === this.#after.stream ? this.#nextRevision : 0
    if (firstRevision !== expected || count === 0) {
      const reason = `of the stream ${stream} the index lacks the fact of revision ${expected}`
      return damaged(this.#source, 0, reason)
    }
    for (let at = 0; at < count; at++) {
      const position = part.positionAt(at)
      const fact = this.#factAt.get(position) as unknown as FactAt | undefined
      const isThere = fact?.[0] === stream && fact[1] === firstRevision + at
      if (!isThere || this.#hashOf?.(stream, idOf(fact[2]) ?? "") !== part.hashAt(at))
        return damaged(this.#source, position, "the index of streams does not lead to it")
    }
    this.#after = { stream, revision: firstRevision }
    this.#nextRevision = firstRevision + count
    this.#facts += count
    return null
  }
}
