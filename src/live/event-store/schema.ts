/** The file: its tables, its marks of identity and its settings. */
import { randomBytes } from "node:crypto"
import { closeSync, openSync, readSync } from "node:fs"
import { DatabaseSync } from "node:sqlite"
import { StoreDamaged, StoreFailure } from "../../kernel/ports/event-store.ts"
import { StoreUnsupported } from "./errors.ts"
import { keyBytes } from "./id-filter.ts"
import { writeWholeIndex } from "./stream-index.ts"

/** `NvCr`, at offset 68 of the file (https://sqlite.org/fileformat.html). */
export const applicationId = 0x4e764372
/** Raised with every change of the tables; a newer file is refused by an older release. */
export const schemaVersion = 4

const magic = "SQLite format 3\0"
const headerBytes = 100

/** Of versions 1 to 3. */
const oldColumns = `
  position INTEGER PRIMARY KEY,
  stream INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  id TEXT NOT NULL,
  type TEXT NOT NULL,
  version INTEGER NOT NULL,
  time_ms INTEGER NOT NULL,
  correlation TEXT NOT NULL,
  causation TEXT NOT NULL,
  principal_kind TEXT NOT NULL,
  principal_name TEXT NOT NULL,
  node TEXT NOT NULL,
  answers TEXT,
  data TEXT NOT NULL,
  previous_hash TEXT NOT NULL,
  hash TEXT NOT NULL`

const streamsTable = `CREATE TABLE streams (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
) STRICT`
const eventsTable = `CREATE TABLE events (
  position INTEGER PRIMARY KEY,
  stream INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  fact TEXT NOT NULL,
  hash TEXT NOT NULL
) STRICT`
/** For who looks at the file; a node does not ask it. */
const factsView = `CREATE VIEW facts AS SELECT
  position,
  streams.name AS stream,
  revision,
  fact ->> '$[0]' AS id,
  fact ->> '$[1]' AS type,
  fact ->> '$[2]' AS version,
  fact ->> '$[3]' AS time_ms,
  fact ->> '$[4]' AS correlation,
  fact ->> '$[5]' AS causation,
  fact ->> '$[6]' AS principal_kind,
  fact ->> '$[7]' AS principal_name,
  fact ->> '$[8]' AS node,
  fact ->> '$[9]' AS answers,
  fact ->> '$[10]' AS data,
  hash
FROM events JOIN streams ON streams.id = events.stream`
const snapshotsTable = `CREATE TABLE snapshots (
  stream TEXT NOT NULL,
  version INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  position INTEGER NOT NULL,
  state TEXT NOT NULL,
  hash TEXT NOT NULL,
  PRIMARY KEY (stream, version)
) STRICT, WITHOUT ROWID`
/** See `stream-index.ts` and `parts.ts`. */
const indexTable = `CREATE TABLE stream_index (
  stream INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  position INTEGER NOT NULL,
  places BLOB NOT NULL,
  PRIMARY KEY (stream, revision)
) STRICT, WITHOUT ROWID`
/** `key` is that of the ids' hashes. */
const markTable = `CREATE TABLE indexed (
  position INTEGER NOT NULL,
  key BLOB NOT NULL
) STRICT`

/**
 * Names of streams are stored once. `fact` is the `factText` that is hashed, never rewritten. Snapshots
 * are not in the chain, facts are the truth, so each carries a hash of its own.
 */
export const tables = [streamsTable, eventsTable, snapshotsTable, indexTable, markTable, factsView]

/** Up to version 3 each member of a fact had a column. Version 1 had SQLite keep the index of streams, at every commit. */
const eventsTableOfVersion3 = `CREATE TABLE events (${oldColumns}
) STRICT`
const eventsTableOfVersion1 = `CREATE TABLE events (${oldColumns},
  UNIQUE (stream, revision),
  UNIQUE (stream, id)
) STRICT`
/** Whose files are taken over, as those of versions 2 and 3. */
export const tablesOfVersion1 = [streamsTable, eventsTableOfVersion1, snapshotsTable]

/** Version 2 had a row of its own for each fact in the index of streams, and another for its id. */
const indexTablesOfVersion2 = [
  `CREATE TABLE by_revision (
  stream INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  position INTEGER NOT NULL,
  PRIMARY KEY (stream, revision)
) STRICT, WITHOUT ROWID`,
  `CREATE TABLE by_id (
  stream INTEGER NOT NULL,
  id TEXT NOT NULL,
  position INTEGER NOT NULL,
  PRIMARY KEY (stream, id)
) STRICT, WITHOUT ROWID`
]
const markTableOfVersion3 = `CREATE TABLE indexed (
  position INTEGER NOT NULL
) STRICT`
export const tablesOfVersion2 = [
  streamsTable,
  eventsTableOfVersion3,
  snapshotsTable,
  ...indexTablesOfVersion2,
  markTableOfVersion3
]
/** Version 3 had the index of streams as it is now, but for the hashes, which had no key. */
export const tablesOfVersion3 = [
  streamsTable,
  eventsTableOfVersion3,
  snapshotsTable,
  indexTable,
  markTableOfVersion3
]
/** Which of them are made anew. */
const indexesOf: Readonly<Record<number, ReadonlyArray<string>>> = {
  1: [],
  2: ["by_revision", "by_id", "indexed"],
  3: ["stream_index", "indexed"]
}

/** The `factText` of a row as it was up to version 3. */
const factOfOldRow = `fact_text(id, type, version, time_ms, correlation, causation, principal_kind, principal_name,
  node, answers, data)`
const oldRows = (table: string) =>
  `(select position, stream, revision, ${factOfOldRow} as fact, hash from ${table})`

