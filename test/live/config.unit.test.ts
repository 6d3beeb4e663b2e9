import assert from "node:assert/strict"
import { test } from "node:test"
import { Effect, Schema } from "effect"
import * as fc from "fast-check"
import { raftSettings } from "../../src/cli/up-kernel.ts"
import { RaftSettings } from "../../src/events/raft.ts"
import { ConfigError, configOf, nodeNameOf } from "../../src/live/config.ts"
import type { Environment, Loaded } from "../../src/live/config.ts"
import { formatDuration, parseDuration } from "../../src/live/config/duration.ts"
import { keyAt, keyPaths, variablesOf } from "../../src/live/config/keys.ts"
import { commentedYaml } from "../../src/live/config/render.ts"

const read = (text: string, environment: Environment = {}): Promise<Loaded | ConfigError> =>
  Effect.runPromise(
    Effect.match(configOf("c.yaml", text, environment), { onFailure: (e) => e, onSuccess: (l) => l })
  )

async function good(text: string, environment: Environment = {}): Promise<Loaded> {
  const loaded = await read(text, environment)
  if (loaded instanceof ConfigError) throw loaded
  return loaded
}

async function issues(text: string, environment: Environment = {}): Promise<ReadonlyArray<string>> {
  const error = await read(text, environment)
  assert.ok(error instanceof ConfigError, "it was taken")
  return error.issues.map(({ path }) => path)
}

test("an empty file is the defaults, and every key has one", async () => {
  const { config, settings } = await good("")
  assert.equal(config.system.shutdown_timeout, 30_000)
  assert.equal(config.dwcp.consensus.heartbeat_interval, 500)
  assert.equal(config.api.listen_address, "127.0.0.1")
  assert.deepEqual(settings.map((one) => one.path).sort(), [...keyPaths].sort())
  assert.ok(settings.every((one) => one.source === "default"))
})

test("the generated file is valid and says what the defaults say", async () => {
  assert.deepEqual((await good(commentedYaml())).config, (await good("")).config)
})

test("the environment wins over the file, the file over the defaults, and each says so", async () => {
  const text = "system: { log_level: debug, node_id: from-file }"
  const { config, settings } = await good(text, { NOVACRON_NODE_ID: "from-env" })
  assert.equal(config.system.node_id, "from-env")
  assert.equal(config.system.log_level, "debug")
  const of = (path: string) => settings.find((one) => one.path === path)
  assert.deepEqual(of("system.node_id"), {
    path: "system.node_id",
    value: "from-env",
    source: "environment",
    variable: "NOVACRON_NODE_ID"
  })
  assert.equal(of("system.log_level")?.source, "file")
  assert.equal(of("system.data_dir")?.source, "default")
})

test("all errors are told at once, each with its path, the value and what is allowed", async () => {
  const text = `
system: { node_id: "No!", shutdown_timeout: 3y, colour: red }
api: 7
dwcp: { transport: { min_streams: many } }
unknown: 1
`
  const error = await read(text, { NOVACRON_API_PORT: "70000", NOVACRON_TYPO: "x" })
  assert.ok(error instanceof ConfigError)
  const found = new Map(error.issues.map((issue) => [issue.path, issue]))
  assert.deepEqual(
    [...found.keys()].sort(),
    [
      "NOVACRON_API_PORT",
      "NOVACRON_TYPO",
      "api",
      "dwcp.transport.min_streams",
      "system.colour",
      "system.node_id",
      "system.shutdown_timeout",
      "unknown"
    ].sort()
  )
  assert.equal(found.get("system.shutdown_timeout")?.value, "3y")
  assert.match(found.get("system.shutdown_timeout")?.allowed ?? "", /duration from 1s to 1h/)
  assert.match(found.get("system.colour")?.allowed ?? "", /node_id, data_dir/)
  assert.equal(found.get("NOVACRON_API_PORT")?.value, 70_000)
  for (const issue of error.issues) assert.ok(error.message.includes(issue.path))
})

test("what is not built yet can't be turned on, by file or environment", async () => {
  assert.deepEqual(await issues("dwcp: { enable_v3_transport: true }"), ["dwcp.enable_v3_transport"])
  const error = await read("", { NOVACRON_DWCP_V3_ROLLOUT_PERCENTAGE: "10" })
  assert.ok(error instanceof ConfigError)
  assert.equal(error.issues[0]?.allowed, "0 (another value is not built yet)")
})

