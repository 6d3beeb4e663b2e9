/**
 * A server for the load, in a process of its own: `echo`, node's bare HTTP server with JSON parsed and written again;
 * `keepingEcho`, the same that also appends each request to SQLite, `threadedEcho` with a second thread for it;
 * `memory`, the node's API over its kernel, actors and views with a store in memory; `durable`, the same on SQLite with
 * full durability in the folder that is given. Tells its port by the channel of `fork`.
 */
import { createServer } from "node:http"
import type { ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { Worker } from "node:worker_threads"
import { Context, Effect, Layer } from "effect"
import { HttpServer } from "effect/http"
import { simulatedConsoles } from "../../simulations/world/consoles.ts"
import { makeFleet } from "../../simulations/world/hypervisor.ts"
import { actorKinds } from "../../src/actors/kinds.ts"
import { Kernel } from "../../src/kernel/kernel.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import { apiServer } from "../../src/live/api/server.ts"
import * as liveDigest from "../../src/live/digest.ts"
import * as liveStore from "../../src/live/event-store.ts"
import {
  makeMetrics,
  measureAppends,
  measureCommands,
  measuredTurns,
  Metrics
} from "../../src/live/metrics.ts"
import { layer as projectorLayer } from "../../src/live/projector.ts"
import { allProjections, queriesLayer, readsLayer, viewsLayer } from "../../src/live/views.ts"
import { layer as memoryStore } from "../../simulations/world/event-store.ts"
import { makeKeeper } from "./http-keeper.ts"
import type { Echoed } from "./http-keeper.ts"
import { quietAgents, registerHost } from "./kernel.ts"

const [what = "", folder = "", token = "", hosts = "0"] = process.argv.slice(2)

function answer(response: ServerResponse, value: Echoed): void {
  const body = JSON.stringify(value)
  response.writeHead(200, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body)
  })
  response.end(body)
}

/** Node's bare HTTP server; `take` is given each request's JSON. */
function listen(take: (body: Echoed, response: ServerResponse) => void): Promise<number> {
  const server = createServer((request, response) => {
    const chunks: Array<Buffer> = []
    request.on("data", (chunk: Buffer) => chunks.push(chunk))
    request.on("end", () => take(JSON.parse(Buffer.concat(chunks).toString("utf8")) as Echoed, response))
  })
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => resolve((server.address() as AddressInfo).port))
  })
}

const echo = () => listen((body, response) => answer(response, body))

/**
 * The echo, which also keeps what it is sent: raw rows, on the same thread, with one synced commit for all that came in
 * the meantime. No server that keeps each request in that table on one thread is faster.
 */
function keepingEcho(): Promise<number> {
  const keep = makeKeeper(join(folder, "raw.db"))
  let waiting: Array<{ readonly body: Echoed; readonly response: ServerResponse }> = []
  const keepAll = () => {
    const kept = waiting
    waiting = []
    keep(kept.map(({ body }) => body))
    for (const { body, response } of kept) answer(response, body)
  }
  return listen((body, response) => {
    waiting.push({ body, response })
    if (waiting.length === 1) setImmediate(keepAll)
  })
}

/** The same with the rows written and synced by a second thread, while the first goes on to listen. */
function threadedEcho(): Promise<number> {
  const keeper = new Worker(new URL("./http-keeper.ts", import.meta.url), {
    workerData: join(folder, "threaded.db")
  })
  let waiting: Array<{ readonly body: Echoed; readonly response: ServerResponse }> = []
  let kept: typeof waiting = []
  const keepAll = () => {
    if (kept.length > 0 || waiting.length === 0) return
    kept = waiting
    waiting = []
    keeper.postMessage(kept.map(({ body: { id, stream } }) => ({ id, stream })))
  }
  keeper.on("message", () => {
    const done = kept
    kept = []
    for (const { body, response } of done) answer(response, body)
    keepAll()
  })
  return listen((body, response) => {
    waiting.push({ body, response })
    if (waiting.length === 1) setImmediate(keepAll)
  })
}

/** The parts of a node that a command goes through, put together and measured as `up` does. */
function node(durable: boolean) {
  const metrics = makeMetrics()
  const store = durable ? liveStore.layer({ path: join(folder, "journal.db") }) : memoryStore()
  const measuredStore = Layer.effect(
    EventStore,
    Effect.map(EventStore, (one) => measureAppends(one, metrics))
  ).pipe(Layer.provide(store), Layer.provide(liveDigest.layer))
  const views = projectorLayer({
    path: durable ? join(folder, "views.db") : ":memory:",
    projections: allProjections
  })
  const options = { kinds: actorKinds, node: "bench", takeTurn: measuredTurns(metrics) }
  const kernel = Layer.effect(
    Kernel,
    Effect.map(Kernel, (one) => measureCommands(one, metrics))
  ).pipe(
    Layer.provide(Kernel.layer(options)),
    Layer.provideMerge(
      Layer.mergeAll(viewsLayer(), queriesLayer, quietAgents, Layer.succeed(Metrics, metrics))
    ),
    Layer.provideMerge(views),
    Layer.provideMerge(measuredStore)
  )
  const listen = { host: "127.0.0.1", port: 0 }
  return apiServer({ listen, token, node: "bench", version: "0", observe: metrics.httpRequest }).pipe(
    Layer.provide(simulatedConsoles(makeFleet({ seed: 1 }))),
    Layer.provideMerge(readsLayer),
    Layer.provideMerge(kernel)
  )
}

/** Serves until the process ends. */
async function api(durable: boolean): Promise<number> {
  const served = Effect.gen(function* () {
    const context = yield* Layer.build(node(durable))
    const kernel = Context.get(context, Kernel)
    for (let host = 0; host < Number(hosts); host++) yield* kernel.submit(registerHost(host, 0))
    return (Context.get(context, HttpServer.HttpServer).address as unknown as AddressInfo).port
  })
  return new Promise((resolve, reject) => {
    const forever = Effect.andThen(
      Effect.tap(served, (port) => Effect.sync(() => resolve(port))),
      Effect.never
    )
    Effect.runPromise(Effect.scoped(forever)).catch(reject)
  })
}

const servers: Readonly<Record<string, () => Promise<number>>> = {
  echo,
  keepingEcho,
  threadedEcho,
  memory: () => api(false),
  durable: () => api(true)
}
const serve = servers[what]
if (serve === undefined) throw new Error(`${what} is none of ${Object.keys(servers).join(", ")}`)
process.send?.(await serve())
process.on("disconnect", () => process.exit(0))
