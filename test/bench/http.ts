/**
 * Commands over HTTP beside a bare `node:http` echo of JSON, and beside the same echo when it also appends each request
 * to SQLite, raw, by one thread and by two: what the machine lets anyone keep. Server and load are each in a process of their own.
 */
import { fork } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { fileURLToPath } from "node:url"
import { makeRandom } from "../../simulations/world/random.ts"
import { end, said } from "./children.ts"
import type { Job, Load } from "./http-load.ts"
import { figure, inFolder, spread } from "./measure.ts"
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

interface Client {
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
      for (const server of Object.keys(servers) as ReadonlyArray<Server>) {
        const child = start("./http-server.ts", [server, folder, token, String(connections_max)])
        children.push(child)
        ports.set(server, await said<number>(child))
      }
      const client = start("./http-load.ts", [])
      children.push(client)
      return await use({
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
    warmUp: 256,
    rounds: 1,
    runs: [
      [1, 64],
      [64, 256]
    ]
  },
  full: {
    warmUp: 6400,
    rounds: 5,
    runs: [
      [1, 200],
      [1, 2000],
      [1, 20_000],
      [64, 640],
      [64, 6400],
      [64, 64_000]
    ]
  }
} as const

const latency = (loads: ReadonlyArray<Load>) => {
  const of = (name: "p50Ms" | "p99Ms") => spread(loads.map((load) => load[name])).median.toFixed(2)
  return `p50 ${of("p50Ms")} ms, p99 ${of("p99Ms")} ms`
}

async function measure(client: Client, connections: number, requests: number, rounds: number) {
  const loads: Record<Server, Array<Load>> = {
    echo: [],
    keepingEcho: [],
    threadedEcho: [],
    memory: [],
    durable: []
  }
  for (let round = 0; round < rounds; round++)
    for (const server of Object.keys(servers) as ReadonlyArray<Server>)
      loads[server].push(
        await client.load(server, connections, requests, `r${connections}.${requests}.${round}`)
      )
  const beside = (server: Server, yardstick: Server, name: string) =>
    figure(
      `${name}, ${connections} in flight, ${requests}`,
      "commands/s",
      loads[server].map(({ seconds, result }, round) => ({
        value: requests / seconds,
        yardstick: requests / (loads[yardstick][round] as Load).seconds,
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
  const { warmUp, rounds, runs } = sizes[size]
  const figures = await withServers(seed, async (client) => {
    for (const server of Object.keys(servers) as ReadonlyArray<Server>)
      await client.load(server, connections_max, warmUp, "warm-up")
    const all: Array<Figure> = []
    for (const [connections, requests] of runs)
      all.push(...(await measure(client, connections, requests, rounds)))
    return all
  })
  yield* figures
}
