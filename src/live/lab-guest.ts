/**
 * Builds the lab guest: Debian's cloud kernel as it is, and an initramfs of busybox, a few virtio modules and
 * `guest/init`. Nothing is installed: the packages are downloaded with apt and unpacked in the cache folder.
 */
import { execFile } from "node:child_process"
import { createHash } from "node:crypto"
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, symlink, writeFile } from "node:fs/promises"
import path from "node:path"
import { promisify } from "node:util"
import { gzip } from "node:zlib"
import { Schema } from "effect"

/** `lab-vmlinuz` and `lab-initrd` in the cache folder; both are links to files named by their content. */
export interface LabGuest {
  readonly kernel: string
  readonly initrd: string
}

export class LabGuestError extends Schema.TaggedError<LabGuestError>()("LabGuestError", {
  step: Schema.String,
  reason: Schema.String
}) {}

const KERNEL_META_PACKAGE = "linux-image-cloud-amd64"
const KERNEL_PACKAGE = /\blinux-image-[0-9][0-9a-z.-]*-cloud-amd64\b/
const COMMAND_TIMEOUT_MS = 300_000
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024
/** In the order they have to be loaded. */
const MODULES = [
  "drivers/virtio/virtio_ring",
  "drivers/virtio/virtio",
  "drivers/virtio/virtio_pci_modern_dev",
  "drivers/virtio/virtio_pci_legacy_dev",
  "drivers/virtio/virtio_pci",
  "drivers/block/virtio_blk",
  "net/core/failover",
  "drivers/net/net_failover",
  "drivers/net/virtio_net",
  "drivers/acpi/button",
  "drivers/input/evdev"
]
const INIT = path.resolve(import.meta.dirname, "../../guest/init")

const exec = promisify(execFile)
const compress = promisify(gzip)

const run = async (command: string, args: ReadonlyArray<string>, cwd: string): Promise<string> => {
  const { stdout } = await exec(command, [...args], {
    cwd,
    timeout: COMMAND_TIMEOUT_MS,
    maxBuffer: OUTPUT_BYTES_MAX
  })
  return stdout
}

interface CpioEntry {
  readonly name: string
  /** File type and permissions, as in st_mode. */
  readonly mode: number
  readonly data?: Uint8Array
  readonly device?: readonly [major: number, minor: number]
}

/** An archive in cpio's "newc" form (Linux: Documentation/driver-api/early-userspace/buffer-format.rst). */
export const cpio = (entries: ReadonlyArray<CpioEntry>): Buffer => {
  const parts: Array<Uint8Array> = []
  const hex = (value: number) => value.toString(16).toUpperCase().padStart(8, "0")
  const padded = (bytes: Uint8Array) => {
    parts.push(bytes, new Uint8Array((4 - (bytes.length % 4)) % 4))
  }
  const add = (entry: CpioEntry, inode: number) => {
    const data = entry.data ?? new Uint8Array(0)
    const [major, minor] = entry.device ?? [0, 0]
    const name = `${entry.name}\0`
    const fields = [
      inode,
      entry.mode,
      0,
      0,
      1,
      0,
      data.length,
      0,
      0,
      major,
      minor,
      Buffer.byteLength(name),
      0
    ]
    padded(Buffer.from(`070701${fields.map(hex).join("")}${name}`))
    padded(data)
  }
  entries.forEach((entry, index) => add(entry, index + 1))
  add({ name: "TRAILER!!!", mode: 0 }, 0)
  return Buffer.concat(parts)
}

const exists = (file: string): Promise<boolean> =>
  stat(file).then(
    () => true,
    () => false
  )

