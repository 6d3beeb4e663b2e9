/**
 * Where the facts of a stream lie in the journal, by revision and by id.
 *
 * The leaves of such an index lie apart for each stream, and to keep it up with every commit costs several times what
 * the facts themselves cost. So the places of the latest facts are in memory only, made again from the facts at opening;
 * when there are enough of them they are written in one transaction, sorted. `by_revision` and `by_id` have the facts up to
 * the mark in `indexed`, memory has those behind it, and no fact is in both. Most ids that are looked for are new: a
 * filter says so without a look at `by_id`, once it was told of all that is there.
 */
import type { DatabaseSync, StatementSync } from "node:sqlite"
import { StoreDamaged } from "../../kernel/ports/event-store.ts"
import { IdFilter } from "./id-filter.ts"
import type { IntegritySource } from "./integrity.ts"

const chunkFacts = 1000
/** Some half a millisecond. */
const learntAtOnce = 512
const beforeAll = [0, ""] as const

/** A stream's facts behind the mark. */
interface Recent {
  readonly firstRevision: number
  /** By revision, from `firstRevision` on. */
  readonly positions: Array<number>
  readonly byId: Map<string, number>
}

interface RecentRange {
  readonly from: number
  /** A position. */
  readonly last: number
  readonly direction: 1 | -1
  readonly limit: number
}

/** Sorted, because that is what makes it cheap: a leaf is written once for all its entries. */
const writeEntries = [
  `insert into by_revision (stream, revision, position)
   select stream, revision, position from events where position > ? and position <= ? order by stream, revision`,
  `insert into by_id (stream, id, position)
   select stream, id, position from events where position > ? and position <= ? order by stream, id`
]

/** Within a transaction of the caller: write the entries of all facts from the mark up to `position`. */
export function writeIndex(database: DatabaseSync, position: number): void {
  const mark = readMark(database)
  for (const statement of writeEntries) database.prepare(statement).run(mark, position)
  database.prepare("update indexed set position = ?").run(position)
}

const readMark = (database: DatabaseSync): number =>
  Number(database.prepare("select position from indexed").get()?.["position"])

export class StreamIndex {
  readonly #database: DatabaseSync
  readonly #writtenAfterFacts: number
  readonly #findId: StatementSync
  readonly #idsAfter: StatementSync
  readonly #lastRevision: StatementSync
  readonly #recents = new Map<number, Recent>()
  /** The streams and ids of the open transaction, in order, to be taken back when it fails. */
  readonly #open: Array<{ readonly recent: Recent; readonly id: string }> = []
  #filter: IdFilter
  /** The last of `by_id` that the filter was told of; null when it knows all of them, and its word counts. */
  #learnt: readonly [stream: number, id: string] | null
  #recentFacts = 0
  #dueAtFacts: number

