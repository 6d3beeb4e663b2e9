import assert from "node:assert/strict"
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises"
import { request } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, test } from "node:test"
import { Effect, Stream } from "effect"
import { authenticator, readOrMakeToken, readToken } from "../../src/live/api/authentication.ts"
import { ApiClient } from "../../src/live/api/client.ts"
import { apiServer, isLoopback } from "../../src/live/api/server.ts"
import { openWorld, token } from "./api-world.ts"
import type { World } from "./api-world.ts"

let world: World
before(async () => {
  world = await openWorld({ heartbeatMs: 20, subscribers_max: 3 })
})
after(() => world.close())

const head = async () => (await Effect.runPromise(world.store.head)).position

let made = 0
async function machine(state: "stopped" | "running" = "stopped"): Promise<string> {
  const name = `vm-${++made}`
  const answer = await world.call("POST", "/v1/vms?wait=10s", { name, spec: {}, start: state === "running" })
  assert.equal(answer.body.state, "succeeded")
  return name
}

const withClient = <A, E>(use: (client: ApiClient["Service"]) => Effect.Effect<A, E>): Promise<A> =>
  Effect.runPromise(
    Effect.flatMap(ApiClient, use).pipe(Effect.provide(ApiClient.layer({ url: world.url, token })))
  )

test("a command is accepted with its operation's address, which tells its end", async () => {
  const name = await machine()
  const accepted = await world.call("POST", `/v1/vms/${name}/start`)
  assert.ok(accepted.status === 202 || accepted.status === 200)
  const place = accepted.headers.get("location") ?? ""
  assert.equal(place, `/v1/operations/${accepted.body.id}`)
  const ended = await world.call("GET", `${place}?wait=10s`)
  assert.equal(ended.body.state, "succeeded")
  assert.equal(ended.body.began, "vm.startRequested")
  assert.equal((await world.call("GET", `/v1/vms/${name}`)).body.state, "running")
})

test("an operation that fails says why", async () => {
  const name = await machine()
  const answer = await world.call("POST", `/v1/vms/${name}/snapshots?wait=10s`, { snapshot: "full" })
  assert.equal(answer.status, 200)
  assert.equal(answer.body.state, "failed")
  assert.match(answer.body.reason, /no room/)
})

test("a start that finds no host, and an operation whose guest ends meanwhile, have failed", async () => {
  const big = { name: "big-1", spec: { cpus: 256 } }
  assert.equal((await world.call("POST", "/v1/vms?wait=10s", big)).body.state, "failed")
  const started = await world.call("POST", "/v1/vms/big-1/start?wait=10s")
  assert.equal(started.body.state, "failed")
  assert.match(started.body.reason, /vm\.notPlaced/)

  const vm = { name: "slow-2", spec: {}, start: true }
  assert.equal((await world.call("POST", "/v1/vms?wait=10s", vm)).body.state, "succeeded")
  const row = (await world.call("GET", "/v1/vms/slow-2")).body
  const asked = await world.call("POST", "/v1/vms/slow-2/reboot")
  assert.equal(asked.body.state, "running")
  const message = { type: "vm.reportEnded", host: row.host, cause: "guest-shutdown", reason: "" }
  const principal = { kind: "node", name: row.host } as const
  const ended = { stream: "vm/slow-2", message, id: "ended-slow-2", correlation: "ended-slow-2", principal }
  await Effect.runPromise(world.kernel.submit(ended))
  const after = await world.call("GET", `/v1/operations/${asked.body.id}?wait=10s`)
  assert.equal(after.body.state, "failed")
  assert.equal(after.body.reason, "vm.stopped")
})

