/** The reading half, and the snapshots: prepared statements that return arrays, which cost least to decode. */
import type { DatabaseSync, StatementSync } from "node:sqlite"
import { genesisHash } from "../../events/envelope.ts"
import type { Recorded } from "../../events/envelope.ts"
import { StoreFailure } from "../../kernel/ports/event-store.ts"
import type { ReadOptions, Snapshot } from "../../kernel/ports/event-store.ts"
import { snapshotText } from "./integrity.ts"
import type { IntegritySource } from "./integrity.ts"
import { columns, decode } from "./rows.ts"
import type { Row } from "./rows.ts"
import type { StreamIndex } from "./stream-index.ts"

const limitDefault = 1000
/** Names of streams kept by id; emptied when full. */
const cachedNamesMax = 200_000

export interface StoredSnapshot extends Snapshot {
  readonly hash: string
}

export class Reader {
  readonly #source: IntegritySource
  readonly #index: StreamIndex
  readonly #names = new Map<number, string>()
  readonly #name: StatementSync
  readonly #streamId: StatementSync
  readonly #forwards: StatementSync
  readonly #backwards: StatementSync
  readonly #at: StatementSync
  readonly #streams: StatementSync
  readonly #writeSnapshot: StatementSync
  readonly #readSnapshot: StatementSync

