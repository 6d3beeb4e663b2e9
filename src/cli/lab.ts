/**
 * `novacron lab`, what `npm start` runs: two nodes, a real guest on the first, and its live move to the second
 * while it counts. Then it stays up to be played with; `--once` ends it all and exits.
 */
import { execFile } from "node:child_process"
import { connect } from "node:net"
import type { Socket } from "node:net"
import { mkdir, readFile } from "node:fs/promises"
import { homedir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { Effect } from "effect"
import { machinePaths } from "../live/hypervisor/folder.ts"
import { buildLabGuest } from "../live/lab-guest.ts"
import { clear, holdLab, joinToken, LabError, startNode } from "./lab-nodes.ts"
import type { LabNode } from "./lab-nodes.ts"

export interface LabOptions {
  readonly once: boolean
  readonly driver: "qemu" | "sim"
  /** With three and more all of them decide together, by QEMU only. */
  readonly nodes: number
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly print: (line: string) => void
  /** Replace the last line; null where the output is no terminal. */
  readonly progress: ((text: string) => void) | null
}

const vm = "demo"
const spec = {
  cpus: 1,
  memoryMib: 192,
  machine: "q35",
  cpuModel: "qemu64",
  network: { mode: "none" },
  disks: [{ name: "root", sizeMib: 64, storage: "local" }],
  boot: { kernel: "lab-vmlinuz", initrd: "lab-initrd", commandLine: "console=ttyS0 quiet" },
  labels: { "lab-heartbeat": "true" }
}

/** The tour, and then the wait for `signal`. Whatever happens, nothing of the lab is left. */
export async function lab(options: LabOptions, signal: AbortSignal): Promise<void> {
  const base = join(options.environment["XDG_STATE_HOME"] || join(homedir(), ".local", "state"), "novacron")
  const folder = join(base, "lab")
  const imageDir = join(base, "images")
  await mkdir(imageDir, { recursive: true, mode: 0o700 })
  const release = await holdLab(folder)
  try {
    const left = await clear(folder)
    if (left.nodes + left.machines > 0) {
      options.print(`Ended what an earlier lab had left: ${left.nodes} nodes, ${left.machines} machines.`)
    }
    await mkdir(folder, { recursive: true, mode: 0o700 })
    await tour(options, folder, imageDir, signal)
    if (!options.once) await aborted(signal)
  } finally {
    options.print("Ending the lab.")
    await clear(folder)
    await release()
  }
}

const dayMs = 86_400_000

/** A listener alone would not keep the process alive. */
async function aborted(signal: AbortSignal): Promise<void> {
  while (!signal.aborted) await sleep(dayMs, undefined, { signal }).catch(() => {})
}

async function tour(
  options: LabOptions,
  folder: string,
  imageDir: string,
  signal: AbortSignal
): Promise<void> {
  const show = options.driver === "sim" ? simulatedTour : realTour
  const first = await show(options, folder, imageDir, signal)
  const home = options.driver === "sim" ? "sim-1" : "node-1"
  const { print } = options
  print("")
  print(`The API is at ${first.url}; the address and the token for the commands:`)
  print(`  export NOVACRON_URL=${first.url} NOVACRON_TOKEN_FILE=${join(first.dataDir, "api-token")}`)
  print(`  novacron vm list; novacron migrate ${vm} --to ${home} --wait; novacron why ${vm}`)
  if (!options.once) print("Ctrl-C ends it.")
}

async function realTour(
  options: LabOptions,
  folder: string,
  imageDir: string,
  signal: AbortSignal
): Promise<LabNode> {
  const { print } = options
  await needQemu()
  print("Preparing the guest: a Linux kernel and a shell that counts.")
  await buildLabGuest({ cacheDir: imageDir })
  const votes = options.nodes >= 3
  const cluster = votes ? { cluster: { voter: true } } : {}
  const first = await startNode({ name: "node-1", folder, imageDir, ...cluster })
  const others: Array<LabNode> = []
  for (let number = 2; number <= options.nodes; number++) {
    const name = `node-${number}`
    const token = await joinToken(first, name, votes)
    const join = { address: `node-1@${first.linkAddress}`, token }
    others.push(await startNode({ name, folder, imageDir, join, ...cluster }))
  }
  const second = others[0] as LabNode
  const api = await Api.at(first, signal)
  if (votes) await api.voters(options.nodes)
  const accelerator = await api.hosts(options.nodes)
  const names = others.map(({ name }) => name).join(" and ")
  print(
    `node-1 is ready after ${first.readySeconds.toFixed(1)} s, ${names} joined it; machines run by QEMU, ${accelerator}.`
  )
  print(`They notice one another (novacron cluster peers): ${await api.peers(options.nodes)}.`)
  if (votes) print(`All ${options.nodes} decide together: end any one of them, and the others go on.`)
  await api.post("/v1/vms", { name: vm, host: "node-1", start: true, spec })
  const pulse = new Pulse()
  await pulse.listen("node-1", first.dataDir, signal)
  await pulse.beats("node-1", 20, signal)
  print(`The guest ${vm} runs on node-1 and has counted to ${pulse.last("node-1")}.`)

  const arrival = pulse.listen("node-2", second.dataDir, signal).catch(() => {})
  const migration = await api.migrate(options, "node-2")
  await arrival
  await pulse.beats("node-2", 20, signal)
  pulse.end()
  report(print, migration, pulse)
  await story(print, api, migration)
  return first
}

/** The same without machines: the production actors and kernel over a simulated hypervisor. */
async function simulatedTour(
  options: LabOptions,
  folder: string,
  imageDir: string,
  signal: AbortSignal
): Promise<LabNode> {
  const { print } = options
  print("SIMULATED: no machine runs. Hosts, guest and link are computed; actors, journal and API are real.")
  const node = await startNode({ name: "node-1", folder, imageDir, simulatedHosts: 2 })
  const api = await Api.at(node, signal)
  await api.hosts(2)
  print(`node-1 is ready after ${node.readySeconds.toFixed(1)} s with the simulated hosts sim-1 and sim-2.`)
  await api.post("/v1/vms", { name: vm, host: "sim-1", start: true, spec })
  const migration = await api.migrate(options, "sim-2")
  print(`${vm} moved from ${migration.from} to ${migration.to}, simulated:`)
  print(`  total time  ${(migration.totalMs / 1000).toFixed(2)} s`)
  print(`  downtime    ${migration.downtimeMs.toFixed(0)} ms`)
  print(`  moved       ${(migration.transferredBytes / 1e6).toFixed(1)} MB`)
  await story(print, api, migration)
  return node
}

/** QEMU is there, or the user is told what can be done without it. */
async function needQemu(): Promise<void> {
  const found = await new Promise<boolean>((resolve) => {
    execFile("qemu-system-x86_64", ["--version"], { timeout: 10_000 }, (error) => resolve(error === null))
  })
  if (found) return
  throw new LabError(
    "qemu-system-x86_64 is not here, so no machine can run.\n" +
      "  install it:        apt-get install qemu-system-x86 qemu-utils\n" +
      "  or without it:     novacron lab --driver sim   (simulated, and labelled so)"
  )
}

function report(print: LabOptions["print"], migration: Migration, pulse: Pulse): void {
  const { before, after, gapMs } = pulse.handOver("node-1", "node-2")
  print(`${vm} moved from ${migration.from} to ${migration.to} while it counted:`)
  print(`  total time           ${(migration.totalMs / 1000).toFixed(2)} s`)
  print(`  downtime, hypervisor ${migration.downtimeMs.toFixed(0)} ms`)
  print(
    `  downtime, guest      ${gapMs.toFixed(0)} ms between tick ${before} on node-1 and tick ${after} on node-2`
  )
  print(
    `  moved                ${(migration.transferredBytes / 1e6).toFixed(1)} MB of memory and disk, over mutual TLS 1.3`
  )
}

interface Fact {
  readonly position: number
  readonly type: string
  readonly timeMs: number
  readonly data: Record<string, unknown>
}

interface Candidate {
  readonly host: string
  readonly total: number
  readonly excluded: ReadonlyArray<{ readonly filter: string; readonly reason: string }>
  readonly scores: Readonly<Record<string, number>>
}

interface Decision {
  readonly decision: string
  readonly host: string | null
  readonly facts: ReadonlyArray<Fact>
}

async function story(print: LabOptions["print"], api: Api, migration: Migration): Promise<void> {
  print(`Its history (novacron history ${vm}):`)
  const { facts } = await api.get<{ facts: ReadonlyArray<Fact> }>(`/v1/streams/vm/${vm}/facts`)
  const start = facts[0]?.timeMs ?? 0
  for (const fact of facts) {
    if (fact.type === "novacron.kernel.answered") continue
    const { host, from, to, migration: by } = fact.data as Record<string, string | undefined>
    const about = [host && `on ${host}`, from && `from ${from} to ${to}`, by && `by ${by.slice(0, 8)}`]
    print(
      `  +${((fact.timeMs - start) / 1000).toFixed(3).padStart(7)} s  ${fact.type.replace("novacron.", "").padEnd(20)} ${about.filter(Boolean).join(" ")}`
    )
  }
  print(`Why it is where it is (novacron why ${vm}):`)
  const decisions = await api.get<ReadonlyArray<Decision>>(`/v1/vms/${vm}/why`)
  const moved = decisions.find((one) => one.decision === migration.id) ?? decisions.at(-1)
  const decided = moved?.facts.find((fact) => "candidates" in fact.data)
  for (const candidate of (decided?.data["candidates"] ?? []) as ReadonlyArray<Candidate>) {
    const why =
      candidate.excluded.length > 0
        ? `left out: ${candidate.excluded.map((one) => one.reason).join("; ")}`
        : `score ${candidate.total}: ${Object.entries(candidate.scores)
            .map(([name, value]) => `${name} ${value}`)
            .join(", ")}`
    print(`  ${candidate.host === moved?.host ? "→" : " "} ${candidate.host}  ${why}`)
  }
}

interface Migration {
  readonly id: string
  readonly state: string
  readonly phase: string
  readonly percent: number
  readonly reason: string | null
  readonly from: string
  readonly to: string
  readonly totalMs: number
  readonly downtimeMs: number
  readonly transferredBytes: number
  readonly rateBytesPerSecond: number
}

/** The few calls of the tour. */
class Api {
  readonly #url: string
  readonly #token: string
  readonly #signal: AbortSignal

  private constructor(url: string, token: string, signal: AbortSignal) {
    this.#url = url
    this.#token = token
    this.#signal = signal
  }

  static async at(node: LabNode, signal: AbortSignal): Promise<Api> {
    return new Api(
      node.url as string,
      (await readFile(join(node.dataDir, "api-token"), "utf8")).trim(),
      signal
    )
  }

  async #call<A>(method: string, path: string, body?: unknown): Promise<A> {
    const answer = await fetch(`${this.#url}${path}`, {
      method,
      headers: { authorization: `Bearer ${this.#token}`, "content-type": "application/json" },
      signal: this.#signal,
      ...(body === undefined ? {} : { body: JSON.stringify(body) })
    })
    const text = await answer.text()
    if (!answer.ok) throw new LabError(`${method} ${path}: ${answer.status} ${text.slice(0, 500)}`)
    return JSON.parse(text) as A
  }

  get<A>(path: string): Promise<A> {
    return this.#call("GET", path)
  }

  /** A command, until it has succeeded. */
  async post(path: string, body: unknown): Promise<{ readonly stream: string }> {
    const operation = await this.#call<{ state: string; reason: string | null; stream: string }>(
      "POST",
      `${path}?wait=60s`,
      body
    )
    if (operation.state !== "succeeded") throw new LabError(`${path}: ${operation.reason ?? operation.state}`)
    return operation
  }

  /** Wait until `count` hosts are up; says what accelerates machines on them. */
  async hosts(count: number): Promise<string> {
    for (let tries = 0; tries < 200; tries++) {
      const rows =
        await this.get<ReadonlyArray<{ state: string; facts: { accelerators: Array<string> } }>>("/v1/hosts")
      if (rows.filter((row) => row.state === "up").length >= count) {
        return rows[0]?.facts.accelerators.includes("kvm")
          ? "accelerated by KVM"
          : "emulated (TCG), because KVM does not work on this machine"
      }
      await sleep(50)
    }
    throw new LabError(`${count} hosts were not up within 10 s`)
  }

  /** Wait until so many decide together. */
  async voters(count: number): Promise<void> {
    for (let tries = 0; tries < 600; tries++) {
      const { voters, outgoing } = await this.get<{
        voters: ReadonlyArray<string>
        outgoing: ReadonlyArray<string>
      }>("/v1/cluster")
      if (voters.length >= count && outgoing.length === 0) return
      await sleep(50)
    }
    throw new LabError(`${count} nodes did not decide together within 30 s`)
  }

  /** Wait until so many are noticed; each with its state and where it is. */
  async peers(count: number): Promise<string> {
    for (let tries = 0; ; tries++) {
      const rows =
        await this.get<ReadonlyArray<{ name: string; state: string; address: string }>>("/v1/cluster/peers")
      const isWhole = rows.filter(({ state }) => state === "alive").length >= count
      const shown = rows.map(({ name, state, address }) => `${name} ${state} at ${address}`).join(", ")
      if (isWhole) return shown
      // The tour goes on without it, where UDP does not come through.
      if (tries >= 300) return `${shown === "" ? "nobody" : shown}; not all of them within 15 s`
      await sleep(50)
    }
  }

  async migrate({ print, progress }: LabOptions, to: string): Promise<Migration> {
    const asked = await this.#call<{ stream: string }>("POST", `/v1/vms/${vm}/migrate`, {
      to,
      reason: "the lab's tour"
    })
    const id = asked.stream.slice("migration/".length)
    let shown = ""
    for (;;) {
      const row = await this.get<Migration>(`/v1/migrations/${id}`)
      if (row.state === "completed") return row
      if (row.state !== "active") throw new LabError(`the migration ${row.state}: ${row.reason ?? ""}`)
      const text = `  ${row.phase.padEnd(11)} ${row.percent.toFixed(0).padStart(3)} %  ${(row.transferredBytes / 1e6).toFixed(1)} MB`
      if (progress) progress(text)
      else if (row.phase !== shown) print(text)
      shown = row.phase
      await sleep(100)
    }
  }
}

