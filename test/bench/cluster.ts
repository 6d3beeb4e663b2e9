/**
 * A group of three nodes beside etcd, both three processes on loopback with mutual TLS between them, both with every commit
 * on the disk of a majority before it is answered, both asked at their leader over TLS. A command of the one drains or activates
 * a host, under an idempotency key, by HTTP on a connection for each client; one of the other puts 200 octets by etcd's own client, once
 * with a connection for each caller too; and each with 64 callers on a connection (HTTP/1.1 pipelined, HTTP/2), which spares both sides work.
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

/** Callers on one connection, where they share it. */
const shared_max = 64

/** Both with their defaults. */
const timers = { heartbeatMs: 100, electionMs: 1000 }

interface Taken {
  readonly seconds: number
  readonly tookMs: ReadonlyArray<number>
}

interface Taking {
  readonly load: (connections: number, pipelined: number, requests: number, job: string) => Promise<Taken>
  /** What the processes of one side have used, in milliseconds of one core, and how many facts there are. */
  readonly used: () => Promise<{ readonly cpuMs: number; readonly position: number }>
}

/** The smaller the rounds, the more a switch of the leader would change them: it is asked for before each. */
async function withNodes<A>(folder: string, hosts: number, use: (nodes: Taking) => Promise<A>): Promise<A> {
  const nodes = await Nodes.start(folder, { ...timers, ...profiled() })
  const client = fork(fileURLToPath(new URL("./http-load.ts", import.meta.url)))
  try {
    await nodes.ask(nodes.names[0], { order: "register", hosts })
    const load = async (connections: number, pipelined: number, requests: number, job: string) => {
      const { port } = nodes.apiOf(await nodes.leader())
      const wanted: Job = {
        port,
        token,
        ca: nodes.ca,
        what: "commands",
        connections,
        pipelined,
        requests,
        job
      }
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
  /** With 64 callers on a connection. */
  readonly ownShared: Array<Taken>
  readonly shared: Array<Taken>
  cpuMs: number
}

async function measureAll({ size, seed }: Options, nodes: Taking, etcd: Etcd | null) {
  const { rounds, warmUp, runs } = sizes[size]
  const random = makeRandom(seed)
  const most = Math.max(...runs.map(([clients]) => clients))
  await nodes.load(most, 1, warmUp, "warm-up")
  await etcd?.load(most, most, warmUp, "warm-up")
  const measured: ReadonlyArray<Measured> = runs.map(([clients, requests]) => {
    return { clients, requests, own: [], others: [], ownShared: [], shared: [], cpuMs: 0 }
  })
  for (let round = 0; round < rounds; round++)
    for (const one of measured) {
      const { clients, requests, own, others, ownShared, shared } = one
      const ours = (connections: number, all: Array<Taken>) => async () => {
        const job = `r${clients}.${connections}.${round}`
        const before = await nodes.used()
        all.push(await nodes.load(connections, clients / connections, requests, job))
        const after = await nodes.used()
        if (connections === clients) one.cpuMs += after.cpuMs - before.cpuMs
        if (after.position - before.position !== requests)
          throw new Error(`${job}: ${requests} commands made ${after.position - before.position} facts`)
      }
      const theirs = (connections: number, all: Array<Taken>) => async () =>
        void (etcd && all.push(await etcd.load(clients, connections, requests, `r${clients}.${round}`)))
      const each = [ours(clients, own), theirs(clients, others)]
      const few = Math.ceil(clients / shared_max)
      const sides = clients === 1 ? each : [...each, ours(few, ownShared), theirs(few, shared)]
      for (const side of shuffled(sides, random)) await side()
    }
  return measured
}

function shuffled<A>(all: ReadonlyArray<A>, random: ReturnType<typeof makeRandom>): ReadonlyArray<A> {
  const left = [...all]
  return all.map(() => left.splice(random.int(0, left.length - 1), 1)[0] as A)
}

/** What is done beside the other in the same round, in percent. */
function beside(own: ReadonlyArray<Taken>, others: ReadonlyArray<Taken>): string {
  const { median, min, max } = spread(
    own.map(({ seconds }, round) => (100 * (others[round]?.seconds ?? 0)) / seconds)
  )
  return `${median.toFixed(0)} (${min.toFixed(0)}–${max.toFixed(0)}) %`
}

const onOne = (own: ReadonlyArray<Taken>, others: ReadonlyArray<Taken>, requests: number) =>
  `; 64 callers on a connection: ${Math.round(requests / spread(own.map(({ seconds }) => seconds)).median)}/s, ` +
  `${beside(own, others)} of etcd; ${latency(own)}, etcd ${latency(others)}`

function figureOf(measured: Measured, missing: string | null): Figure {
  const { clients, requests, own, others, ownShared, shared, cpuMs } = measured
  const result = hashOf([`${clients} ${requests}`])
  const cpu = `${Math.round((cpuMs * 1000) / (own.length * requests))} µs of a core for each (with a connection each), all nodes`
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
      ...(missing === null ? { yardstick: "etcd, a connection each" } : {}),
      note:
        `${latency(own)}; ${cpu}; ` +
        (missing === null
          ? `etcd ${latency(others)}${shared.length === 0 ? "" : onOne(ownShared, shared, requests)}`
          : `NOT COMPARED: ${missing}`)
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