  constructor(source: IntegritySource, index: StreamIndex) {
    const { database } = source
    const facts = `select ${columns.join(", ")} from events where position between ? and ? order by position`
    this.#source = source
    this.#index = index
    this.#name = database.prepare("select name from streams where id = ?")
    this.#streamId = database.prepare("select id from streams where name = ?")
    this.#forwards = arrays(database, `${facts} limit ?`)
    this.#backwards = arrays(database, `${facts} desc limit ?`)
    const all = columns.map((column) => `events.${column}`).join(", ")
    // Left joins, so that a place without its fact is a row to be seen. It goes through the places in order, which the reader checks.
    this.#at = arrays(
      database,
      `select ${all}, before.hash from json_each(?) as place
       left join events on events.position = place.value
       left join events as before on before.position = place.value - 1`
    )
    this.#streams = arrays(database, "select name from streams where name >= ? and name < ? order by name")
    this.#writeSnapshot = database.prepare(
      `insert into snapshots (stream, version, revision, position, state, hash) values (?, ?, ?, ?, ?, ?)
       on conflict do update set revision = excluded.revision, position = excluded.position,
         state = excluded.state, hash = excluded.hash
       where excluded.revision >= snapshots.revision`
    )
    this.#readSnapshot = arrays(
      database,
      "select revision, position, state, hash from snapshots where stream = ? and version = ?"
    )
  }

  /** Nothing behind the position `last`. */
  readAll(options: ReadOptions, last: number): ReadonlyArray<Recorded> {
    const { from, limit } = range(options)
    // Each with the fact before it, for its hash.
    if (options.direction === "backwards") {
      const begin = Math.min(from, last)
      const rows = this.#rowsFrom(begin, this.#backwards.all(1, begin, limit + 1))
      return rows.slice(0, limit).map((row, place) => this.#decodeAfter(rows[place + 1], row))
    }
    const before = Math.max(1, from) - 1
    const begin = before === 0 ? 0 : 1
    const rows = this.#rowsFrom(before + 1 - begin, this.#forwards.all(before, last, limit + 1))
    return rows
      .slice(begin, begin + limit)
      .map((row, place) => this.#decodeAfter(rows[begin + place - 1], row))
  }

  /** What was found, of which the first stands there. */
  #rowsFrom(position: number, found: ReadonlyArray<unknown>): ReadonlyArray<Row> {
    const rows = rowsOf(found)
    if (rows[0] !== undefined && rows[0][0] !== position) throw this.#missing(position)
    return rows
  }

  readStream(stream: string, options: ReadOptions, last: number): ReadonlyArray<Recorded> {
    const { from, limit } = range(options)
    const id = this.#streamId.get(stream)?.["id"] as number | undefined
    if (id === undefined) return []
    const backwards = options.direction === "backwards"
    const direction = backwards ? -1 : 1
    const positions = this.#index.positions(id, { from, last, direction, limit })
    const rows = rowsOf(this.#at.all(JSON.stringify(positions)))
    // What the index led to must be the facts of this stream, one after the other.
    const begin = backwards ? Number(rows[0]?.[2]) : Math.max(0, from)
    for (const [place, row] of rows.entries()) {
      const revision = backwards ? begin - place : begin + place
      if (row[1] !== id || row[2] !== revision)
        throw this.#failure("read", `${stream} has no fact of revision ${revision}: the store is damaged`)
    }
    return rows.map((row) => {
      const previousHash = row[0] === 1 ? genesisHash : row[5]
      if (typeof previousHash !== "string") throw this.#missing(Number(row[0]) - 1)
      return this.#decode(row, stream, previousHash)
    })
  }

  streams(prefix: string): ReadonlyArray<string> {
    const rows = rowsOf(this.#streams.all(prefix, `${prefix}\u{10ffff}`))
    return rows.map((row) => row[0] as string)
  }

  /** Within a transaction of the caller. An older revision than the stored one is left out. */
  writeSnapshot({ stream, revision, position, version, state }: Snapshot): void {
    if (!state.isWellFormed() || state.includes("\0"))
      throw this.#failure("saveSnapshots", `the state of ${stream} must be well-formed Unicode without NUL`)
    const hash = this.#source.sha256(snapshotText(stream, version, revision, position, state))
    this.#writeSnapshot.run(stream, version, revision, position, state, hash)
  }

  readSnapshot(stream: string, version: number): StoredSnapshot | null {
    const row = this.#readSnapshot.get(stream, version) as unknown as Row | undefined
    if (row === undefined) return null
    return {
      stream,
      version,
      revision: row[0] as number,
      position: row[1] as number,
      state: row[2] as string,
      hash: row[3] as string
    }
  }

  #decodeAfter(before: Row | undefined, row: Row): Recorded {
    const position = row[0] as number
    if ((before?.[0] ?? 0) !== position - 1) throw this.#missing(position - 1)
    return this.#decode(
      row,
      this.#nameOf(row[1] as number),
      (before?.[4] as string | undefined) ?? genesisHash
    )
  }

  #decode(row: Row, stream: string, previousHash: string): Recorded {
    try {
      return decode(row, stream, previousHash)
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error
      throw this.#failure("read", `the data of the fact at ${String(row[0])} is damaged`)
    }
  }

  #nameOf(id: number): string {
    let name = this.#names.get(id)
    if (name === undefined) {
      const found = this.#name.get(id)?.["name"]
      if (typeof found !== "string")
        throw this.#failure("read", `stream ${id} has no name: the store is damaged`)
      name = found
      if (this.#names.size >= cachedNamesMax) this.#names.clear()
      this.#names.set(id, name)
    }
    return name
  }

  #missing(position: number): StoreFailure {
    return this.#failure("read", `the fact at ${position} is missing: the store is damaged`)
  }

  #failure(operation: string, reason: string): StoreFailure {
    return new StoreFailure({ operation, reason: `${this.#source.path}: ${reason}` })
  }
}

/** Of a statement that gives arrays. */
const rowsOf = (found: ReadonlyArray<unknown>) => found as ReadonlyArray<Row>

function arrays(database: DatabaseSync, sql: string): StatementSync {
  const statement = database.prepare(sql)
  statement.setReturnArrays(true)
  return statement
}

/** A programmer's error when they aren't whole numbers. `from` outside of the store gives nothing or all. */
function range({ from, direction, limit = limitDefault }: ReadOptions): { from: number; limit: number } {
  const start = from ?? (direction === "backwards" ? Number.MAX_SAFE_INTEGER : 0)
  if (!Number.isSafeInteger(start) || !Number.isSafeInteger(limit) || limit < 0)
    throw new RangeError(`from ${start} and limit ${limit} must be whole numbers, limit not negative`)
  return { from: start, limit }
}
