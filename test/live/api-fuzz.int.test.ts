import assert from "node:assert/strict"
import { connect } from "node:net"
import { after, before, test } from "node:test"
import { Effect } from "effect"
import * as fc from "fast-check"
import { Api } from "../../src/live/api/api.ts"
import { openWorld, token } from "./api-world.ts"
import type { World } from "./api-world.ts"

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31))
console.log(`SEED=${seed}`)

let world: World
const rejections: Array<unknown> = []
const onRejection = (reason: unknown) => rejections.push(reason)
before(async () => {
  process.on("unhandledRejection", onRejection)
  world = await openWorld()
  await world.call("POST", "/v1/vms?wait=10s", { name: "web-1", spec: {} })
})
after(async () => {
  await world.close()
  process.off("unhandledRejection", onRejection)
  assert.deepEqual(rejections, [])
})

const position = async () => (await Effect.runPromise(world.store.head)).position

/** Every route that takes a body or changes something, from the definition itself. */
const routes = Object.values(Api.groups).flatMap((group) =>
  Object.values(group.endpoints as Record<string, { method: string; path: string; identifier: string }>)
)
const changing = routes.filter(({ method, identifier }) => method !== "GET" && identifier !== "verify")

/** Names that exist and names that don't; none of them allows a command with a broken body to be taken. */
const fill = (path: string, name: string) => path.replace(/:(name|id|kind)/g, encodeURIComponent(name))

/** Values that no body of the API is: what is generated is refused, whatever it is. */
const broken = fc.oneof(
  fc.jsonValue({ maxDepth: 3 }).map((value) => JSON.stringify({ unknown: value })),
  fc.array(fc.jsonValue({ maxDepth: 2 })).map((value) => JSON.stringify(value)),
  fc.string({ unit: "binary", minLength: 1 }).map((text) => `${text}{`),
  fc
    .dictionary(
      fc.constantFrom("name", "spec", "policy", "snapshot", "reason", "to"),
      fc.jsonValue({ maxDepth: 3 })
    )
    .map((value) => JSON.stringify({ ...value, unknown: 1 })),
  fc.integer({ min: 100, max: 50_000 }).map((depth) => "[".repeat(depth) + "]".repeat(depth))
)

test("no broken body is taken, or makes the server fail, and nothing is recorded", async () => {
  const before = await position()
  const withBody = changing.filter(({ identifier }) =>
    ["create", "clone", "snapshot", "restore", "migrate", "drain", "cancel"].includes(identifier)
  )
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...withBody),
      fc.constantFrom("web-1", "none", "a"),
      broken,
      async ({ method, path }, name, body) => {
        const answer = await world.call(method, fill(path, name), body)
        assert.equal(answer.status, 400, `${method} ${path} ${body.slice(0, 300)}`)
        assert.equal(answer.body.type, "urn:novacron:problem:invalid-request")
        assert.ok(answer.body.errors.length > 0)
        for (const error of answer.body.errors) {
          assert.equal(typeof error.path, "string")
          assert.ok(error.allowed.length > 0)
        }
      }
    ),
    { seed, numRuns: 400 }
  )
  assert.equal(await position(), before)
})

test("no path, query or header makes the server fail, and nothing is recorded", async () => {
  const before = await position()
  const query = fc
    .array(
      fc.tuple(fc.constantFrom("wait", "dryRun", "force", "limit", "from", "at", "after", "x"), fc.string())
    )
    .map((pairs) => new URLSearchParams([...pairs, ["nobody-knows", "1"]]).toString())
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...routes.filter(({ path }) => path.startsWith("/v1/") && path !== "/v1/events")),
      fc.string({ minLength: 1, unit: "grapheme" }).filter((name) => name !== "." && name !== ".."),
      query,
      fc.string({ unit: fc.constantFrom("a", "Z", "0", "_", ".", ":", "-", " ", "/", "\\", '"', "'") }),
      async ({ method, path, identifier }, name, search, key) => {
        if (identifier === "verify") return
        const answer = await world.call(method, `${fill(path, name)}?${search}`, undefined, {
          "idempotency-key": key
        })
        assert.ok([200, 400, 404].includes(answer.status), `${method} ${path} ${name}: ${answer.status}`)
        if (answer.status !== 200) assert.match(answer.body.type, /^urn:novacron:problem:/)
      }
    ),
    { seed, numRuns: 400 }
  )
  assert.equal(await position(), before)
})

test("bytes that are no HTTP close the connection and nothing else", async () => {
  const { port, hostname } = new URL(world.url)
  const before = await position()
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 2000 }), async (bytes) => {
      await new Promise<void>((resolve) => {
        const socket = connect(Number(port), hostname, () => socket.end(Buffer.from(bytes)))
        socket.on("error", () => {})
        socket.on("close", () => resolve())
        socket.resume()
      })
    }),
    { seed, numRuns: 100 }
  )
  assert.equal((await fetch(`${world.url}/health`)).status, 200)
  assert.equal(await position(), before)
  assert.equal(
    (await world.call("GET", "/v1/vms", undefined, { authorization: `Bearer ${token}` })).status,
    200
  )
})
