/** A node as a process of its own, on a folder of the test; how it ended and what it said and recorded. */
import { spawn } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { once } from "node:events"
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Context, Effect, Layer } from "effect"
import { typePrefix } from "../../src/events/envelope.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import * as digest from "../../src/live/digest.ts"
import * as eventStore from "../../src/live/event-store.ts"

const main = join(import.meta.dirname, "..", "..", "src", "main.ts")

export interface Ended {
  readonly code: number | null
  readonly err: string
}

export interface NodeFolder {
  readonly folder: string
  readonly dataDir: string
  /** Run `up`; `environment` on top of a small one of the test's own. */
  readonly start: (config?: Record<string, unknown>, environment?: Record<string, string>) => UpProcess
  /** What systemd would have been told. */
  readonly notified: () => ReadonlyArray<string>
  /** The node's own facts; fails while a process holds the journal. */
  readonly facts: () => Promise<
    ReadonlyArray<readonly [type: string, data: Readonly<Record<string, unknown>>]>
  >
  readonly remove: () => Promise<void>
}

export interface UpProcess {
  readonly child: ChildProcess
  readonly ended: Promise<Ended>
  /** Resolves with the log's line, or fails with what was said when the process ends first. */
  readonly ready: Promise<Record<string, unknown>>
}

const nodeId = "n1"

export function openNodeFolder(): NodeFolder {
  const folder = mkdtempSync(join(tmpdir(), "novacron-up-"))
  const dataDir = join(folder, "data")
  const programs = join(folder, "programs")
  const notes = join(folder, "notified")
  mkdirSync(programs)
  // Node has no datagram sockets of the unix kind; what the program is started with is what systemd would hear.
  writeFileSync(join(programs, "systemd-notify"), `#!/bin/sh\necho "$1" >> "${notes}"\n`)
  chmodSync(join(programs, "systemd-notify"), 0o755)
  const children: Array<UpProcess> = []
  return {
    folder,
    dataDir,
    start: (config = {}, environment = {}) => {
      const started = startProcess(folder, dataDir, config, {
        PATH: `${programs}:${process.env["PATH"] ?? ""}`,
        HOME: folder,
        NOTIFY_SOCKET: join(folder, "nobody"),
        ...environment
      })
      children.push(started)
      return started
    },
    notified: () => (existsSync(notes) ? readFileSync(notes, "utf8").trim().split("\n") : []),
    facts: () => factsIn(join(dataDir, "journal.db")),
    remove: async () => {
      for (const { child, ended } of children) {
        child.kill("SIGKILL")
        await ended
      }
      rmSync(folder, { recursive: true, force: true })
    }
  }
}

/** The programs that a node needs nothing of, and those alone. */
export const programsOnly = ({ folder }: NodeFolder) => ({ PATH: join(folder, "programs") })

function startProcess(
  folder: string,
  dataDir: string,
  config: Record<string, unknown>,
  environment: Record<string, string>
): UpProcess {
  const file = join(folder, "config.json")
  const whole = {
    system: { node_id: nodeId, data_dir: dataDir },
    hypervisor: { driver: "sim" },
    network: { listen_address: "127.0.0.1", bind_port: 0 },
    api: { port: 0 },
    ...config
  }
  writeFileSync(file, JSON.stringify(whole))
  const child = spawn(process.execPath, [main, "up", "--config", file], {
    stdio: ["ignore", "ignore", "pipe"],
    env: environment
  })
  let err = ""
  const closed = once(child, "close")
  const ready = new Promise<Record<string, unknown>>((resolve, reject) => {
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      err += text
      const line = err.split("\n").find((one) => one.startsWith('{"message":["ready",') && one.endsWith("}"))
      if (line) resolve((JSON.parse(line) as { message: [string, Record<string, unknown>] }).message[1])
    })
    void closed.then(() => reject(new Error(`it ended before it was ready: ${err}`)))
  })
  ready.catch(() => {})
  return { child, ready, ended: closed.then(([code]) => ({ code: code as number | null, err })) }
}

const factsIn = (path: string) =>
  Effect.runPromise(
    Effect.scoped(
      Effect.gen(function* () {
        const context = yield* Layer.build(eventStore.layer({ path }).pipe(Layer.provide(digest.layer)))
        const facts = yield* Context.get(context, EventStore).readStream(`node/${nodeId}`)
        return facts.map(({ type, data }) => [type.slice(typePrefix.length), data] as const)
      })
    )
  )
