/**
 * A live migration by NovaCron, between node processes over mutual TLS, beside one of the same guest by bare QEMU with
 * `migrate tcp:`, in turns; beside the same through two processes that do nothing but pipe it through TLS streams of Node's
 * (`migration-pipe.ts`), the least that such a transport costs; and beside one that QEMU itself encrypts (`tls-creds`).
 * Time is from the wish to the guest running at the destination and the source gone, the start of the destination's QEMU
 * included; the guest's own downtime is the gap between the ticks that it tells.
 */
import { randomBytes } from "node:crypto"
import { execFile, spawn } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { once } from "node:events"
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { connect, createServer } from "node:net"
import type { AddressInfo, Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { promisify } from "node:util"
import { Effect, Schema } from "effect"
import { VmSpec } from "../../src/events/vm.ts"
import { commandLine, diskNode } from "../../src/live/hypervisor/command-line.ts"
import { machinePaths } from "../../src/live/hypervisor/folder.ts"
import type { MachinePaths } from "../../src/live/hypervisor/folder.ts"
import { figure, hashOf, repeat } from "./measure.ts"
import type { Figure, Options } from "./measure.ts"
import { Pipe } from "./migration-pipe.ts"
import { Cluster, endAndReplay, machineSpec, Pulse } from "../live/cluster.ts"

const exec = promisify(execFile)
const downtimeLimitMs = 300
/** The group ffdhe2048 of RFC 7919. Without one QEMU makes its own at each start, which takes up to 200 ms. */
const dhParameters = `-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
`
const warmTicks = 100

interface Move {
  /** From the wish to the end, the start of the destination's QEMU included. */
  readonly totalMs: number
  /** As QEMU tells them: from its `migrate` to its `completed`, and while the guest stood. */
  readonly qemuTotalMs: number
  readonly downtimeMs: number
  /** As the guest saw it. */
  readonly gapMs: number
}

interface Workload {
  readonly memoryMib: number
  readonly disk: boolean
  /** What the guest rewrites of its memory. */
  readonly dirtyMibPerSecond: number
}

const specOf = ({ memoryMib, disk, dirtyMibPerSecond }: Workload) => ({
  ...machineSpec,
  memoryMib,
  disks: disk ? machineSpec.disks : [],
  boot: {
    ...machineSpec.boot,
    commandLine: `console=ttyS0 quiet${dirtyMibPerSecond > 0 ? ` novacron.dirty=${dirtyMibPerSecond}` : ""}`
  }
})

/** The longest pause between ticks on different hosts. */
function gapOf(pulse: Pulse, from: string, to: string): number {
  const last = pulse.beats.findLast(({ host }) => host === from)
  const first = pulse.beats.find(({ host }) => host === to)
  if (last === undefined || first === undefined) throw new Error("the guest was not heard on both hosts")
  return first.atMs - last.atMs
}

async function until(what: string, holds: () => boolean | Promise<boolean>, pauseMs = 5): Promise<void> {
  const deadline = performance.now() + 60_000
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`not within 60 s: ${what}`)
    await sleep(pauseMs)
  }
}

/** Those that run, to be ended when the bench is. */
const running = new Set<Plain>()
let isEnding = false
const scratch = new Set<string>()

/** A QEMU and its monitor, with nothing else around it. */
class Plain {
  readonly paths: MachinePaths
  readonly #process: ChildProcess
  #socket!: Socket
  #answers: Array<(answer: { return?: unknown; error?: { desc: string } }) => void> = []

  constructor(paths: MachinePaths, args: ReadonlyArray<string>) {
    if (isEnding) throw new Error("the bench was told to end")
    this.paths = paths
    this.#process = spawn("qemu-system-x86_64", [...args], { stdio: "ignore" })
    running.add(this)
  }

