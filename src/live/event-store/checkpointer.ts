/**
 * Has the write-ahead log copied into the file by a thread, while the event loop goes on: a checkpoint writes and syncs
 * megabytes. What it does not manage SQLite does itself, at a commit, when the log has become long (`sqlite.ts`).
 */
import { extname } from "node:path"
import { Worker } from "node:worker_threads"
import type { CheckpointData, Told } from "./checkpoint-thread.ts"

/** Of data between two checkpoints; the log has half as much again. */
const bytesBetween = 4 * 1024 * 1024

const threadFile = () =>
  new URL(`./checkpoint-thread${extname(new URL(import.meta.url).pathname)}`, import.meta.url)

export class Checkpointer {
  readonly #workerData: CheckpointData
  readonly #warn: (reason: string) => void
  #bytes = 0
  /** Begun when there is something to do; a small store never has one. */
  #thread: Worker | null = null
  #isBusy = false
  /** It ended by itself: SQLite goes on alone. */
  #hasFailed = false

  /** `warn` is told once when the thread fails: nothing is lost then, but commits do its work again. */
  constructor(workerData: CheckpointData, warn: (reason: string) => void) {
    this.#workerData = workerData
    this.#warn = warn
  }

  /** So many bytes more are in the log. */
  written(bytes: number): void {
    this.#bytes += bytes
    if (this.#bytes < bytesBetween || this.#isBusy || this.#hasFailed) return
    this.#bytes = 0
    this.#isBusy = true
    try {
      this.#thread ??= this.#begin()
      this.#thread.postMessage("checkpoint" satisfies Told)
    } catch (error) {
      // No more threads for this process, say: whoever appends is not to hear of it.
      this.#hasFailed = true
      this.#warn((error as Error).message)
    }
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
    thread.on("error", (error) => this.#warn(error.message))
    thread.on("exit", () => {
      this.#hasFailed = true
    })
    return thread
  }
}