test("a copy is made of a stopped machine or of a snapshot that is there; all else is refused before anything is made", async () => {
  const name = await machine("running")
  const position = await head()
  const running = await world.call("POST", `/v1/vms/${name}/clone`, { name: "copy-1" })
  assert.equal(running.status, 409)
  assert.match(running.body.detail, /a stopped machine, or of a snapshot/)
  const missing = await world.call("POST", `/v1/vms/${name}/clone`, { name: "copy-1", snapshot: "none" })
  assert.equal(missing.status, 404)
  assert.match(missing.body.detail, /snapshot none/)
  assert.equal(await head(), position)
  assert.equal((await world.call("GET", "/v1/vms/copy-1")).status, 404)
})

test("a key belongs to a command with all that it asks for", async () => {
  const key = { "idempotency-key": "key-of-a-body" }
  const body = { name: "keyed", spec: { memoryMib: 64, labels: { tier: "web" } } }
  const first = await world.call("POST", "/v1/vms?wait=10s", body, key)
  assert.equal(first.status, 200)
  const again = await world.call("POST", "/v1/vms?wait=10s", body, key)
  assert.deepEqual([again.status, again.body.id], [200, first.body.id])
  for (const other of [
    { ...body, spec: { ...body.spec, memoryMib: 65 } },
    { ...body, host: "a" },
    { ...body, start: true }
  ]) {
    const refused = await world.call("POST", "/v1/vms", other, key)
    assert.equal(refused.status, 422)
    assert.equal(refused.body.type, "urn:novacron:problem:idempotency-key-reused")
  }
})

test("the same key is the same command, and for another command it is refused", async () => {
  const name = await machine()
  const key = { "idempotency-key": `key-${name}` }
  const first = await world.call("POST", `/v1/vms/${name}/start?wait=10s`, undefined, key)
  const position = await head()
  const second = await world.call("POST", `/v1/vms/${name}/start?wait=10s`, undefined, key)
  assert.deepEqual(second.body, first.body)
  assert.equal(await head(), position)
  const dry = await world.call("POST", `/v1/vms/${name}/start?dryRun=true`, undefined, key)
  assert.deepEqual([dry.body.wouldRecord, dry.body.wouldAsk], [[], []])
  assert.equal((await world.call("POST", `/v1/vms/${name}/stop?dryRun=true`, undefined, key)).status, 422)
  const other = await world.call("POST", `/v1/vms/${name}/stop`, undefined, key)
  assert.equal(other.status, 422)
  assert.equal(other.body.type, "urn:novacron:problem:idempotency-key-reused")
  assert.equal(await head(), position)
})

test("what the state does not allow is refused with what it allows", async () => {
  const name = await machine("running")
  const answer = await world.call("POST", `/v1/vms/${name}/start`)
  assert.equal(answer.status, 409)
  assert.equal(answer.headers.get("content-type"), "application/problem+json")
  assert.equal(answer.body.type, "urn:novacron:problem:refused")
  assert.equal(answer.body.state, "running.idle")
  assert.deepEqual(answer.body.allowed, ["vm.stop", "vm.pause", "vm.reboot", "vm.snapshot", "vm.openConsole"])
})

test("a host that is drained, or activated, already is there, and says what it is", async () => {
  const steps = [
    ["drain", "draining", "host.activate"],
    ["activate", "up", "host.drain"]
  ] as const
  for (const [verb, state, allowed] of steps) {
    assert.equal((await world.call("POST", `/v1/hosts/b/${verb}`)).status, 200)
    const again = await world.call("POST", `/v1/hosts/b/${verb}`)
    assert.equal(again.status, 409)
    assert.equal(again.body.type, "urn:novacron:problem:refused")
    assert.deepEqual([again.body.state, again.body.allowed], [state, [allowed]])
  }
})

