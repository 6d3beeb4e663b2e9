/** The arguments of one machine's QEMU. Pure: equal machines get equal arguments, at both ends of a migration. */
import { createHash } from "node:crypto"
import type { VmSpec } from "../../events/vm.ts"
import type { MachinePaths } from "./folder.ts"

export interface DiskFile {
  readonly name: string
  readonly path: string
}

export interface CommandLine {
  readonly vm: string
  readonly spec: VmSpec
  readonly paths: MachinePaths
  readonly accelerator: string
  /** The machine type, with its version. */
  readonly machine: string
  /** In the order of the specification. */
  readonly disks: ReadonlyArray<DiskFile>
  /** Resolved paths of the kernel and the initial ramdisk. */
  readonly boot: { readonly kernel: string; readonly initrd: string | null } | null
  readonly sandbox: boolean
  /** Wait, paused, for a migration. */
  readonly incoming: boolean
  /** With a monitor that can be spoken to also when its main loop waits. */
  readonly rescue: boolean
}

export const HEARTBEAT_LABEL = "lab-heartbeat"

const digest = (purpose: string, vm: string): string =>
  createHash("sha256").update(`novacron ${purpose} ${vm}`).digest("hex")

/** The machine's UUID: the same on every host, derived from its name (RFC 9562, version 8). */
export const machineUuid = (vm: string): string => {
  const hex = digest("uuid", vm)
  const variant = ((Number.parseInt(hex.slice(16, 17), 16) & 0x3) | 0x8).toString(16)
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `8${hex.slice(13, 16)}`,
    `${variant}${hex.slice(17, 20)}`,
    hex.slice(20, 32)
  ].join("-")
}

/** In QEMU's own range, derived from the name: it stays with the machine. */
export const machineMac = (vm: string): string => {
  const hex = digest("mac", vm)
  return `52:54:00:${hex.slice(0, 2)}:${hex.slice(2, 4)}:${hex.slice(4, 6)}`
}

/** A block node's name may have 31 characters, a disk's 63: nodes are named by place. */
export const diskNode = (index: number): string => `disk${index}`

const json = (value: Readonly<Record<string, unknown>>): string => JSON.stringify(value)

const accelerator = (name: string): ReadonlyArray<string> =>
  name === "tcg" ? ["-accel", "tcg,thread=multi"] : ["-accel", name]

const chardev = (backend: string, id: string, path: string, options = ""): ReadonlyArray<string> => [
  "-chardev",
  // QEMU reads a doubled comma as one.
  `${backend},id=${id},path=${path.replaceAll(",", ",,")}${options}`
]

const socket = (id: string, path: string) => chardev("socket", id, path, ",server=on,wait=off")

const serials = (line: CommandLine): ReadonlyArray<string> => [
  ...socket("console", line.paths.console),
  ...["-serial", "chardev:console"],
  ...(line.spec.labels[HEARTBEAT_LABEL] === "true"
    ? [...socket("heartbeat", line.paths.heartbeat), "-serial", "chardev:heartbeat"]
    : [])
]

const disks = (line: CommandLine): ReadonlyArray<string> =>
  line.disks.flatMap((disk, index) => [
    "-blockdev",
    json({
      driver: "qcow2",
      "node-name": diskNode(index),
      discard: "unmap",
      "detect-zeroes": "unmap",
      file: { driver: "file", filename: disk.path }
    }),
    "-device",
    json({
      driver: "virtio-blk-pci",
      id: `virtio-${diskNode(index)}`,
      drive: diskNode(index),
      serial: disk.name.slice(0, 20)
    })
  ])

const seed = (line: CommandLine): ReadonlyArray<string> =>
  line.spec.cloudInit === undefined
    ? []
    : [
        "-blockdev",
        json({
          driver: "raw",
          "node-name": "seed",
          "read-only": true,
          file: { driver: "file", filename: line.paths.seed }
        }),
        "-device",
        json({ driver: "virtio-blk-pci", id: "virtio-seed", drive: "seed" })
      ]

const network = (line: CommandLine): ReadonlyArray<string> => {
  const { mode, tap, mac } = line.spec.network
  if (mode === "none") return []
  const backend =
    mode === "user"
      ? { type: "user", id: "net0" }
      : { type: "tap", id: "net0", ifname: tap ?? "", script: "no", downscript: "no" }
  return [
    "-netdev",
    json(backend),
    "-device",
    json({ driver: "virtio-net-pci", id: "nic0", netdev: "net0", mac: mac ?? machineMac(line.vm) })
  ]
}

const boot = (line: CommandLine): ReadonlyArray<string> =>
  line.boot === null
    ? []
    : [
        "-kernel",
        line.boot.kernel,
        ...(line.boot.initrd === null ? [] : ["-initrd", line.boot.initrd]),
        "-append",
        line.spec.boot?.commandLine ?? ""
      ]

/**
 * With TCG, 64 KiB less than asked for. When the memory's length is a multiple of 64 pages of 4 KiB, QEMU takes the dirty
 * bits of whole words at once and forgets to tell TCG's own TLB (seen in 7.2.22): stores are lost between the passes of a
 * migration, and guests hang at the destination, 4 in 10 where the passes are many. Any other length is walked page by
 * page, which is right: 30 in 30. ADR 0006 has the measurement.
 */
const memory = ({ accelerator: name, spec }: CommandLine): string =>
  name === "tcg" ? `${spec.memoryMib * 1024 - TCG_MEMORY_LESS_KIB}K` : `${spec.memoryMib}M`
const TCG_MEMORY_LESS_KIB = 64

/** QEMU does not need what these forbid; guests that break out of it do. */
export const SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

export const commandLine = (line: CommandLine): ReadonlyArray<string> => [
  ...["-name", `guest=${line.vm},process=novacron-${line.vm}`],
  ...["-uuid", machineUuid(line.vm)],
  ...["-nodefaults", "-no-user-config", "-display", "none"],
  ...(line.sandbox ? ["-sandbox", SANDBOX] : []),
  ...accelerator(line.accelerator),
  ...["-machine", line.machine, "-cpu", line.spec.cpuModel],
  ...["-smp", String(line.spec.cpus), "-m", memory(line)],
  // Left paused after the guest's power-off, so that it can be told from a crash by whoever looks later.
  ...["-action", "shutdown=pause"],
  ...["-pidfile", line.paths.pidFile],
  ...socket("qmp", line.paths.qmp),
  ...["-mon", "chardev=qmp,mode=control"],
  ...(line.rescue
    ? [...chardev("pipe", "rescue", line.paths.rescue), "-mon", "chardev=rescue,mode=control"]
    : []),
  ...serials(line),
  ...disks(line),
  ...seed(line),
  ...network(line),
  ...boot(line),
  ...(line.incoming ? ["-S", "-incoming", "defer"] : [])
]