/** Make `file` whole or not at all, also when two builders run at once. */
const writeWhole = async (file: string, data: Uint8Array): Promise<void> => {
  const folder = await mkdtemp(`${file}.`)
  try {
    await writeFile(path.join(folder, "data"), data)
    await rename(path.join(folder, "data"), file)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

const download = async (packageName: string, folder: string): Promise<string> => {
  await run("apt-get", ["download", packageName], folder)
  const file = (await readdir(folder)).find(
    (name) => name.startsWith(`${packageName}_`) && name.endsWith(".deb")
  )
  if (file === undefined) throw new Error(`apt-get download ${packageName} left no file`)
  const root = path.join(folder, packageName)
  await run("dpkg-deb", ["-x", file, root], folder)
  return root
}

const kernelPackage = async (folder: string): Promise<string> => {
  const shown = await run("apt-cache", ["show", "--no-all-versions", KERNEL_META_PACKAGE], folder)
  const dependencies = shown.split("\n").find((line) => line.startsWith("Depends:")) ?? ""
  const name = KERNEL_PACKAGE.exec(dependencies)?.[0]
  if (name === undefined) throw new Error(`apt-cache knows no ${KERNEL_META_PACKAGE}`)
  return name
}

const initramfs = async (modulesRoot: string, busybox: string): Promise<Buffer> => {
  const directory = (name: string) => ({ name, mode: 0o040755 })
  const modules = await Promise.all(
    MODULES.map(async (module) => ({
      name: `modules/${path.basename(module)}.ko`,
      mode: 0o100644,
      data: await readFile(path.join(modulesRoot, `${module}.ko`))
    }))
  )
  const order = MODULES.map((module) => `${path.basename(module)}.ko\n`).join("")
  const archive = cpio([
    directory("bin"),
    directory("dev"),
    directory("modules"),
    { name: "dev/console", mode: 0o020600, device: [5, 1] },
    { name: "bin/busybox", mode: 0o100755, data: await readFile(busybox) },
    { name: "init", mode: 0o100755, data: await readFile(INIT) },
    { name: "modules/order", mode: 0o100644, data: Buffer.from(order) },
    ...modules
  ])
  return (await compress(archive, { level: 6 })) as Buffer
}

/** What has to be equal for a built guest to be the one that would be built now. */
const recipe = async (): Promise<string> =>
  createHash("sha256")
    .update(JSON.stringify([MODULES, KERNEL_META_PACKAGE]))
    .update(await readFile(INIT))
    .digest("hex")

/** Store under a name by content, then let the fixed name point to it; the link is replaced in one step. */
const publish = async (cacheDir: string, name: string, data: Uint8Array): Promise<void> => {
  const digest = createHash("sha256").update(data).digest("hex").slice(0, 16)
  const stored = `${name}-${digest}`
  if (!(await exists(path.join(cacheDir, stored)))) await writeWhole(path.join(cacheDir, stored), data)
  const folder = await mkdtemp(path.join(cacheDir, `${name}.`))
  try {
    await symlink(stored, path.join(folder, "link"))
    await rename(path.join(folder, "link"), path.join(cacheDir, name))
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

const build = async (cacheDir: string): Promise<LabGuest> => {
  const guest = { kernel: path.join(cacheDir, "lab-vmlinuz"), initrd: path.join(cacheDir, "lab-initrd") }
  const wanted = await recipe()
  const recipeFile = path.join(cacheDir, "lab-recipe")
  const built = await readFile(recipeFile, "utf8").catch(() => "")
  if (built === wanted && (await exists(guest.kernel)) && (await exists(guest.initrd))) return guest

  await mkdir(cacheDir, { recursive: true })
  const folder = await mkdtemp(path.join(cacheDir, "build."))
  try {
    const name = await kernelPackage(folder)
    const root = await download(name, folder)
    const version = name.slice("linux-image-".length)
    const busybox = path.join(await download("busybox-static", folder), "bin/busybox")
    const modulesRoot = path.join(root, "lib/modules", version, "kernel")
    await publish(cacheDir, "lab-vmlinuz", await readFile(path.join(root, "boot", `vmlinuz-${version}`)))
    await publish(cacheDir, "lab-initrd", await initramfs(modulesRoot, busybox))
    await writeWhole(recipeFile, Buffer.from(wanted))
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
  return guest
}

/**
 * Build the lab guest in `cacheDir`, unless it is there already (about 3 s, 28 MB to download). Needs apt and
 * dpkg-deb, no root. Rejects with `LabGuestError`.
 */
export const buildLabGuest = async (options: { readonly cacheDir: string }): Promise<LabGuest> => {
  try {
    return await build(path.resolve(options.cacheDir))
  } catch (cause) {
    throw new LabGuestError({
      step: `build in ${options.cacheDir}`,
      reason:
        `${cause instanceof Error ? cause.message.trim() : String(cause)}. The lab guest is made of Debian ` +
        `packages; on Debian or Ubuntu with a fresh package list it can be built: sudo apt-get update`
    })
  }
}
