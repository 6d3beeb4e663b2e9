/** The node's side of its lease: it sees to it that a watcher is there, asks for the lease, and tells the watcher until when it is. */
import { spawn } from "node:child_process"
import { closeSync, openSync } from "node:fs"
import { extname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { Clock, Effect, Schedule } from "effect"
import { HeldLease, keepLease } from "../../kernel/lease.ts"
import type { LeaseKeeping } from "../../kernel/lease.ts"
import { bootMs, FencingFolder } from "./folder.ts"
import { endLeasedGuests } from "./guests.ts"

const watcher = fileURLToPath(
  new URL(`./watcher${extname(new URL(import.meta.url).pathname)}`, import.meta.url)
)

/** In a session of its own, so that it outlives this process; what it says is in `watcher.log`. */
function startWatcher(dataDir: string, { folder }: FencingFolder): Promise<void> {
  const log = openSync(join(folder, "watcher.log"), "a", 0o600)
  const child = spawn(process.execPath, [watcher, dataDir], {
    detached: true,
    cwd: "/",
    stdio: ["ignore", log, log]
  })
  closeSync(log)
  child.unref()
  return new Promise((resolve, reject) => {
    child.once("spawn", resolve)
    child.once("error", reject)
  })
}

const superviseEveryMs = 500
/** A watcher that was started is given so long to be heard of. */
const settleMs = 5000
const enforceEveryMs = 250

export interface HostLeaseOptions {
  readonly dataDir: string
  /** Of the leases that it asks for by now; null where it asks for none. */
  readonly lengthMs: () => number | null
}

/** What the hypervisor needs at once: the lease as the process before this one left it. */
export function openLease(dataDir: string): { readonly files: FencingFolder; readonly lease: HeldLease } {
  const files = new FencingFolder(dataDir)
  files.make()
  return { files, lease: new HeldLease(bootMs, files.lease()) }
}

export type OpenLease = ReturnType<typeof openLease>

/** Start the watcher and keep it, in the surrounding scope. What asks for the lease is given with `ask`. */
export const hostLease = Effect.fn("hostLease")(function* (
  { files, lease }: OpenLease,
  { dataDir, lengthMs }: HostLeaseOptions,
  ask: LeaseKeeping["ask"]
) {
  files.storeNode()
  const supervise = Effect.suspend(() =>
    lengthMs() === null || files.watcher().runs
      ? Effect.void
      : Effect.tryPromise(() => startWatcher(dataDir, files)).pipe(
          Effect.catch((error) => Effect.logError("the watcher of this host's lease does not start", error)),
          Effect.andThen(awaited(files))
        )
  )
  // This host takes part meanwhile, without a lease, and registers anew when its watcher looks.
  yield* Effect.forkScoped(Effect.repeat(supervise, Schedule.spaced(superviseEveryMs)))
  const keeping: LeaseKeeping = {
    lease,
    lengthMs: Effect.sync(() => (files.watcher().looks ? lengthMs() : null)),
    ask,
    store: (untilMs) =>
      Effect.try(() => files.storeLease(untilMs)).pipe(
        Effect.catch((error) => Effect.logError("the lease can't be told to the watcher", error))
      ),
    ended: Effect.sync(() => files.ended()),
    told: () => Effect.sync(() => files.told())
  }
  yield* Effect.forkScoped(keepLease(keeping))
  // This process does it too, as long as it is there: the watcher is for when it is not.
  const enforce = Effect.suspend(() =>
    lease.untilMs === null || bootMs() < lease.untilMs
      ? Effect.void
      : Effect.flatMap(endLeasedGuests(dataDir), (ended) =>
          Effect.sync(() => {
            for (const vm of ended) files.noteEnded(vm)
          })
        ).pipe(Effect.ignore)
  )
  yield* Effect.forkScoped(Effect.repeat(enforce, Schedule.spaced(enforceEveryMs)))
  return keeping
})

const awaited = Effect.fnUntraced(function* (files: FencingFolder) {
  const untilMs = (yield* Clock.currentTimeMillis) + settleMs
  while (!files.watcher().runs && (yield* Clock.currentTimeMillis) < untilMs) yield* Effect.sleep(50)
})
