/**
 * Has the write-ahead log copied into the file by a thread, while the event loop goes on: a checkpoint writes and syncs
 * megabytes. What it does not manage SQLite does itself, at a commit, when the log has become long (`sqlite.ts`).
 */
import { extname } from "node:path"
import { Worker } from "node:worker_threads"
import type { CheckpointData, Told } from "./checkpoint-thread.ts"

/** Between two checkpoints; some 4 MiB of log. */
const factsBetween = 4000

const threadFile = () =>
  new URL(`./checkpoint-thread${extname(new URL(import.meta.url).pathname)}`, import.meta.url)

export class Checkpointer {
  readonly #workerData: CheckpointData
  #facts = 0
  /** Begun when there is something to do; a small store never has one. */
  #thread: Worker | null = null
  #isBusy = false
  /** It ended by itself: SQLite goes on alone. */
  #hasFailed = false

  constructor(workerData: CheckpointData) {
    this.#workerData = workerData
  }

  /** So many facts more are in the log. */
  appended(facts: number): void {
    this.#facts += facts
    if (this.#facts < factsBetween || this.#isBusy || this.#hasFailed) return
    this.#facts = 0
    this.#isBusy = true
    this.#thread ??= this.#begin()
    this.#thread.postMessage("checkpoint" satisfies Told)
  }

  /** Resolves when the thread, and its connection, are gone. */
  close(): Promise<void> {
    const thread = this.#thread
    if (thread === null || this.#hasFailed) return Promise.resolve()
    return new Promise((resolve) => {
      thread.once("exit", () => resolve())
      thread.ref()
      thread.postMessage("close" satisfies Told)
    })
  }

  #begin(): Worker {
    const thread = new Worker(threadFile(), { workerData: this.#workerData })
    // Nobody waits for it.
    thread.unref()
    thread.on("message", () => {
      this.#isBusy = false
    })
    thread.on("error", () => {})
    thread.on("exit", () => {
      this.#hasFailed = true
    })
    return thread
  }
}
