/**
 * Commands per second over HTTP, beside a bare `node:http` server that parses a body of the same size and answers with
 * JSON of the same size. Both are in this process, in turns, under the same load from a process of its own.
 */
import { execFile } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { Context, Effect, Exit, Layer, Scope } from "effect"
import { HttpServer } from "effect/http"
import * as simDigest from "../../simulations/world/digest.ts"
import * as memoryStore from "../../simulations/world/event-store.ts"
import { actorKinds } from "../../src/actors/kinds.ts"
import { Kernel } from "../../src/kernel/kernel.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import { apiServer } from "../../src/live/api/server.ts"
import * as liveDigest from "../../src/live/digest.ts"
import * as liveStore from "../../src/live/event-store.ts"
import { Metrics } from "../../src/live/metrics.ts"
import { layer as projectorLayer } from "../../src/live/projector.ts"
import { allProjections, queriesLayer, readsLayer, viewsLayer } from "../../src/live/views.ts"
import { hostFacts, quietAgents } from "./kernel.ts"
import type { Load } from "./http-load.ts"

const run = promisify(execFile)
const loader = fileURLToPath(new URL("./http-load.ts", import.meta.url))
const token = `nct_${"b".repeat(43)}`

export interface HttpResult {
  readonly command: Load
  readonly echo: Load
}

async function load(port: number, connections: number, requests: number): Promise<Load> {
  const args = [loader, String(port), String(connections), String(requests), token]
  const { stdout } = await run(process.execPath, args, { maxBuffer: 1024 * 1024 })
  const result = JSON.parse(stdout) as Load
  if (result.failed > 0) throw new Error(`${result.failed} of ${requests} requests were refused`)
  return result
}

/** Answers every request with as many bytes as an operation has, made and parsed as JSON. */
async function openEcho(): Promise<{ port: number; close: () => void }> {
  const server = createServer((request, response) => {
    const chunks: Array<Buffer> = []
    request.on("data", (chunk: Buffer) => chunks.push(chunk))
    request.on("end", () => {
      const text = Buffer.concat(chunks).toString()
      const body = text === "" ? null : (JSON.parse(text) as unknown)
      const answer = JSON.stringify({ ...operationLike, body })
      response.writeHead(200, {
        "content-type": "application/json",
        "content-length": Buffer.byteLength(answer)
      })
      response.end(answer)
    })
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  return { port: (server.address() as AddressInfo).port, close: () => server.close() }
}

const operationLike = {
  id: "00000000-0000-0000-0000-000000000000",
  stream: "host/h0",
  began: "host.drained",
  state: "succeeded",
  reason: null,
  position: 1_000_000,
  lastPosition: 1_000_000,
  startedMs: 1_760_000_000_000,
  updatedMs: 1_760_000_000_000
}

/** The API with everything that a node has behind it: kernel, journal, views. */
async function openApi(journal: "memory" | "SQLite", hosts: number) {
  const folder = mkdtempSync(join(tmpdir(), "novacron-bench-"))
  const scope = Scope.makeUnsafe()
  const store =
    journal === "memory"
      ? memoryStore.layer().pipe(Layer.provide(simDigest.layer))
      : liveStore.layer({ path: join(folder, "journal.db") }).pipe(Layer.provide(liveDigest.layer))
  const projector = projectorLayer({
    path: journal === "memory" ? ":memory:" : join(folder, "views.db"),
    projections: allProjections
  })
  const kernel = Kernel.layer({ kinds: actorKinds, node: "bench" }).pipe(
    Layer.provideMerge(Layer.mergeAll(viewsLayer(), queriesLayer, quietAgents, Metrics.layer)),
    Layer.provideMerge(projector),
    Layer.provideMerge(store)
  )
  const listen = { host: "127.0.0.1", port: 0 }
  const served = apiServer({ listen, token, node: "bench", version: "0.0.0" }).pipe(
    Layer.provideMerge(readsLayer),
    Layer.provideMerge(kernel)
  )
  const context = await Effect.runPromise(Layer.buildWithScope(served, scope))
  const server = Context.get(context, HttpServer.HttpServer)
  for (let host = 0; host < hosts; host++) {
    await Effect.runPromise(
      Context.get(context, Kernel).submit({
        stream: `host/h${host}`,
        message: { type: "host.register", address: "127.0.0.1:1", facts: hostFacts },
        id: `register-${host}`,
        correlation: `register-${host}`,
        principal: { kind: "node", name: `h${host}` }
      })
    )
  }
  return {
    port: (server.address as unknown as AddressInfo).port,
    recorded: Effect.runPromise(Context.get(context, EventStore).head),
    close: async () => {
      await Effect.runPromise(Scope.close(scope, Exit.void))
      rmSync(folder, { recursive: true, force: true })
    }
  }
}

/** Medians of `rounds`, the two servers taking turns. */
export async function benchHttp(
  journal: "memory" | "SQLite",
  connections: number,
  requests: number,
  rounds: number
): Promise<HttpResult> {
  const echo = await openEcho()
  const api = await openApi(journal, connections)
  try {
    const results: Array<HttpResult> = []
    // The first round warms both up.
    for (let round = 0; round <= rounds; round++) {
      const one = {
        command: await load(api.port, connections, requests),
        echo: await load(echo.port, connections, requests)
      }
      if (round > 0) results.push(one)
    }
    results.sort((a, b) => share(a) - share(b))
    return results[Math.floor(results.length / 2)] as HttpResult
  } finally {
    echo.close()
    await api.close()
  }
}

const share = ({ command, echo }: HttpResult): number => command.perSecond / echo.perSecond
