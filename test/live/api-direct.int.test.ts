import assert from "node:assert/strict"
import { Agent, request } from "node:http"
import { connect } from "node:net"
import type { Socket } from "node:net"
import { after, before, test } from "node:test"
import { Effect } from "effect"
import * as fc from "fast-check"
import { Api, isCommand } from "../../src/live/api/api.ts"
import { makeMetrics, measureCommands } from "../../src/live/metrics.ts"
import { apiCases } from "../cli/dry-run-cases.ts"
import type { Names } from "../cli/dry-run-cases.ts"
import { openWorld, token } from "./api-world.ts"
import type { Answer, World } from "./api-world.ts"
import { until } from "./link-nodes.ts"

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31))
console.log(`SEED=${seed}`)

const endpoints = Object.entries(Api.groups).flatMap(([group, { endpoints }]) =>
  Object.entries(endpoints as unknown as Readonly<Record<string, Parameters<typeof isCommand>[0]>>)
    .filter(([, endpoint]) => isCommand(endpoint))
    .map(([name, { method }]) => ({ id: `${group}.${name}`, method }))
)
const names: Names = { vms: ["web-1", "web-2", "web-3"], hosts: ["a", "b"], migrations: ["m-1", "m-2"] }

/** The same story in both; one is asked the short way, the other the long way. */
let short: World
let long: World
before(async () => {
  ;[short, long] = await Promise.all([openWorld(), openWorld()])
  for (const world of [short, long])
    for (const name of names.vms)
      await world.call("POST", "/v1/vms?wait=5s", { name, spec: {}, start: name !== "web-3" })
})
after(() => Promise.all([short.close(), long.close()]))

interface Asked {
  readonly method: string
  readonly path: string
  readonly body?: unknown
  readonly headers: Readonly<Record<string, string>>
}

const isoTime = /\d{4}-\d\d-\d\dT[\d:.]+Z/g

/** What has to be the same; an operation may have gone on a little more in one of the worlds. */
async function told(world: World, { method, path, body, headers }: Asked, query: string) {
  const answer: Answer = await world.call(method, path + query, body, headers)
  const type = answer.headers.get("content-type")?.split(";")[0]
  const challenge = answer.headers.get("www-authenticate")
  const location = answer.headers.get("location")
  if (answer.status >= 300) {
    // A problem may tell since when something is so: here since a moment ago.
    const body = JSON.parse(JSON.stringify(answer.body).replaceAll(isoTime, "<time>")) as Answer["body"]
    return { status: answer.status, type, challenge, location, body }
  }
  const { id, stream, began } = answer.body
  const ended = await world.call("GET", `/v1/operations/${id}?wait=5s`)
  assert.equal(location, `/v1/operations/${id}`)
  const { state, reason } = ended.body
  // Without a key its name is drawn.
  const drawn = headers["idempotency-key"] === undefined
  const named = drawn ? { stream: stream.replace(/^migration\/.*/, "migration/") } : { stream, id }
  return { type, began, state, reason, ...named }
}

/** What a body may be that is not what the endpoint takes. */
const broken = fc.oneof(
  fc.constantFrom("", "null", "{", "[]", '"x"', '{"unknown":1}', "\u0000", "{}{}"),
  fc.constantFrom(
    ...[
      '{"reason":"x","unknown":1}',
      '{"reason":{"unknown":1}}',
      '{"__proto__":1}',
      '{"policy":{"unknown":1}}'
    ]
  ),
  fc.jsonValue({ maxDepth: 2 }).map((value) => JSON.stringify(value))
)
const keys = ["k-1", "k-2", "k-3"]
const headers = fc.record(
  {
    "idempotency-key": fc.oneof(
      { weight: 6, arbitrary: fc.uuid() },
      { weight: 2, arbitrary: fc.constantFrom(...keys) },
      { weight: 1, arbitrary: fc.constantFrom("-", "with space", "x".repeat(129)) }
    ),
    authorization: fc.constantFrom("Bearer nobody", "Basic abc"),
    "content-type": fc.constantFrom("application/json", "application/json; charset=utf-8", "text/plain")
  },
  { requiredKeys: [] }
)
/** Headers that may be anything come with a body that may be anything. */
const sound = fc.record(
  { "idempotency-key": fc.oneof(fc.uuid(), fc.constantFrom(...keys)) },
  { requiredKeys: [] }
)
const rarely = <A>(value: fc.Arbitrary<A>) => fc.option(value, { freq: 6, nil: undefined })

