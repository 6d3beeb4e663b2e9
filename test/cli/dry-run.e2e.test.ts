/**
 * Dry runs against two nodes with real machines: one runs, one is stopped, one is paused on the other node. Both
 * nodes' folders, their processes with the machines' QEMUs, and all their sockets are compared before and after.
 */
import assert from "node:assert/strict"
import { randomUUID } from "node:crypto"
import { mkdtempSync, readFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import * as fc from "fast-check"
import { clear, joinToken, startNode } from "../../src/cli/lab-nodes.ts"
import { buildLabGuest } from "../../src/live/lab-guest.ts"
import { endAndReplay } from "../live/cluster.ts"
import { LAB_CACHE, labSpec } from "../live/qemu-hosts.ts"
import { apiCases, cliCases } from "./dry-run-cases.ts"
import type { CliNames } from "./dry-run-cases.ts"
import { changingEndpoints, DryRuns } from "./dry-run-world.ts"
import { footprint } from "./footprint.ts"

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31))
console.log(`SEED=${seed}`)

const names = { vms: ["web-1", "web-2", "web-3"], hosts: ["node-1", "node-2"], migrations: ["move-1"] }
let folder: string
let node: DryRuns
let cliNames: CliNames

before(async () => {
  await buildLabGuest({ cacheDir: LAB_CACHE })
  folder = mkdtempSync(join(tmpdir(), "nvdry-"))
  // The links are measured, and each sample is a fact, as is what gossip tells of a node: here nothing but the commands is to be recorded.
  Object.assign(process.env, {
    NOVACRON_GOSSIP_ENABLE: "off",
    NOVACRON_DWCP_ENABLE_AUTO_DETECTION: "false",
    NOVACRON_DWCP_MODE: "datacenter"
  })
  const first = await startNode({ name: "node-1", folder, imageDir: LAB_CACHE })
  const token = await joinToken(first, "node-2")
  const address = `node-1@${first.linkAddress}`
  const second = await startNode({ name: "node-2", folder, imageDir: LAB_CACHE, join: { address, token } })
  const apiToken = readFileSync(join(first.dataDir, "api-token"), "utf8").trim()
  node = new DryRuns(first, apiToken, {
    folder,
    pids: [first.pid, second.pid],
    // The guest of web-1 writes its counter to its disk all the time, wherever it runs.
    living: (path) => path.endsWith("/vms/web-1/data.qcow2")
  })
  const config = `${first.dataDir}.yaml`
  cliNames = { ...names, config, emptyConfig: config, folder }
  while ((await node.get("/v1/hosts")).body.length < 2) await sleep(20)
  // The other node's start is told after it.
  while ((await node.get("/v1/streams/node/node-2/facts")).body.facts === undefined) await sleep(20)
  const made = [
    { name: "web-1", host: "node-1", start: true, spec: labSpec({ disk: "local" }) },
    { name: "web-2", host: "node-1", start: false, spec: labSpec({ disk: "local" }) },
    { name: "web-3", host: "node-2", start: true, spec: labSpec({ disk: "none" }) }
  ]
  for (const body of made) await node.compare("POST", { path: "/v1/vms", body }, randomUUID())
  await node.compare("POST", { path: "/v1/vms/web-3/pause" }, randomUUID())
})
after(async () => {
  try {
    await endAndReplay(join(folder, "node-1"))
  } finally {
    await clear(folder)
  }
})

test("what is compared is there: journal, disks, both nodes with a QEMU each, listeners and control sockets", () => {
  const found = footprint(node.watched)
  assert.ok(found.facts.length > 10)
  for (const file of [
    "node-1/journal.db ",
    "node-1/vms/web-2/data.qcow2 ",
    "node-2/vms/web-3/machine.json "
  ]) {
    assert.ok(
      found.files.some((line) => line.startsWith(file)),
      file
    )
  }
  const count = (part: string) => found.processes.filter((line) => line.includes(part)).length
  assert.equal(count(" up --config "), 2)
  assert.equal(count("qemu-system"), 2)
  assert.ok(found.sockets.some((line) => line.includes("web-1/qmp.sock")))
  assert.ok(found.sockets.filter((line) => line.startsWith("tcp") && line.endsWith("state 0A")).length >= 2)
})

test("no dry run of the API touches journal, disks, processes or sockets of real machines", async () => {
  const cases = Object.entries(apiCases).flatMap(([id, make]) => {
    const { method } = changingEndpoints.find((one) => one.id === id) ?? { method: "" }
    return fc.sample(make(names), { seed, numRuns: 6 }).map((asked) => ({ method, asked }))
  })
  const answered = { taken: 0, refused: 0 }
  for (const { method, asked } of cases) {
    const { status, body } = await node.preview(method, asked, randomUUID())
    assert.ok(status < 500, JSON.stringify(body))
    answered[status === 200 ? "taken" : "refused"]++
  }
  await node.came()
  assert.ok(answered.taken > 5 && answered.refused > 5, JSON.stringify(answered))
})

test("no dry run of the command line does, nor a check of a migration by the host it would go to", async () => {
  for (const make of Object.values(cliCases)) {
    for (const argv of fc.sample(make(cliNames), { seed, numRuns: 2 })) {
      await node.leaves(argv.join(" "), () => node.cli([...argv, "--dry-run"]))
    }
  }
  const check = await node.leaves("check", () => node.cli(["migrate", "web-1", "--check", "--json"]))
  assert.equal(check.code, 0, check.err)
  const foreseen = JSON.parse(check.out)
  assert.equal(foreseen.placement.chosen, "node-2")
  assert.deepEqual(foreseen.blockers, [])
  const stopped = await node.leaves("check", () => node.cli(["migrate", "web-2", "--check"]))
  assert.equal(stopped.code, 3)
  await node.came()
})

test("what a dry run says is what then happens to real machines", async () => {
  const steps: ReadonlyArray<readonly [string, string, unknown?]> = [
    ["POST", "/v1/vms/web-1/migrate", { to: "node-2", reason: "foreseen" }],
    ["POST", "/v1/vms/web-1/migrate", { to: "node-2", reason: "it is there" }],
    ["POST", "/v1/vms/web-1/snapshots", { snapshot: "first" }],
    ["POST", "/v1/vms/web-1/snapshots", { snapshot: "first" }],
    ["POST", "/v1/vms/web-1/clone", { name: "web-4" }],
    ["POST", "/v1/vms/web-2/clone", { name: "web-4" }],
    ["POST", "/v1/vms/web-1/stop?force=true"],
    ["POST", "/v1/vms/web-1/restore", { snapshot: "first" }],
    ["POST", "/v1/vms/web-1/restore", { snapshot: "second" }],
    ["POST", "/v1/vms/web-3/resume"],
    ["POST", "/v1/hosts/node-2/drain", { reason: "foreseen" }],
    ["POST", "/v1/vms", { name: "web-5", spec: labSpec({ disk: "none" }), host: "node-2" }],
    ["POST", "/v1/hosts/node-2/activate"],
    ["DELETE", "/v1/vms/web-4"],
    ["DELETE", "/v1/vms/web-4"]
  ]
  for (const [method, path, body] of steps) {
    await node.compare(method, body === undefined ? { path } : { path, body }, randomUUID())
  }
})
