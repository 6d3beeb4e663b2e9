/** From the spawn of `novacron up` to the first 200 of `GET /ready`, beside the start of a bare `node`. */
import { execFileSync, spawn } from "node:child_process"
import { once } from "node:events"
import { readFileSync, writeFileSync } from "node:fs"
import { request } from "node:http"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { journalFile } from "../../src/cli/offline.ts"
import { withStore } from "./event-store.ts"
import { turnsToRun, writeLives } from "./lives.ts"
import { figure, hashOf, inFolder } from "./measure.ts"
import type { Figure, Options, Round } from "./measure.ts"

const command = fileURLToPath(new URL("../../bin/novacron.mjs", import.meta.url))
const giveUpMs = 30_000

/** 0 while nobody answers. */
const statusOf = (socketPath: string, tokenFile: string): Promise<number> =>
  new Promise((resolve) => {
    let token = ""
    try {
      token = readFileSync(tokenFile, "utf8").trim()
    } catch {
      resolve(0)
      return
    }
    const headers = { authorization: `Bearer ${token}` }
    request({ socketPath, path: "/ready", headers }, (response) => {
      response.resume()
      resolve(response.statusCode ?? 0)
    })
      .on("error", () => resolve(0))
      .end()
  })

async function msToReady(folder: string): Promise<number> {
  const config = {
    system: { node_id: "bench", data_dir: folder },
    api: { socket: join(folder, "api.sock") },
    network: { bind_port: 0 }
  }
  const file = join(folder, "config.yaml")
  writeFileSync(file, JSON.stringify(config), { mode: 0o600 })
  const began = performance.now()
  const child = spawn(process.execPath, [command, "up", "--config", file], {
    stdio: "ignore",
    // Where the first of the rounds puts its compiled code.
    env: { ...process.env, CACHE_DIRECTORY: join(folder, "cache") }
  })
  try {
    while ((await statusOf(config.api.socket, join(folder, "api-token"))) !== 200) {
      if (child.exitCode !== null || performance.now() - began > giveUpMs)
        throw new Error(`the node was not ready; exit code ${child.exitCode}`)
      await sleep(5)
    }
    return performance.now() - began
  } finally {
    if (child.exitCode === null) {
      child.kill("SIGTERM")
      await once(child, "exit")
    }
  }
}

function bareNodeMs(): number {
  const began = performance.now()
  execFileSync(process.execPath, ["-e", "0"])
  return performance.now() - began
}

const sizes = {
  smoke: { machines: [20], rounds: 1 },
  full: { machines: [0, 2000, 20_000], rounds: 7 }
}

/** Each start is one over the journal of the one before, which ended in order and left a checkpoint. */
export async function* startUp({ size, seed }: Options): AsyncGenerator<Figure> {
  const { machines, rounds } = sizes[size]
  for (const count of machines)
    yield await inFolder(async (folder) => {
      const work = { machines: count, turns: turnsToRun, seed }
      const facts = await withStore(join(folder, journalFile), (store) => writeLives(store, work))
      const measured: Array<Round> = []
      for (let round = 0; round < rounds; round++) {
        const value = await msToReady(folder)
        measured.push({ value, yardstick: bareNodeMs(), result: hashOf([`${facts}`]) })
      }
      return figure(`${facts} facts to ready`, "ms", measured, { yardstick: "a bare node" })
    })
}
