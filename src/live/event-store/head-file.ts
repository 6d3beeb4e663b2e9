/**
 * The acknowledged head, in a small file beside the store: one line `position hash checksum`.
 *
 * SQLite's write-ahead log ends at the first frame whose checksum is wrong: a torn last transaction disappears
 * by design, but so would acknowledged facts behind a flipped bit or in a lost `-wal` file. This file, written
 * after each commit and before it is acknowledged, is what turns that into an error. It is not synced: it is
 * never ahead of the synced log, and after a power failure an older line only checks less. A missing file is
 * made again and checks nothing: that is how an operator accepts a store that lost its end.
 */
import { closeSync, fstatSync, fsyncSync, openSync, readSync, writeSync } from "node:fs"
import type { Head } from "../../kernel/ports/event-store.ts"

export interface HeadFile {
  readonly path: string
  /** What was acknowledged when the store was last written; null for a new file; "damaged" when unreadable. */
  readonly acknowledged: Head | null | "damaged"
  readonly write: (head: Head) => void
  readonly close: () => void
}

/** One disk sector at most, so that a write is seen whole or not at all. */
const lineBytes = 160
const line = /^(\d{16}) ([0-9a-f]{64}) ([0-9a-f]{64}) {13}\n$/

function parse(text: string, sha256: (text: string) => string): Head | "damaged" {
  const match = line.exec(text)
  const [, position, hash, checksum] = match ?? []
  if (position === undefined || hash === undefined || checksum !== sha256(`${position} ${hash}`))
    return "damaged"
  return { position: Number(position), hash }
}

/** Open or create `path`. Throws the system's error when it can't. */
export function openHeadFile(path: string, sha256: (text: string) => string): HeadFile {
  const file = openSync(path, "a+", 0o600)
  closeSync(file)
  const descriptor = openSync(path, "r+")
  const sizeBytes = fstatSync(descriptor).size
  const buffer = Buffer.alloc(lineBytes)
  let acknowledged: HeadFile["acknowledged"] = null
  if (sizeBytes > 0) {
    readSync(descriptor, buffer, 0, lineBytes, 0)
    acknowledged = sizeBytes === lineBytes ? parse(buffer.toString("latin1"), sha256) : "damaged"
  }
  return {
    path,
    acknowledged,
    write: ({ position, hash }) => {
      const text = `${String(position).padStart(16, "0")} ${hash}`
      buffer.write(`${text} ${sha256(text)}${" ".repeat(13)}\n`, 0, "latin1")
      writeSync(descriptor, buffer, 0, lineBytes, 0)
    },
    close: () => {
      fsyncSync(descriptor)
      closeSync(descriptor)
    }
  }
}
