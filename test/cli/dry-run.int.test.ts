/**
 * No dry run leaves a trace: every command that changes something, of the API and of the command line, against a
 * node in a process of its own, whose journal, folder, processes and sockets are compared before and after. The
 * node simulates its hosts, so that many commands can be tried; test/cli/dry-run.e2e.test.ts has real machines.
 */
import assert from "node:assert/strict"
import { randomUUID } from "node:crypto"
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import * as fc from "fast-check"
import { clear, startNode } from "../../src/cli/lab-nodes.ts"
import { apiCases, apiReads, cliCases, cliReads } from "./dry-run-cases.ts"
import type { CliNames } from "./dry-run-cases.ts"
import { changingEndpoints, cliLeaves, DryRuns } from "./dry-run-world.ts"

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31))
console.log(`SEED=${seed}`)

let folder: string
let node: DryRuns
let names: CliNames
/** Real commands are between the dry runs, so the views are always a little behind. */
let isBusy = true

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "nvdry-"))
  const imageDir = join(folder, "images")
  mkdirSync(imageDir)
  const started = await startNode({ name: "node-1", folder, imageDir, simulatedHosts: 3 })
  const emptyConfig = join(folder, "empty.yaml")
  writeFileSync(emptyConfig, `system: { data_dir: ${join(folder, "empty")} }\n`)
  const token = readFileSync(join(started.dataDir, "api-token"), "utf8").trim()
  node = new DryRuns(started, token, {
    folder,
    pids: [started.pid],
    living: (path) => isBusy && /\/views\.db/.test(path)
  })
  names = {
    vms: ["web-1", "web-2", "web-3", "web-4"],
    hosts: ["sim-1", "sim-2", "sim-3"],
    migrations: ["move-1"],
    config: `${started.dataDir}.yaml`,
    emptyConfig,
    folder
  }
  const create = (name: string, start: boolean) =>
    node.compare("POST", { path: "/v1/vms", body: { name, spec: {}, start } }, randomUUID())
  while ((await node.get("/v1/hosts")).body.length < 3) await sleep(20)
  await create("web-1", true)
  await create("web-2", false)
  await node.compare("POST", { path: "/v1/vms/web-1/migrate" }, "move-1")
})
after(async () => {
  await clear(folder)
})

test("every endpoint and every command that changes something has its case here", () => {
  const endpoints = changingEndpoints.map(({ id }) => id)
  assert.deepEqual([...Object.keys(apiCases), ...apiReads].toSorted(), endpoints.toSorted())
  const leaves = cliLeaves()
  const changing = leaves.filter(({ hasDryRun }) => hasDryRun).map(({ words }) => words)
  const reading = leaves.filter(({ hasDryRun }) => !hasDryRun).map(({ words }) => words)
  assert.deepEqual(Object.keys(cliCases).toSorted(), changing.toSorted())
  assert.deepEqual(Object.keys(cliReads).toSorted(), reading.toSorted())
})

test("the API: a dry run changes nothing, and says what the real command then does", async (t) => {
  const keys: Array<string> = [randomUUID()]
  let [refused, taken] = [0, 0]
  const asked = fc
    .constantFrom(...changingEndpoints.filter(({ id }) => id in apiCases))
    .chain(({ id, method }) =>
      fc.record({
        method: fc.constant(method),
        asked: (apiCases[id] as (typeof apiCases)[string])(names),
        /** Also a key that another command had: what is refused for that is refused in the dry run too. */
        key: fc.oneof(
          { weight: 9, arbitrary: fc.uuid() },
          fc.nat().map((at) => keys[at % keys.length] as string)
        ),
        isReal: fc.boolean()
      })
    )
  await fc.assert(
    fc.asyncProperty(asked, async ({ method, asked: one, key, isReal }) => {
      const dry = isReal ? await node.compare(method, one, key) : await node.preview(method, one, key)
      assert.ok(dry.status < 500, JSON.stringify(dry.body))
      if (dry.status === 200) taken++
      else refused++
      if (isReal) keys.push(key)
    }),
    { seed, numRuns: 160, endOnFailure: true }
  )
  await node.came()
  isBusy = false
  t.diagnostic(`${taken} would be done, ${refused} would be refused`)
  // Some 35 and 125; with 20 at least, one seed in a hundred failed.
  assert.ok(taken > 10 && refused > 10)
})

test("asking an endpoint that only computes changes nothing", async () => {
  for (const { id, method, path } of changingEndpoints.filter(({ id }) => apiReads.includes(id))) {
    const answer = await node.leaves(id, () => node.call(method, { path }, randomUUID()))
    assert.equal(answer.status, 200)
  }
  await node.came()
})

test("the command line: --dry-run of every command changes nothing, nor does --check", async () => {
  const line = fc.constantFrom(...Object.values(cliCases)).chain((make) => make(names))
  await fc.assert(
    fc.asyncProperty(line, fc.constantFrom("--dry-run", "-n"), fc.boolean(), async (argv, flag, json) => {
      const all = [...argv, flag, ...(json ? ["--json"] : [])]
      const said = await node.leaves(all.join(" "), () => node.cli(all))
      if (said.code === 0 && json) assert.equal(JSON.parse(said.out).dryRun, true)
      if (said.code === 0 && !json) assert.match(said.out, /^dry run: /)
      if (said.code !== 0) assert.notEqual(said.err, "", all.join(" "))
    }),
    { seed, numRuns: 150, endOnFailure: true }
  )
  for (const vm of names.vms) {
    const check = ["migrate", vm, "--check"]
    const said = await node.leaves(check.join(" "), () => node.cli(check))
    assert.ok([0, 3, 4].includes(said.code), said.err)
  }
  await node.came()
})

test("commands without a dry run only read", async () => {
  for (const [words, argv] of Object.entries(cliReads)) {
    const said = await node.leaves(words, () => node.cli(argv(names)))
    assert.ok(said.code === 0 || said.code === 4, `${words}: ${said.err}`)
  }
  await node.came()
})

test("what writes files, and what makes a token, says as its dry run what it would then do", async () => {
  const both = async (argv: ReadonlyArray<string>) => {
    const dry = await node.leaves(argv.join(" "), () => node.cli([...argv, "--dry-run"]))
    await node.came()
    const real = await node.cli(argv)
    assert.equal(real.code, dry.code, `${argv.join(" ")}: ${dry.err} ${real.err}`)
    if (dry.code !== 0) assert.equal(real.err, dry.err)
    return real.code
  }
  const { config, emptyConfig } = names
  assert.equal(await both(["ca", "init", "--config", config]), 1)
  assert.equal(await both(["ca", "init", "--config", emptyConfig]), 0)
  assert.equal(await both(["ca", "init", "--config", emptyConfig]), 1)
  assert.equal(await both(["ca", "token", "--node", "node-7"]), 0)
  assert.equal(await both(["ca", "token", "--node", "No-Name"]), 2)
  const file = join(folder, "new.yaml")
  assert.equal(await both(["config", "generate", file]), 0)
  assert.equal(await both(["config", "generate", file]), 3)
  assert.equal(await both(["config", "generate", file, "--force"]), 0)
  assert.equal(await both(["config", "generate", folder, "--force"]), 1)
  assert.equal(await both(["config", "generate", join(folder, "none", "new.yaml")]), 1)
})
