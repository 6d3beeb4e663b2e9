/**
 * What a node and the watcher beside it tell each other, by small files in `fencing` in the data folder: until when the lease is, that
 * the watcher is there, and what it has ended. Each is replaced in one step, and means nothing after the machine was started anew.
 */
import { appendFileSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { uptime } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { Schema } from "effect"
import { Name } from "../../events/fields.ts"

/** Milliseconds since this machine was started, also while it slept (CLOCK_BOOTTIME); whole hundredths of a second. */
export const bootMs = (): number => Math.floor(uptime() * 1000)

/** Of this start of the machine (random(4)). */
export const bootId = (): string => readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()

/** When a process began, in clock ticks since the machine was started; null when it does not run, or was stopped (proc(5), 3 and 22). */
export function beganAt(pid: number): string | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8")
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ")
    return "ZXxTt".includes(fields[0] ?? "Z") ? null : (fields[19] ?? null)
  } catch {
    return null
  }
}

const LeaseFile = Schema.Struct({ boot: Schema.String, untilMs: Schema.Int })
const ProcessFile = Schema.Struct({ boot: Schema.String, pid: Schema.Int, began: Schema.String })
const WatcherFile = Schema.Struct({ ...ProcessFile.fields, seenMs: Schema.Int })
const EndedLine = Schema.Struct({ vm: Name })

/** When a watcher has not been heard of for so long it does not watch. */
const silent_max_ms = 10_000

export class FencingFolder {
  readonly folder: string

  /** Made when it is not there. */
  constructor(dataDir: string) {
    this.folder = join(dataDir, "fencing")
  }

  make(): void {
    mkdirSync(this.folder, { recursive: true, mode: 0o700 })
  }

  #path(name: string): string {
    return join(this.folder, name)
  }

  #read<A>(name: string, schema: Schema.Codec<A, any>): A | null {
    try {
      return Schema.decodeUnknownSync(schema)(JSON.parse(readFileSync(this.#path(name), "utf8")))
    } catch {
      return null
    }
  }

  #replace(name: string, value: object): void {
    const path = this.#path(name)
    writeFileSync(`${path}.new`, JSON.stringify(value), { mode: 0o600 })
    renameSync(`${path}.new`, path)
  }

  /**
   * Until when, by `bootMs`; null where none is needed. One of before the machine was started has run out, and so has one that can't
   * be read.
   */
  lease(): number | null {
    let text: string
    try {
      text = readFileSync(this.#path("lease.json"), "utf8")
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return null
      throw error
    }
    try {
      const { boot, untilMs } = Schema.decodeUnknownSync(LeaseFile)(JSON.parse(text))
      return boot === bootId() ? untilMs : 0
    } catch {
      return 0
    }
  }

  storeLease(untilMs: number | null): void {
    if (untilMs === null) rmSync(this.#path("lease.json"), { force: true })
    else this.#replace("lease.json", { boot: bootId(), untilMs: Math.floor(untilMs) })
  }

  /** The watcher is there, and looks. */
  storeWatcher(): void {
    const { pid } = process
    this.#replace("watcher.json", { boot: bootId(), pid, began: beganAt(pid) ?? "", seenMs: bootMs() })
  }

  /** `runs`: its process is there; `looks`: it was heard of not long ago. */
  watcher(): { readonly runs: boolean; readonly looks: boolean } {
    const file = this.#read("watcher.json", WatcherFile)
    if (file === null || file.boot !== bootId()) return { runs: false, looks: false }
    const looks = bootMs() - file.seenMs < silent_max_ms
    return { runs: looks && beganAt(file.pid) === file.began, looks }
  }

  /** Where nothing is left to watch, and its folder is to be removed. */
  async endWatcher(): Promise<void> {
    const file = this.#read("watcher.json", WatcherFile)
    const runs = () => file !== null && file.boot === bootId() && beganAt(file.pid) === file.began
    if (file === null || !runs()) return
    process.kill(file.pid, "SIGTERM")
    while (runs()) await sleep(5)
  }

  storeNode(): void {
    const { pid } = process
    this.#replace("node.json", { boot: bootId(), pid, began: beganAt(pid) ?? "" })
  }

  /** Whether the node's process is there, also when it stands still. */
  hasNode(): boolean {
    const file = this.#read("node.json", ProcessFile)
    if (file === null || file.boot !== bootId()) return false
    try {
      const text = readFileSync(`/proc/${file.pid}/stat`, "utf8")
      return text.slice(text.lastIndexOf(")") + 2).split(" ")[19] === file.began
    } catch {
      return false
    }
  }

  noteEnded(vm: string): void {
    appendFileSync(this.#path("ended.ndjson"), `${JSON.stringify({ vm })}\n`, { mode: 0o600 })
  }

  /** What was ended and not told of; set aside, so that what is ended meanwhile is told next time. */
  ended(): ReadonlyArray<string> {
    const aside = this.#path("ended.telling.ndjson")
    if (this.#lines(aside).length === 0) {
      try {
        renameSync(this.#path("ended.ndjson"), aside)
      } catch {
        return []
      }
    }
    return [...new Set(this.#lines(aside))].sort()
  }

  #lines(path: string): ReadonlyArray<string> {
    try {
      return readFileSync(path, "utf8")
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => Schema.decodeUnknownSync(EndedLine)(JSON.parse(line)).vm)
    } catch {
      return []
    }
  }

  told(): void {
    rmSync(this.#path("ended.telling.ndjson"), { force: true })
  }
}
