/** The destination's side of a migration: a QEMU that waits, paused, and disks that are written through NBD. */
import { rm } from "node:fs/promises"
import { Effect } from "effect"
import type { Channel } from "../../events/requests.ts"
import type { HypervisorError } from "../../kernel/ports/hypervisor.ts"
import { diskNode } from "./command-line.ts"
import { asHypervisorError, fail, runState } from "./machine.ts"
import type { Machine } from "./machine.ts"
import { migrationInfo } from "./progress.ts"
import type { Qmp, QmpArguments } from "./qmp.ts"
import type { VmSpec } from "../../events/vm.ts"

/** The guest stands still meanwhile. */
const POLL_MS = 1
const POST_COPY_POLL_MS = 250
/** From "the source has sent everything" to "everything is loaded". */
const ARRIVAL_MS = 60_000

const ask = (qmp: Qmp, vm: string, command: string, args?: QmpArguments) =>
  qmp.execute(command, args).pipe(Effect.mapError(asHypervisorError("prepareIncoming", vm)))

/** Where the channels lead: memory to QEMU's own socket, every local disk to the one NBD server. */
export const incomingChannels = (machine: Machine, spec: VmSpec): ReadonlyArray<Channel> => [
  { name: "ram", path: machine.paths.incoming },
  ...spec.disks
    .filter((disk) => disk.storage === "local")
    .map((disk) => ({ name: disk.name, path: machine.paths.nbd }))
]

/** Tell a QEMU that was just started with `-incoming defer` what to wait for. */
export const openIncoming = Effect.fn("openIncoming")(function* (
  machine: Machine,
  qmp: Qmp,
  spec: VmSpec
): Effect.fn.Return<void, HypervisorError> {
  const vm = machine.vm
  const capability = (name: string) => ({ capability: name, state: true })
  yield* ask(qmp, vm, "migrate-set-capabilities", {
    // Disks are taken over when the machine is resumed, not before: until then the source may be rolled back.
    capabilities: ["events", "return-path", "late-block-activate"].map(capability)
  })
  // Needs userfaultfd, which a system may forbid; without it only post-copy is not possible.
  yield* Effect.ignore(
    ask(qmp, vm, "migrate-set-capabilities", { capabilities: [capability("postcopy-ram")] })
  )
  const disks = spec.disks.flatMap((disk, index) =>
    disk.storage === "local" ? [{ name: disk.name, node: diskNode(index) }] : []
  )
  if (disks.length > 0) {
    yield* ask(qmp, vm, "nbd-server-start", { addr: { type: "unix", data: { path: machine.paths.nbd } } })
  }
  for (const { name, node } of disks) {
    yield* ask(qmp, vm, "block-export-add", {
      ...{ type: "nbd", id: `in-${node}`, "node-name": node },
      ...{ name, writable: true }
    })
  }
  yield* ask(qmp, vm, "migrate-incoming", { uri: `unix:${machine.paths.incoming}` })
})

/**
 * While memory still comes by post-copy: when its link broke, have QEMU listen again, so that the source can take it up.
 * Ends with the post-copy, or with the connection to QEMU.
 */
export const keepPostCopy = (machine: Machine, qmp: Qmp): Effect.Effect<void> =>
  Effect.gen(function* () {
    let isListening = false
    for (;;) {
      const { status } = migrationInfo(yield* ask(qmp, machine.vm, "query-migrate"))
      if (!status.startsWith("postcopy")) return
      if (status !== "postcopy-paused") isListening = false
      else if (!isListening) {
        isListening = true
        yield* Effect.logWarning(`${machine.vm}: the link of its post-copy broke; it waits for the source`)
        yield* Effect.promise(() => rm(machine.paths.incoming, { force: true }))
        yield* ask(qmp, machine.vm, "migrate-recover", { uri: `unix:${machine.paths.incoming}` })
      }
      yield* Effect.sleep(POST_COPY_POLL_MS)
    }
  }).pipe(
    Effect.catch(({ reason }) => Effect.logWarning(`${machine.vm}: its post-copy is not watched: ${reason}`))
  )

/** Wait until everything is loaded, then let go of the exports, so that the guest's disks are its own. */
export const finishIncoming = Effect.fn("finishIncoming")(function* (
  machine: Machine,
  qmp: Qmp
): Effect.fn.Return<void, HypervisorError> {
  const vm = machine.vm
  for (let waitedMs = 0; ; waitedMs += POLL_MS) {
    const info = migrationInfo(yield* ask(qmp, vm, "query-migrate"))
    if (info.status === "failed") {
      return yield* fail(
        "resume",
        vm,
        "lost",
        `the machine did not arrive: ${info.error ?? "no reason told"}`
      )
    }
    if ((yield* runState(qmp, vm)) !== "inmigrate") break
    if (info.status === "none" || info.status === "setup") {
      return yield* fail("resume", vm, "wrong-state", "nothing has arrived yet")
    }
    if (waitedMs > ARRIVAL_MS) {
      return yield* fail("resume", vm, "timeout", `the machine has not arrived after ${ARRIVAL_MS} ms`)
    }
    yield* Effect.sleep(POLL_MS)
  }
  const exports = (yield* ask(qmp, vm, "query-block-exports")) as ReadonlyArray<unknown>
  if (exports.length > 0) yield* ask(qmp, vm, "nbd-server-stop")
})
