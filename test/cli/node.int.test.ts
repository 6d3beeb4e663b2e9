/** A whole node with simulated hosts: what it measures, and what is left after it was killed. */
import assert from "node:assert/strict"
import { readFileSync } from "node:fs"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { clear, startNode } from "../../src/cli/lab-nodes.ts"
import type { LabNode } from "../../src/cli/lab-nodes.ts"

let folder = ""
let node: LabNode

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "nvm-"))
  node = await startNode({ name: "n1", folder, imageDir: folder, simulatedHosts: 2 })
})
after(async () => {
  await clear(folder)
  await rm(folder, { recursive: true, force: true })
})

async function call(method: string, path: string, body?: unknown): Promise<string> {
  const token = readFileSync(join(node.dataDir, "api-token"), "utf8").trim()
  const response = await fetch(`${node.url}${path}`, {
    method,
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    ...(body === undefined ? {} : { body: JSON.stringify(body) })
  })
  return response.text()
}

/** By series, `name{label="value"}`. */
async function scrape(): Promise<ReadonlyMap<string, number>> {
  const lines = (await call("GET", "/metrics")).split("\n").filter((line) => line !== "" && line[0] !== "#")
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.slice(line.lastIndexOf(" ")))])
  )
}

const spec = { memoryMib: 64, disks: [{ name: "root", sizeMib: 16 }] }

test("after real commands each metric that a node declares has moved: commands, turns, the line, requests and HTTP are measured", async () => {
  while (!(await call("GET", "/v1/hosts")).includes('"sim-2"')) await sleep(20)
  await call("POST", "/v1/vms?wait=10s", { name: "web", host: "sim-1", start: true, spec })
  await call("POST", "/v1/vms/web/migrate?wait=30s", { to: "sim-2" })
  await call("POST", "/v1/vms/web/resume")
  await call("GET", "/nowhere/web/42")
  const metrics = await scrape()
  const at = (series: string) => metrics.get(series) ?? assert.fail(`no ${series}`)
  assert.equal(at('novacron_commands_total{type="vm.create",outcome="accepted"}'), 1)
  assert.equal(at('novacron_commands_total{type="vm.resume",outcome="refused"}'), 1)
  assert.ok(at("novacron_turn_duration_seconds_count") > 0)
  assert.ok(at("novacron_append_duration_seconds_count") > 0)
  assert.equal(at("novacron_mailbox_waiting"), 0)
  assert.equal(at("novacron_outstanding_requests"), 0)
  assert.equal(at('novacron_http_requests_total{method="POST",route="/v1/vms",status="200"}'), 1)
  assert.equal(at('novacron_http_requests_total{method="POST",route="/v1/vms/:name/resume",status="409"}'), 1)
  assert.equal(at('novacron_http_requests_total{method="GET",route="none",status="404"}'), 1)
  assert.equal(
    at('novacron_http_request_duration_seconds_count{method="POST",route="/v1/vms/:name/migrate"}'),
    1
  )
  assert.equal(at('novacron_migrations_total{result="completed"}'), 1)
  assert.ok(at("novacron_migration_bytes_total") > 0)
  assert.equal(at('novacron_vms{state="running"}'), 1)
  assert.equal(at('novacron_hosts{state="up"}'), 2)
  assert.ok(at('novacron_facts_total{type="vm.started"}') === 1)
  assert.equal(at('phase_duration_seconds_count{phase="core"}'), 1)
  assert.ok(at("total_boot_time_seconds") > 0)
  assert.equal(at('component_status{component="api",state="running"}'), 1)
})

test("killed and started again, it has its simulated machines as its journal has them", async () => {
  process.kill(node.pid, "SIGKILL")
  node = await startNode({ name: "n1", folder, imageDir: folder, simulatedHosts: 2 })
  while ((await call("GET", "/v1/hosts")).split('"state":"up"').length < 3) await sleep(20)
  const body = JSON.parse(await call("POST", "/v1/vms/web/migrate?wait=30s", { to: "sim-1" })) as {
    readonly state: string
  }
  assert.equal(body.state, "succeeded")
  const row = JSON.parse(await call("GET", "/v1/vms/web")) as {
    readonly crashes: number
    readonly state: string
  }
  assert.deepEqual([row.state, row.crashes], ["running", 0])
})
