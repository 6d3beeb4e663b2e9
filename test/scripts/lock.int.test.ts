import assert from "node:assert/strict"
import { spawn, spawnSync } from "node:child_process"
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { once } from "node:events"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, test } from "node:test"
import { setImmediate } from "node:timers/promises"

const module = new URL("../../scripts/lock.mjs", import.meta.url).href
const { withLock } = (await import(module)) as {
  withLock: <A>(
    path: string,
    waitMaxMs: number,
    onWait: (pid: number) => void,
    work: (hold: (pid: number) => void) => A
  ) => Promise<A>
}

let folder: string
let lock: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "novacron-lock-"))
  lock = join(folder, "deep", "setup.lock")
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const never = () => assert.fail("nobody else is here")

test("the work's result comes back and the lock is gone, after a failure too", async () => {
  assert.equal(await withLock(lock, 1000, never, () => 7), 7)
  assert.equal(existsSync(lock), false)
  await assert.rejects(
    withLock(lock, 1000, never, () => Promise.reject(new Error("no"))),
    /no/
  )
  assert.equal(existsSync(lock), false)
})

test("many processes at a time work one after the other", async () => {
  const log = join(folder, "log")
  const source = `
    import { appendFileSync } from "node:fs"
    const { withLock } = await import(${JSON.stringify(module)})
    await withLock(${JSON.stringify(lock)}, 60000, () => {}, async () => {
      appendFileSync(${JSON.stringify(log)}, "(")
      await new Promise((resolve) => setTimeout(resolve, 20))
      appendFileSync(${JSON.stringify(log)}, ")")
    })`
  const children = Array.from({ length: 5 }, () =>
    spawn(process.execPath, ["--input-type=module", "-e", source], { stdio: "inherit" })
  )
  const codes = await Promise.all(children.map(async (child) => (await once(child, "exit"))[0] as number))
  assert.deepEqual(codes, [0, 0, 0, 0, 0])
  assert.equal(readFileSync(log, "utf8"), "()()()()()")
})

test("a lock whose owner is gone is taken over, by one of many", async () => {
  const gone = spawnSync(process.execPath, ["-e", ""])
  await withLock(lock, 1000, never, () => undefined)
  writeFileSync(lock, `${gone.pid} 1\n`)
  const log = join(folder, "log")
  const work = async () => {
    appendFileSync(log, "(")
    await setImmediate()
    appendFileSync(log, ")")
  }
  await withLock(lock, 1000, never, work)
  assert.equal(readFileSync(log, "utf8"), "()")
})

test("a pid that was given out again is not taken for the owner", async () => {
  await withLock(lock, 1000, never, () => undefined)
  writeFileSync(lock, `${process.pid} 1\n`)
  assert.equal(await withLock(lock, 1000, never, () => "taken"), "taken")
})

test("a child that was made to hold the lock keeps it after its owner is gone", async () => {
  const child = spawn("sleep", ["60"], { stdio: "ignore" })
  const source = `
    const { withLock } = await import(${JSON.stringify(module)})
    await withLock(${JSON.stringify(lock)}, 1000, () => {}, (hold) => {
      hold(${child.pid})
      process.kill(process.pid, "SIGKILL")
    })`
  spawnSync(process.execPath, ["--input-type=module", "-e", source])
  try {
    const waited: Array<number> = []
    const note = (pid: number) => waited.push(pid)
    await assert.rejects(
      withLock(lock, 0, note, () => undefined),
      /has held it/
    )
    assert.deepEqual(waited, [child.pid])
  } finally {
    child.kill("SIGKILL")
    await once(child, "exit")
  }
  assert.equal(await withLock(lock, 1000, never, () => 7), 7)
})

test("waiting for a living owner ends at the limit and names the owner, also where no wait was left", async () => {
  await withLock(lock, 1000, never, async () => {
    const waited: Array<number> = []
    await assert.rejects(
      withLock(
        lock,
        -1,
        (pid) => waited.push(pid),
        () => undefined
      ),
      new RegExp(`process ${process.pid} has held it`)
    )
    assert.deepEqual(waited, [process.pid])
  })
})
