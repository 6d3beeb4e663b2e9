/** What can go wrong when a store is opened, and how SQLite's own errors become the port's. */
import { Schema } from "effect"
import { StoreFailure } from "../../kernel/ports/event-store.ts"

/** Another process (or another store in this one) has this file open for writing. */
export class StoreLocked extends Schema.TaggedError<StoreLocked>()("StoreLocked", {
  path: Schema.String,
  /** 0 when the holder has not yet said who it is. */
  holderPid: Schema.Int
}) {
  override get message(): string {
    return `the event store ${this.path} is open for writing in process ${this.holderPid}; one writer is allowed`
  }
}

/** The file isn't an event store of ours, or of a newer release. It was not touched. */
export class StoreUnsupported extends Schema.TaggedError<StoreUnsupported>()("StoreUnsupported", {
  path: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.path} can't be opened as an event store: ${this.reason}`
  }
}

// Primary result codes, https://sqlite.org/rescode.html
const busy = 5
const ioError = 10
const corrupt = 11
const full = 13
const notADatabase = 26

/** SQLite's extended result code, or null when `error` isn't SQLite's. */
export function sqliteCode(error: unknown): number | null {
  if (!(error instanceof Error) || !("code" in error) || error.code !== "ERR_SQLITE_ERROR") return null
  return "errcode" in error && typeof error.errcode === "number" ? error.errcode : 1
}

/** The same write may do when it is tried again: the disk was full, or the file in use. */
export function isPassing(error: unknown): boolean {
  const code = sqliteCode(error)
  return code !== null && ((code & 0xff) === full || (code & 0xff) === busy)
}

/** The file's content is bad, as opposed to the disk being full or the file busy. */
export function isDamage(error: unknown): boolean {
  const code = sqliteCode(error)
  if (code !== null) return (code & 0xff) === corrupt || (code & 0xff) === notADatabase
  // A number that no longer fits is how a flipped bit in an integer column shows.
  return error instanceof RangeError && "code" in error && error.code === "ERR_OUT_OF_RANGE"
}

/** After these nobody knows what the page cache holds: the store must be opened again before it writes. */
export function breaksWriting(error: unknown): boolean {
  const code = sqliteCode(error)
  return code !== null && ((code & 0xff) === ioError || isDamage(error))
}

/** The typed failure of an expected error; a programmer's error is thrown on. */
export function failureOf(operation: string, path: string, error: unknown): StoreFailure {
  if (error instanceof StoreFailure) return error
  const expected = sqliteCode(error) !== null || isDamage(error) || isSystemError(error)
  if (!expected) throw error
  return new StoreFailure({ operation, reason: `${path}: ${(error as Error).message}` })
}

export function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && "syscall" in error && "code" in error
}
