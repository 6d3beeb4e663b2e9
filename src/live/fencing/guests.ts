/** Ends the guests that may be restarted elsewhere, when the lease of their host has run out. */
import { existsSync } from "node:fs"
import { join } from "node:path"
import { Effect } from "effect"
import { staysWithHost } from "../../events/vm.ts"
import { machineNames, machinePaths, readRecord } from "../hypervisor/folder.ts"
import { findProcess, killProcess, waitGone } from "../hypervisor/process.ts"

const atOnce = 32
/** A process that was killed is gone within this, unless the kernel holds it; then it is killed again at the next look. */
const goneMs = 2000

const endOne = Effect.fnUntraced(function* (dataDir: string, vm: string) {
  const paths = yield* machinePaths({ dataDir, runDir: join(dataDir, "run") }, vm)
  // What can't be read may be anything: it is ended too.
  const record = yield* readRecord(paths, vm).pipe(Effect.orElseSucceed(() => null))
  if (record !== null && staysWithHost(record.spec) !== null) return []
  const found = yield* findProcess(paths, record?.process ?? null)
  if (found === null) return []
  yield* killProcess(paths, found)
  return (yield* waitGone(paths, found, goneMs)) ? [vm] : []
})

/** Gives the names of those that it has ended. Their processes are told by id, start and command line, never by id alone. */
export const endLeasedGuests = Effect.fnUntraced(function* (dataDir: string) {
  if (!existsSync(join(dataDir, "vms"))) return []
  const names = yield* machineNames({ dataDir })
  const ended = yield* Effect.forEach(
    names,
    (vm) => endOne(dataDir, vm).pipe(Effect.orElseSucceed((): ReadonlyArray<string> => [])),
    { concurrency: atOnce }
  )
  return ended.flat()
})
