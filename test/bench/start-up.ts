/** From the spawn of `novacron up` to the first 200 of `GET /ready`, beside the start of a bare `node`. */
import { execFileSync, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { request } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { Effect, Layer } from "effect"
import { journalFile } from "../../src/cli/offline.ts"
import * as digest from "../../src/live/digest.ts"
import * as eventStore from "../../src/live/event-store.ts"
import { fill } from "./actors.ts"

export interface StartUpResult {
  readonly facts: number
  readonly secondsToReady: number
  readonly bareNodeSeconds: number
}

const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url))
const factsPerMachine = 5
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

async function secondsToReady(folder: string): Promise<number> {
  const config = {
    system: { node_id: "bench", data_dir: folder },
    api: { socket: join(folder, "api.sock") },
    network: { bind_port: 0 }
  }
  const file = join(folder, "config.yaml")
  writeFileSync(file, JSON.stringify(config), { mode: 0o600 })
  const began = performance.now()
  const child = spawn(process.execPath, [main, "up", "--config", file], { stdio: "ignore" })
  try {
    while ((await statusOf(config.api.socket, join(folder, "api-token"))) !== 200) {
      if (child.exitCode !== null || performance.now() - began > giveUpMs)
        throw new Error(`the node was not ready; exit code ${child.exitCode}`)
      await sleep(5)
    }
    return (performance.now() - began) / 1000
  } finally {
    if (child.exitCode === null) {
      child.kill("SIGTERM")
      await once(child, "exit")
    }
  }
}

function bareNode(): number {
  const began = performance.now()
  execFileSync(process.execPath, ["-e", "0"])
  return (performance.now() - began) / 1000
}

const median = (all: ReadonlyArray<number>): number =>
  all.toSorted((a, b) => a - b)[Math.floor(all.length / 2)] ?? 0

/** Medians; each start is one over the journal of the one before. */
export async function benchStartUp(facts: number, rounds: number): Promise<StartUpResult> {
  const folder = mkdtempSync(join(tmpdir(), "nvb-"))
  try {
    if (facts > 0) {
      const path = join(folder, journalFile)
      const store = eventStore.layer({ path }).pipe(Layer.provide(digest.layer))
      await Effect.runPromise(Effect.provide(fill(facts / factsPerMachine), store))
    }
    const starts: Array<number> = []
    const bares: Array<number> = []
    for (let round = 0; round < rounds; round++) {
      starts.push(await secondsToReady(folder))
      bares.push(bareNode())
    }
    return { facts, secondsToReady: median(starts), bareNodeSeconds: median(bares) }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
