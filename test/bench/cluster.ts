/**
 * A group of three nodes beside etcd, both three processes on loopback with mutual TLS between them, both with every commit
 * on the disk of a majority before it is answered, both asked at their leader over TLS. A command of the one drains or activates
 * a host, under an idempotency key, by HTTP on a connection for each client; one of the other puts 200 octets by etcd's own client.
 */
import { fork } from "node:child_process"
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { makeRandom } from "../../simulations/world/random.ts"
import { end, said } from "./children.ts"
import { Nodes, token } from "./cluster-nodes.ts"
import { buildClient, Etcd } from "./etcd.ts"
import type { Job, Load } from "./http-load.ts"
import { figure, hashOf, inFolder, spread } from "./measure.ts"
import type { Figure, Options } from "./measure.ts"

const sizes = {
  smoke: {
    rounds: 1,
    warmUp: 128,
    runs: [
      [1, 32],
      [16, 128]
    ]
  },
  full: {
    rounds: 9,
    warmUp: 10_240,
    // Clients, and commands of a round.
    runs: [
      [1, 500],
      [64, 6400],
      [512, 10_240]
    ]
  }
} as const

/** Both with their defaults. */
const timers = { heartbeatMs: 100, electionMs: 1000 }

interface Taken {
  readonly seconds: number
  readonly tookMs: ReadonlyArray<number>
}

interface Taking {
  readonly load: (clients: number, requests: number, job: string) => Promise<Taken>
  /** What the processes of one side have used, in milliseconds of one core, and how many facts there are. */
  readonly used: () => Promise<{ readonly cpuMs: number; readonly position: number }>
}

/** The smaller the rounds, the more a switch of the leader would change them: it is asked for before each. */
async function withNodes<A>(folder: string, hosts: number, use: (nodes: Taking) => Promise<A>): Promise<A> {
  const nodes = await Nodes.start(folder, { ...timers, ...profiled() })
  const client = fork(fileURLToPath(new URL("./http-load.ts", import.meta.url)))
  try {
    await nodes.ask(nodes.names[0], { order: "register", hosts })
    const load = async (connections: number, requests: number, job: string) => {
      const { port } = nodes.apiOf(await nodes.leader())
      const wanted: Job = { port, token, ca: nodes.ca, what: "commands", connections, requests, job }
      const taken = said<Load>(client)
      client.send(wanted)
      return await taken
    }
    const used = async () => {
      const all = await Promise.all(nodes.names.map((name) => nodes.status(name)))
      return {
        cpuMs: all.reduce((sum, { cpuMs }) => sum + cpuMs, 0),
        position: Math.max(...all.map(({ position }) => position))
      }
    }
    const result = await use({ load, used })
    const [first, ...others] = await nodes.heads()
    for (const one of others)
      if (one.position !== first?.position || one.hash !== first.hash)
        throw new Error(`the nodes do not have one journal: ${JSON.stringify([first, ...others])}`)
    for (const name of nodes.names) await nodes.stop(name)
    return result
  } finally {
    await end(client)
    await nodes.end()
  }
}

/** `NOVACRON_BENCH_PROFILE=<folder>`: a CPU profile of each node goes there. */
const profiled = () => {
  const target = process.env["NOVACRON_BENCH_PROFILE"]
  return target === undefined ? {} : { nodeOptions: ["--cpu-prof", `--cpu-prof-dir=${target}`] }
}

const at = (tookMs: ReadonlyArray<number>, share: number) =>
  tookMs[Math.min(tookMs.length - 1, Math.floor(tookMs.length * share))] as number

function latency(all: ReadonlyArray<Taken>): string {
  const sorted = all.map(({ tookMs }) => tookMs.toSorted((a, b) => a - b))
  const of = (share: number) => spread(sorted.map((one) => at(one, share))).median.toFixed(2)
  return `p50 ${of(0.5)} ms, p99 ${of(0.99)} ms`
}

interface Measured {
  readonly clients: number
  readonly requests: number
  readonly own: Array<Taken>
  readonly others: Array<Taken>
  cpuMs: number
}

async function measureAll({ size, seed }: Options, nodes: Taking, etcd: Etcd | null) {
  const { rounds, warmUp, runs } = sizes[size]
  const random = makeRandom(seed)
  const most = Math.max(...runs.map(([clients]) => clients))
  await nodes.load(most, warmUp, "warm-up")
  await etcd?.load(most, warmUp, "warm-up")
  const measured: ReadonlyArray<Measured> = runs.map(([clients, requests]) => {
    return { clients, requests, own: [], others: [], cpuMs: 0 }
  })
  for (let round = 0; round < rounds; round++)
    for (const one of measured) {
      const { clients, requests, own, others } = one
      const job = `r${clients}.${round}`
      const ours = async () => {
        const before = await nodes.used()
        own.push(await nodes.load(clients, requests, job))
        const after = await nodes.used()
        one.cpuMs += after.cpuMs - before.cpuMs
        if (after.position - before.position !== requests)
          throw new Error(`${job}: ${requests} commands made ${after.position - before.position} facts`)
      }
      const theirs = async () => void (etcd && others.push(await etcd.load(clients, requests, job)))
      const order = random.int(0, 1) === 0 ? [ours, theirs] : [theirs, ours]
      for (const side of order) await side()
    }
  return measured
}

function figureOf({ clients, requests, own, others, cpuMs }: Measured, missing: string | null): Figure {
  const result = hashOf([`${clients} ${requests}`])
  const cpu = `${Math.round((cpuMs * 1000) / (own.length * requests))} µs of a core for each, all nodes`
  return figure(
    `3 nodes, ${clients} clients`,
    "commits/s",
    own.map(({ seconds }, round) => {
      const other = others[round]
      return {
        value: requests / seconds,
        ...(other === undefined ? {} : { yardstick: requests / other.seconds }),
        result
      }
    }),
    {
      ...(missing === null ? { yardstick: "etcd" } : {}),
      note:
        `${latency(own)}; ${cpu}; ` +
        (missing === null ? `etcd ${latency(others)}` : `NOT COMPARED: ${missing}`)
    }
  )
}

export async function* cluster(options: Options): AsyncGenerator<Figure> {
  const { measured, missing } = await inFolder(async (folder) => {
    const [ownFolder, etcdFolder] = [join(folder, "novacron"), join(folder, "etcd")]
    mkdirSync(ownFolder)
    mkdirSync(etcdFolder)
    const client = await buildClient(etcdFolder)
    const missing = "missing" in client ? client.missing : null
    if (missing !== null) console.error(`cluster: NO COMPARISON WITH ETCD: ${missing}`)
    const etcd = "path" in client ? await Etcd.start(etcdFolder, client.path) : null
    try {
      const hosts = Math.max(...sizes[options.size].runs.map(([clients]) => clients))
      const measured = await withNodes(ownFolder, hosts, (nodes) => measureAll(options, nodes, etcd))
      return { measured, missing }
    } finally {
      await etcd?.end()
    }
  })
  for (const one of measured) yield figureOf(one, missing)
}
