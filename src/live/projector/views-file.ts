/**
 * The projections' own SQLite file. A checkpoint writes the changed rows and the position they belong to in one
 * transaction, so the file always holds the state after exactly that many facts. Everything in it can be derived
 * again: a file that is damaged or of another release is put aside and a new one begun.
 *
 * A `run` is one build of one projection; while a projection is rebuilt, two runs of it lie side by side.
 */
import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs"
import { dirname } from "node:path"
import { DatabaseSync } from "node:sqlite"
import type { StatementSync } from "node:sqlite"
import { crc32 } from "node:zlib"
import { StoreFailure } from "../../kernel/ports/event-store.ts"
import type { Table } from "../../projections/table.ts"
import { failureOf, isDamage } from "../event-store/errors.ts"

/** `NvVw`, at offset 68 of the file. */
const applicationId = 0x4e765677
const schemaVersion = 1
const busyTimeoutMs = 1000

export interface StoredRun {
  readonly run: number
  readonly version: number
  readonly position: number
  /** Hash of the fact at `position`: the file belongs to this journal and no other. */
  readonly hash: string
}

export interface RunCheckpoint extends StoredRun {
  readonly projection: string
  readonly serving: boolean
  readonly tables: Readonly<Record<string, Table<unknown>>>
}

/** What lies in the file is not what was written. */
export class RowsDamaged extends Error {}

const tables = `
CREATE TABLE runs (
  run INTEGER PRIMARY KEY,
  projection TEXT NOT NULL,
  version INTEGER NOT NULL,
  serving INTEGER NOT NULL,
  position INTEGER NOT NULL,
  hash TEXT NOT NULL,
  row_count INTEGER NOT NULL
) STRICT;
CREATE TABLE rows (
  place INTEGER PRIMARY KEY,
  run INTEGER NOT NULL,
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  row TEXT NOT NULL,
  crc INTEGER NOT NULL,
  UNIQUE (run, kind, key)
) STRICT;
PRAGMA application_id = ${applicationId};
PRAGMA user_version = ${schemaVersion};
`

const numberOf = (database: DatabaseSync, pragma: string): number =>
  Number(Object.values(database.prepare(`PRAGMA ${pragma}`).get() ?? {})[0])

const crcOf = (kind: string, key: string, text: string): number => crc32(text, crc32(`${kind}\0${key}\0`))

/** The reason why the file can't be used as it is, or null; a new file gets its tables. */
function unusable(database: DatabaseSync): string | null {
  const objects = database.prepare("SELECT count(*) AS n FROM sqlite_schema").get()?.["n"]
  if (objects === 0) {
    database.exec(`BEGIN;${tables}COMMIT`)
    return null
  }
  if (numberOf(database, "application_id") !== applicationId) return "it is not a file of views"
  const version = numberOf(database, "user_version")
  if (version !== schemaVersion) return `its tables are of version ${version}, not ${schemaVersion}`
  const check = Object.values(database.prepare("PRAGMA quick_check(1)").get() ?? {})[0]
  return check === "ok" ? null : String(check)
}

function tryOpen(path: string): DatabaseSync | string {
  const database = new DatabaseSync(path, { timeout: busyTimeoutMs })
  try {
    database.exec("PRAGMA locking_mode = exclusive; PRAGMA journal_mode = wal; PRAGMA synchronous = normal")
    const reason = unusable(database)
    if (reason === null) return database
    database.close()
    return reason
  } catch (error) {
    database.close()
    if (isDamage(error)) return (error as Error).message
    throw error
  }
}

/** Kept for whoever wants to know what happened to it; one is enough. */
function putAside(path: string): void {
  for (const ending of ["", "-wal", "-shm"]) {
    if (existsSync(path + ending)) renameSync(path + ending, `${path}.damaged${ending}`)
    else rmSync(`${path}.damaged${ending}`, { force: true })
  }
}

/**
 * Open or begin the file at `path` (`:memory:` for none). `warning` says why an existing one was put aside. Throws
 * `StoreFailure` when the disk or the rights say no.
 */
export function openViewsFile(path: string): { readonly file: ViewsFile; readonly warning: string | null } {
  try {
    if (path !== ":memory:") mkdirSync(dirname(path), { recursive: true })
    const opened = tryOpen(path)
    if (typeof opened !== "string") return { file: new ViewsFile(path, opened), warning: null }
    putAside(path)
    const fresh = tryOpen(path)
    if (typeof fresh === "string") throw new StoreFailure({ operation: "open views", reason: fresh })
    return { file: new ViewsFile(path, fresh), warning: opened }
  } catch (error) {
    throw failureOf("open views", path, error)
  }
}

