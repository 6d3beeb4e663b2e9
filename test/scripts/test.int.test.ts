/** The test runner, on test folders of its own: copies of scripts/ beside planted tests. */
import assert from "node:assert/strict"
import { spawnSync } from "node:child_process"
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { afterEach, beforeEach, test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"

const root = join(import.meta.dirname, "..", "..")
let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "novacron-runner-"))
  cpSync(join(root, "scripts"), join(folder, "scripts"), { recursive: true })
  symlinkSync(join(root, "node_modules"), join(folder, "node_modules"))
  mkdirSync(join(folder, "test"))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

function plant(path: string, body: string): void {
  const file = join(folder, "test", path)
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, `import { test } from "node:test"\nimport { appendFileSync } from "node:fs"\n${body}\n`)
}

function run(...args: ReadonlyArray<string>) {
  const { NODE_TEST_CONTEXT: _outer, ...env } = process.env
  const options = { encoding: "utf8", cwd: folder, env } as const
  const { status, stdout, stderr } = spawnSync(process.execPath, ["scripts/test.mjs", ...args], options)
  return { status, output: stdout + stderr }
}

test("cheap tests run first, and the last line counts them", () => {
  const log = JSON.stringify(join(folder, "log"))
  for (const [path, letter] of [
    ["a.e2e.test.ts", "e"],
    ["b.int.test.ts", "i"],
    ["deep/c.unit.test.ts", "u"]
  ] as const) {
    plant(path, `test("t", () => appendFileSync(${log}, "${letter}"))`)
  }
  const { status, output } = run()
  assert.match(output, /\n3 passed, 0 failed \([\d.]+ s\)\n$/)
  assert.equal(status, 0)
  assert.equal(readFileSync(join(folder, "log"), "utf8"), "uie")
})

test("a failing test fails the run and its message is shown", () => {
  plant("a.unit.test.ts", `test("fine", () => {})\ntest("broken", () => { throw new Error("because") })`)
  const { status, output } = run()
  assert.match(output, /because/)
  assert.match(output, /FAILED\n {2}test\/a\.unit\.test\.ts: broken\n/)
  assert.match(output, /1 passed, 1 failed/)
  assert.equal(status, 1)
})

test("left-out tests are listed with their reason and not counted as passed", () => {
  plant("a.unit.test.ts", `test("fine", () => {})\ntest("needs it", { skip: "no QEMU here" }, () => {})`)
  const { status, output } = run()
  assert.match(
    output,
    /LEFT OUT, 1 of the tests did not run:\n {2}test\/a\.unit\.test\.ts: needs it: no QEMU here/
  )
  assert.match(output, /1 passed, 0 failed, 1 left out/)
  assert.equal(status, 0)
})

test("a run in which no test ran fails, also when all were left out", () => {
  assert.equal(run().status, 1)
  plant("a.unit.test.ts", `test("needs it", { skip: "no QEMU here" }, () => {})`)
  const { status, output } = run()
  assert.match(output, /no tests ran/)
  assert.equal(status, 1)
})

test("a file without tests, and one that ends itself, fail", () => {
  plant("a.unit.test.ts", "")
  plant("b.unit.test.ts", `test("t", () => process.exit(3))`)
  const { status, output } = run()
  assert.match(output, /a\.unit\.test\.ts: has no tests/)
  assert.match(output, /b\.unit\.test\.ts: /)
  assert.equal(status, 1)
})

/** A killed process takes a moment to go; one that stays for 10 s was not killed. */
async function isGone(pid: number): Promise<boolean> {
  for (let turn = 0; turn < 200; turn += 1) {
    const path = `/proc/${pid}/stat`
    if (!existsSync(path) || readFileSync(path, "utf8").includes(") Z ")) return true
    await sleep(50)
  }
  return false
}

test("a file that passes its limit is ended with what it started", async () => {
  const pidFile = join(folder, "pid")
  plant(
    "a.unit.test.ts",
    `import { spawn } from "node:child_process"
     test("hangs", () => new Promise(() => {
       const child = spawn("sleep", ["600"])
       appendFileSync(${JSON.stringify(pidFile)}, String(child.pid))
       setInterval(() => {}, 1000)
     }))`
  )
  const { status, output } = run("--limit", "2")
  assert.match(output, /a\.unit\.test\.ts: not finished after 2 s, ended/)
  assert.equal(status, 1)
  const pid = Number(readFileSync(pidFile, "utf8"))
  assert.ok(await isGone(pid), `process ${pid} is still there`)
})

test("paths, costs and names choose tests; wrong options are refused", () => {
  plant("a.unit.test.ts", `test("red", () => {})\ntest("blue", () => {})`)
  plant("b.int.test.ts", `test("red", () => {})`)
  assert.match(run("a.unit").output, /2 passed/)
  assert.match(run("--int").output, /1 passed/)
  assert.match(run("--name", "red").output, /2 passed/)
  assert.equal(run("--wrong").status, 2)
  assert.equal(run("--limit", "no").status, 2)
})