test("a machine, host, migration, operation, kind or path that is not there is not found", async () => {
  const absent: ReadonlyArray<readonly [string, string]> = [
    ["GET", "/v1/vms/none"],
    ["POST", "/v1/vms/none/start"],
    ["DELETE", "/v1/vms/none"],
    ["POST", "/v1/vms/none/migrate"],
    ["GET", "/v1/vms/none/why"],
    ["GET", "/v1/hosts/none"],
    ["POST", "/v1/hosts/none/drain"],
    ["GET", "/v1/migrations/none"],
    ["POST", "/v1/migrations/none/cancel"],
    ["GET", "/v1/operations/none"],
    ["GET", "/v1/streams/volume/x/facts"],
    ["PUT", "/v1/vms"],
    ["GET", "/"]
  ]
  for (const [method, path] of absent) {
    const answer = await world.call(method, path)
    assert.equal(answer.status, 404, `${method} ${path}`)
    assert.equal(answer.body.type, "urn:novacron:problem:not-found")
  }
})

test("a host or a snapshot that is not there is named with those that are, and nothing is recorded", async () => {
  const name = await machine()
  assert.equal(
    (await world.call("POST", `/v1/vms/${name}/snapshots?wait=10s`, { snapshot: "first" })).status,
    200
  )
  const position = await head()
  const slips = [
    ["/v1/vms", { name: "lost-1", spec: {}, host: "nope" }, "body.host", "nope", /a host: a, b/],
    [`/v1/vms/${name}/migrate`, { to: "nope" }, "body.to", "nope", /a host: a, b/],
    [`/v1/vms/${name}/restore`, { snapshot: "nope" }, "body.snapshot", "nope", /a snapshot of it: first/]
  ] as const
  for (const [path, body, where, value, allowed] of slips) {
    for (const query of ["", "?dryRun=true"]) {
      const answer = await world.call("POST", `${path}${query}`, body)
      assert.equal(answer.status, 400)
      assert.equal(answer.body.errors[0].path, where)
      assert.equal(answer.body.errors[0].value, value)
      assert.match(answer.body.errors[0].allowed, allowed)
    }
  }
  assert.equal(await head(), position)
})

test("a restore that was taken is answered as it was, also when its machine is there no longer", async () => {
  const name = await machine()
  await world.call("POST", `/v1/vms/${name}/snapshots?wait=10s`, { snapshot: "first" })
  const restore = () =>
    world.call("POST", `/v1/vms/${name}/restore?wait=10s`, { snapshot: "first" }, { "idempotency-key": name })
  const taken = await restore()
  assert.equal(taken.body.state, "succeeded")
  assert.equal((await world.call("DELETE", `/v1/vms/${name}?wait=10s`)).body.state, "succeeded")
  assert.deepEqual((await restore()).body, taken.body)
})

test("a dry run says what would happen, and nothing does", async () => {
  const name = await machine("running")
  const position = await head()
  const stop = await world.call("POST", `/v1/vms/${name}/stop?dryRun=true`)
  assert.equal(stop.status, 200)
  assert.deepEqual(stop.body.wouldRecord, [{ type: "vm.stopRequested", force: false }])
  assert.equal(stop.body.wouldAsk[0].op, "stop")
  const create = await world.call("POST", "/v1/vms?dryRun=true", { name: "never", spec: {} })
  assert.ok(["a", "b"].includes(create.body.placement.chosen))
  assert.equal(create.body.placement.candidates.length, 2)
  const move = await world.call("POST", `/v1/vms/${name}/migrate?dryRun=true`, { to: "b" })
  assert.ok(Array.isArray(move.body.blockers))
  const refused = await world.call("POST", `/v1/vms/${name}/start?dryRun=true`)
  assert.equal(refused.status, 409)
  assert.equal(await head(), position)
})

test("what is in a migration's way is told before it begins", async () => {
  const stopped = await machine()
  const { body } = await world.call("POST", `/v1/vms/${stopped}/migrate?dryRun=true`)
  assert.equal(body.blockers.length, 1)
  assert.match(body.blockers[0], /stopped/)
})