interface Beat {
  readonly node: string
  readonly tick: number
  readonly atMs: number
}

/** The guest's heartbeat, read off the second serial port wherever it runs. */
class Pulse {
  readonly #beats: Array<Beat> = []
  readonly #sockets: Array<Socket> = []

  async listen(node: string, dataDir: string, signal: AbortSignal): Promise<void> {
    const paths = await Effect.runPromise(machinePaths({ dataDir, runDir: join(dataDir, "run") }, vm))
    for (let tries = 0; tries < 1200 && !signal.aborted; tries++) {
      if (await this.#tryListen(node, paths.heartbeat)) return
      await sleep(25)
    }
    throw new LabError(`no heartbeat of ${vm} on ${node}`)
  }

  #tryListen(node: string, path: string): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = connect(path)
      let rest = ""
      socket.on("error", () => resolve(false))
      socket.on("connect", () => {
        this.#sockets.push(socket)
        resolve(true)
      })
      socket.on("data", (chunk: Buffer) => {
        const lines = (rest + chunk.toString("latin1")).split("\n")
        rest = lines.pop() ?? ""
        for (const line of lines) {
          const tick = /^tick (\d+) /.exec(line)?.[1]
          if (tick !== undefined) this.#beats.push({ node, tick: Number(tick), atMs: performance.now() })
        }
      })
    })
  }

  /** Wait for so many more beats on this node. */
  async beats(node: string, count: number, signal: AbortSignal): Promise<void> {
    const goal = this.#of(node).length + count
    for (let tries = 0; tries < 2400 && !signal.aborted; tries++) {
      if (this.#of(node).length >= goal) return
      await sleep(25)
    }
    throw new LabError(`the guest stopped counting on ${node}`)
  }

  #of(node: string): ReadonlyArray<Beat> {
    return this.#beats.filter((beat) => beat.node === node)
  }

  last(node: string): number {
    return this.#of(node).at(-1)?.tick ?? 0
  }

  handOver(
    from: string,
    to: string
  ): { readonly before: number; readonly after: number; readonly gapMs: number } {
    const before = this.#of(from).at(-1)
    const after = this.#of(to)[0]
    if (!before || !after) throw new LabError("the guest was not heard on both nodes")
    if (after.tick <= before.tick)
      throw new LabError(`the counter went back from ${before.tick} to ${after.tick}`)
    return { before: before.tick, after: after.tick, gapMs: after.atMs - before.atMs }
  }

  end(): void {
    for (const socket of this.#sockets) socket.destroy()
  }
}
