/** Two QEMU hosts in fresh folders, for the tests that need real machines. */
import assert from "node:assert/strict"
import { execFile } from "node:child_process"
import { createHash } from "node:crypto"
import { mkdtemp, readFile, rm } from "node:fs/promises"
import net from "node:net"
import os from "node:os"
import path from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { promisify } from "node:util"
import { Effect, ManagedRuntime, Stream } from "effect"
import type { VmSpec } from "../../src/events/vm.ts"
import { Hypervisor } from "../../src/kernel/ports/hypervisor.ts"
import type { VmEnded } from "../../src/kernel/ports/hypervisor.ts"
import { qemuLayer } from "../../src/live/hypervisor/qemu.ts"
import type { QemuOptions } from "../../src/live/hypervisor/qemu.ts"
import { buildLabGuest } from "../../src/live/lab-guest.ts"
import type { Driver, GuestWatch, TestHost, TwoHosts } from "../conformance/hypervisor.ts"
import type { GuestConsole } from "../conformance/hypervisor-console.ts"

const exec = promisify(execFile)
/** Kept between runs: building it needs the network. */
export const LAB_CACHE = path.resolve(import.meta.dirname, "../../node_modules/.cache/novacron-lab")
const CONNECT_TRIES = 200

export const labSpec: TwoHosts["spec"] = ({ disk, dirtyMibPerSecond }): VmSpec => ({
  cpus: 1,
  memoryMib: 128,
  machine: "q35",
  cpuModel: "qemu64",
  disks: disk === "none" ? [] : [{ name: "data", sizeMib: 16, storage: disk }],
  network: { mode: "user" },
  boot: {
    kernel: "lab-vmlinuz",
    initrd: "lab-initrd",
    commandLine: `console=ttyS0 quiet${dirtyMibPerSecond === undefined ? "" : ` novacron.dirty=${dirtyMibPerSecond}`}`
  },
  labels: { "lab-heartbeat": "true" },
  hostLabels: {},
  affinity: [],
  antiAffinity: [],
  onCrash: "stop",
  onHostFailure: "wait"
})

const connectTo = async (file: string): Promise<net.Socket> => {
  for (let tries = 0; ; tries += 1) {
    const socket = net.createConnection({ path: file })
    const connected = await new Promise<boolean>((resolve) => {
      socket.once("connect", () => resolve(true))
      socket.once("error", () => resolve(false))
    })
    if (connected) return socket.on("error", () => undefined)
    assert.ok(tries < CONNECT_TRIES, `nobody listens at ${file}`)
    await sleep(20)
  }
}

const watchTicks = async (file: string): Promise<GuestWatch> => {
  const ticks: Array<{ count: number; atMs: number }> = []
  const socket = await connectTo(file)
  let rest = ""
  socket.setEncoding("latin1").on("data", (text: string) => {
    const lines = `${rest}${text}`.split("\n")
    rest = lines.pop() ?? ""
    for (const line of lines) {
      // The first line of a watch, and the last of a guest that was killed, may be a part of one.
      const found = /^tick ([0-9]+) [0-9]+\r?$/.exec(line)
      if (found !== null) ticks.push({ count: Number(found[1]), atMs: performance.now() })
    }
  })
  return { ticks, close: () => socket.destroy() }
}

const openConsole = async (file: string): Promise<GuestConsole> => {
  const socket = await connectTo(file)
  let [text, ended] = ["", false]
  socket.setEncoding("latin1").on("data", (chunk: string) => (text += chunk))
  socket.on("close", () => (ended = true))
  return {
    text: () => text,
    hasEnded: () => ended,
    type: (typed) => void socket.write(typed),
    close: () => socket.destroy()
  }
}

const digest = async (file: string, scratch: string): Promise<string> => {
  const raw = path.join(scratch, "digest.raw")
  await exec("qemu-img", ["convert", "-q", "-U", "-O", "raw", "--", file, raw])
  const hash = createHash("sha256")
    .update(await readFile(raw))
    .digest("hex")
  await rm(raw)
  return hash
}

export interface QemuHost extends TestHost {
  readonly options: QemuOptions
  readonly pid: (vm: string) => Promise<number>
  readonly close: () => Promise<void>
}

export const openHost = async (options: QemuOptions, scratch: string): Promise<QemuHost> => {
  const told: Array<VmEnded> = []
  let driver: Driver
  let runtime: ManagedRuntime.ManagedRuntime<Hypervisor, unknown>
  const folder = (vm: string) => path.join(options.dataDir, "vms", vm)
  const pid = async (vm: string) => Number(await readFile(path.join(folder(vm), "qemu.pid"), "utf8"))
  const open = async () => {
    runtime = ManagedRuntime.make(qemuLayer(options))
    driver = await runtime.runPromise(
      Effect.gen(function* () {
        return yield* Hypervisor
      })
    )
    runtime.runFork(Stream.runForEach(driver.ended, (ended) => Effect.sync(() => told.push(ended))))
  }
  await open()
  return {
    options,
    pid,
    driver: () => driver,
    reopen: async (meanwhile) => {
      await runtime.dispose()
      await meanwhile?.()
      await open()
    },
    ended: () => told,
    kill: async (vm) => {
      process.kill(await pid(vm), "SIGKILL")
    },
    powerOff: async (vm) => {
      const socket = await connectTo(path.join(folder(vm), "console.sock"))
      socket.write("\npoweroff -f\n")
      socket.end()
    },
    watch: (vm) => watchTicks(path.join(folder(vm), "heartbeat.sock")),
    openConsole: async (vm) => openConsole(await runtime.runPromise(driver.console(vm))),
    diskDigests: async (vm) => {
      const record = JSON.parse(await readFile(path.join(folder(vm), "machine.json"), "utf8")) as {
        readonly spec: VmSpec
      }
      const all: Array<string> = []
      for (const disk of record.spec.disks)
        all.push(await digest(path.join(folder(vm), `${disk.name}.qcow2`), scratch))
      return all
    },
    close: async () => {
      for (const { vm } of await runtime.runPromise(driver.list)) await runtime.runPromise(driver.remove(vm))
      await runtime.dispose()
    }
  }
}

export const makeTwoQemuHosts = async (): Promise<
  TwoHosts & { readonly source: QemuHost; readonly destination: QemuHost }
> => {
  await buildLabGuest({ cacheDir: LAB_CACHE })
  const root = await mkdtemp(path.join(os.tmpdir(), "novacron-qemu-"))
  const options = (name: string): QemuOptions => ({
    dataDir: path.join(root, name),
    imageDir: LAB_CACHE,
    sharedDir: root,
    stopGraceMs: 15_000
  })
  const source = await openHost(options("a"), root)
  const destination = await openHost(options("b"), root)
  return {
    source,
    destination,
    spec: labSpec,
    run: (effect) => Effect.runPromise(effect),
    pass: (ms) => sleep(ms),
    close: async () => {
      await source.close()
      await destination.close()
      await rm(root, { recursive: true, force: true })
    }
  }
}
