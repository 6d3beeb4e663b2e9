/**
 * A process beside the node that outlives it: it reads until when the lease is, and ends the guests that may be restarted elsewhere
 * when it has run out. It needs no network and asks nobody. It ends when there is no node, no lease and nothing left to end.
 */
import { existsSync, writeFileSync } from "node:fs"
import { setPriority } from "node:os"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { Effect } from "effect"
import { bootMs, FencingFolder } from "./folder.ts"
import { endLeasedGuests } from "./guests.ts"

/** The lease may be over for so long before that is seen; a part of the fence's margin. */
const lookEveryMs = 100
const beatEveryMs = 1000
const idleMs = 10_000

/** It is the last that should wait for memory or a processor; allowed for root only. */
function insist(): void {
  for (const attempt of [() => setPriority(-10), () => writeFileSync("/proc/self/oom_score_adj", "-900")])
    try {
      attempt()
    } catch {
      // It watches all the same.
    }
}

const say = (text: string) => process.stderr.write(`${JSON.stringify({ watcher: process.pid, text })}\n`)

async function end(dataDir: string, files: FencingFolder): Promise<void> {
  const ended = await Effect.runPromise(endLeasedGuests(dataDir).pipe(Effect.orElseSucceed(() => [])))
  for (const vm of ended) {
    files.noteEnded(vm)
    say(`the lease has run out: ${vm} was ended`)
  }
}

/** Until there is nothing left to watch, or `signal`. */
export async function watchLease(dataDir: string, signal?: AbortSignal): Promise<void> {
  const files = new FencingFolder(dataDir)
  files.make()
  insist()
  let beatMs = Number.NEGATIVE_INFINITY
  let neededMs = bootMs()
  const goesOn = () => signal?.aborted !== true && existsSync(files.folder)
  while (goesOn()) {
    try {
      const untilMs = files.lease()
      const nowMs = bootMs()
      const isOver = untilMs !== null && nowMs >= untilMs
      if (isOver) await end(dataDir, files)
      if (nowMs - beatMs >= beatEveryMs) {
        files.storeWatcher()
        beatMs = nowMs
        if (files.hasNode() || (untilMs !== null && !isOver)) neededMs = nowMs
      }
      if (nowMs - neededMs >= idleMs) return
    } catch (error) {
      // A disk that is full, say: what counts is that it goes on looking.
      if (existsSync(files.folder)) say(String(error))
    }
    await sleep(lookEveryMs)
  }
}

const [, script, dataDir] = process.argv
if (script === fileURLToPath(import.meta.url) && dataDir !== undefined) await watchLease(dataDir)
