import assert from "node:assert/strict"
import { spawnSync } from "node:child_process"
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { Effect } from "effect"
import { journalFile } from "../../src/cli/offline.ts"
import { formatBytes, parseBandwidth, progressText } from "../../src/cli/migrate.ts"
import { layer as digest } from "../../src/live/digest.ts"
import { openEventStore } from "../../src/live/event-store.ts"
import { openCliWorld } from "./cli-world.ts"
import type { CliWorld } from "./cli-world.ts"

let it: CliWorld
let folder: string
before(async () => {
  it = await openCliWorld()
  folder = await mkdtemp(join(tmpdir(), "novacron-cli-"))
})
after(async () => {
  await it.world.close()
  await rm(folder, { recursive: true, force: true })
})

let made = 0
async function machine(state: "stopped" | "running" = "stopped"): Promise<string> {
  const name = `cli-${++made}`
  const more = state === "running" ? ["--start"] : []
  const said = await it.cli("vm", "create", name, "--memory", "64", "--wait", ...more)
  assert.equal(said.code, 0, said.err)
  return name
}

test("a machine is made, listed, shown, stopped, copied and deleted", async () => {
  const name = await machine("running")
  const listed = await it.cli("vm", "list", "--plain")
  assert.ok(listed.out.split("\n").some((line) => line.startsWith(`${name}\trunning\ta\t1\t64`)))
  const shown = JSON.parse((await it.cli("vm", "show", name, "--json")).out)
  assert.equal(shown.state, "running")
  for (const verb of ["pause", "resume", "reboot", "stop"]) {
    const said = await it.cli("vm", verb, name, "--wait")
    assert.equal(said.code, 0, `${verb}: ${said.err}`)
    assert.equal(said.out, `done: ${verb} vm ${name}\n`)
  }
  assert.equal((await it.cli("vm", "snapshot", name, "first", "--wait")).code, 0)
  assert.equal((await it.cli("vm", "restore", name, "first", "--wait")).code, 0)
  assert.equal((await it.cli("vm", "clone", name, `${name}-copy`, "--wait")).code, 0)
  assert.equal((await it.cli("vm", "delete", name, "--yes", "--wait")).code, 0)
  assert.equal((await it.cli("vm", "show", name)).code, 4)
})

