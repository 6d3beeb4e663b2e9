/** The disks of machines: qcow2 files, made, copied and put back with qemu-img. */
import { rename, rm, stat, statfs } from "node:fs/promises"
import path from "node:path"
import { Effect, Schema } from "effect"
import type { VmSpec } from "../../events/vm.ts"
import { HypervisorError } from "../../kernel/ports/hypervisor.ts"
import type { DiskFile } from "./command-line.ts"
import type { MachinePaths } from "./folder.ts"
import { runTool } from "./tools.ts"

export interface DiskStore {
  readonly qemuImg: string
  readonly imageDir: string
  /** Seen by every host under its own path; without it there is no shared storage. */
  readonly sharedDir?: string | undefined
}

type Disk = VmSpec["disks"][number]
type Failure = HypervisorError

const SHORT_MS = 30_000
/** A copy of a large disk takes its time; something that hangs must end all the same. */
const COPY_MS = 6 * 3600 * 1000
const IMAGE_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*$/

const error = (op: string, vm: string, code: Failure["code"], reason: string): Failure =>
  new HypervisorError({ op, vm, code, reason })

const image = (store: DiskStore, op: string, vm: string, args: ReadonlyArray<string>, timeoutMs = SHORT_MS) =>
  runTool(store.qemuImg, args, timeoutMs).pipe(
    Effect.mapError((cause) =>
      error(
        op,
        vm,
        /No space left/.test(cause.reason) ? "no-room" : "failed",
        `${cause.program} ${cause.args.join(" ")}: ${cause.reason}`
      )
    )
  )

/** The file in the image directory, or why not: `not-found`. */
export const imageFile = Effect.fn("imageFile")(function* (
  store: DiskStore,
  vm: string,
  name: string
): Effect.fn.Return<string, Failure> {
  const file = path.resolve(store.imageDir, name)
  const found = IMAGE_NAME.test(name) && (yield* isFile(file))
  if (found) return file
  return yield* error("image", vm, "not-found", `no image "${name}" in ${store.imageDir}`)
})

export const isFile = (file: string): Effect.Effect<boolean> =>
  Effect.promise(() =>
    stat(file).then(
      (found) => found.isFile(),
      () => false
    )
  )

/** Where each disk of the machine is, in the order of its specification. */
export const diskFiles = Effect.fn("diskFiles")(function* (
  store: DiskStore,
  paths: MachinePaths,
  vm: string,
  spec: VmSpec
): Effect.fn.Return<ReadonlyArray<DiskFile>, Failure> {
  const files: Array<DiskFile> = []
  for (const disk of spec.disks) {
    if (disk.storage === "local") {
      files.push({ name: disk.name, path: path.join(paths.folder, `${disk.name}.qcow2`) })
    } else if (store.sharedDir === undefined) {
      const reason = `disk "${disk.name}" is on shared storage and this host has no shared folder`
      return yield* error("disks", vm, "unsupported", reason)
    } else {
      files.push({ name: disk.name, path: path.resolve(store.sharedDir, `${vm}.${disk.name}.qcow2`) })
    }
  }
  return files
})

const Info = Schema.Struct({
  format: Schema.String,
  "virtual-size": Schema.Number,
  "actual-size": Schema.optionalKey(Schema.Number),
  snapshots: Schema.optionalKey(Schema.Array(Schema.Struct({ name: Schema.String })))
})
const decodeInfo = Schema.decodeUnknownEffect(Schema.fromJsonString(Info))

export interface DiskInfo {
  readonly format: string
  readonly virtualBytes: number
  readonly actualBytes: number
  readonly snapshots: ReadonlyArray<string>
}

/** Reads beside a running QEMU too (without its lock: what QEMU has not written yet is not seen). */
export const diskInfo = Effect.fn("diskInfo")(function* (
  store: DiskStore,
  vm: string,
  file: string
): Effect.fn.Return<DiskInfo, Failure> {
  const text = yield* image(store, "info", vm, ["info", "--output=json", "-U", "--", file])
  const info = yield* decodeInfo(text).pipe(
    Effect.mapError((cause) => error("info", vm, "failed", `${file}: ${cause.message}`))
  )
  return {
    format: info.format,
    virtualBytes: info["virtual-size"],
    actualBytes: info["actual-size"] ?? 0,
    snapshots: (info.snapshots ?? []).map((snapshot) => snapshot.name)
  }
})

