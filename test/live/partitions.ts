/**
 * Three nodes, each in a network namespace of its own behind a router that loses what it is told to: cuts and heals, while clients
 * beside the router read and write registers at all nodes. The history has to be linearizable, and all journals one at the end.
 *
 *     node test/live/partitions.ts --seconds 600 --seed 1
 *
 * A register is a host: to drain one and to activate it are swaps of its state that say whether they were done. Each is used for a
 * few seconds only, so that the search stays short.
 */
import { execFileSync, spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { Agent } from "node:https"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { isLinearizable } from "../../simulations/checkers/linearizability.ts"
import type { Call } from "../../simulations/checkers/linearizability.ts"
import { makeRandom } from "../../simulations/world/random.ts"
import type { Random } from "../../simulations/world/random.ts"
import { said } from "../bench/children.ts"
import { Nodes, token } from "../bench/cluster-nodes.ts"
import { ask } from "../bench/failover-clients.ts"
import type { Answer } from "../bench/failover-clients.ts"

const ip = (...args: ReadonlyArray<string>) => execFileSync("ip", args, { stdio: "pipe" })

/** Why there can be no namespaces here; null when there can. */
export function namespacesMissing(): string | null {
  const name = `ncp${process.pid}-try`
  try {
    ip("netns", "add", name)
    ip("netns", "del", name)
    return null
  } catch (error) {
    return `no network namespaces here: ${(error as Error).message.split("\n")[0] ?? ""}`
  }
}

const names = ["n1", "n2", "n3"] as const

/** The router is a namespace too: nothing of the machine's own network is touched. */
class Network {
  readonly #prefix: string
  #cuts: Array<readonly [from: string, to: string]> = []

  constructor(prefix: string) {
    this.#prefix = prefix
  }

  get router(): string {
    return `${this.#prefix}-r`
  }

  namespaceOf = (name: string) => `${this.#prefix}-${name}`
  hostOf = (name: string) => `10.213.${names.indexOf(name as (typeof names)[number]) + 1}.2`

  make(): void {
    ip("netns", "add", this.router)
    const inRouter = (...args: ReadonlyArray<string>) => ip("-n", this.router, ...args)
    inRouter("link", "set", "lo", "up")
    ip("netns", "exec", this.router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    for (const name of names) {
      const namespace = this.namespaceOf(name)
      const gateway = this.hostOf(name).replace(/2$/, "1")
      ip("netns", "add", namespace)
      inRouter("link", "add", name, "type", "veth", "peer", "name", "up0", "netns", namespace)
      inRouter("addr", "add", `${gateway}/24`, "dev", name)
      inRouter("link", "set", name, "up")
      ip("-n", namespace, "link", "set", "lo", "up")
      ip("-n", namespace, "addr", "add", `${this.hostOf(name)}/24`, "dev", "up0")
      ip("-n", namespace, "link", "set", "up0", "up")
      ip("-n", namespace, "route", "add", "default", "via", gateway)
    }
  }

  /** What the one sends to the other is lost from now on, without a word. */
  cut(from: string, to: string): void {
    ip("-n", this.router, "rule", "add", "from", this.hostOf(from), "to", this.hostOf(to), "blackhole")
    this.#cuts.push([from, to])
  }

  heal(): void {
    for (const [from, to] of this.#cuts)
      ip("-n", this.router, "rule", "del", "from", this.hostOf(from), "to", this.hostOf(to), "blackhole")
    this.#cuts = []
  }

  remove(): void {
    for (const namespace of [...names.map(this.namespaceOf), this.router])
      try {
        ip("netns", "del", namespace)
      } catch {
        // It was not made.
      }
  }
}

const cuts = [
  "leader",
  "follower",
  "one way to the leader",
  "one way from the leader",
  "one link",
  "all"
] as const

function makeCut(network: Network, kind: (typeof cuts)[number], leader: string, random: Random): void {
  const others = names.filter((name) => name !== leader)
  const other = others[random.int(0, others.length - 1)] as string
  const apart = (one: string, from: ReadonlyArray<string>) => {
    for (const two of from.filter((name) => name !== one)) {
      network.cut(one, two)
      network.cut(two, one)
    }
  }
  switch (kind) {
    case "leader":
      return apart(leader, names)
    case "follower":
      return apart(other, names)
    case "one way to the leader":
      for (const name of others) network.cut(name, leader)
      return
    case "one way from the leader":
      for (const name of others) network.cut(leader, name)
      return
    case "one link":
      return apart(leader, [other])
    case "all":
      return names.forEach((name, at) => apart(name, names.slice(at + 1)))
  }
}

const timers = { heartbeatMs: 100, electionMs: 600 }
const clients = 5
const registers = 2
const epochMs = 4000
const answerTimeoutMs = 1500
const pauseMs_max = 40

export interface History {
  readonly calls: Map<number, Array<Call>>
  answered: number
  unknown: number
}

const initially: Call = {
  operation: { op: "write", key: "", value: "up" },
  calledMs: -1,
  answeredMs: 0,
  result: null
}

interface World {
  readonly nodes: Nodes
  readonly history: History
  readonly beganMs: number
  readonly isOver: () => boolean
}

/** One operation, at one node after the other until it is answered; Infinity when it may happen at any later time. */
async function operate(world: World, random: Random, agent: Agent, host: number, key: string): Promise<Call> {
  const { nodes, isOver } = world
  const op = (["read", "drain", "activate"] as const)[random.int(0, 2)] as "read" | "drain" | "activate"
  const name = String(host)
  const [expected, value] = op === "drain" ? ["up", "draining"] : ["draining", "up"]
  const operation: Call["operation"] =
    op === "read" ? { op, key: name } : { op: "swap", key: name, expected, value }
  const wanted = {
    method: op === "read" ? "GET" : "POST",
    path: `/v1/hosts/h${host}${op === "read" ? "" : `/${op}`}`,
    timeoutMs: answerTimeoutMs,
    ...(op === "read" ? {} : { key }),
    ...(op === "drain" ? { body: '{"reason":"cut"}' } : {})
  }
  const calledMs = performance.now() - world.beganMs
  const done = (result: Call["result"]): Call => {
    world.history.answered++
    return { operation, calledMs, answeredMs: performance.now() - world.beganMs, result }
  }
  let isMaybeDone = false
  for (let at = random.int(0, 2); !isOver(); at++) {
    const api = nodes.apiOf(names[at % names.length] as string)
    const answer = await ask({ token, ca: nodes.ca }, agent, api, wanted).catch(() => null)
    if (answer !== null && answer.status !== 503) {
      if (op === "read") return done(stateIn(answer))
      if (answer.status < 300) return done(true)
      if (answer.status !== 409) throw new Error(`${wanted.path}: ${answer.status} ${answer.body}`)
      // An earlier copy of it may still be waiting at another node: refusals are not kept under their key.
      if (!isMaybeDone) return done(false)
      break
    }
    isMaybeDone ||= op !== "read" && (answer === null || answer.body.includes("may have taken effect"))
    await sleep(20)
  }
  world.history.unknown++
  return { operation, calledMs, answeredMs: Number.POSITIVE_INFINITY, result: undefined }
}

function stateIn({ status, body }: Answer): string {
  if (status !== 200) throw new Error(`${status}: ${body}`)
  return (JSON.parse(body) as { readonly state: string }).state
}

async function client(world: World, which: number, seed: number, hosts: number): Promise<void> {
  const random = makeRandom(seed * 1000 + which)
  const agent = new Agent({ keepAlive: true })
  for (let n = 0; !world.isOver(); n++) {
    const epoch = Math.floor((performance.now() - world.beganMs) / epochMs)
    const host = Math.min(hosts - 1, epoch * registers + random.int(0, registers - 1))
    const call = await operate(world, random, agent, host, `p.${which}.${n}`)
    const calls = world.history.calls.get(host) ?? [initially]
    calls.push(call)
    world.history.calls.set(host, calls)
    await sleep(random.int(0, pauseMs_max))
  }
  agent.destroy()
}

async function cutting(
  { nodes, isOver }: World,
  network: Network,
  seed: number
): Promise<Map<string, number>> {
  const random = makeRandom(seed)
  const done = new Map<string, number>()
  while (!isOver()) {
    await sleep(random.int(500, 2500))
    const leader = await nodes.leader()
    const kind = cuts[random.int(0, cuts.length - 1)] as (typeof cuts)[number]
    makeCut(network, kind, leader, random)
    done.set(kind, (done.get(kind) ?? 0) + 1)
    await sleep(random.int(300, 5000))
    network.heal()
  }
  return done
}

export interface Outcome {
  readonly cuts: Readonly<Record<string, number>>
  readonly answered: number
  readonly unknown: number
  /** Registers whose history could not have happened, or of which nobody could say. */
  readonly wrong: ReadonlyArray<string>
  readonly registers: number
  readonly heads: ReadonlyArray<string>
  readonly facts: number
  /** Ids of facts that are in a journal twice. */
  readonly twice: number
}

/** In a process in the router's namespace. */
async function partitions(seconds: number, seed: number, network: Network): Promise<Outcome> {
  const folder = mkdtempSync(join(tmpdir(), "novacron-partitions-"))
  let nodes: Nodes | null = null
  try {
    nodes = await Nodes.start(folder, {
      ...timers,
      hostOf: network.hostOf,
      commandOf: (name) => ["ip", "netns", "exec", network.namespaceOf(name)]
    })
    const hosts = Math.ceil((seconds * 1000) / epochMs + 1) * registers
    await nodes.ask(nodes.names[0], { order: "register", hosts })
    const beganMs = performance.now()
    const history: History = { calls: new Map(), answered: 0, unknown: 0 }
    const isOver = () => performance.now() - beganMs > seconds * 1000
    const world: World = { nodes, history, beganMs, isOver }
    const [made] = await Promise.all([
      cutting(world, network, seed),
      ...Array.from({ length: clients }, (_, which) => client(world, which, seed, hosts))
    ])
    await sleep(3000)
    await nodes.heads()
    for (const name of nodes.names) await nodes.stop(name)
    const journals = await Promise.all(nodes.names.map((name) => (nodes as Nodes).journal(name)))
    const wrong = [...history.calls].flatMap(([host, calls]) => {
      const said = isLinearizable(calls)
      return said === true
        ? []
        : [`h${host} (${calls.length} calls): ${said === null ? "nobody can say" : "no"}`]
    })
    const ids = journals[0]?.ids ?? []
    return {
      cuts: Object.fromEntries(made),
      answered: history.answered,
      unknown: history.unknown,
      wrong,
      registers: history.calls.size,
      heads: journals.map(({ head }) => head),
      facts: ids.length,
      twice: ids.length - new Set(ids).size
    }
  } finally {
    network.heal()
    await nodes?.end()
    rmSync(folder, { recursive: true, force: true })
  }
}

/** The network is made, and a process in its router does the rest; both are gone at the end. */
export async function runPartitions(seconds: number, seed: number): Promise<Outcome> {
  const prefix = `ncp${process.pid}`
  const network = new Network(prefix)
  try {
    network.make()
    const file = fileURLToPath(import.meta.url)
    const args = ["netns", "exec", network.router, process.execPath, file]
    const child = spawn("ip", [...args, "--inside", prefix, "--seconds", `${seconds}`, "--seed", `${seed}`], {
      stdio: ["ignore", "inherit", "inherit", "ipc"]
    })
    return await said<Outcome>(child)
  } finally {
    network.remove()
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      seconds: { type: "string", default: "600" },
      seed: { type: "string", default: "1" },
      /** Set by `runPartitions`. */
      inside: { type: "string" }
    }
  })
  const { seconds, seed, inside } = values
  if (inside === undefined) {
    console.log(JSON.stringify(await runPartitions(Number(seconds), Number(seed)), null, 2))
    return
  }
  process.send?.(await partitions(Number(seconds), Number(seed), new Network(inside)))
  process.disconnect()
}

if (import.meta.main) await main()
