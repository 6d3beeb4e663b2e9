/** Three node processes that decide together, and a client that goes from one to the next as people's scripts do. */
import { existsSync } from "node:fs"
import { mkdir, mkdtemp, readFile } from "node:fs/promises"
import { randomUUID } from "node:crypto"
import { once } from "node:events"
import { createServer } from "node:net"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { Effect, Layer } from "effect"
import { clear, joinToken, startNode } from "../../src/cli/lab-nodes.ts"
import type { LabNode } from "../../src/cli/lab-nodes.ts"
import { journalFile } from "../../src/cli/offline.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import * as digest from "../../src/live/digest.ts"
import * as eventStore from "../../src/live/event-store.ts"

export interface Answer {
  readonly status: number
  readonly body: any
  readonly headers: Headers
}

async function freePort(): Promise<number> {
  const server = createServer()
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, "close")
  return port
}

export class Cluster {
  readonly folder: string
  readonly nodes = new Map<string, LabNode>()
  readonly #ports = new Map<string, number>()
  readonly #consensus: Readonly<Record<string, unknown>>
  readonly #gossip: Readonly<Record<string, unknown>>
  readonly #settings: Readonly<Record<string, unknown>>
  #founder = ""

  private constructor(
    folder: string,
    consensus: Readonly<Record<string, unknown>>,
    gossip: Readonly<Record<string, unknown>>,
    settings: Readonly<Record<string, unknown>>
  ) {
    this.folder = folder
    this.#gossip = gossip
    this.#settings = settings
    this.#consensus = consensus
  }

  /** Those that somebody else has started in this folder, as they said in their logs that they are ready. */
  static async running(folder: string, names: ReadonlyArray<string>): Promise<Cluster> {
    const cluster = new Cluster(folder, {}, {}, {})
    for (const name of names) {
      const dataDir = join(folder, name)
      const log = (await readFile(`${dataDir}.log`, "utf8")).split("\n")
      const line = log.findLast((one) => one.startsWith('{"message":["ready",')) ?? ""
      const [, ready] = (JSON.parse(line) as { readonly message: readonly [string, LabNode] }).message
      const { pid } = JSON.parse(await readFile(`${dataDir}.process.json`, "utf8")) as {
        readonly pid: number
      }
      cluster.nodes.set(name, { ...ready, name, dataDir, pid })
    }
    return cluster
  }

  /** `settings` are more of the section `cluster`. */
  static async start(
    names: ReadonlyArray<string>,
    consensus: Readonly<Record<string, unknown>>,
    gossip: Readonly<Record<string, unknown>> = {},
    settings: Readonly<Record<string, unknown>> = {}
  ): Promise<Cluster> {
    const folder = await mkdtemp(join(tmpdir(), "novacron-cluster-"))
    await mkdir(join(folder, "images"))
    const cluster = new Cluster(folder, consensus, gossip, settings)
    for (const name of names) {
      await cluster.add(name)
      await cluster.settled(cluster.nodes.size)
    }
    return cluster
  }

