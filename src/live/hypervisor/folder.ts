/**
 * One machine's folder on its host: what was asked of it (`machine.json`), its disks, and the sockets of its
 * QEMU. The file is written whole or not at all, and is on the disk before what it announces is done.
 */
import { createHash } from "node:crypto"
import { chmod, lstat, mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import path from "node:path"
import { Effect, Schema } from "effect"
import { HypervisorError } from "../../kernel/ports/hypervisor.ts"
import { Name, withDefault } from "../../events/fields.ts"
import { MigrationPolicy } from "../../events/requests.ts"
import { VmSpec } from "../../events/vm.ts"

/** What a machine is to be on this host, and what is under way with it. */
export const MachineRecord = Schema.Struct({
  version: Schema.Literal(1),
  vm: Name,
  spec: VmSpec,
  wanted: Schema.Literals(["stopped", "running", "paused"]),
  accelerator: Schema.NullOr(Schema.String),
  /** The machine type with its version, as of the first start: it stays with the machine. */
  machine: Schema.optionalKey(Schema.String),
  /** `startTicks` as in /proc/<pid>/stat: with it a process id that was given out again is found out. */
  process: Schema.NullOr(Schema.Struct({ pid: Schema.Int, startTicks: Schema.String })),
  incoming: Schema.NullOr(Schema.Struct({ migration: Name })),
  /** Until all of it has come, which by post-copy is later than its resumption. */
  arriving: Schema.optionalKey(
    Schema.Struct({
      migration: Name,
      from: Name,
      timeoutMs: Schema.Number,
      postCopy: withDefault(Schema.Boolean, true)
    })
  ),
  outgoing: Schema.NullOr(
    Schema.Struct({
      migration: Name,
      policy: MigrationPolicy,
      handedOver: Schema.Boolean,
      /** The guest went on at the destination before all of its memory was there. */
      postCopy: Schema.optionalKey(Schema.Boolean)
    })
  ),
  /** It ended unasked, and nobody was told yet. */
  ended: Schema.NullOr(
    Schema.Struct({ cause: Schema.Literals(["guest-shutdown", "crash"]), reason: Schema.String })
  )
})
export type MachineRecord = typeof MachineRecord.Type

/** A unix socket's path, with its final NUL, has 108 bytes in Linux. */
const SOCKET_PATH_BYTES_MAX = 107
const LONGEST_SOCKET = "heartbeat.sock"
const FILE = "machine.json"

export interface MachinePaths {
  readonly folder: string
  /** Where the sockets are: the folder itself, unless its path is too long for them. */
  readonly sockets: string
  readonly qmp: string
  readonly console: string
  readonly heartbeat: string
  readonly incoming: string
  /** Of two FIFOs, `.in` and `.out`. */
  readonly rescue: string
  readonly nbd: string
  readonly pidFile: string
  readonly log: string
  readonly seed: string
}

export interface Folders {
  readonly dataDir: string
  /** Instead of a folder of this user in the system's temporary folder. */
  readonly runDir?: string | undefined
}

const defaultRunDir = (): string => path.join(tmpdir(), `novacron-${process.getuid?.() ?? 0}`)

const fits = (folder: string): boolean =>
  Buffer.byteLength(path.join(folder, LONGEST_SOCKET)) <= SOCKET_PATH_BYTES_MAX

/** The paths of `vm`; `unsupported` when no folder is short enough for its sockets. */
export const machinePaths = (folders: Folders, vm: string): Effect.Effect<MachinePaths, HypervisorError> => {
  const folder = path.resolve(folders.dataDir, "vms", vm)
  const short = createHash("sha256").update(folder).digest("hex").slice(0, 16)
  const fallback = path.join(path.resolve(folders.runDir ?? defaultRunDir()), short)
  const sockets = [folder, fallback].find(fits)
  if (sockets === undefined) {
    return Effect.fail(
      new HypervisorError({
        op: "paths",
        vm,
        code: "unsupported",
        reason:
          `${path.join(fallback, LONGEST_SOCKET)} is ${Buffer.byteLength(path.join(fallback, LONGEST_SOCKET))} ` +
          `bytes long; a unix socket's path may have ${SOCKET_PATH_BYTES_MAX}: use a shorter run folder`
      })
    )
  }
  return Effect.succeed({
    folder,
    sockets,
    qmp: path.join(sockets, "qmp.sock"),
    console: path.join(sockets, "console.sock"),
    heartbeat: path.join(sockets, "heartbeat.sock"),
    incoming: path.join(sockets, "incoming.sock"),
    rescue: path.join(sockets, "rescue"),
    nbd: path.join(sockets, "nbd.sock"),
    pidFile: path.join(folder, "qemu.pid"),
    log: path.join(folder, "qemu.log"),
    seed: path.join(folder, "seed.img")
  })
}

const failed = (op: string, vm: string, where: string) => (cause: unknown) =>
  new HypervisorError({
    op,
    vm,
    code: (cause as NodeJS.ErrnoException).code === "ENOSPC" ? "no-room" : "failed",
    reason: `${where}: ${cause instanceof Error ? cause.message : String(cause)}`
  })

/** Another user may have made the run folder first, to read our sockets. */
const ownFolder = async (folder: string): Promise<void> => {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const found = await lstat(folder)
  if (!found.isDirectory() || found.uid !== (process.getuid?.() ?? 0)) {
    throw new Error(`${folder} is not a folder of this user`)
  }
  await chmod(folder, 0o700)
}

export const makeFolders = (paths: MachinePaths, vm: string): Effect.Effect<void, HypervisorError> =>
  Effect.tryPromise({
    try: async () => {
      await ownFolder(path.dirname(paths.folder))
      await ownFolder(paths.folder)
      if (paths.sockets === paths.folder) return
      await ownFolder(path.dirname(paths.sockets))
      await ownFolder(paths.sockets)
    },
    catch: failed("define", vm, paths.folder)
  })

export const removeFolders = (paths: MachinePaths, vm: string): Effect.Effect<void, HypervisorError> =>
  Effect.tryPromise({
    try: async () => {
      if (paths.sockets !== paths.folder) await rm(paths.sockets, { recursive: true, force: true })
      await rm(paths.folder, { recursive: true, force: true })
    },
    catch: failed("remove", vm, paths.folder)
  })

const syncFolder = async (folder: string): Promise<void> => {
  const handle = await open(folder, "r")
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Write a file whole or not at all, durable when it returns. */
const writeDurably = async (file: string, text: string): Promise<void> => {
  const handle = await open(`${file}.new`, "w", 0o600)
  try {
    await handle.writeFile(text)
    await handle.sync()
  } finally {
    await handle.close()
  }
  await rename(`${file}.new`, file)
  await syncFolder(path.dirname(file))
}

export const writeRecord = (
  paths: MachinePaths,
  record: MachineRecord
): Effect.Effect<void, HypervisorError> =>
  Effect.tryPromise({
    try: () => writeDurably(path.join(paths.folder, FILE), `${JSON.stringify(record, null, 2)}\n`),
    catch: failed("record", record.vm, path.join(paths.folder, FILE))
  })

const decode = Schema.decodeUnknownEffect(MachineRecord)

/** Null when there is no such machine here. */
export const readRecord = Effect.fn("readRecord")(function* (
  paths: MachinePaths,
  vm: string
): Effect.fn.Return<MachineRecord | null, HypervisorError> {
  const file = path.join(paths.folder, FILE)
  const text = yield* Effect.tryPromise({
    try: () =>
      readFile(file, "utf8").catch((cause: NodeJS.ErrnoException) => {
        if (cause.code === "ENOENT") return null
        throw cause
      }),
    catch: failed("record", vm, file)
  })
  if (text === null) return null
  const value = yield* Effect.try({
    try: () => JSON.parse(text) as unknown,
    catch: failed("record", vm, file)
  })
  return yield* decode(value).pipe(Effect.mapError(failed("record", vm, file)))
})

/** The names of the machines that have a folder here, in name order. */
export const machineNames = (folders: Folders): Effect.Effect<ReadonlyArray<string>, HypervisorError> => {
  const folder = path.resolve(folders.dataDir, "vms")
  return Effect.tryPromise({
    try: async () => {
      await mkdir(folder, { recursive: true, mode: 0o700 })
      const entries = await readdir(folder, { withFileTypes: true })
      return entries
        .filter((entry) => entry.isDirectory() && Schema.is(Name)(entry.name))
        .map((entry) => entry.name)
        .sort()
    },
    catch: failed("list", "", folder)
  })
}