const asked = fc.constantFrom(...endpoints).chain(({ id, method }) =>
  fc
    .record({
      one: (apiCases[id] as (typeof apiCases)[string])(names),
      strange: rarely(broken),
      headers,
      sound
    })
    .map(({ one, headers, sound, strange }): Asked => {
      const body = strange ?? one.body
      const sent = strange === undefined ? sound : headers
      return { method, path: one.path, headers: sent, ...(body === undefined ? {} : { body }) }
    })
)

test("the short way of a command answers as the long way does", async () => {
  let [accepted, refused] = [0, 0]
  await fc.assert(
    fc.asyncProperty(asked, async (one) => {
      const isLong = one.path.includes("?")
      const [a, b] = await Promise.all([told(short, one, ""), told(long, one, isLong ? "" : "?")])
      assert.deepEqual(a, b, JSON.stringify(one))
      if ("status" in a) refused++
      else accepted++
    }),
    { seed, numRuns: 800 }
  )
  assert.ok(accepted > 10 && refused > 10, `${accepted} accepted, ${refused} refused`)
})

/** `fetch` keeps no promise about connections: these requests go over one, after each other. */
function overOneConnection(url: string) {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const sockets = new Set<Socket>()
  const ask = (path: string, authorization: string, method = "POST") =>
    new Promise<number>((resolve, reject) => {
      const asked = request(url + path, { method, agent, headers: { authorization } }, (response) => {
        response.resume().on("end", () => resolve(response.statusCode ?? 0))
      })
      asked.on("socket", (socket) => sockets.add(socket))
      asked.on("error", reject).end()
    })
  return { ask, sockets, end: () => agent.destroy() }
}

test("a connection that was let in is let in again with the same token, and with no other", async () => {
  const { ask, sockets, end } = overOneConnection(short.url)
  try {
    const good = `Bearer ${token}`
    const almost = `Bearer ${token.slice(0, -1)}${token.endsWith("A") ? "B" : "A"}`
    const drain = "/v1/hosts/b/drain"
    assert.equal(await ask("/v1/hosts/none/activate", almost), 401)
    assert.equal(await ask("/v1/hosts/none/activate", good), 404)
    assert.equal(await ask("/v1/hosts/none/activate", good), 404)
    for (const other of [almost, "Bearer nobody", "", good.toUpperCase()])
      assert.equal(await ask(drain, other), 401)
    assert.equal(await ask("/v1/hosts/none/activate", good), 404)
    assert.equal(sockets.size, 1)
  } finally {
    end()
  }
})

test("who waits for a command when the server ends is told by the end of the connection", async () => {
  let isHeld = false
  const reached = Promise.withResolvers<void>()
  const world = await openWorld({}, () => {
    if (!isHeld) return Effect.void
    reached.resolve()
    return Effect.never
  })
  isHeld = true
  const waiting = assert.rejects(world.call("POST", "/v1/hosts/a/drain", {}), /fetch failed/)
  await reached.promise
  await world.close()
  await waiting
})

/** Bytes as they are, and the statuses of what is answered until the connection ends or `done` have come. */
function rawly(url: string, bytes: string, done: number): Promise<ReadonlyArray<number>> {
  const { hostname, port } = new URL(url)
  return new Promise((resolve, reject) => {
    let text = ""
    const statuses = () => [...text.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => Number(status))
    const socket = connect(Number(port), hostname, () => socket.write(bytes))
    socket.setEncoding("utf8").on("error", reject)
    socket.on("data", (chunk: string) => {
      text += chunk
      if (statuses().length >= done) socket.destroy()
    })
    socket.on("close", () => resolve(statuses()))
  })
}

