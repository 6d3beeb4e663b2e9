/**
 * Syncs the write-ahead log beside the event loop. SQLite would do it within the commit and hold up every request for
 * as long as the disk takes; so SQLite only writes the log (`synchronous = normal`), and a commit counts when the sync
 * that began after it has ended. At a checkpoint SQLite syncs the log and then the file by itself.
 */
import { closeSync, fdatasync, fdatasyncSync, fsyncSync, openSync } from "node:fs"
import { dirname } from "node:path"

/** Called once, with null when everything that was written before the call of `request` is on the disk. */
type Synced = (error: NodeJS.ErrnoException | null) => void

export class LogSync {
  readonly #path: string
  #descriptor: number | null = null
  #waiting: Array<Synced> = []
  /** Those whom the sync on its way will tell; null while there is none. */
  #syncing: ReadonlyArray<Synced> | null = null
  #closed = false
  #failure: NodeJS.ErrnoException | null = null

  /** `path` of the log. SQLite keeps this very file for as long as the database is open. */
  constructor(path: string) {
    this.#path = path
  }

  /** One sync serves all who asked before it began. A log that can't be opened throws the system's error. */
  request(synced: Synced): void {
    if (this.#failure !== null) return synced(this.#failure)
    this.#open()
    this.#waiting.push(synced)
    if (this.#syncing === null) this.#begin()
  }

  /** Sync what is still waited for, now, and tell. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    const told = [...(this.#syncing ?? []), ...this.#waiting]
    this.#waiting = []
    if (this.#descriptor === null) return
    let problem = this.#failure
    try {
      if (told.length > 0 && problem === null) fdatasyncSync(this.#descriptor)
    } catch (error) {
      problem = error as NodeJS.ErrnoException
    }
    // A number that is closed under a running sync may by then be another file's.
    if (this.#syncing === null) closeSync(this.#descriptor)
    for (const synced of told) synced(problem)
  }

  /**
   * The system may have let go of what it could not write, and call the next sync a success: no one's facts are on the disk
   * any more (https://wiki.postgresql.org/wiki/Fsync_Errors).
   */
  #fail(told: ReadonlyArray<Synced>, error: NodeJS.ErrnoException): void {
    this.#failure = error
    const all = [...told, ...this.#waiting]
    this.#waiting = []
    for (const synced of all) synced(error)
  }

  #open(): number {
    if (this.#descriptor !== null) return this.#descriptor
    const folder = openSync(dirname(this.#path), "r")
    try {
      this.#descriptor = openSync(this.#path, "r+")
      fsyncSync(folder)
    } finally {
      closeSync(folder)
    }
    return this.#descriptor
  }

  #begin(): void {
    const descriptor = this.#open()
    const told = this.#waiting
    this.#waiting = []
    this.#syncing = told
    fdatasync(descriptor, (error) => {
      this.#syncing = null
      if (this.#closed) return closeSync(descriptor)
      if (error !== null) return this.#fail(told, error)
      // The disk goes on while those are told whom it is done with.
      if (this.#waiting.length > 0) this.#begin()
      for (const synced of told) synced(null)
    })
  }
}