  /** `keys`: a folder with a `keys.psk`, when the memory is to be encrypted. */
  static async start(
    folder: string,
    spec: VmSpec,
    { images, keys, incoming }: { images: string; keys: string | null; incoming: boolean }
  ): Promise<Plain> {
    const vm = "plain"
    const paths = await Effect.runPromise(machinePaths({ dataDir: folder, runDir: join(folder, "run") }, vm))
    await mkdir(paths.folder, { recursive: true })
    await mkdir(paths.sockets, { recursive: true })
    const disks = spec.disks.map(({ name }) => ({ name, path: join(paths.folder, `${name}.qcow2`) }))
    for (const [index, { path }] of disks.entries()) {
      const { image = "", sizeMib } = spec.disks[index] ?? { sizeMib: 0 }
      const base = incoming ? [] : ["-b", join(images, image), "-F", "raw"]
      await exec("qemu-img", ["create", "-q", "-f", "qcow2", ...base, path, `${sizeMib}M`])
    }
    const boot = { kernel: join(images, "lab-vmlinuz"), initrd: join(images, "lab-initrd") }
    const accelerator = "tcg"
    const { machine: type } = spec
    const args = commandLine({
      ...{ vm, spec, paths, accelerator, machine: type, disks, boot, incoming },
      sandbox: true,
      rescue: false
    })
    const credentials = `tls-creds-psk,id=tls0,endpoint=${incoming ? "server" : "client"},dir=${keys}`
    const machine = new Plain(paths, keys === null ? args : [...args, "-object", credentials])
    await machine.#connect()
    return machine
  }