test("a migration that fails is an operation that failed, and the machine stays", async () => {
  const name = await machine("running")
  const answer = await world.call("POST", `/v1/vms/${name}/migrate?wait=10s`)
  assert.equal(answer.body.state, "failed")
  const id = answer.body.stream.slice("migration/".length)
  assert.equal((await world.call("GET", `/v1/migrations/${id}`)).body.state, "failed")
  assert.equal((await world.call("GET", `/v1/migrations?vm=${name}&state=failed`)).body.length, 1)
  assert.equal((await world.call("GET", `/v1/vms/${name}`)).body.state, "running")
})

test("a bad body is refused with every path, value and what is allowed", async () => {
  const answer = await world.call("POST", "/v1/vms", { name: "A", spec: { cpus: 0, disks: [{}] }, colour: 1 })
  assert.equal(answer.status, 400)
  const paths = answer.body.errors.map((one: { path: string }) => one.path)
  assert.deepEqual(paths.sort(), ["colour", "name", "spec.cpus", "spec.disks.0.name", "spec.disks.0.sizeMib"])
  const cpus = answer.body.errors.find((one: { path: string }) => one.path === "spec.cpus")
  assert.deepEqual(cpus, { path: "spec.cpus", value: 0, allowed: "a whole number from 1 to 256" })
  const query = await world.call("POST", "/v1/vms/a/start?wait=soon&x=1")
  assert.deepEqual(query.body.errors.map((one: { path: string }) => one.path).sort(), [
    "query.wait",
    "query.x"
  ])
})

test("only /health is open, and a wrong token opens nothing", async () => {
  assert.equal((await fetch(`${world.url}/health`)).status, 200)
  for (const path of ["/v1/vms", "/metrics", "/ready", "/openapi.json", "/v1/events", "/nothing"]) {
    for (const authorization of [undefined, "", "Bearer", `Bearer ${token}x`, `Basic ${token}`]) {
      const response = await fetch(
        world.url + path,
        authorization === undefined ? {} : { headers: { authorization } }
      )
      assert.equal(response.status, 401, `${path} with ${authorization}`)
      assert.match(response.headers.get("www-authenticate") ?? "", /^Bearer/)
      assert.equal((await response.text()).includes(token), false)
    }
  }
})

test("large bodies are refused, announced or not", async () => {
  const announced = await world.call("POST", "/v1/vms", "x".repeat(1024 * 1024 + 1))
  assert.equal(announced.status, 413)
  const status = await new Promise<number>((resolve, reject) => {
    const sent = request(
      `${world.url}/v1/vms`,
      { method: "POST", headers: { authorization: `Bearer ${token}`, "content-type": "application/json" } },
      (response) => {
        response.resume()
        resolve(response.statusCode ?? 0)
      }
    )
    sent.on("error", reject)
    for (let part = 0; part < 17; part++) sent.write(" ".repeat(64 * 1024))
    sent.end()
  })
  assert.equal(status, 413)
})

test("facts come in pages, and the state of any moment can be asked for", async () => {
  const name = await machine("running")
  const path = `/v1/streams/vm/${name}/facts`
  const first = (await world.call("GET", `${path}?limit=2`)).body
  assert.equal(first.facts.length, 2)
  const rest = (await world.call("GET", `${path}?from=${first.next}&limit=1000`)).body
  assert.equal(rest.next, null)
  const created = first.facts[0]
  const then = (await world.call("GET", `${path}?at=${created.position}`)).body
  assert.equal(then.state, "placing")
  assert.equal(then.revision, 0)
  const later = new Date(rest.facts.at(-1).timeMs + 1000).toISOString()
  assert.equal((await world.call("GET", `${path}?at=${later}`)).body.state, "running.idle")
  assert.equal((await world.call("GET", `${path}?at=yesterday`)).status, 400)
})

