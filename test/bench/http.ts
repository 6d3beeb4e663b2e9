/**
 * Commands over HTTP beside a bare `node:http` echo of JSON, and beside the same echo when it also appends each request
 * to SQLite, raw, by one thread and by two: what the machine lets anyone keep. Server and load are each in a process of their own.
 */
import { fork } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { fileURLToPath } from "node:url"
import { makeRandom } from "../../simulations/world/random.ts"
import type { Random } from "../../simulations/world/random.ts"
import { end, said } from "./children.ts"
import type { Job, Load } from "./http-load.ts"
import { figure, hashOf, inFolder, spread } from "./measure.ts"
import type { Figure, Options } from "./measure.ts"

const connections_max = 64

const start = (file: string, args: ReadonlyArray<string>) =>
  fork(fileURLToPath(new URL(file, import.meta.url)), [...args])

const servers = {
  echo: "echo",
  keepingEcho: "echo",
  threadedEcho: "echo",
  memory: "commands",
  durable: "commands"
} as const
type Server = keyof typeof servers
const names = Object.keys(servers) as ReadonlyArray<Server>

interface Client {
  /** The servers in an order that is drawn. */
  readonly order: () => ReadonlyArray<Server>
  /** A job of this many requests at one server. */
  readonly load: (server: Server, connections: number, requests: number, job: string) => Promise<Load>
}

async function withServers<A>(seed: number, use: (client: Client) => Promise<A>): Promise<A> {
  const random = makeRandom(seed)
  const token = `nct_${Array.from({ length: 43 }, () => random.int(0, 35).toString(36)).join("")}`
  const children: Array<ChildProcess> = []
  return inFolder(async (folder) => {
    try {
      const ports = new Map<Server, number>()
      for (const server of names) {
        const child = start("./http-server.ts", [server, folder, token, String(connections_max)])
        children.push(child)
        ports.set(server, await said<number>(child))
      }
      const client = start("./http-load.ts", [])
      children.push(client)
      return await use({
        order: () => shuffled(random, names),
        load: (server, connections, requests, job) => {
          const port = ports.get(server) as number
          const wanted: Job = { port, token, what: servers[server], connections, requests, job }
          client.send(wanted)
          return said<Load>(client)
        }
      })
    } finally {
      await Promise.all(children.map(end))
    }
  })
}

const sizes = {
  smoke: {
    sets: 1,
    warmUp: 256,
    runs: [
      [1, 64, 1],
      [64, 256, 1]
    ]
  },
  full: {
    // One process of the same server is up to a sixth faster than another for as long as it lives: no figure is of one alone.
    sets: 5,
    warmUp: 6400,
    // In flight, requests of a round, rounds with each set of servers: the shorter a round is, the more of them are needed.
    runs: [
      [1, 200, 1],
      [1, 2000, 1],
      [1, 20_000, 1],
      [64, 640, 12],
      [64, 6400, 12],
      [64, 64_000, 1]
    ]
  }
} as const

/** Fisher and Yates. */
function shuffled<A>(random: Random, all: ReadonlyArray<A>): ReadonlyArray<A> {
  const order = [...all]
  for (let last = order.length - 1; last > 0; last--) {
    const other = random.int(0, last)
    const kept = order[last] as A
    order[last] = order[other] as A
    order[other] = kept
  }
  return order
}

const lists = <A>() =>
  Object.fromEntries(names.map((name) => [name, [] as Array<A>])) as Record<Server, Array<A>>

/** More requests than this of a round are sent in slices, so that a slow second of the machine is everybody's. */
const slice_max = 6400

/**
 * The servers take turns, each time in another order: who comes after one that keeps what it is sent shares the processor with
 * what the system and its threads have still to write.
 */
async function inTurns(client: Client, connections: number, requests: number, job: string) {
  const slices = lists<Load>()
  const count = Math.ceil(requests / slice_max)
  for (let slice = 0; slice < count; slice++)
    for (const server of client.order())
      slices[server].push(await client.load(server, connections, requests / count, `${job}.${slice}`))
  return slices
}

interface Total {
  readonly seconds: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly result: string
}

function loadOf(slices: ReadonlyArray<Load>): Total {
  const tookMs = slices.flatMap((load) => load.tookMs).sort((a, b) => a - b)
  const at = (share: number) => tookMs[Math.min(tookMs.length - 1, Math.floor(tookMs.length * share))]
  return {
    seconds: slices.reduce((sum, { seconds }) => sum + seconds, 0),
    p50Ms: at(0.5) as number,
    p99Ms: at(0.99) as number,
    result: hashOf(slices.map(({ result }) => result))
  }
}

const latency = (loads: ReadonlyArray<Total>) => {
  const of = (name: "p50Ms" | "p99Ms") => spread(loads.map((load) => load[name])).median.toFixed(2)
  return `p50 ${of("p50Ms")} ms, p99 ${of("p99Ms")} ms`
}

type Loads = Record<Server, Array<Total>>

async function measure(
  client: Client,
  loads: Loads,
  connections: number,
  requests: number,
  rounds: number
): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    const taken = await inTurns(client, connections, requests, `r${connections}.${requests}.${round}`)
    for (const server of names) loads[server].push(loadOf(taken[server]))
  }
}

function figuresOf(loads: Loads, connections: number, requests: number): ReadonlyArray<Figure> {
  const beside = (server: Server, yardstick: Server, name: string) =>
    figure(
      `${name}, ${connections} in flight, ${requests}`,
      "commands/s",
      loads[server].map(({ seconds, result }, round) => ({
        value: requests / seconds,
        yardstick: requests / (loads[yardstick][round] as Total).seconds,
        result
      })),
      {
        yardstick: yardstick === "echo" ? "a bare echo" : "an echo that keeps",
        note: `${latency(loads[server])}; ${yardstick} ${latency(loads[yardstick])}`
      }
    )
  return [
    beside("keepingEcho", "echo", "an echo that keeps"),
    beside("threadedEcho", "echo", "an echo that keeps, by a second thread"),
    beside("memory", "echo", "memory"),
    beside("durable", "echo", "durable"),
    beside("durable", "keepingEcho", "durable, beside what keeps")
  ]
}

export async function* http({ size, seed }: Options): AsyncGenerator<Figure> {
  const { sets, warmUp, runs } = sizes[size]
  const measured = runs.map(([connections, requests, rounds]) => ({
    connections,
    requests,
    rounds,
    loads: lists<Total>()
  }))
  for (let set = 0; set < sets; set++)
    await withServers(seed + set, async (client) => {
      for (const server of names) await client.load(server, connections_max, warmUp, "warm-up")
      for (const { connections, requests, rounds, loads } of measured)
        await measure(client, loads, connections, requests, rounds)
    })
  for (const { connections, requests, loads } of measured) yield* figuresOf(loads, connections, requests)
}
