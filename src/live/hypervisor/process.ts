/** QEMU's process: started so that it outlives us, and found again by what it was started with, never by its id alone. */
import { spawn } from "node:child_process"
import { closeSync, openSync } from "node:fs"
import { readFile } from "node:fs/promises"
import { Effect } from "effect"
import { HypervisorError } from "../../kernel/ports/hypervisor.ts"
import type { MachinePaths } from "./folder.ts"

export interface QemuProcess {
  readonly pid: number
  /** When it started, in clock ticks since boot, as /proc tells it. */
  readonly startTicks: string
}

/** Between two looks, growing: most of what is waited for happens within milliseconds. */
const POLL_LEAST_MS = 1
const POLL_MS = 20
const LOG_TAIL_BYTES = 1024

/** State letter and start time: fields 3 and 22; the name before them, in brackets, may hold anything. */
const readStat = async (pid: number): Promise<{ state: string; startTicks: string } | null> => {
  const text = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "")
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ")
  const [state, startTicks] = [fields[0], fields[19]]
  return state === undefined || startTicks === undefined ? null : { state, startTicks }
}

/** The running process `pid`, if it is the QEMU that owns this folder; a zombie does not run. */
const identify = async (paths: MachinePaths, pid: number): Promise<QemuProcess | null> => {
  const found = await readStat(pid)
  if (found === null || "ZXx".includes(found.state)) return null
  const args = (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).split("\0")
  const at = args.indexOf("-pidfile")
  if (at < 0 || args[at + 1] !== paths.pidFile) return null
  return { pid, startTicks: found.startTicks }
}

/**
 * The machine's QEMU, or null when it does not run. `recorded` is what we wrote down when we started it; QEMU's own
 * file speaks for one that was started just before we ended.
 */
export const findProcess = (
  paths: MachinePaths,
  recorded: QemuProcess | null
): Effect.Effect<QemuProcess | null> =>
  Effect.promise(async () => {
    if (recorded !== null) {
      const found = await identify(paths, recorded.pid)
      if (found?.startTicks === recorded.startTicks) return found
    }
    const pid = Number.parseInt(await readFile(paths.pidFile, "utf8").catch(() => ""), 10)
    return Number.isInteger(pid) && pid > 1 ? identify(paths, pid) : null
  })

/** The end of what QEMU said, for reasons. */
export const logTail = (paths: MachinePaths): Effect.Effect<string> =>
  Effect.promise(async () => {
    const text = await readFile(paths.log, "utf8").catch(() => "")
    return text.trim().slice(-LOG_TAIL_BYTES)
  })

/** Start QEMU in a session of its own, its output in the log. It may still end at once: see the log then. */
export const spawnProcess = (
  paths: MachinePaths,
  vm: string,
  binary: string,
  args: ReadonlyArray<string>
): Effect.Effect<QemuProcess | null, HypervisorError> =>
  Effect.tryPromise({
    try: async () => {
      const log = openSync(paths.log, "w", 0o600)
      try {
        const child = spawn(binary, [...args], {
          detached: true,
          cwd: paths.folder,
          stdio: ["ignore", log, log]
        })
        await new Promise<void>((resolve, reject) => {
          child.once("error", reject)
          child.once("spawn", resolve)
        })
        child.on("error", () => undefined)
        child.unref()
        const pid = child.pid ?? 0
        const found = await readStat(pid)
        return found === null ? null : { pid, startTicks: found.startTicks }
      } finally {
        closeSync(log)
      }
    },
    catch: (cause) =>
      new HypervisorError({ op: "start", vm, code: "failed", reason: `${binary}: ${String(cause)}` })
  })

/** Wait until the process is gone; false when it is still there after `timeoutMs`. */
export const waitGone = (paths: MachinePaths, process: QemuProcess, timeoutMs: number) =>
  Effect.gen(function* () {
    let pauseMs = POLL_LEAST_MS
    for (let waitedMs = 0; waitedMs < timeoutMs; waitedMs += pauseMs) {
      const found = yield* Effect.promise(() => identify(paths, process.pid))
      if (found?.startTicks !== process.startTicks) return true
      pauseMs = Math.min(POLL_MS, pauseMs * 2)
      yield* Effect.sleep(pauseMs)
    }
    return false
  })

/** Kill it, if it is still the one it was. */
export const killProcess = (paths: MachinePaths, target: QemuProcess) =>
  Effect.promise(async () => {
    const found = await identify(paths, target.pid)
    if (found?.startTicks !== target.startTicks) return
    try {
      process.kill(target.pid, "SIGKILL")
    } catch {
      // It ended in between: what was wanted.
    }
  })
