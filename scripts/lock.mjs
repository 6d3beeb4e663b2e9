/**
 * A lock between processes of one machine: a file that holds its owner's pid, and the pids of what the owner
 * started and would leave running if it were killed. Plain JavaScript, see setup.mjs.
 */
import {
  appendFileSync,
  linkSync,
  mkdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync
} from "node:fs"
import { dirname } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"

const pollMs = 200
const guardMaxAgeMs = 10_000

/** A process's start time in clock ticks, so that a pid that was given out again isn't taken for the owner. */
function startOf(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? ""
  } catch {
    return ""
  }
}

function isAlive(pid, start) {
  try {
    process.kill(pid, 0)
  } catch (error) {
    if (error.code === "ESRCH") return false
  }
  return start === "" || startOf(pid) === start
}

const lineOf = (pid) => `${pid} ${startOf(pid)}\n`

/** The owner's pid, or that of what it left running; undefined where nobody alive holds the lock. */
function ownerOf(path) {
  try {
    const lines = readFileSync(path, "utf8").trim().split("\n")
    const owners = lines.map((line) => line.split(" "))
    const alive = owners.find(([pid, start]) => isAlive(Number(pid), start ?? ""))
    return alive === undefined ? undefined : Number(alive[0])
  } catch (error) {
    if (error.code === "ENOENT") return undefined
    throw error
  }
}

/** Creates `path` with its content in one step; false where it exists. */
function claim(path) {
  const candidate = `${path}.${process.pid}`
  writeFileSync(candidate, lineOf(process.pid))
  try {
    linkSync(candidate, path)
    return true
  } catch (error) {
    if (error.code === "EEXIST") return false
    throw error
  } finally {
    rmSync(candidate, { force: true })
  }
}

/** Removes a lock whose owner is gone. The guard keeps two from removing, the second a lock just taken. */
function removeStale(path) {
  const guard = `${path}.guard`
  try {
    mkdirSync(guard)
  } catch (error) {
    if (error.code !== "EEXIST") throw error
    const made = statSync(guard, { throwIfNoEntry: false })
    if (made && Date.now() - made.mtimeMs > guardMaxAgeMs) rmSync(guard, { recursive: true, force: true })
    return
  }
  try {
    if (ownerOf(path) === undefined) rmSync(path, { force: true })
  } finally {
    rmdirSync(guard)
  }
}

/**
 * Runs `work` while no other process does so under the same `path`, and returns what it returns. Waits
 * `waitMaxMs` at most, then throws; `onWait` is told the owner's pid once, before either. `work` gets a function
 * that makes a child process hold the lock too.
 */
export async function withLock(path, waitMaxMs, onWait, work) {
  mkdirSync(dirname(path), { recursive: true })
  const endMs = Date.now() + waitMaxMs
  let told = false
  while (!claim(path)) {
    const owner = ownerOf(path)
    if (owner === undefined) {
      removeStale(path)
    } else {
      if (!told) onWait(owner)
      told = true
      if (Date.now() > endMs) throw new Error(`${path}: process ${owner} has held it for too long`)
    }
    await sleep(owner === undefined ? 5 : pollMs)
  }
  try {
    return await work((pid) => appendFileSync(path, lineOf(pid)))
  } finally {
    rmSync(path, { force: true })
  }
}