  /** Knows no facts behind the mark yet, which is at `mark`: see `openIndex`. */
  constructor(database: DatabaseSync, mark: number, writtenAfterFacts: number) {
    this.#database = database
    this.#writtenAfterFacts = writtenAfterFacts
    this.#dueAtFacts = writtenAfterFacts
    this.#findId = database.prepare("select position from by_id where stream = ? and id = ?")
    this.#findId.setReturnArrays(true)
    this.#idsAfter = database.prepare(
      "select stream, id from by_id where (stream, id) > (?, ?) order by stream, id limit ?"
    )
    this.#idsAfter.setReturnArrays(true)
    this.#filter = new IdFilter(mark)
    this.#learnt = mark === 0 ? null : beforeAll
    this.#lastRevision = database.prepare("select max(revision) from by_revision where stream = ?")
    this.#lastRevision.setReturnArrays(true)
  }

  /** There are as many facts behind the mark as are written at once. */
  get isDue(): boolean {
    return this.#recentFacts >= this.#dueAtFacts
  }

  /** A fact of the open transaction, the next of its stream. */
  add(stream: number, revision: number, id: string, position: number): void {
    let recent = this.#recents.get(stream)
    if (recent === undefined) {
      recent = { firstRevision: revision, positions: [], byId: new Map() }
      this.#recents.set(stream, recent)
    }
    recent.positions.push(position)
    recent.byId.set(id, position)
    this.#open.push({ recent, id })
    this.#recentFacts++
  }

  /** What was added is committed. */
  commit(): void {
    this.#open.length = 0
  }

  /** What was added since the last commit is gone. */
  rollback(): void {
    for (const { recent, id } of this.#open) {
      recent.positions.pop()
      recent.byId.delete(id)
    }
    this.#recentFacts -= this.#open.length
    this.#open.length = 0
  }

  /** The last revision of a stream, -1 when it has no facts. */
  lastRevision(stream: number): number {
    const recent = this.#recents.get(stream)
    if (recent !== undefined) return recent.firstRevision + recent.positions.length - 1
    const [revision] = this.#lastRevision.get(stream) as unknown as [number | null]
    return revision ?? -1
  }

  /** Where the fact with this id is, or null when the stream has none. */
  find(stream: number, id: string): number | null {
    const recent = this.#recents.get(stream)
    const position = recent?.byId.get(id)
    if (position !== undefined) return position
    // All its facts are behind the mark, or none of those before it has this id.
    if (recent?.firstRevision === 0) return null
    if (this.#learnt === null && !this.#filter.mayHave(stream, id)) return null
    const found = this.#findId.get(stream, id) as unknown as [number] | undefined
    return found?.[0] ?? null
  }

  /** Positions of the facts behind the mark, from a revision on, in the direction of reading; none behind `last`. */
  recent(stream: number, { from, last, direction, limit }: RecentRange): ReadonlyArray<number> {
    const recent = this.#recents.get(stream)
    if (recent === undefined || limit <= 0) return []
    const { positions, firstRevision } = recent
    let end = positions.length
    while (end > 0 && (positions[end - 1] as number) > last) end--
    const at = from - firstRevision
    if (direction === 1) {
      const begin = Math.max(0, at)
      return positions.slice(begin, Math.min(end, begin + limit))
    }
    const stop = Math.max(0, Math.min(end, at + 1))
    return positions.slice(Math.max(0, stop - limit), stop).reverse()
  }

  /** Tell the filter of some more ids that are stored, while it does not know all of them; asked now and then. */
  learn(): void {
    if (this.#filter.isFull) {
      this.#filter = new IdFilter(readMark(this.#database))
      this.#learnt = beforeAll
    }
    if (this.#learnt === null) return
    const rows = this.#idsAfter.all(...this.#learnt, learntAtOnce) as unknown as ReadonlyArray<
      readonly [number, string]
    >
    for (const [stream, id] of rows) this.#filter.add(stream, id)
    this.#learnt = rows.length < learntAtOnce ? null : (rows.at(-1) ?? null)
  }

  /** Within a transaction of the caller, who says `written` when it is committed. */
  write(): void {
    // Should it fail, for want of room say, it is tried again when as many facts more are there.
    this.#dueAtFacts = this.#recentFacts + this.#writtenAfterFacts
    const last = this.#database.prepare("select max(position) as position from events").get()
    writeIndex(this.#database, Number(last?.["position"] ?? 0))
  }

  /** What was written is committed. */
  written(): void {
    for (const [stream, { byId }] of this.#recents) for (const id of byId.keys()) this.#filter.add(stream, id)
    this.#recents.clear()
    this.#recentFacts = 0
    this.#dueAtFacts = this.#writtenAfterFacts
  }

  /** Whoever still holds the closed store is not to hold this. */
  close(): void {
    this.#recents.clear()
    this.#filter = new IdFilter(0)
  }
}

const damaged = (source: IntegritySource, position: number, reason: string): StoreDamaged =>
  new StoreDamaged({ path: source.path, position, reason })

/** The mark says what is written and what isn't: it is looked at from both sides. */
function checkMark({ database }: IntegritySource, mark: number, head: number): string | null {
  if (!Number.isSafeInteger(mark) || mark < 0 || mark > head)
    return `the index of streams ends at ${mark}, allowed is 0 to ${head}`
  const hasEntry = database.prepare(
    `select 1 from events join by_revision
       on by_revision.stream = events.stream and by_revision.revision = events.revision
     where events.position = ?`
  )
  if (mark > 0 && hasEntry.get(mark) === undefined) return "the index of streams should have it, and has not"
  return mark < head && hasEntry.get(mark + 1) !== undefined
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
  const problem = checkMark(source, mark, head)
  if (problem !== null) return damaged(source, Number.isSafeInteger(mark) ? mark : 0, problem)
  const index = new StreamIndex(database, mark, writtenAfterFacts)
  const behind = database.prepare(
    "select stream, revision, id, position from events where position > ? order by position"
  )
  behind.setReturnArrays(true)
  const rows = behind.iterate(mark) as unknown as Iterable<readonly [number, number, string, number]>
  for (const [stream, revision, id, position] of rows) {
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
  #position = 0

  constructor(source: IntegritySource) {
    this.#source = source
  }

  /** The next chunk: "more" when there is more to do. Throws SQLite's errors. */
  step(): "more" | "done" | StoreDamaged {
    const { database } = this.#source
    const mark = readMark(database)
    const last = Math.min(mark, this.#position + chunkFacts)
    const wrong = database
      .prepare(
        `select events.position as position from events
           left join by_revision on by_revision.stream = events.stream and by_revision.revision = events.revision
           left join by_id on by_id.stream = events.stream and by_id.id = events.id
         where events.position > ? and events.position <= ?
           and (by_revision.position is not events.position or by_id.position is not events.position) limit 1`
      )
      .get(this.#position, last)
    if (wrong !== undefined)
      return damaged(this.#source, Number(wrong["position"]), "the index of streams does not lead to it")
    this.#position = last
    return last < mark ? "more" : (this.#extra(mark) ?? "done")
  }

  /** Every fact has its entries, so there must be as many; and no stream may have gaps. */
  #extra(mark: number): StoreDamaged | null {
    const { database } = this.#source
    for (const table of ["by_revision", "by_id"]) {
      const count = database.prepare(`select count(*) as count from ${table}`).get()?.["count"]
      if (count !== mark)
        return damaged(this.#source, 0, `the index of streams has ${String(count)} entries for ${mark} facts`)
    }
    const gap = database
      .prepare("select stream from by_revision group by stream having max(revision) <> count(*) - 1 limit 1")
      .get()?.["stream"]
    return gap === undefined ? null : damaged(this.#source, 0, `the stream ${String(gap)} lacks revisions`)
  }
}