/** What has the columns of the table of facts, in a file of any version. */
export function factsIn(database: DatabaseSync): string {
  if (versionOf(database) === schemaVersion) return "events"
  defineFactText(database)
  return oldRows("events")
}

function defineFactText(database: DatabaseSync): void {
  const options = { deterministic: true, directOnly: true, varargs: true }
  database.function("fact_text", options, (...members) => JSON.stringify(members))
}

export interface FileSettings {
  /** Where the store lies, absolute and free of symbolic links. */
  readonly path: string
  readonly busyTimeoutMs: number
  readonly sizeBytesMax: number
}

/**
 * Whose file is it? Read without SQLite, which would recover or rewrite a file that isn't ours to touch. The
 * caller holds the writer's lock, because closing the descriptor drops this process's locks on the file.
 */
export function checkHeader(path: string): "new" | "existing" | StoreUnsupported {
  const header = Buffer.alloc(headerBytes)
  const descriptor = openSync(path, "a+", 0o600)
  let read: number
  try {
    read = readSync(descriptor, header, 0, headerBytes, 0)
  } finally {
    closeSync(descriptor)
  }
  if (read === 0) return "new"
  if (read < headerBytes || header.toString("latin1", 0, magic.length) !== magic)
    return new StoreUnsupported({ path, reason: "it is not a SQLite database" })
  const found = header.readUInt32BE(68)
  if (found === applicationId) return "existing"
  const hexadecimal = (id: number) => `0x${id.toString(16).padStart(8, "0")}`
  const reason = `its application id is ${hexadecimal(found)}, allowed is ${hexadecimal(applicationId)}`
  return new StoreUnsupported({ path, reason })
}

function create(database: DatabaseSync): void {
  // All in one transaction of the rollback journal: a crash leaves an empty file or a finished one.
  database.exec("begin immediate")
  database.exec(`pragma application_id = ${applicationId}`)
  database.exec(`pragma user_version = ${schemaVersion}`)
  for (const table of tables) database.exec(table)
  writeFirstMark(database)
  database.exec("commit")
}

function writeFirstMark(database: DatabaseSync): void {
  database.prepare("insert into indexed (position, key) values (0, ?)").run(randomBytes(keyBytes))
}

function versionOf(database: DatabaseSync): number {
  return Number(database.prepare("pragma user_version").get()?.["user_version"])
}

function checkSchema(database: DatabaseSync, path: string): StoreUnsupported | StoreDamaged | null {
  const version = versionOf(database)
  const wanted = new Map([
    [1, tablesOfVersion1],
    [2, tablesOfVersion2],
    [3, tablesOfVersion3],
    [schemaVersion, tables]
  ]).get(version)
  if (wanted === undefined)
    return new StoreUnsupported({
      path,
      reason: `its version is ${version}, allowed are 1 to ${schemaVersion}`
    })
  const found = database
    .prepare("select sql from sqlite_schema where sql is not null order by rootpage")
    .all()
    .map((row) => row["sql"])
  const same = found.length === wanted.length && wanted.every((table) => found.includes(table))
  return same ? null : new StoreDamaged({ path, position: 0, reason: "its tables are not the event store's" })
}

/**
 * Bring a file of an older version, already checked, to this one, in one transaction; it needs as much room again. What a fact
 * says is not changed, so the chain stays what it was. Throws SQLite's errors; the file is then as before.
 */
export function upgrade(database: DatabaseSync): void {
  const version = versionOf(database)
  if (version === schemaVersion) return
  defineFactText(database)
  database.exec("begin immediate")
  try {
    database.exec("alter table events rename to old_events")
    database.exec(eventsTable)
    database.exec(`insert into events select * from ${oldRows("old_events")} order by position`)
    database.exec("drop table old_events")
    for (const table of indexesOf[version] ?? []) database.exec(`drop table ${table}`)
    for (const table of [indexTable, markTable, factsView]) database.exec(table)
    writeFirstMark(database)
    writeWholeIndex(database)
    database.exec(`pragma user_version = ${schemaVersion}`)
    database.exec("commit")
  } catch (error) {
    if (database.isTransaction) database.exec("rollback")
    throw error
  }
}

function configure(database: DatabaseSync, settings: FileSettings): void {
  database.exec("pragma trusted_schema = off")
  database.exec("pragma cell_size_check = on")
  database.exec("pragma cache_size = -65536")
  // Checkpoints are synced by SQLite, commits by `LogSync`.
  database.exec("pragma synchronous = normal")
  // At a commit SQLite only does what the `Checkpointer` left, and thereby begins the log anew: at 64 MiB of it.
  database.exec("pragma wal_autocheckpoint = 16000")
  database.exec("pragma journal_size_limit = 67108864")
  const pageBytes = Number(database.prepare("pragma page_size").get()?.["page_size"])
  const pagesMax = Math.min(0xfffffffe, Math.max(1, Math.floor(settings.sizeBytesMax / pageBytes)))
  database.exec(`pragma max_page_count = ${pagesMax}`)
}

/** Open the file, or fill it when it is new. The caller holds the lock. Throws SQLite's and the system's errors. */
export function openFile(
  settings: FileSettings,
  state: "new" | "existing"
): DatabaseSync | StoreUnsupported | StoreDamaged {
  const database = new DatabaseSync(settings.path, { timeout: settings.busyTimeoutMs, defensive: true })
  try {
    if (state === "new") create(database)
    const problem = checkSchema(database, settings.path)
    if (problem !== null) {
      database.close()
      return problem
    }
    const mode = database.prepare("pragma journal_mode = wal").get()?.["journal_mode"]
    if (mode !== "wal")
      throw new StoreFailure({ operation: "open", reason: `journal mode is ${mode}, needed is wal` })
    configure(database, settings)
    return database
  } catch (error) {
    if (database.isOpen) database.close()
    throw error
  }
}