test("live facts come in order from a position, and stay in step after the link broke", async () => {
  const name = await machine("running")
  const facts = await withClient(({ events }) =>
    events({ after: 0, stream: `vm/${name}` }).pipe(Stream.take(3), Stream.runCollect)
  )
  assert.deepEqual(
    facts.map((fact) => fact.revision),
    [0, 1, 2]
  )
  const from = facts[1]?.position ?? 0
  const resumed = await fetch(`${world.url}/v1/events?after=0&stream=vm/${name}`, {
    headers: { authorization: `Bearer ${token}`, "last-event-id": String(from) }
  })
  const reader = resumed.body?.getReader()
  let text = ""
  assert.ok(reader)
  for (;;) {
    text += new TextDecoder().decode((await reader.read()).value)
    if (text.includes("data: ") && text.includes(": heartbeat")) break
  }
  await reader.cancel()
  assert.match(text, new RegExp(`^retry: \\d+\\n: facts after ${from}\\n`))
  assert.equal(/^id: (\d+)$/m.exec(text)?.[1], String(facts[2]?.position))
})

test("subscribers are bounded, and those who left make room", async () => {
  const open = () => fetch(`${world.url}/v1/events`, { headers: { authorization: `Bearer ${token}` } })
  const held = []
  for (;;) {
    const response = await open()
    if (response.status !== 200) {
      assert.equal(response.status, 503)
      assert.equal(((await response.json()) as { type: string }).type, "urn:novacron:problem:overloaded")
      break
    }
    await response.body
      ?.getReader()
      .read()
      .catch(() => {})
    held.push(response)
    assert.ok(held.length <= 3)
  }
})