  async #connect(): Promise<void> {
    for (;;) {
      const socket = connect(this.paths.qmp)
      const ok = await Promise.race([
        once(socket, "connect").then(() => true),
        once(socket, "error").then(() => false)
      ]).catch(() => false)
      if (ok) {
        this.#socket = socket
        break
      }
      if (this.#process.exitCode !== null) throw new Error(`QEMU ended with ${this.#process.exitCode}`)
      await sleep(5)
    }
    let rest = ""
    this.#socket.on("error", () => undefined)
    this.#socket.on("data", (chunk: Buffer) => {
      const lines = (rest + chunk.toString()).split("\n")
      rest = lines.pop() ?? ""
      for (const line of lines) {
        const message = JSON.parse(line) as { return?: unknown; error?: { desc: string } }
        if ("return" in message || "error" in message) this.#answers.shift()?.(message)
      }
    })
    await this.ask("qmp_capabilities")
  }

  async ask<A = unknown>(command: string, args: Record<string, unknown> = {}): Promise<A> {
    const answer = await new Promise<{ return?: unknown; error?: { desc: string } }>((resolve) => {
      this.#answers.push(resolve)
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`)
    })
    if (answer.error !== undefined) throw new Error(`${command}: ${answer.error.desc}`)
    return answer.return as A
  }

  async end(): Promise<void> {
    running.delete(this)
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      this.#process.kill("SIGKILL")
      await once(this.#process, "exit")
    }
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, "close")
  return port
}

interface Info {
  readonly status: string
  readonly "total-time"?: number
  readonly downtime?: number
}
const capabilities = (...names: ReadonlyArray<string>) => ({
  capabilities: names.map((capability) => ({ capability, state: true }))
})
const place = (port: number) => ({ host: "127.0.0.1", port: String(port) })

/** What a script with two monitors would do, storage as libvirt moves it: a mirror over NBD, ended at the switch-over. */
async function movePlain(
  source: Plain,
  destination: Plain,
  disks: number,
  { encrypted, pipe }: { encrypted: boolean; pipe: Pipe | null }
): Promise<Pick<Move, "qemuTotalMs" | "downtimeMs">> {
  const tls = encrypted ? { "tls-creds": "tls0" } : {}
  await destination.ask(
    "migrate-set-capabilities",
    capabilities("events", "return-path", "late-block-activate")
  )
  await destination.ask("migrate-set-parameters", tls)
  // Taken at once, one after the other: nobody holds a port until QEMU does.
  const port = await freePort()
  await destination.ask("migrate-incoming", { uri: `tcp:127.0.0.1:${port}` })
  const nbdPort = await freePort()
  if (disks > 0) {
    await destination.ask("nbd-server-start", { addr: { type: "inet", data: place(nbdPort) } })
  }
  const [memoryAt = port, nbdAt = nbdPort] = (await pipe?.lead([port, nbdPort])) ?? []
  if (disks > 0) {
    const node = diskNode(0)
    const named = { id: "in", "node-name": node, name: "disk", writable: true }
    await destination.ask("block-export-add", { type: "nbd", ...named })
    const server = { type: "inet", ...place(nbdAt) }
    await source.ask("blockdev-add", { driver: "nbd", "node-name": "out", server, export: "disk" })
    const mirror = { "job-id": "m", device: node, target: "out", sync: "full", "copy-mode": "write-blocking" }
    await source.ask("blockdev-mirror", { ...mirror, "auto-dismiss": false })
    await until("the mirror is ready", async () => (await jobs(source)) === "ready")
  }
  await source.ask(
    "migrate-set-capabilities",
    capabilities("events", "return-path", "pause-before-switchover", "auto-converge")
  )
  await source.ask("migrate-set-parameters", {
    "downtime-limit": downtimeLimitMs,
    "max-bandwidth": 2 ** 40,
    ...tls
  })
  await source.ask("migrate", { uri: `tcp:127.0.0.1:${memoryAt}` })
  let info: Info = { status: "none" }
  // QEMU may go on saying that it waits for a moment after it was told not to.
  let isTold = false
  await until(
    "the migration is completed",
    async () => {
      info = await source.ask<Info>("query-migrate")
      if (info.status === "failed") throw new Error("QEMU's migration failed")
      if (info.status === "pre-switchover" && !isTold) {
        isTold = true
        if (disks > 0) {
          await source.ask("block-job-cancel", { device: "m" })
          await until("the mirror ends", async () => (await jobs(source)) === "concluded", 1)
        }
        await source.ask("migrate-continue", { state: "pre-switchover" })
      }
      // QEMU reckons both a moment after it has said that it is completed.
      return info.status === "completed" && info.downtime !== undefined && (info["total-time"] ?? 0) > 0
    },
    2
  )
  await until(
    "it has arrived",
    async () => (await destination.ask<{ status: string }>("query-status")).status !== "inmigrate",
    2
  )
  if (disks > 0) await destination.ask("nbd-server-stop")
  await destination.ask("cont")
  return { qemuTotalMs: info["total-time"] ?? 0, downtimeMs: info.downtime ?? 0 }
}

const jobs = async (machine: Plain): Promise<string> =>
  (await machine.ask<ReadonlyArray<{ status: string }>>("query-jobs"))[0]?.status ?? "none"

async function plainMove(
  workload: Workload,
  images: string,
  { encrypted = false, pipe = null }: { encrypted?: boolean; pipe?: Pipe | null } = {}
): Promise<Move> {
  const folder = await mkdtemp(join(tmpdir(), "nvp-"))
  scratch.add(folder)
  const keys = encrypted ? folder : null
  if (encrypted) {
    await writeFile(join(folder, "keys.psk"), `qemu:${randomBytes(32).toString("hex")}\n`)
    await writeFile(join(folder, "dh-params.pem"), dhParameters)
  }
  const spec = Schema.decodeUnknownSync(VmSpec)(specOf(workload))
  const folders = { a: join(folder, "a"), b: join(folder, "b") }
  const source = await Plain.start(folders.a, spec, { images, keys, incoming: false })
  const paths = await Effect.runPromise(
    machinePaths({ dataDir: folders.b, runDir: join(folders.b, "run") }, "plain")
  )
  const pulse = new Pulse([
    ["a", source.paths.heartbeat],
    ["b", paths.heartbeat]
  ])
  let destination: Plain | undefined
  try {
    await until("the guest counts", () => pulse.beats.length > warmTicks)
    const began = performance.now()
    destination = await Plain.start(folders.b, spec, { images, keys, incoming: true })
    const told = await movePlain(source, destination, spec.disks.length, { encrypted, pipe })
    await source.end()
    const totalMs = performance.now() - began
    await until("the guest counts there", () => pulse.beats.some(({ host }) => host === "b"))
    return { totalMs, ...told, gapMs: gapOf(pulse, "a", "b") }
  } finally {
    await pulse.end()
    await source.end()
    await destination?.end()
    await rm(folder, { recursive: true, force: true })
  }
}

/** So that each machine has a name of its own. */
let moves = 0

async function clusterMove(cluster: Cluster, workload: Workload): Promise<Move> {
  const vm = `bench-${workload.memoryMib}-${workload.disk ? "disk" : "none"}-${moves++}`
  const body = { name: vm, host: "a", start: true, spec: specOf(workload) }
  await cluster.call("POST", "/v1/vms?wait=60s", body)
  const pulse = await cluster.pulse(vm)
  try {
    await until("the guest counts", () => pulse.beats.length > warmTicks)
    const began = performance.now()
    const policy = { downtimeBudgetMs: downtimeLimitMs }
    const path = `/v1/vms/${vm}/migrate?wait=60s`
    const { state, stream, reason } = await cluster.call<{ state: string; stream: string; reason: string }>(
      "POST",
      path,
      { to: "b", policy }
    )
    if (state !== "succeeded") throw new Error(`the migration ${state}: ${reason}`)
    const totalMs = performance.now() - began
    await until("the guest counts there", () => pulse.beats.some(({ host }) => host === "b"))
    const measured = (await cluster.facts(stream))?.find(({ type }) => type.endsWith(".measured"))
    const told = (name: string) => Number(measured?.data[name])
    const [qemuTotalMs, downtimeMs] = [told("totalMs"), told("downtimeMs")]
    return { totalMs, qemuTotalMs, downtimeMs, gapMs: gapOf(pulse, "a", "b") }
  } finally {
    await pulse.end()
    await cluster.call("POST", `/v1/vms/${vm}/stop?force=true&wait=60s`)
    await cluster.call("DELETE", `/v1/vms/${vm}?wait=60s`)
  }
}

const sizes = {
  smoke: { memories: [128], disks: [true], rounds: 1, warmUps: 0 },
  full: { memories: [128, 512, 1024], disks: [false, true], rounds: 5, warmUps: 12 }
}

const measures = [
  ["in all", "totalMs"],
  ["total time by QEMU", "qemuTotalMs"],
  ["downtime by QEMU", "downtimeMs"],
  ["the guest's gap", "gapMs"]
] as const

/** Nothing that is measured is drawn here: the seed does not change it, and the result says what was moved. */
export async function* migration({ size }: Options): AsyncGenerator<Figure> {
  const { memories, disks, rounds, warmUps } = sizes[size]
  // Relays would be a third process that carries every byte.
  const cluster = await Cluster.open({}, "direct")
  const pipe = await Pipe.open()
  const ended = endWith(cluster, pipe)
  try {
    await until("the hosts are up", async () => {
      const hosts = await cluster.call<ReadonlyArray<{ state: string }>>("GET", "/v1/hosts")
      return hosts.filter(({ state }) => state === "up").length === 3
    })
    // A node that has just started compiles its code while it carries the first bytes, and its fast code later still.
    const warmUp = { memoryMib: 128, disk: false, dirtyMibPerSecond: 4 }
    for (let move = 0; move < warmUps; move++) {
      await clusterMove(cluster, warmUp)
      await plainMove(warmUp, cluster.imageDir, { pipe })
    }
    for (const memoryMib of memories)
      for (const disk of disks) {
        const workload = { memoryMib, disk, dirtyMibPerSecond: 4 }
        const moves = await repeat(rounds, async () => ({
          plain: await plainMove(workload, cluster.imageDir),
          piped: await plainMove(workload, cluster.imageDir, { pipe }),
          encrypted: await plainMove(workload, cluster.imageDir, { encrypted: true }),
          novacron: await clusterMove(cluster, workload)
        }))
        const result = hashOf([JSON.stringify(specOf(workload))])
        const what = `${memoryMib} MiB, ${disk ? "16 MiB disk" : "no disk"}`
        for (const [name, of] of measures)
          yield figure(
            `${what}, ${name}`,
            "ms",
            moves.map(({ plain, novacron }) => ({ value: novacron[of], yardstick: plain[of], result })),
            { yardstick: "plain QEMU" }
          )
        for (const [yardstick, of] of [
          ["QEMU through a bare TLS pipe in Node", "piped"],
          ["QEMU that encrypts", "encrypted"]
        ] as const)
          yield figure(
            `${what}, in all`,
            "ms",
            moves.map(({ novacron, ...others }) => ({
              value: novacron.totalMs,
              yardstick: others[of].totalMs,
              result
            })),
            { yardstick }
          )
      }
    // What was measured was a whole system: its journal folds to the states that it ended with.
    if ((await endAndReplay(cluster.dataDir("k"))) === 0) throw new Error("the journal has no actors")
  } finally {
    ended()
    await pipe.end()
    await cluster.close()
  }
}

/** A bench that is told to end takes its nodes and machines with it. Returns the way to stop listening. */
function endWith(cluster: Cluster, pipe: Pipe): () => void {
  const end = (signal: NodeJS.Signals) => {
    isEnding = true
    const all = [cluster.close(), pipe.end(), ...[...running].map((machine) => machine.end())]
    const remove = () => Promise.all([...scratch].map((one) => rm(one, { recursive: true, force: true })))
    void Promise.allSettled(all)
      .then(remove)
      .then(() => process.exit(signal === "SIGINT" ? 130 : 143))
  }
  const signals = ["SIGINT", "SIGTERM"] as const
  for (const signal of signals) process.once(signal, end)
  return () => {
    for (const signal of signals) process.off(signal, end)
  }
}
