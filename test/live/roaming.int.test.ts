/** Three servers that answer as nodes do: here, gone, and unable to decide. */
import assert from "node:assert/strict"
import { once } from "node:events"
import { createServer } from "node:http"
import { setTimeout as sleep } from "node:timers/promises"
import type { AddressInfo } from "node:net"
import type { RequestListener, Server } from "node:http"
import { test } from "node:test"
import { Effect, Stream } from "effect"
import { ApiClient } from "../../src/live/api/client.ts"
import type { ApiCalls } from "../../src/live/api/client.ts"
import type { NoNodeReached, Target } from "../../src/live/api/roaming.ts"

interface Seen {
  readonly method: string
  readonly url: string
  readonly key: string | undefined
  readonly token: string | undefined
}

interface Node {
  readonly target: Target
  readonly seen: Array<Seen>
  readonly end: () => Promise<void>
}

const started: Array<Node> = []

async function startNode(token: string, answer: RequestListener): Promise<Node> {
  const seen: Array<Seen> = []
  const server: Server = createServer((request, response) => {
    const { method = "", url = "", headers } = request
    seen.push({ method, url, key: headers["idempotency-key"] as string, token: headers.authorization })
    request.resume().on("end", () => answer(request, response))
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as AddressInfo
  const end = async () => {
    const closed = once(server, "close")
    server.close()
    server.closeAllConnections()
    await closed
  }
  const node = { target: { url: `http://127.0.0.1:${port}`, token }, seen, end }
  started.push(node)
  return node
}

const operation = {
  id: "k",
  stream: "host/a",
  began: "host.drained",
  state: "succeeded",
  reason: null,
  position: 1,
  lastPosition: 1,
  startedMs: 0,
  updatedMs: 0
}
const good: RequestListener = (request, response) => {
  response.setHeader("content-type", "application/json")
  response.end(JSON.stringify(request.method === "GET" ? [] : operation))
}
const undecided: RequestListener = (_request, response) => {
  response.writeHead(503, { "content-type": "application/problem+json", "novacron-send-again": "true" })
  const type = "urn:novacron:problem:unavailable"
  const title = "The cluster can't decide now; send it again"
  response.end(
    JSON.stringify({
      type,
      title,
      status: 503,
      node: "n",
      mayHappen: false,
      retryAfterSeconds: 1,
      detail: "no"
    })
  )
}

const using = <A, E>(
  [first, ...others]: ReadonlyArray<Target>,
  use: (calls: ApiCalls, client: ApiClient["Service"]) => Effect.Effect<A, E>
) =>
  Effect.runPromise(
    Effect.flatMap(ApiClient, (client) => use(client.calls, client)).pipe(
      Effect.provide(ApiClient.layer({ ...(first as Target), others }))
    )
  )

const withNodes = async (
  listeners: ReadonlyArray<RequestListener>,
  use: (nodes: ReadonlyArray<Node>) => Promise<void>
) => {
  const nodes: Array<Node> = []
  for (const [at, listener] of listeners.entries()) nodes.push(await startNode(`t${at}`, listener))
  try {
    await use(nodes)
  } finally {
    for (const node of nodes) await node.end()
  }
}

const drain = (calls: ApiCalls) =>
  calls.hosts.drain({ params: { name: "a" }, query: {}, headers: { "idempotency-key": "k" }, payload: null })

test("a command goes on, under its key and with each node's own token, past who is gone and who can't decide", () =>
  withNodes([good, undecided, good], async ([gone, unsure, here]) => {
    assert.ok(gone && unsure && here)
    await gone.end()
    const targets = [gone, unsure, here].map(({ target }) => target)
    await using(targets, (calls, client) =>
      Effect.gen(function* () {
        yield* drain(calls)
        assert.deepEqual(client.target(), here.target)
        yield* drain(calls)
      })
    )
    const command = { method: "POST", url: "/v1/hosts/a/drain", key: "k" }
    assert.deepEqual(unsure.seen, [{ ...command, token: "Bearer t1" }])
    // Who answered last is asked first.
    assert.deepEqual(here.seen, [
      { ...command, token: "Bearer t2" },
      { ...command, token: "Bearer t2" }
    ])
  }))

test("what has no key is sent once", () =>
  withNodes([good, good], async ([gone, here]) => {
    assert.ok(gone && here)
    await gone.end()
    const error = await using([gone.target, here.target], (calls) => Effect.flip(calls.journal.verify()))
    assert.equal((error as { _tag: string })._tag, "HttpClientError")
    assert.deepEqual(here.seen, [])
  }))

test("where nobody is there, the error names each address and why", () =>
  withNodes([good, good], async (nodes) => {
    for (const node of nodes) await node.end()
    const targets = nodes.map(({ target }) => target)
    const error = await using(targets, (calls) => Effect.flip(calls.hosts.list({ query: {} })))
    const { cause } = (error as { reason: { cause: NoNodeReached } }).reason
    assert.equal(cause._tag, "NoNodeReached")
    assert.deepEqual(
      cause.tried.map(({ url }) => url),
      targets.map(({ url }) => url)
    )
    for (const { reason } of cause.tried) assert.match(reason, /ECONNREFUSED/)
  }))

test("events go on at another node, after the last that came", () =>
  withNodes(
    [
      (_request, response) => {
        response.writeHead(200, { "content-type": "text/event-stream" })
        response.write(": facts after 7\n\n")
        setImmediate(() => response.destroy())
      },
      (_request, response) => {
        response.writeHead(403)
        response.end()
      }
    ],
    async ([first, second]) => {
      assert.ok(first && second)
      const watching = using([first.target, second.target], (_calls, client) =>
        Effect.flip(Stream.runDrain(client.events()))
      )
      while (first.seen.length === 0) await sleep(5)
      await first.end()
      const error = await watching
      assert.match((error as Error).message, /status 403/)
      assert.equal(second.seen.at(-1)?.url, "/v1/events?after=7")
    }
  ))