test("the chain is verified, the metrics are text, and the node is ready", async () => {
  const verified = await world.call("POST", "/v1/audit/verify")
  assert.equal(verified.body.valid, true)
  const metrics = await world.call("GET", "/metrics")
  assert.match(metrics.headers.get("content-type") ?? "", /^text\/plain/)
  assert.match(metrics.body, /^# HELP /m)
  assert.equal((await world.call("GET", "/ready")).body.ready, true)
  const audited = await world.call("GET", "/v1/audit?limit=5")
  assert.equal(audited.body.length, 5)
})

/** The addresses that `link` leads to, from the first page to the last. */
async function pagesOf(first: string): Promise<ReadonlyArray<{ body: any; path: string }>> {
  const pages: Array<{ body: any; path: string }> = []
  for (let path: string | undefined = first; path !== undefined;) {
    const answer = await world.call("GET", path)
    assert.equal(answer.status, 200, JSON.stringify(answer.body))
    pages.push({ body: answer.body, path })
    path = /^<([^>]+)>; rel="next"$/.exec(answer.headers.get("link") ?? "")?.[1]
  }
  return pages
}

test("lists come in pages, and the pages together are the list", async () => {
  for (let count = 0; count < 3; count++) await machine()
  const running = await machine("running")
  for (const reason of ["one", "two", "three"]) {
    await world.call("POST", `/v1/vms/${running}/migrate?wait=10s`, { to: "nowhere", reason })
  }
  for (const [path, key] of [
    ["/v1/vms", "name"],
    ["/v1/hosts", "name"],
    ["/v1/migrations", "id"],
    [`/v1/migrations?vm=${running}`, "id"],
    ["/v1/audit", "position"]
  ] as const) {
    const limited = path + (path.includes("?") ? "&limit=" : "?limit=")
    const whole = (await world.call("GET", `${limited}1000`)).body as ReadonlyArray<Record<string, unknown>>
    const pages = await pagesOf(`${limited}2`)
    assert.ok(pages.length > 1 || whole.length <= 2, path)
    for (const { body } of pages) assert.ok(body.length <= 2)
    assert.deepEqual(
      pages.flatMap(({ body }) => body.map((row: Record<string, unknown>) => row[key])),
      whole.map((row) => row[key]),
      path
    )
  }
  const unknown = await world.call("GET", "/v1/migrations?after=gone")
  assert.equal(unknown.status, 400)
  assert.equal(unknown.body.errors[0].path, "query.after")
  for (const limit of ["0", "1001", "x"]) {
    const refused = await world.call("GET", `/v1/vms?limit=${limit}`)
    assert.equal(refused.status, 400)
    assert.equal(refused.body.errors[0].path, "query.limit")
  }
})

test("a replay folds every actor as of a position or a time, in pages of one replay", async () => {
  const before = (await world.call("GET", "/v1/replay")).body
  assert.equal(before.at.position, await head())
  const name = await machine()
  const pages: Array<any> = []
  for (let after: string | null = ""; after !== null;) {
    const query: string = after === "" ? "" : `&after=${after}`
    pages.push((await world.call("GET", `/v1/replay?at=${before.at.position}&limit=3${query}`)).body)
    after = pages.at(-1).next
  }
  assert.ok(pages.length > 1)
  assert.deepEqual(new Set(pages.map(({ sha256 }) => sha256)), new Set([before.sha256]))
  assert.deepEqual(
    pages.flatMap(({ actors }) => actors),
    before.actors
  )
  const now = (await world.call("GET", "/v1/replay")).body
  assert.equal(
    now.actors.find(({ stream }: { stream: string }) => stream === `vm/${name}`).state,
    "stopped.idle"
  )
  const then = new Date(before.at.timeMs - 1).toISOString()
  const earlier = (await world.call("GET", `/v1/replay?at=${then}`)).body
  assert.ok(earlier.at.position < before.at.position && earlier.at.timeMs < before.at.timeMs)
  const wrong = await world.call("GET", "/v1/replay?at=yesterday")
  assert.equal(wrong.status, 400)
  assert.equal(wrong.body.errors[0].path, "query.at")
})

test("the client is typed from the same definition, over a unix socket too", async () => {
  const folder = await mkdtemp(join(tmpdir(), "novacron-api-"))
  const path = join(folder, "api.sock")
  const other = await openWorld({ listen: { path } })
  try {
    const names = await Effect.runPromise(
      Effect.flatMap(ApiClient, ({ calls }) => calls.hosts.list({ query: {} })).pipe(
        Effect.map((hosts) => hosts.map((host) => host.name)),
        Effect.provide(ApiClient.layer({ url: "http://localhost", socket: path, token }))
      )
    )
    assert.deepEqual(names, ["a", "b"])
  } finally {
    await other.close()
    await rm(folder, { recursive: true, force: true })
  }
})

test("a token is made once, for its owner only, and a file others may read is refused", async () => {
  const folder = await mkdtemp(join(tmpdir(), "novacron-token-"))
  try {
    const path = join(folder, "sub", "token")
    const first = await Effect.runPromise(readOrMakeToken(path))
    assert.match(first, /^nct_[A-Za-z0-9_-]{43}$/)
    assert.equal((await stat(path)).mode & 0o777, 0o600)
    assert.equal(await Effect.runPromise(readOrMakeToken(path)), first)
    assert.equal((await readFile(path, "utf8")).trim(), first)
    assert.equal(authenticator(first)(`Bearer ${first}`)?.kind, "operator")
    assert.equal(authenticator(first)("Bearer nct_x"), null)
    await writeFile(join(folder, "open"), first, { mode: 0o644 })
    const refused = await Effect.runPromise(Effect.flip(readToken(join(folder, "open"))))
    assert.match(refused.message, /0600/)
    assert.equal(refused.message.includes(first), false)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})

test("it does not listen beyond this machine without certificates", () => {
  const options = { token, node: "n", version: "0" }
  assert.throws(() => apiServer({ ...options, listen: { host: "0.0.0.0", port: 0 } }), /TLS/)
  assert.deepEqual(
    ["127.0.0.1", "127.1.2.3", "::1", "localhost", "0.0.0.0", "::", "10.0.0.1"].map(isLoopback),
    [...[true, true, true, true], ...[false, false, false]]
  )
})
