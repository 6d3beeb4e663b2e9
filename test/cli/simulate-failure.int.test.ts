/**
 * `novacron simulate` when a promise is broken: a mistake is planted in the production source, for the command's process and
 * its threads, and what the command says, writes and ends with is held against what the reference promises.
 */
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { fileURLToPath } from "node:url"

const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url))
const preload = new URL("../simulations/plant-preload.ts", import.meta.url).href
const folder = mkdtempSync(join(tmpdir(), "novacron-simulate-"))
after(() => rmSync(folder, { recursive: true, force: true }))

/** Breaks safety with seed 1 and with most others, and is made smaller in seconds. */
const mistake = "half-is-majority"
const seed = 1

interface Ended {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

/** The command `simulate` in the folder of this test, with a mistake planted or with none. */
const simulate = (mutant: string | null, ...argv: ReadonlyArray<string>): Promise<Ended> =>
  new Promise((resolve, reject) => {
    const planting = mutant === null ? [] : ["--import", preload]
    const child = spawn(process.execPath, [...planting, main, "simulate", ...argv], {
      cwd: folder,
      env: { ...process.env, NOVACRON_TEST_MUTANT: mutant ?? "" },
      stdio: ["ignore", "pipe", "pipe"]
    })
    const said = { out: "", err: "" }
    child.stdout.on("data", (chunk: Buffer) => (said.out += chunk.toString()))
    child.stderr.on("data", (chunk: Buffer) => (said.err += chunk.toString()))
    child.on("error", reject)
    child.on("close", (code) => resolve({ code, ...said }))
  })

interface Broken {
  readonly seed: number
  readonly class: string
  readonly promised: string
  readonly message: string
  readonly hash: string
  readonly replay: string
}

interface Summary {
  readonly seeds: number
  readonly violations: ReadonlyArray<Broken>
  readonly run?: { readonly hash: string; readonly violation: { readonly promised: string } | null }
}

const read = (name: string) => readFileSync(join(folder, name), "utf8")
const headOf = (text: string, head: string) => new RegExp(`^${head}: (.*)$`, "m").exec(text)?.[1] ?? ""
const summaryOf = ({ out }: Ended) => JSON.parse(out) as Summary
/** The last line is the failure, as data. */
const failureOf = ({ err }: Ended): unknown => JSON.parse(err.trimEnd().split("\n").at(-1) ?? "")

const one = await simulate(mistake, "raft", "--seed", String(seed), "--json")
const [broken] = summaryOf(one).violations
const replay = `novacron simulate raft --seed ${seed}`

test("data: the class, the promise, the journal and how to have it again; the exit code is 1", () => {
  assert.equal(one.code, 1, one.err)
  const { seeds, violations, run } = summaryOf(one)
  assert.equal(seeds, 1)
  assert.equal(violations.length, 1)
  assert.equal(broken?.seed, seed)
  assert.equal(broken.class, "safety")
  assert.ok(broken.message.startsWith(`${broken.promised}: `), broken.message)
  assert.match(broken.hash, /^[0-9a-f]{64}$/)
  assert.equal(broken.replay, replay)
  assert.equal(run?.hash, broken.hash)
  assert.equal(run.violation?.promised, broken.promised)
  assert.deepEqual(failureOf(one), {
    error: "failure",
    code: 1,
    reason: `a promise was broken by seed ${seed}`,
    hint: replay
  })
})

test("for people, and made smaller: the file is the same failure, replayed", async () => {
  const { code, out, err } = await simulate(mistake, "raft", "--seed", String(seed), "--shrink")
  assert.equal(code, 1)
  assert.match(out, new RegExp(`^journal: ${broken?.hash}$`, "m"))
  assert.match(out, /^1 seeds broke a promise$/m)
  assert.ok(err.includes(`seed ${seed}: safety: ${broken?.message}\n  ${replay}\n`), err)
  const path = `raft-${seed}.scenario.txt`
  assert.match(
    err,
    new RegExp(`^the least that breaks it, after \\d+ runs: ${path}\n  novacron simulate ${path}$`, "m")
  )
  assert.ok(err.endsWith(`novacron: a promise was broken by seed ${seed}\n  ${replay}\n`), err)

  const text = read(path)
  assert.equal(headOf(text, "broken"), broken?.promised)
  const journal = headOf(text, "journal")
  assert.notEqual(journal, broken?.hash, "nothing was left out")

  const again = await simulate(mistake, path)
  assert.equal(again.code, 1)
  assert.equal(again.out, `safety: ${headOf(text, "purpose")}\njournal: ${journal}\n`)
  assert.equal(again.err, "novacron: the run breaks the promise that its file tells of\n")

  const data = await simulate(mistake, path, "--json")
  assert.equal(data.code, 1)
  assert.equal(summaryOf(data).run?.hash, journal)
  assert.equal(summaryOf(data).run?.violation?.promised, broken?.promised)

  // Without the mistake it is another run, in which nothing is broken: said, as the file is not true any more.
  const mended = await simulate(null, path)
  assert.equal(mended.code, 1)
  assert.equal(mended.out, "")
  const [, hash = ""] = /and the run ended with no broken promise and ([0-9a-f]{64})$/m.exec(mended.err) ?? []
  assert.ok(
    mended.err.startsWith(`novacron: ${path}: the file tells of ${broken?.promised} and ${journal}, `)
  )
  const kept = text.replace(/^broken: .*$/m, "broken: -").replace(/^journal: .*$/m, `journal: ${hash}`)
  writeFileSync(join(folder, "kept.scenario.txt"), kept)
  assert.deepEqual(await simulate(null, "kept.scenario.txt"), {
    code: 0,
    out: "every promise was kept\n",
    err: ""
  })
})

test("a group that comes no further is of the class liveness", async () => {
  const said = await simulate("asked-and-never-asks", "raft", "--seed", "27", "--json")
  assert.equal(said.code, 1, said.err)
  assert.deepEqual(
    summaryOf(said).violations.map(({ class: kind, promised }) => [kind, promised]),
    [["liveness", "liveness"]]
  )
})

test("many threads find what one finds; a time is ended by ten broken promises", async () => {
  const flags = ["raft", "--seeds", "6", "--json"]
  const [alone, together] = [
    await simulate(mistake, ...flags, "--workers", "1"),
    await simulate(mistake, ...flags, "--workers", "3")
  ]
  const found = ({ violations }: Summary) => violations.toSorted((left, right) => left.seed - right.seed)
  assert.equal(alone.code, 1)
  assert.equal(together.code, 1)
  assert.ok(found(summaryOf(alone)).length > 1)
  assert.ok(found(summaryOf(alone)).length < 10, "cut short, and threads may cut at other seeds")
  assert.deepEqual(found(summaryOf(together)), found(summaryOf(alone)))
  assert.equal(summaryOf(alone).seeds, 6)
  assert.equal(summaryOf(together).seeds, 6)

  const long = await simulate(mistake, "raft", "--hours", "24", "--workers", "2", "--json")
  assert.equal(long.code, 1)
  const { length } = summaryOf(long).violations
  // The other thread may end one more.
  assert.ok(length === 10 || length === 11, `${length}`)
})

test("a time that is over ends it", async () => {
  const { code, out } = await simulate(null, "raft", "--hours", "0.0003", "--workers", "2", "--json")
  assert.equal(code, 0)
  const { seeds, violations, run } = JSON.parse(out) as Summary
  assert.ok(seeds > 0)
  assert.equal(run, undefined, "a time is not one seed")
  assert.deepEqual(violations, [])
})

test("histories are written of a seed that breaks a promise too, and of one seed only", async () => {
  const flags = ["--history-porcupine", "porcupine.txt", "--history-knossos", "knossos.edn"]
  const said = await simulate(mistake, "raft", "--seed", String(seed), ...flags, "--json")
  assert.equal(said.code, 1)
  assert.equal(summaryOf(said).run?.hash, broken?.hash)
  for (const [name, line] of [
    ["porcupine.txt", /^\{:process \d+, :type :(invoke|ok|info|fail), :f :\w+, :key "[^"]*", :value .*\}$/],
    ["knossos.edn", /^\{:index \d+, :process \d+, :type :(invoke|ok|info|fail), :f :\w+, :value .*\}$/]
  ] as const) {
    const lines = read(name).trimEnd().split("\n")
    assert.ok(lines.length > 1, name)
    for (const text of lines) assert.match(text, line, name)
  }
  const before = readdirSync(folder)
  const two = await simulate(mistake, "raft", "--seeds", "2", "--history-knossos", "two.edn", "--json")
  assert.equal(two.code, 2)
  assert.match(two.err, /a history is written of one seed/)
  const none = await simulate(null, "fleet", "--history-porcupine", "none.txt")
  assert.equal(none.code, 1)
  assert.match(none.err, /none\.txt: Error: this scenario has no clients whose history could be written/)
  assert.deepEqual(readdirSync(folder), before)
})
