/**
 * One writer per store. The lock is SQLite's own reserved lock on a small database beside the store, held by
 * an open transaction: the kernel drops it when the process ends in whatever way, `kill -9` included, and a
 * reader can still see the row that says who holds it.
 *
 * The lock file must never be opened by anything but SQLite in the holder's process: closing any descriptor of
 * a file drops all POSIX locks that the process has on it.
 */
import { DatabaseSync } from "node:sqlite"
import { failureOf, sqliteCode, StoreLocked } from "./errors.ts"
import type { StoreFailure } from "../../kernel/ports/event-store.ts"

export interface WriterLock {
  readonly release: () => void
}

const busy = 5
/** Two openers can meet in the gap between saying who holds and holding; one of them goes round again. */
const attemptsMax = 8

function holderOf(database: DatabaseSync): number {
  try {
    const row = database.prepare("select pid from holder").get()
    return typeof row?.["pid"] === "number" ? row["pid"] : 0
  } catch {
    return 0
  }
}

/** Take the lock of the store at `storePath` for process `pid`, at once or not at all. */
export function takeWriterLock(storePath: string, pid: number): WriterLock | StoreLocked | StoreFailure {
  let database: DatabaseSync | undefined
  try {
    database = new DatabaseSync(`${storePath}.lock`, { timeout: 50 })
    database.exec("pragma synchronous = off")
    for (let attempt = 1; attempt <= attemptsMax; attempt++) {
      try {
        database.exec("begin immediate")
        database.exec(
          "create table if not exists holder (only integer primary key, pid integer not null) strict"
        )
        const holder = holderOf(database)
        if (holder === pid) return heldBy(database)
        database.prepare("insert or replace into holder values (1, ?)").run(pid)
        // Committed so that others can read it; the next round takes the lock again and keeps it.
        database.exec("commit")
      } catch (error) {
        if (database.isTransaction) database.exec("rollback")
        if (((sqliteCode(error) ?? 0) & 0xff) !== busy) throw error
        if (holderOf(database) !== pid) break
      }
    }
    const holderPid = holderOf(database)
    database.close()
    return new StoreLocked({ path: storePath, holderPid })
  } catch (error) {
    if (database?.isOpen) database.close()
    return failureOf("open", `${storePath}.lock`, error)
  }
}

const heldBy = (database: DatabaseSync): WriterLock => ({
  release: () => {
    if (database.isTransaction) database.exec("rollback")
    database.close()
  }
})