test("exit codes tell the ends apart, and errors say what to do next", async () => {
  const name = await machine()
  const refused = await it.cli("vm", "stop", name)
  assert.equal(refused.code, 3)
  assert.match(refused.err, /allowed now: vm\.start/)
  assert.equal((await it.cli("vm", "start", "nothing-here")).code, 4)
  const failed = await it.cli("vm", "snapshot", name, "full", "--wait")
  assert.equal(failed.code, 1)
  assert.match(failed.err, /no room[^]*novacron history vm\//)
  assert.equal((await it.cli("vm", "create", "x", "--cpus", "0")).code, 2)
  assert.equal((await it.cli("vm", "create", "x", "--cpus", "many")).code, 2)
  const misnamed = await it.cli("vm", "create", "Not_A_Name")
  assert.equal(misnamed.code, 2)
  assert.match(misnamed.err, /a name of 1 to 63 characters[^]*got "Not_A_Name"/)
  assert.equal((await it.cli("vm", "fly", name)).code, 2)
  assert.equal((await it.cli("vm", "show")).code, 2)
  assert.equal((await it.cli("vm", "list", "--url", "ftp://x")).code, 2)
  const token = { NOVACRON_TOKEN: "x" }
  const away = await it.cliWith({ ...token, NOVACRON_URL: "http://127.0.0.1:9" }, "vm", "list")
  assert.equal(away.code, 5)
  assert.match(away.err, /novacron up/)
  const stranger = await it.cliWith({ ...token, NOVACRON_URL: it.world.url }, "vm", "list")
  assert.equal(stranger.code, 6)
  const none = await it.cliWith(
    { NOVACRON_URL: it.world.url },
    "vm",
    "list",
    "--token-file",
    join(folder, "no")
  )
  assert.equal(none.code, 6)
})

test("what has not ended in time is told apart from what failed", async () => {
  assert.equal((await it.cli("vm", "create", "slow-1", "--start", "--wait")).code, 0)
  const said = await it.cli("vm", "reboot", "slow-1", "--wait", "--wait-timeout", "50ms")
  assert.equal(said.code, 7)
  assert.match(said.err, /within 50ms/)
})

test("errors are JSON for programs, on standard error", async () => {
  const said = await it.cli("vm", "start", "nothing-here", "--json")
  assert.equal(said.out, "")
  const error = JSON.parse(said.err)
  assert.equal(error.code, 4)
  assert.equal(error.details.type, "urn:novacron:problem:not-found")
})

test("deleting is asked for, and where nobody can be asked it needs --yes", async () => {
  const name = await machine()
  const said = await it.cli("vm", "delete", name)
  assert.equal(said.code, 2)
  assert.match(said.err, /--yes/)
  assert.equal((await it.cli("vm", "show", name)).code, 0)
})

test("every changing command has a dry run, which changes nothing", async () => {
  const running = await machine("running")
  const stopped = await machine()
  const position = async () => (await Effect.runPromise(it.world.store.head)).position
  const begun = await position()
  const lines = [
    ["vm", "create", "never"],
    ["vm", "start", stopped],
    ["vm", "stop", running],
    ["vm", "pause", running],
    ["vm", "reboot", running],
    ["vm", "delete", stopped],
    ["vm", "clone", stopped, "never"],
    ["vm", "snapshot", stopped, "s"],
    ["host", "drain", "b"],
    ["rebalance", "start", "--shadow"],
    ["migrate", running]
  ]
  for (const line of lines) {
    const said = await it.cli(...line, "--dry-run")
    assert.equal(said.code, 0, `${line.join(" ")}: ${said.err}`)
    assert.match(said.out, /^dry run: /)
    assert.equal(JSON.parse((await it.cli(...line, "-n", "--json")).out).dryRun, true)
  }
  assert.equal(await position(), begun)
})

test("the rebalancer is started, says how it stands, and is stopped", async () => {
  assert.match((await it.cli("rebalance", "show")).out, /^off; 0 moves were decided\n/)
  const begun = await it.cli("rebalance", "start", "--shadow", "--every", "1s", "--margin", "30")
  assert.equal(begun.code, 0, begun.err)
  const status = async () => JSON.parse((await it.cli("rebalance", "show", "--json")).out)
  assert.equal((await status()).policy.marginPercent, 30)
  let last: any = null
  for (let tries = 0; last === null && tries < 500; tries++) {
    ;({ last } = await status())
    await sleep(20)
  }
  assert.equal(last?.shadow, true)
  assert.match(
    (await it.cli("rebalance", "show")).out,
    /^in its shadow, [a-z]+: every 1s, 30 points above the mean at 3 looks/
  )
  assert.equal((await it.cli("rebalance", "stop")).code, 0)
  const again = await it.cli("rebalance", "stop")
  assert.equal(again.code, 3)
  assert.match(again.err, /rebalancer\/fleet is off/)
  const wrong = await it.cli("rebalance", "start", "--margin", "101")
  assert.equal(wrong.code, 2)
  assert.match(wrong.err, /margin[^]*101[^]*a whole number from 1 to 100/)
})

test("a check before a migration says what is in its way by its exit code", async () => {
  const stopped = await machine()
  const said = await it.cli("migrate", stopped, "--check")
  assert.equal(said.code, 3)
  assert.match(said.out, /blocked/)
  const running = await machine("running")
  assert.equal((await it.cli("migrate", running, "--check")).code, 0)
})

test("a migration that fails says why, is listed, and can be watched to its end", async () => {
  const name = await machine("running")
  const said = await it.cli("migrate", name, "--wait", "--downtime-budget", "100ms", "--bandwidth", "100Mbit")
  assert.equal(said.code, 1)
  assert.match(said.err, /migration\.failed: /)
  const rows = JSON.parse((await it.cli("migration", "list", "--vm", name, "--json")).out)
  assert.equal(rows[0].state, "failed")
  assert.equal(rows[0].policy.bandwidthBytesPerSecond, 12_500_000)
  const watched = await it.cli("migration", "watch", rows[0].id)
  assert.equal(watched.code, 1)
  assert.match(watched.out, /migration\.requested[^]*migration\.failed/)
  assert.equal((await it.cli("migration", "cancel", rows[0].id)).code, 3)
  assert.equal((await it.cli("migration", "watch", "nothing-here")).code, 4)
})

test("why, history, replay and audit tell what happened", async () => {
  const name = await machine("running")
  assert.match((await it.cli("why", name)).out, /scores highest of \d of 2 hosts[^]*a: /)
  const history = JSON.parse((await it.cli("history", name, "--json")).out)
  assert.equal(history[0].type, "novacron.vm.created")
  assert.equal((await it.cli("history", "nothing-here")).code, 4)
  assert.equal((await it.cli("history", "No Stream!")).code, 2)
  const then = await it.cli("replay", name, "--at", String(history[0].position), "--json")
  assert.equal(JSON.parse(then.out).state, "placing")
  assert.match((await it.cli("replay", `vm/${name}`)).out, /running\.idle/)
  const whole = JSON.parse((await it.cli("replay", "--json")).out)
  const ofName = whole.actors.find((actor: { stream: string }) => actor.stream === `vm/${name}`)
  assert.equal(ofName.state, "running.idle")
  const early = JSON.parse((await it.cli("replay", "--at", String(history[0].position), "--json")).out)
  assert.equal(early.at.position, history[0].position)
  assert.equal((await it.cli("replay", "--at", "yesterday")).code, 2)
  assert.match((await it.cli("audit", "verify")).out, /^valid: \d+ facts/)
  const audited = JSON.parse((await it.cli("audit", "list", "--stream", `vm/${name}`, "--json")).out)
  assert.ok(audited.length > 3)
})

test("a data folder is verified and replayed without its node, and its damage is found", async () => {
  const dataDir = join(folder, "data")
  const path = join(dataDir, journalFile)
  const facts = await Effect.runPromise(it.world.store.readAll({ limit: 1000 }))
  await Effect.runPromise(
    Effect.scoped(
      Effect.gen(function* () {
        const store = yield* openEventStore({ path })
        const next = new Map<string, number>()
        for (const fact of facts) {
          const { position: _p, stream, revision, hash: _h, previousHash: _x, ...draft } = fact
          assert.equal(next.get(stream) ?? 0, revision)
          next.set(stream, revision + 1)
          yield* store.append([{ stream, expectedRevision: revision - 1, facts: [draft] }])
        }
      })
    ).pipe(Effect.provide(digest))
  )
  const valid = await it.cli("audit", "verify", "--data-dir", dataDir, "--json")
  assert.equal(JSON.parse(valid.out).head.position, facts.length)
  const once = await it.cli("replay", "--data-dir", dataDir, "--json")
  assert.equal((await it.cli("replay", "--data-dir", dataDir, "--json")).out, once.out)
  assert.ok(JSON.parse(once.out).actors.length > 2)
  const early = JSON.parse((await it.cli("replay", "--data-dir", dataDir, "--at", "2", "--json")).out)
  assert.deepEqual(
    early.actors.map((actor: { stream: string }) => actor.stream),
    ["host/a", "host/b"]
  )
  const time = new Date((facts[1]?.timeMs ?? 0) - 1).toISOString()
  const before = JSON.parse((await it.cli("replay", "--data-dir", dataDir, "--at", time, "--json")).out)
  assert.ok(before.at.position < 2)
  assert.equal((await it.cli("audit", "verify", "--data-dir", join(folder, "none"))).code, 4)

  const bytes = await readFile(path)
  let places = 0
  // A fact's data is text within text.
  const driver = String.raw`\"driver\":\"sim\"`
  for (let at = bytes.indexOf(driver); at >= 0; at = bytes.indexOf(driver, at + 1)) {
    bytes.write(driver.replace("sim", "sin"), at)
    places += 1
  }
  assert.ok(places > 0)
  await writeFile(path, bytes)
  const damaged = await it.cli("audit", "verify", "--data-dir", dataDir)
  assert.equal(damaged.code, 1)
})

test("a configuration is generated, checked and shown", async () => {
  const file = join(folder, "config.yaml")
  assert.equal((await it.cli("config", "generate", file)).code, 0)
  assert.equal((await it.cli("config", "generate", file)).code, 3)
  assert.equal((await it.cli("config", "validate", file)).code, 0)
  const shown = await it.cliWith(
    { NOVACRON_LOG_LEVEL: "warn" },
    "config",
    "show",
    "--config",
    file,
    "--plain"
  )
  assert.ok(shown.out.includes("system.log_level\twarn\tNOVACRON_LOG_LEVEL\n"))
  assert.ok(shown.out.includes(`api.port\t7070\t${file}\n`))
  await writeFile(file, "system: { log_level: loud }\napi: { port: x }\n")
  const wrong = await it.cli("config", "validate", file)
  assert.equal(wrong.code, 2)
  assert.match(wrong.err, /system\.log_level[^]*api\.port/)
})

test("completion scripts name the commands, and bash completes by its own", async () => {
  for (const shell of ["bash", "zsh", "fish"]) {
    const said = await it.cli("completion", shell)
    assert.equal(said.code, 0)
    assert.match(said.out, /migrate/)
  }
  const script = (await it.cli("completion", "bash")).out
  assert.doesNotMatch(script, /--completions/)
  const completed = (line: string) => {
    const words = line.split(" ")
    const ask = `COMP_WORDS=(${words.join(" ")}); COMP_CWORD=${words.length - 1}; COMP_LINE="${line}"; _novacron`
    const { stdout } = spawnSync("bash", ["--norc"], {
      input: `${script}\n${ask}; echo "\${COMPREPLY[*]}"`,
      encoding: "utf8"
    })
    return stdout.trim()
  }
  assert.equal(completed("novacron vm st"), "start stop")
  assert.equal(completed("novacron migrate --d"), "--downtime-budget --dry-run")
})

test("help is shown without loading the server", async () => {
  const program = `
    import { registerHooks } from "node:module"
    const loaded = []
    registerHooks({ load: (url, context, next) => (loaded.push(url), next(url, context)) })
    const { runCli } = await import(${JSON.stringify(new URL("../../src/cli/main.ts", import.meta.url).href)})
    const code = await runCli(["--help"])
    const heavy = loaded.filter((url) => /live\\/(api\\/server|event-store|hypervisor)|@xstate|\\/xstate\\//.test(url))
    process.stderr.write(JSON.stringify({ code, heavy }))
  `
  const file = join(folder, "help.mjs")
  await writeFile(file, program)
  const said = spawnSync(process.execPath, [file], { encoding: "utf8" })
  assert.deepEqual(JSON.parse(said.stderr), { code: 0, heavy: [] })
  assert.match(said.stdout, /novacron <subcommand>/)
})

test("rates, sizes and progress read as people write them", () => {
  assert.equal(parseBandwidth("100Mbit"), 12_500_000)
  assert.equal(parseBandwidth("1Gi"), 1024 ** 3)
  assert.equal(parseBandwidth("0"), 0)
  for (const text of ["", "fast", "1 M", "-1", "1e9"]) assert.equal(parseBandwidth(text), null)
  assert.equal(formatBytes(1536), "1.5 KiB")
  const row = { phase: "pre-copy", percent: 42.9, totalBytes: 1024 ** 2, rateBytesPerSecond: 2048 }
  assert.equal(
    progressText({ ...row, remainingMs: { low: 1200, high: 2000 } }),
    "pre-copy 42 % of 1.0 MiB, 2.0 KiB/s, 2s to 2s left"
  )
})