test("a slot is free again whatever became of its request", async () => {
  const world = await openWorld({ inFlight_max: 4 })
  const post = (path: string, length: number, body = "") =>
    `POST ${path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token}\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n\r\n${body}`
  const drain = "/v1/hosts/a/drain"
  const unfinished = post(drain, 20, '{"reason"')
  const open: Array<Socket> = []
  const hold = () =>
    new Promise<void>((resolve) => {
      const { hostname, port } = new URL(world.url)
      const socket = connect(Number(port), hostname, () => socket.write(unfinished, () => resolve()))
      open.push(socket)
    })
  const isFull = Effect.promise(
    async () => (await rawly(world.url, post("/v1/hosts/none/drain", 0), 1))[0] === 503
  )
  try {
    // Twice as many as there are slots, of each kind.
    for (let n = 0; n < 8; n++) {
      const both = post(drain, 0) + post("/v1/hosts/a/activate", 0)
      assert.deepEqual(await rawly(world.url, both, 2), [200, 200])
      assert.deepEqual(await rawly(world.url, post(drain, 5, "{oops"), 1), [400])
      assert.deepEqual(await rawly(world.url, post("/v1/hosts/none/drain", 0), 1), [404])
      // Node ends the connection then, whether or not those before it are answered.
      await rawly(world.url, post("/v1/hosts/none/drain", 0) + "no HTTP at all\r\n\r\n", 2)
    }
    for (let round = 0; round < 3; round++) {
      await Promise.all(Array.from({ length: 4 }, hold))
      // They are read one after the other, and the last one's bytes may still be on the way.
      await Effect.runPromise(until(isFull))
      for (const socket of open.splice(0)) socket.destroy()
      await Effect.runPromise(until(Effect.map(isFull, (is) => !is)))
    }
  } finally {
    for (const socket of open) socket.destroy()
    await world.close()
  }
})

test("one key for two commands at once: each is told of its own, or that the key is another's", async () => {
  const held = Promise.withResolvers<void>()
  let isHeld = false
  const reached = [Promise.withResolvers<void>(), Promise.withResolvers<void>()] as const
  let appends = 0
  const world = await openWorld({}, () => {
    if (!isHeld) return Effect.void
    reached[appends++]?.resolve()
    return Effect.promise(() => held.promise)
  })
  isHeld = true
  const create = (name: string) => world.call("POST", "/v1/vms", { name, spec: {} })
  const others = [create("x")]
  await reached[0].promise
  others.push(create("y"))
  // Two batches are under way, which is the limit: so the next two are decided together.
  await reached[1].promise
  const key = { "idempotency-key": "one-for-two" }
  const asked = ["a", "b"].map(async (host) => {
    const { status, body } = await world.call("POST", `/v1/hosts/${host}/drain`, {}, key)
    return { status, told: String(body.stream), own: `host/${host}` }
  })
  // Both are on their way before either is recorded.
  setTimeout(held.resolve, 200)
  const answers = await Promise.all(asked)
  await Promise.all(others)
  await world.close()
  for (const { status, told, own } of answers) {
    assert.ok(status === 200 || status === 422, String(status))
    if (status === 200) assert.equal(told, own)
  }
})

test("a client whose connection ends is gone, on the short way and on the long one", async () => {
  const world = await openWorld()
  try {
    const callers: Array<{ readonly isGone: boolean }> = []
    const { offer } = world.kernel
    // Nobody answers, as in a group that has no leader.
    const silent: typeof offer = (_command, _answered, caller) => {
      callers.push(caller ?? { isGone: false })
    }
    const counted = measureCommands({ ...world.kernel, offer: silent }, makeMetrics())
    Object.assign(world.kernel, { offer: counted.offer })
    const { hostname, port } = new URL(world.url)
    for (const query of ["", "?wait=1s"]) {
      const agent = new Agent()
      const headers = { authorization: `Bearer ${token}` }
      const path = `/v1/vms/web-1/stop${query}`
      const asked = request({ hostname, port, method: "POST", path, headers, agent })
      asked.on("error", () => {})
      asked.end()
      const count = callers.length + 1
      await Effect.runPromise(until(Effect.sync(() => callers.length === count)))
      assert.equal(callers.at(-1)?.isGone, false)
      asked.destroy()
      await Effect.runPromise(until(Effect.sync(() => callers.at(-1)?.isGone === true)))
    }
    Object.assign(world.kernel, { offer })
  } finally {
    await world.close()
  }
})
