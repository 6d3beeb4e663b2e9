/**
 * Copies the write-ahead log into the file when it is told to, over a connection of its own: SQLite lets others write
 * meanwhile. Loads nothing large.
 */
import { DatabaseSync } from "node:sqlite"
import { parentPort, workerData } from "node:worker_threads"

export interface CheckpointData {
  readonly path: string
  readonly busyTimeoutMs: number
}

export type Told = "checkpoint" | "close"

if (parentPort !== null) {
  const port = parentPort
  const { path, busyTimeoutMs } = workerData as CheckpointData
  const database = new DatabaseSync(path, { timeout: busyTimeoutMs, defensive: true })
  database.exec("pragma synchronous = normal")
  const checkpoint = database.prepare("pragma wal_checkpoint(passive)")
  port.on("message", (told: Told) => {
    if (told === "close") {
      database.close()
      return port.close()
    }
    checkpoint.all()
    port.postMessage("done")
  })
}