export class ViewsFile {
  readonly #path: string
  readonly #database: DatabaseSync
  readonly #upsert: StatementSync
  readonly #deleteRow: StatementSync
  readonly #saveRun: StatementSync

  constructor(path: string, database: DatabaseSync) {
    this.#path = path
    this.#database = database
    this.#upsert = database.prepare(
      `INSERT INTO rows (run, kind, key, row, crc) VALUES (?, ?, ?, ?, ?)
       ON CONFLICT (run, kind, key) DO UPDATE SET row = excluded.row, crc = excluded.crc`
    )
    this.#deleteRow = database.prepare("DELETE FROM rows WHERE run = ? AND kind = ? AND key = ?")
    this.#saveRun = database.prepare(
      `INSERT INTO runs (run, projection, version, serving, position, hash, row_count) VALUES (?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (run) DO UPDATE SET serving = excluded.serving, position = excluded.position,
         hash = excluded.hash, row_count = excluded.row_count`
    )
  }

  close(): void {
    this.#database.close()
  }

  /** The run that serves this projection, null when there is none yet. */
  servingRun(projection: string): StoredRun | null {
    const row = this.#database
      .prepare(
        "SELECT run, version, position, hash FROM runs WHERE projection = ? AND serving = 1 ORDER BY run DESC LIMIT 1"
      )
      .get(projection)
    if (row === undefined) return null
    return {
      run: Number(row["run"]),
      version: Number(row["version"]),
      position: Number(row["position"]),
      hash: String(row["hash"])
    }
  }

  /** A number that no run has had since the file was opened, nor any that lies in it. */
  freshRun(taken: number): number {
    const last = this.#database.prepare("SELECT max(run) AS run FROM runs").get()?.["run"]
    return Math.max(Number(last ?? 0), taken) + 1
  }

  /** Fill empty tables with the rows of a run. Throws `RowsDamaged` when they are not what was written. */
  restore(run: number, into: Readonly<Record<string, Table<unknown>>>): void {
    let rows = 0
    try {
      const stored = this.#database.prepare(
        "SELECT kind, key, row, crc FROM rows WHERE run = ? ORDER BY place"
      )
      for (const { kind, key, row, crc } of stored.iterate(run)) {
        const [kindText, keyText, text] = [String(kind), String(key), String(row)]
        if (crcOf(kindText, keyText, text) !== crc) throw new RowsDamaged(`the row ${kindText} ${keyText}`)
        const table = into[kindText]
        if (table === undefined) throw new RowsDamaged(`the table ${kindText} is unknown`)
        table.restore(keyText, text)
        rows += 1
      }
    } catch (error) {
      throw isDamage(error) ? new RowsDamaged((error as Error).message) : error
    }
    const count = this.#database.prepare("SELECT row_count FROM runs WHERE run = ?").get(run)?.["row_count"]
    if (count !== rows) throw new RowsDamaged(`${rows} rows where ${String(count)} were written`)
  }

  /** Changed rows and positions of these runs, and the end of those, all or nothing. */
  save(checkpoints: ReadonlyArray<RunCheckpoint>, ended: ReadonlyArray<number> = []): void {
    this.#transaction(() => {
      for (const run of ended) this.#remove(run)
      for (const checkpoint of checkpoints) this.#write(checkpoint)
    })
    for (const { tables: written } of checkpoints) {
      for (const table of Object.values(written)) table.settle()
    }
  }

  /** Remove every run but these: builds that a crash cut short, projections that no longer are. */
  keepOnly(runs: ReadonlySet<number>): void {
    this.#transaction(() => {
      for (const { run } of this.#database.prepare("SELECT run FROM runs").all()) {
        if (!runs.has(Number(run))) this.#remove(Number(run))
      }
    })
  }

  #transaction(work: () => void): void {
    try {
      this.#database.exec("BEGIN IMMEDIATE")
      work()
      this.#database.exec("COMMIT")
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK")
      throw failureOf("save views", this.#path, error)
    }
  }

  #write({ run, projection, version, serving, position, hash, tables: written }: RunCheckpoint): void {
    let rowCount = 0
    for (const [kind, table] of Object.entries(written)) {
      rowCount += table.size
      for (const { key, text, moved } of table.changes()) {
        if (text === null || moved) this.#deleteRow.run(run, kind, key)
        if (text !== null) this.#upsert.run(run, kind, key, text, crcOf(kind, key, text))
      }
    }
    this.#saveRun.run(run, projection, version, serving ? 1 : 0, position, hash, rowCount)
  }

  #remove(run: number): void {
    this.#database.prepare("DELETE FROM rows WHERE run = ?").run(run)
    this.#database.prepare("DELETE FROM runs WHERE run = ?").run(run)
  }
}
