/** Snapshots inside the qcow2 files: of a stopped machine by qemu-img, of a running one by its QEMU. */
import { Effect } from "effect"
import type { HypervisorError } from "../../kernel/ports/hypervisor.ts"
import { diskNode } from "./command-line.ts"
import { diskFiles, diskInfo, restoreDisk, snapshotDisk } from "./disks.ts"
import { ask, notMoving, withMachine } from "./lifecycle.ts"
import type { Host, Present } from "./lifecycle.ts"
import { fail } from "./machine.ts"

type Failure = HypervisorError

const files = (host: Host, present: Present) =>
  diskFiles(host.store, present.machine.paths, present.machine.vm, present.record.spec)

/** Names of the snapshots that QEMU knows of each disk; the file itself may not tell yet. */
const runningSnapshots = Effect.fn("runningSnapshots")(function* (
  vm: string,
  present: Present
): Effect.fn.Return<ReadonlyArray<ReadonlyArray<string>>, Failure> {
  if (present.qmp === null) return []
  const nodes = (yield* ask("snapshot", vm, present.qmp, "query-named-block-nodes")) as ReadonlyArray<{
    readonly "node-name"?: string
    readonly image?: { readonly snapshots?: ReadonlyArray<{ readonly name: string }> }
  }>
  return present.record.spec.disks.map((_, index) => {
    const node = nodes.find((each) => each["node-name"] === diskNode(index))
    return (node?.image?.snapshots ?? []).map((each) => each.name)
  })
})

/** All disks at one moment; `bytes` is what their files take up with it. */
export const snapshot = (host: Host, vm: string, name: string) =>
  withMachine(host, "snapshot", vm, (present) =>
    Effect.gen(function* () {
      yield* notMoving("snapshot", present)
      if (present.record.incoming !== null) {
        return yield* fail("snapshot", vm, "wrong-state", "the machine is incoming")
      }
      const disks = yield* files(host, present)
      if (disks.length === 0) return yield* fail("snapshot", vm, "unsupported", "the machine has no disks")
      if (present.qmp === null) {
        for (const disk of disks) yield* snapshotDisk(host.store, vm, disk.path, name)
      } else {
        const known = yield* runningSnapshots(vm, present)
        const actions = disks.flatMap((_, index) =>
          known[index]?.includes(name) === true
            ? []
            : [{ type: "blockdev-snapshot-internal-sync", data: { device: diskNode(index), name } }]
        )
        if (actions.length > 0) yield* ask("snapshot", vm, present.qmp, "transaction", { actions })
      }
      let bytes = 0
      for (const disk of disks) bytes += (yield* diskInfo(host.store, vm, disk.path)).actualBytes
      return { bytes }
    })
  )

export const restore = (host: Host, vm: string, name: string) =>
  withMachine(host, "restore", vm, (present) =>
    Effect.gen(function* () {
      if (present.qmp !== null) return yield* fail("restore", vm, "wrong-state", "the machine is not stopped")
      const disks = yield* files(host, present)
      // All or none: a disk without it must not be found out about half-way.
      for (const disk of disks) {
        const info = yield* diskInfo(host.store, vm, disk.path)
        if (info.snapshots.includes(name)) continue
        const known = info.snapshots.length === 0 ? "none" : info.snapshots.join(", ")
        const reason = `disk "${disk.name}" has no snapshot "${name}"; it has: ${known}`
        return yield* fail("restore", vm, "not-found", reason)
      }
      for (const disk of disks) yield* restoreDisk(host.store, vm, disk.path, name)
    })
  )
