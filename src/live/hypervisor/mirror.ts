/**
 * Moves disks that are not shared: QEMU mirrors each into an NBD export of the destination, and keeps both equal
 * until the guest stands still. Jobs are kept after their end (`auto-dismiss` off), so that their outcome can be
 * asked for and no event has to be caught.
 */
import { Effect } from "effect"
import type { Channel } from "../../events/requests.ts"
import type { HypervisorError } from "../../kernel/ports/hypervisor.ts"
import { diskNode } from "./command-line.ts"
import { asHypervisorError, fail } from "./machine.ts"
import type { MirrorInfo } from "./progress.ts"
import type { Qmp, QmpArguments } from "./qmp.ts"

const POLL_MS = 2
const CANCEL_MS = 10_000
const DONE: ReadonlyArray<string> = ["concluded", "null"]

/** A disk to be moved, by its place in the specification. */
export interface Moved {
  readonly index: number
  readonly channel: Channel
}

interface Job {
  readonly id: string
  readonly status: string
  readonly doneBytes: number
  readonly totalBytes: number
  readonly error: string | null
}

const jobId = (index: number): string => `mirror${index}`
const targetNode = (index: number): string => `out${index}`

const ask = (qmp: Qmp, vm: string, command: string, args?: QmpArguments) =>
  qmp.execute(command, args).pipe(Effect.mapError(asHypervisorError("migrate", vm)))

export const mirrorJobs = Effect.fn("mirrorJobs")(function* (
  qmp: Qmp,
  vm: string
): Effect.fn.Return<ReadonlyArray<Job>, HypervisorError> {
  const answer = (yield* ask(qmp, vm, "query-jobs")) as ReadonlyArray<Readonly<Record<string, unknown>>>
  return answer
    .filter((job) => String(job["id"]).startsWith("mirror"))
    .map((job) => ({
      id: String(job["id"]),
      status: String(job["status"]),
      doneBytes: Number(job["current-progress"] ?? 0),
      totalBytes: Number(job["total-progress"] ?? 0),
      error: typeof job["error"] === "string" ? job["error"] : null
    }))
})

/** Connect to the destination's export and begin to copy; a job that is there already goes on. */
export const startMirrors = Effect.fn("startMirrors")(function* (
  qmp: Qmp,
  vm: string,
  disks: ReadonlyArray<Moved>,
  bandwidthBytesPerSecond: number
): Effect.fn.Return<void, HypervisorError> {
  const existing = yield* mirrorJobs(qmp, vm)
  for (const { index, channel } of disks) {
    if (existing.some((job) => job.id === jobId(index))) continue
    yield* ask(qmp, vm, "blockdev-add", {
      driver: "nbd",
      "node-name": targetNode(index),
      server: { type: "unix", path: channel.path },
      export: channel.name
    })
    yield* ask(qmp, vm, "blockdev-mirror", {
      "job-id": jobId(index),
      device: diskNode(index),
      target: targetNode(index),
      sync: "full",
      // The guest's writes wait for the destination: then nothing is left to drain while it stands still.
      "copy-mode": "write-blocking",
      speed: bandwidthBytesPerSecond,
      "auto-dismiss": false
    })
  }
})

/** How far the copies are; `ready` when all are equal to their disks. A copy that ended is an error. */
export const mirrorState = Effect.fn("mirrorState")(function* (
  qmp: Qmp,
  vm: string,
  disks: ReadonlyArray<Moved>
): Effect.fn.Return<MirrorInfo & { readonly ready: boolean }, HypervisorError> {
  const jobs = yield* mirrorJobs(qmp, vm)
  for (const { index, channel } of disks) {
    const job = jobs.find((each) => each.id === jobId(index))
    if (job === undefined || job.error !== null || DONE.includes(job.status)) {
      const reason = `the copy of disk "${channel.name}" ended: ${job?.error ?? "no reason told"}`
      return yield* fail("migrate", vm, "lost", reason)
    }
  }
  const sum = (value: (job: Job) => number) => jobs.reduce((total, job) => total + value(job), 0)
  return {
    doneBytes: sum((job) => job.doneBytes),
    totalBytes: sum((job) => job.totalBytes),
    ready: jobs.every((job) => job.status === "ready")
  }
})

/** The guest stands still: let every copy end whole, within the time. */
export const finishMirrors = Effect.fn("finishMirrors")(function* (
  qmp: Qmp,
  vm: string,
  disks: ReadonlyArray<Moved>,
  limitMs: number
): Effect.fn.Return<void, HypervisorError> {
  if (disks.length === 0) return
  // Ready and not forced: "cancel" ends the copy at a point where both are equal.
  const { ready } = yield* mirrorState(qmp, vm, disks)
  if (!ready) return yield* fail("migrate", vm, "failed", "a disk's copy is not equal to it any more")
  for (const { index } of disks) yield* ask(qmp, vm, "block-job-cancel", { device: jobId(index) })
  for (let waitedMs = 0; ; waitedMs += POLL_MS) {
    const jobs = yield* mirrorJobs(qmp, vm)
    const broken = jobs.find((job) => job.error !== null)
    if (broken !== undefined) {
      return yield* fail("migrate", vm, "lost", `the copy ${broken.id} ended: ${broken.error}`)
    }
    if (jobs.every((job) => DONE.includes(job.status))) return
    if (waitedMs > limitMs) {
      const reason = `the disks were not drained in the ${limitMs} ms that the guest may stand still`
      return yield* fail("migrate", vm, "timeout", reason)
    }
    yield* Effect.sleep(POLL_MS)
  }
})

/** End and forget all copies, whatever they are doing, and let go of the destination's exports. */
export const dropMirrors = Effect.fn("dropMirrors")(function* (
  qmp: Qmp,
  vm: string
): Effect.fn.Return<void, HypervisorError> {
  for (let waitedMs = 0; waitedMs < CANCEL_MS; waitedMs += 10 * POLL_MS) {
    const jobs = yield* mirrorJobs(qmp, vm)
    if (jobs.length === 0) break
    for (const job of jobs) {
      // Either may be refused by a job that just changed its state: the next round sees it.
      const command = job.status === "concluded" ? "job-dismiss" : "block-job-cancel"
      const args = command === "job-dismiss" ? { id: job.id } : { device: job.id, force: true }
      yield* Effect.ignore(ask(qmp, vm, command, args))
    }
    yield* Effect.sleep(10 * POLL_MS)
  }
  const nodes = (yield* ask(qmp, vm, "query-named-block-nodes", { flat: true })) as ReadonlyArray<{
    readonly "node-name"?: string
  }>
  for (const node of nodes) {
    const name = node["node-name"] ?? ""
    if (/^out[0-9]+$/.test(name)) yield* ask(qmp, vm, "blockdev-del", { "node-name": name })
  }
})
