/** Three node processes with real machines: a kernel's node and two hosts, with a relay in front of every link. */
import assert from "node:assert/strict"
import { createHash, randomBytes } from "node:crypto"
import { execFile } from "node:child_process"
import { once } from "node:events"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises"
import { connect, createServer } from "node:net"
import type { AddressInfo, Server, Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { promisify } from "node:util"
import { Effect, Layer } from "effect"
import { actorKinds } from "../../src/actors/kinds.ts"
import { clear, joinToken, startNode } from "../../src/cli/lab-nodes.ts"
import type { LabNode } from "../../src/cli/lab-nodes.ts"
import { journalFile } from "../../src/cli/offline.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import { replay } from "../../src/kernel/replay.ts"
import { serialize } from "../../src/kernel/turn.ts"
import * as digest from "../../src/live/digest.ts"
import * as eventStore from "../../src/live/event-store.ts"
import { machinePaths } from "../../src/live/hypervisor/folder.ts"
import type { MachinePaths } from "../../src/live/hypervisor/folder.ts"
import { buildLabGuest } from "../../src/live/lab-guest.ts"
import { LAB_CACHE } from "./qemu-hosts.ts"

const exec = promisify(execFile)
const MIB = 1024 * 1024

/** A TCP relay whose other end may change, and that can be cut. */
export class Relay {
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  #isCut = false
  target: string | null = null

  private constructor() {
    this.#server = createServer((near) => {
      near.on("error", () => undefined)
      if (this.#isCut || this.target === null) {
        near.destroy()
        return
      }
      const [host, port] = this.target.split(":")
      const far = connect(Number(port), host)
      for (const [one, other] of [
        [near, far],
        [far, near]
      ] as const) {
        this.#sockets.add(one)
        one.on("error", () => undefined)
        one.on("close", () => {
          this.#sockets.delete(one)
          other.destroy()
        })
      }
      near.pipe(far)
      far.pipe(near)
    })
  }

  static async open(): Promise<Relay> {
    const relay = new Relay()
    relay.#server.listen(0, "127.0.0.1")
    await once(relay.#server, "listening")
    return relay
  }

  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  cut(): void {
    this.#isCut = true
    for (const socket of this.#sockets) socket.resetAndDestroy()
  }

  heal(): void {
    this.#isCut = false
  }

  async close(): Promise<void> {
    this.cut()
    this.#server.close()
    await once(this.#server, "close")
  }
}

export interface Fact {
  readonly position: number
  readonly stream: string
  readonly type: string
  readonly data: Readonly<Record<string, unknown>>
}

interface Beat {
  readonly host: string
  /** One per connection. */
  readonly source: number
  readonly tick: number
  readonly atMs: number
}

/** Everything that a guest tells, on whichever host it runs. */
export class Pulse {
  readonly beats: Array<Beat> = []
  readonly #open = new Map<string, Socket>()
  readonly #paths: ReadonlyArray<readonly [string, string]>
  #sources = 0
  #ended = false
  readonly #done: Promise<void>

  constructor(paths: ReadonlyArray<readonly [host: string, socket: string]>) {
    this.#paths = paths
    this.#done = this.#look()
  }

  async #look(): Promise<void> {
    while (!this.#ended) {
      for (const [host, path] of this.#paths) if (!this.#open.has(host)) this.#connect(host, path)
      await sleep(10)
    }
  }

  #connect(host: string, path: string): void {
    const source = this.#sources++
    const socket = connect(path)
    this.#open.set(host, socket)
    let rest = ""
    socket.on("error", () => undefined)
    socket.on("close", () => this.#open.delete(host))
    socket.on("data", (chunk: Buffer) => {
      const lines = (rest + chunk.toString("latin1")).split("\n")
      rest = lines.pop() ?? ""
      for (const line of lines) {
        const tick = /^tick (\d+) \d+\r?$/.exec(line)?.[1]
        if (tick !== undefined) this.beats.push({ host, source, tick: Number(tick), atMs: performance.now() })
      }
    })
  }

  get highest(): number {
    return this.beats.reduce((most, beat) => Math.max(most, beat.tick), 0)
  }

  /** No count was told twice or went back: within a connection, and from one to the next. */
  check(what: string): void {
    const sources = Map.groupBy(this.beats, ({ source }) => source)
    let before: Beat | undefined
    for (const beats of sources.values()) {
      for (const beat of beats) {
        assert.ok(
          before === undefined || beat.tick > before.tick,
          `${what}: the counter went back from ${before?.tick} on ${before?.host} to ${beat.tick} on ${beat.host}`
        )
        before = beat
      }
    }
  }

  async end(): Promise<void> {
    this.#ended = true
    await this.#done
    for (const socket of this.#open.values()) socket.destroy()
  }
}

export const hostNames = ["a", "b"] as const
export type HostName = (typeof hostNames)[number]
export type NodeName = HostName | "k"

const seedImage = "crash-seed.raw"
export const diskMib = 16
/** The guest keeps its bound in this sector; all else on its disk is the image's. */
const boundAt = { offset: 4096, bytes: 512 }

/** How the nodes reach each other: through relays in this process, which can be cut, or without. */
export type Links = "relayed" | "direct"

export class Cluster {
  readonly folder: string
  readonly #nodes = new Map<NodeName, LabNode>()
  readonly relays: Readonly<Record<NodeName, Relay>>
  readonly #settings: Readonly<Record<string, unknown>>
  readonly #links: Links
  imageHash = ""

  private constructor(
    folder: string,
    relays: Readonly<Record<NodeName, Relay>>,
    settings: Readonly<Record<string, unknown>>,
    links: Links
  ) {
    this.folder = folder
    this.relays = relays
    this.#settings = settings
    this.#links = links
  }

  /** All three up, the hosts registered. `settings`: of the configuration's section `cluster`. */
  static async open(settings: Readonly<Record<string, unknown>>, links: Links = "relayed"): Promise<Cluster> {
    await buildLabGuest({ cacheDir: LAB_CACHE })
    const folder = await mkdtemp(join(tmpdir(), "nvc-"))
    const relays = { k: await Relay.open(), a: await Relay.open(), b: await Relay.open() }
    const cluster = new Cluster(folder, relays, settings, links)
    await mkdir(cluster.imageDir)
    for (const name of ["lab-vmlinuz", "lab-initrd"])
      await symlink(join(LAB_CACHE, name), join(cluster.imageDir, name))
    const content = randomBytes(diskMib * MIB)
    content.fill(0, boundAt.offset, boundAt.offset + boundAt.bytes)
    cluster.imageHash = createHash("sha256").update(content).digest("hex")
    await writeFile(join(cluster.imageDir, seedImage), content)
    await cluster.start("k")
    await Promise.all([cluster.start("a"), cluster.start("b")])
    return cluster
  }

  get imageDir(): string {
    return join(this.folder, "images")
  }

  node(name: NodeName): LabNode {
    const node = this.#nodes.get(name)
    assert.ok(node, `${name} does not run`)
    return node
  }

  dataDir(name: NodeName): string {
    return join(this.folder, name)
  }

  /** `more`: of the configuration's section `cluster`, for this start. */
  async start(name: NodeName, more: Readonly<Record<string, unknown>> = {}): Promise<void> {
    const relay = this.relays[name]
    const isRelayed = this.#links === "relayed"
    const authority = isRelayed ? this.relays.k.address : this.#nodes.get("k")?.linkAddress
    const token = name === "k" ? "" : await joinToken(this.node("k"), name)
    const node = await startNode({
      name,
      folder: this.folder,
      imageDir: this.imageDir,
      ...(name === "k" ? {} : { join: { address: `k@${authority}`, token } }),
      cluster: { ...this.#settings, ...more, ...(isRelayed ? { advertise_address: relay.address } : {}) }
    })
    relay.target = node.linkAddress
    this.#nodes.set(name, node)
  }

  /** kill -9 of the node's process; its machines go on. */
  async kill(name: NodeName): Promise<void> {
    const { pid } = this.node(name)
    process.kill(pid, "SIGKILL")
    while (existsSync(`/proc/${pid}`)) await sleep(5)
    this.#nodes.delete(name)
    this.relays[name].target = null
  }

  async paths(host: NodeName, vm: string): Promise<MachinePaths> {
    const dataDir = this.dataDir(host)
    return Effect.runPromise(machinePaths({ dataDir, runDir: join(dataDir, "run") }, vm))
  }

  async pulse(vm: string): Promise<Pulse> {
    const paths = hostNames.map(async (host) => [host, (await this.paths(host, vm)).heartbeat] as const)
    return new Pulse(await Promise.all(paths))
  }

  /** QEMU processes of this cluster, by the host whose folder is theirs. */
  machines(): ReadonlyArray<{ readonly host: NodeName; readonly pid: number; readonly command: string }> {
    return readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .flatMap((pid) => {
        const command = commandOf(pid)
        const [, host] = new RegExp(`${this.folder}/([kab])/`).exec(command) ?? []
        const isMachine = host !== undefined && /^\S*qemu-system/.test(command)
        return isMachine ? [{ host: host as NodeName, pid: Number(pid), command }] : []
      })
  }

  async call<A>(method: "GET" | "POST" | "DELETE", path: string, body?: unknown): Promise<A> {
    const token = (await readFile(join(this.dataDir("k"), "api-token"), "utf8")).trim()
    const response = await fetch(`${this.node("k").url}${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) })
    })
    const text = await response.text()
    assert.ok(response.ok, `${method} ${path}: ${response.status} ${text}`)
    return JSON.parse(text) as A
  }

  /** The facts of a stream; null while the kernel's node does not answer. */
  async facts(stream: string): Promise<ReadonlyArray<Fact> | null> {
    try {
      const all: Array<Fact> = []
      for (let from: number | null = 0; from !== null;) {
        const path = `/v1/streams/${stream}/facts?limit=1000&from=${from}`
        const page: { facts: Array<Fact>; next: number | null } = await this.call("GET", path)
        all.push(...page.facts)
        from = page.next
      }
      return all
    } catch (error) {
      if (error instanceof assert.AssertionError && !/ 404 /.test(error.message)) throw error
      return null
    }
  }

  /** SHA-256 of a machine's disk without the sector that the guest writes. */
  async diskHash(host: NodeName, vm: string): Promise<string> {
    const raw = join(this.folder, "disk.raw")
    const file = join((await this.paths(host, vm)).folder, "root.qcow2")
    await exec("qemu-img", ["convert", "-q", "-U", "-O", "raw", "--", file, raw])
    const content = await readFile(raw)
    await rm(raw)
    content.fill(0, boundAt.offset, boundAt.offset + boundAt.bytes)
    return createHash("sha256").update(content).digest("hex")
  }

  /** End all nodes in good order. */
  async stop(): Promise<void> {
    for (const [name, { pid }] of this.#nodes) {
      process.kill(pid, "SIGTERM")
      while (existsSync(`/proc/${pid}`)) await sleep(10)
      this.#nodes.delete(name)
    }
  }

  async close(): Promise<void> {
    await clear(this.folder)
    for (const relay of Object.values(this.relays)) await relay.close()
    await rm(this.folder, { recursive: true, force: true })
  }
}

function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ")
  } catch {
    return ""
  }
}

/**
 * Of a node that ended in good order: the states that it saved as it ended are, byte for byte, what its journal gives
 * when it is folded from the first fact, and the chain of the journal is whole. Gives the number of actors.
 */
export const assertReplays = (dataDir: string): Promise<number> =>
  Effect.runPromise(
    Effect.gen(function* () {
      const store = yield* EventStore
      yield* store.verify
      const saved = yield* replay(store, actorKinds, { snapshots: true })
      const again = yield* replay(store, actorKinds, { snapshots: false })
      assert.deepEqual([...saved.keys()].toSorted(), [...again.keys()].toSorted())
      for (const [stream, actor] of saved) {
        const fresh = again.get(stream)
        assert.equal(serialize(actor), fresh && serialize(fresh), stream)
      }
      return saved.size
    }).pipe(
      Effect.provide(eventStore.layer({ path: join(dataDir, journalFile) }).pipe(Layer.provide(digest.layer)))
    )
  )

/** End the node of this folder in good order, and hold what it saved against its journal. */
export async function endAndReplay(dataDir: string): Promise<number> {
  const { pid } = JSON.parse(readFileSync(`${dataDir}.process.json`, "utf8")) as { readonly pid: number }
  process.kill(pid, "SIGTERM")
  while (existsSync(`/proc/${pid}`)) await sleep(20)
  return assertReplays(dataDir)
}

const untilPatienceMs = 120_000

/** What is not there yet is looked for again. */
export async function until<A>(
  what: string,
  look: () => Promise<A> | A,
  isSo: (found: A) => boolean
): Promise<A> {
  const untilMs = performance.now() + untilPatienceMs
  for (;;) {
    const found = await Promise.resolve(look()).catch(() => null)
    if (found !== null && isSo(found)) return found
    assert.ok(performance.now() < untilMs, `${what}: it stays ${JSON.stringify(found).slice(0, 1000)}`)
    await sleep(50)
  }
}

export const machineSpec = {
  cpus: 1,
  memoryMib: 96,
  machine: "q35",
  cpuModel: "qemu64",
  network: { mode: "none" },
  disks: [{ name: "root", sizeMib: diskMib, storage: "local", image: seedImage }],
  boot: { kernel: "lab-vmlinuz", initrd: "lab-initrd", commandLine: "console=ttyS0 quiet" },
  labels: { "lab-heartbeat": "true" }
}
