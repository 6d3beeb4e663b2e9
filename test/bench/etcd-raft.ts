/** etcd's Raft library as a yardstick: `etcd-raft/main.go`, built when it is wanted, in processes of its own. */
import { spawn } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { end } from "./children.ts"
import { goBuild } from "./go.ts"

/** A round: so many proposals of so many bytes, and how many of them are on their way at most. */
export interface Work {
  readonly count: number
  readonly inFlight: number
  readonly bytes: number
  readonly seed: number
}

export interface Took {
  readonly seconds: number
  /** Of all threads of the process, those of the collector too. */
  readonly cpuSeconds: number
  /** Hash of everything that was applied, in order; the same on all members. */
  readonly result: string
}

const source = fileURLToPath(new URL("etcd-raft", import.meta.url))

/** The program, built into this folder; rejects with the reason when Go, or the library, can't be had. */
export const buildEtcdRaft = (folder: string, isOnline: boolean): Promise<string> =>
  goBuild(source, join(folder, "etcd-raft"), isOnline)

/** One process of it, that does one round after the other. */
export class EtcdRaft {
  readonly #child: ChildProcess
  readonly #lines: AsyncIterator<string>

  /** With so many processors; as many as there are with null. */
  constructor(program: string, processors: number | null) {
    const env = processors === null ? process.env : { ...process.env, GOMAXPROCS: String(processors) }
    const child = spawn(program, [], { env, stdio: ["pipe", "pipe", "inherit"] })
    this.#child = child
    this.#lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  }

  /** `together`: everything that may be proposed at a time is one message. */
  async round(work: Work, together: boolean): Promise<Took> {
    this.#child.stdin?.write(`${JSON.stringify({ ...work, together })}\n`)
    const { value, done } = await this.#lines.next()
    if (done === true) throw new Error("etcd-raft ended without an answer")
    return JSON.parse(value) as Took
  }

  end(): Promise<void> {
    return end(this.#child)
  }
}