test("a voter's member takes its times and its lease from the configuration, and without one has none", async () => {
  const text = "dwcp: { consensus: { heartbeat_interval: 70ms, election_timeout: 700ms, lease_drift: 12 } }"
  const { heartbeatMs, electionMs, leaseDriftPercent } = raftSettings(await good(text))
  assert.deepEqual([heartbeatMs, electionMs, leaseDriftPercent], [70, 700, 12])
  const standard = raftSettings(await good(""))
  assert.equal(standard.leaseDriftPercent, 0)
  // What it can't be is refused by its path, and the most that it can be is what a member takes.
  const most = raftSettings(await good("dwcp: { consensus: { lease_drift: 50 } }"))
  assert.deepEqual(Schema.decodeUnknownSync(RaftSettings)(most), most)
  for (const wrong of ["51", "-1"]) {
    const error = await read(`dwcp: { consensus: { lease_drift: ${wrong} } }`)
    assert.ok(error instanceof ConfigError, wrong)
    assert.deepEqual(
      error.issues.map(({ path, allowed }) => [path, allowed]),
      [["dwcp.consensus.lease_drift", "a whole number from 0 to 50"]]
    )
  }
  assert.deepEqual(await issues("dwcp: { consensus: { lease_drift: 2.5 } }"), ["dwcp.consensus.lease_drift"])
})

test("every key can be set by its variable", async () => {
  for (const at of keyPaths) {
    const { default: standard } = keyAt(at)
    const text = typeof standard === "object" ? "" : String(standard)
    for (const name of variablesOf(at)) {
      const { settings } = await good("", { [name]: text })
      assert.equal(settings.find((one) => one.path === at)?.variable, name)
    }
  }
})

test("two variables of one key that disagree are refused", async () => {
  assert.deepEqual(await issues("", { NOVACRON_NODE_ID: "a", NOVACRON_SYSTEM_NODE_ID: "b" }), [
    "NOVACRON_SYSTEM_NODE_ID"
  ])
})

test("an address beyond this machine needs certificates", async () => {
  assert.deepEqual(await issues("api: { listen_address: 0.0.0.0 }"), ["api.listen_address"])
  assert.deepEqual(await issues('api: { listen_address: "::" }'), ["api.listen_address"])
  assert.deepEqual(await issues("api: { tls_key: k.pem }"), ["api.tls_certificate"])
  const { resolved } = await good(
    "api: { listen_address: 0.0.0.0, tls_key: /k.pem, tls_certificate: /c.pem }"
  )
  assert.deepEqual(resolved.tls, { certificate: "/c.pem", key: "/k.pem" })
  await good("api: { listen_address: 127.8.9.1 }")
})

test("paths that are left out lie in the data folder", async () => {
  const { resolved } = await good("system: { data_dir: /srv/nova }")
  assert.equal(resolved.imageDir, "/srv/nova/images")
  assert.equal(resolved.tokenFile, "/srv/nova/api-token")
})

test("broken YAML says the line, and repeated keys and many aliases are refused", async () => {
  assert.deepEqual(await issues("system:\n  node_id: [a"), ["line 2, column 14"])
  assert.equal((await issues("api: {}\napi: {}")).length, 1)
  const bomb = `a: &a [x,x]\nb: &b [${"*a,".repeat(50)}x]\nc: [${"*b,".repeat(50)}x]`
  assert.ok((await issues(bomb)).length > 0)
})

test("a machine's name becomes a node's name", () => {
  assert.equal(nodeNameOf("Web_01.example.org"), "web-01")
  assert.equal(nodeNameOf("___"), "node")
})

test("durations read back as they were written", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 10 * 24 * 3_600_000 }), (milliseconds) => {
      assert.equal(parseDuration(formatDuration(milliseconds)), milliseconds)
    })
  )
  for (const text of ["", "3", "3 s", "-1s", "1e3s", "∞"]) assert.equal(parseDuration(text), null)
})

test("no file and no environment makes it throw: it is taken, or refused with paths", async () => {
  const name = fc.oneof(fc.constantFrom(...keyPaths.flatMap(variablesOf)), fc.string())
  const section = fc.dictionary(
    fc.oneof(fc.constantFrom(...keyPaths.map((at) => at.split(".").at(-1) ?? at)), fc.string()),
    fc.jsonValue({ maxDepth: 2 })
  )
  const structured = fc
    .dictionary(fc.constantFrom("system", "api", "dwcp", "network", "cluster", "x"), section)
    .map((value) => JSON.stringify(value))
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(fc.string({ unit: "binary" }), structured),
      fc.dictionary(name, fc.string(), { maxKeys: 5 }),
      async (text, environment) => {
        const result = await read(text, environment)
        if (!(result instanceof ConfigError)) return
        assert.ok(result.issues.length > 0)
        for (const issue of result.issues) assert.ok(issue.allowed.length > 0)
      }
    ),
    { numRuns: 500, verbose: 1 }
  )
})