/** Let `make` write beside the final name, so that a half-made disk is never taken for a whole one. */
const wholeFile = (
  op: string,
  vm: string,
  file: string,
  make: (part: string) => Effect.Effect<unknown, Failure>
) =>
  make(`${file}.part`).pipe(
    Effect.andThen(
      Effect.tryPromise({
        try: () => rename(`${file}.part`, file),
        catch: (cause) => error(op, vm, "failed", `${file}: ${String(cause)}`)
      })
    ),
    Effect.onError(() => Effect.promise(() => rm(`${file}.part`, { force: true })))
  )

/** Make the disk, as an overlay of its image when it has one and `withImage` is set; an existing one stays. */
export const createDisk = Effect.fn("createDisk")(function* (
  store: DiskStore,
  vm: string,
  disk: Disk,
  file: string,
  withImage: boolean
): Effect.fn.Return<void, Failure> {
  if (yield* isFile(file)) return
  const create = ["create", "-q", "-f", "qcow2"]
  if (disk.image !== undefined && withImage) {
    const base = yield* imageFile(store, vm, disk.image)
    const info = yield* diskInfo(store, vm, base)
    if (info.virtualBytes > disk.sizeMib * 1024 * 1024) {
      const needed = Math.ceil(info.virtualBytes / 1024 / 1024)
      const reason = `disk "${disk.name}" has ${disk.sizeMib} MiB; its image "${disk.image}" needs ${needed}`
      return yield* error("define", vm, "unsupported", reason)
    }
    create.push("-b", base, "-F", info.format)
  }
  yield* wholeFile("define", vm, file, (part) =>
    image(store, "define", vm, [...create, "--", part, `${disk.sizeMib}M`])
  )
})

/** Copy a disk of a stopped machine, or of a snapshot, into a file of its own. An existing one stays. */
export const copyDisk = Effect.fn("copyDisk")(function* (
  store: DiskStore,
  vm: string,
  from: string,
  to: string,
  snapshot: string | undefined
): Effect.fn.Return<void, Failure> {
  if (yield* isFile(to)) return
  // A snapshot's clusters are never written again: they can be read while the machine runs.
  const source = snapshot === undefined ? [] : ["-U", "-l", `snapshot.name=${snapshot}`]
  yield* wholeFile("define", vm, to, (part) =>
    image(store, "define", vm, ["convert", "-q", "-O", "qcow2", ...source, "--", from, part], COPY_MS)
  )
})

/** A snapshot inside the file of a stopped machine; one of that name stays. */
export const snapshotDisk = Effect.fn("snapshotDisk")(function* (
  store: DiskStore,
  vm: string,
  file: string,
  snapshot: string
): Effect.fn.Return<void, Failure> {
  const info = yield* diskInfo(store, vm, file)
  if (info.snapshots.includes(snapshot)) return
  yield* image(store, "snapshot", vm, ["snapshot", "-q", "-c", snapshot, "--", file], COPY_MS)
})

export const restoreDisk = (store: DiskStore, vm: string, file: string, snapshot: string) =>
  image(store, "restore", vm, ["snapshot", "-q", "-a", snapshot, "--", file], COPY_MS)

export const removeDisk = (vm: string, file: string): Effect.Effect<void, Failure> =>
  Effect.tryPromise({
    try: () => rm(file, { force: true }),
    catch: (cause) => error("remove", vm, "failed", `${file}: ${String(cause)}`)
  })

/** Free and total MiB of the file system under `folder`. */
export const diskRoom = (folder: string) =>
  Effect.tryPromise({
    try: async () => {
      const found = await statfs(folder)
      const mib = (blocks: number) => Math.floor((blocks * found.bsize) / 1024 / 1024)
      return { freeMib: mib(found.bavail), totalMib: mib(found.blocks) }
    },
    catch: (cause) => error("facts", "", "failed", `${folder}: ${String(cause)}`)
  })