  /** A new node, or one that was ended, on what it has on its disk. `votes` is asked for with its first start only. */
  async add(name: string, votes = true, given?: string): Promise<LabNode> {
    const port = this.#ports.get(name) ?? (await freePort())
    this.#ports.set(name, port)
    const isFounder = this.#founder === "" || this.#founder === name
    if (isFounder) this.#founder = name
    const isKnown = existsSync(join(this.folder, name, "identity"))
    // Whoever is up makes the token and lets it in.
    const seed = this.nodes.has(this.#founder) ? this.#founder : ([...this.nodes.keys()][0] ?? this.#founder)
    const token = isFounder || isKnown ? "used" : (given ?? (await joinToken(this.node(seed), name, votes)))
    // As an operator leaves it: the founder is named first, also when it is gone.
    const address = [...new Set([this.#founder, seed])]
      .map((node) => `${node}@127.0.0.1:${this.#ports.get(node)}`)
      .join()
    const node = await startNode({
      name,
      folder: this.folder,
      imageDir: join(this.folder, "images"),
      cluster: { ...this.#settings, voter: votes },
      consensus: this.#consensus,
      gossip: this.#gossip,
      port,
      ...(isFounder ? {} : { join: { address, token } })
    })
    this.nodes.set(name, node)
    return node
  }

  async kill(name: string): Promise<void> {
    await this.#end(name, "SIGKILL")
  }

  async stop(name: string): Promise<void> {
    await this.#end(name, "SIGTERM")
  }

  async #end(name: string, signal: NodeJS.Signals): Promise<void> {
    const { pid } = this.node(name)
    this.nodes.delete(name)
    process.kill(pid, signal)
    for (;;) {
      try {
        process.kill(pid, 0)
      } catch {
        return
      }
      await sleep(10)
    }
  }

  node(name: string): LabNode {
    const node = this.nodes.get(name)
    if (node === undefined) throw new Error(`${name} is down`)
    return node
  }

  async call(name: string, method: string, path: string, body?: unknown, key?: string): Promise<Answer> {
    const node = this.node(name)
    const token = (await readFile(join(node.dataDir, "api-token"), "utf8")).trim()
    const answer = await fetch(`${node.url}${path}`, {
      method,
      signal: AbortSignal.timeout(30_000),
      headers: {
        authorization: `Bearer ${token}`,
        "content-type": "application/json",
        ...(key === undefined ? {} : { "idempotency-key": key })
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) })
    })
    return { status: answer.status, body: JSON.parse(await answer.text()), headers: answer.headers }
  }

  /** Until some node takes it, always under the same key; the tries that it took. */
  async command(
    path: string,
    body: unknown,
    from = 0
  ): Promise<{ readonly answer: Answer; readonly tries: number }> {
    const key = randomUUID()
    for (let tries = 1; ; tries++) {
      const names = [...this.nodes.keys()]
      const name = names[(from + tries) % names.length] ?? ""
      try {
        const answer = await this.call(name, "POST", path, body, key)
        if (answer.status !== 503) return { answer, tries }
      } catch {
        // It was ended: the next one.
      }
      if (tries > 500) throw new Error(`${path}: nobody takes it`)
      await sleep(20)
    }
  }

  /** A change of the members, when the one before is over, and its end; who is removed is not told of it, so another one is asked. */
  async change(node: string, what: "lead" | "remove", reason = ""): Promise<Answer> {
    for (let tries = 0; ; tries++) {
      const names = [...this.nodes.keys()].filter((name) => name !== node)
      const name = names[tries % names.length] ?? ""
      const path = `/v1/cluster/nodes/${node}/${what}?wait=20s`
      const answer = await this.call(name, "POST", path, { reason }, randomUUID())
      const isEarly = answer.status === 503 || (answer.status === 409 && answer.body.state === "changing")
      if (!isEarly || tries > 500) return answer
      await sleep(50)
    }
  }

  status = (name: string) => this.call(name, "GET", "/v1/cluster").then(({ body }) => body)

  async leader(): Promise<string> {
    for (;;) {
      for (const name of this.nodes.keys()) {
        const { role } = await this.status(name).catch(() => ({ role: "" }))
        if (role === "leader") return name
      }
      await sleep(20)
    }
  }

  /** Until so many vote, and no change of them is under way, nor about to be recorded. */
  async settled(voters: number): Promise<void> {
    for (let tries = 0; tries < 1000; tries++) {
      const [first = ""] = this.nodes.keys()
      const said = await this.status(first)
      const isSo = said.voters.length === voters && said.outgoing.length === 0 && said.leader !== null
      if (isSo && !(await this.#isChanging(first))) return
      await sleep(20)
    }
    throw new Error(`${voters} voters did not come to be`)
  }

  /** Asked and not yet answered: another change would be refused. */
  async #isChanging(name: string): Promise<boolean> {
    const { status, body } = await this.call(name, "GET", "/v1/streams/cluster/voters/facts")
    if (status === 404) return false
    return status !== 200 || (body.facts.at(-1)?.type ?? "").endsWith("Asked")
  }

  /** The heads of all journals, when they stand still at one position. */
  async heads(): Promise<ReadonlyArray<number>> {
    for (let tries = 0; tries < 500; tries++) {
      const all = await Promise.all([...this.nodes.keys()].map((name) => this.status(name)))
      const positions = all.map(({ position }) => position as number)
      if (positions.every((one) => one === positions[0])) {
        await sleep(100)
        const again = await Promise.all([...this.nodes.keys()].map((name) => this.status(name)))
        if (again.every(({ position }) => position === positions[0])) return positions
      }
      await sleep(20)
    }
    throw new Error("the journals stay different")
  }

  /** Kill everybody at once, since who goes on would record that the others left, and read each journal: verified, its head. */
  async journals(): Promise<ReadonlyArray<{ readonly position: number; readonly hash: string }>> {
    const names = [...this.nodes.keys()]
    await Promise.all(names.map((name) => this.kill(name)))
    const headOf = (name: string) =>
      Effect.runPromise(
        Effect.flatMap(EventStore, (store) => store.verify).pipe(
          Effect.provide(
            eventStore
              .layer({ path: join(this.folder, name, journalFile), durability: "behind" })
              .pipe(Layer.provide(digest.layer))
          )
        )
      )
    return Promise.all(names.map(headOf))
  }

  end = () => clear(this.folder)
}
