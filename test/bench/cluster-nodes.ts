/** Three processes of `cluster-node.ts` that decide together, with an authority of their own, in a folder that is given. */
import { spawn } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { once } from "node:events"
import { mkdirSync } from "node:fs"
import { createServer } from "node:net"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { Effect, Layer } from "effect"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import { caInit, issueIdentity, saveIdentity } from "../../src/live/ca.ts"
import * as digest from "../../src/live/digest.ts"
import * as eventStore from "../../src/live/event-store.ts"
import { end, said } from "./children.ts"
import type { NodeArguments, NodeStatus, NodeUp, Order } from "./cluster-node.ts"

export const token = "nct_0000000000000000000000000000000000000000000"

export interface GroupOptions {
  readonly heartbeatMs: number
  readonly electionMs: number
  /** See `failover-timeline.ts`. */
  readonly isTraced?: boolean
  /** Before node's own name, as `ip netns exec x`. */
  readonly commandOf?: (name: string) => ReadonlyArray<string>
  readonly hostOf?: (name: string) => string
  /** More for node, as a profiler. */
  readonly nodeOptions?: ReadonlyArray<string>
}

interface Running {
  readonly child: ChildProcess
  readonly up: NodeUp
}

export async function freePort(): Promise<number> {
  const server = createServer()
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, "close")
  return port
}

export class Nodes {
  readonly names = ["n1", "n2", "n3"] as const
  readonly #folder: string
  readonly #options: GroupOptions
  readonly #ports = new Map<string, { readonly port: number; readonly apiPort: number }>()
  readonly #running = new Map<string, Running>()
  /** PEM, of the authority. */
  ca = ""

  private constructor(folder: string, options: GroupOptions) {
    this.#folder = folder
    this.#options = options
  }

  /** All of them up, and voters. */
  static async start(folder: string, options: GroupOptions): Promise<Nodes> {
    const nodes = new Nodes(folder, options)
    try {
      nodes.ca = await Effect.runPromise(nodes.#authority())
      for (const name of nodes.names) {
        nodes.#ports.set(name, { port: await freePort(), apiPort: await freePort() })
        await nodes.up(name)
        if (name !== nodes.names[0]) await nodes.ask(nodes.names[0], { order: "admit", node: name })
      }
    } catch (error) {
      await nodes.end()
      throw error
    }
    return nodes
  }

  readonly #authority = Effect.fnUntraced(function* (this: Nodes) {
    const ca = yield* caInit(join(this.#folder, "ca"))
    for (const name of this.names) {
      mkdirSync(join(this.#folder, name))
      yield* saveIdentity(join(this.#folder, name, "identity"), yield* issueIdentity(ca, name))
    }
    return ca.certificate
  })

  #addressOf(name: string): string {
    return `${name}@${this.hostOf(name)}:${this.#ports.get(name)?.port}`
  }

  hostOf(name: string): string {
    return this.#options.hostOf?.(name) ?? "127.0.0.1"
  }

  /** Of its API, also while it is down. */
  apiOf(name: string): { readonly host: string; readonly port: number } {
    return { host: this.hostOf(name), port: this.#ports.get(name)?.apiPort ?? 0 }
  }

  async up(name: string): Promise<void> {
    const { heartbeatMs, electionMs, commandOf, isTraced = false, nodeOptions = [] } = this.#options
    const ports = this.#ports.get(name) ?? { port: 0, apiPort: 0 }
    const wanted: NodeArguments = {
      folder: join(this.#folder, name),
      host: this.hostOf(name),
      ...ports,
      seeds: name === this.names[0] ? [] : [this.#addressOf(this.names[0])],
      token,
      heartbeatMs,
      electionMs,
      isTraced
    }
    const file = fileURLToPath(new URL("./cluster-node.ts", import.meta.url))
    const all = [...(commandOf?.(name) ?? []), process.execPath, ...nodeOptions, file, JSON.stringify(wanted)]
    const [command = "", ...rest] = all
    const child = spawn(command, rest, { stdio: ["ignore", "inherit", "inherit", "ipc"] })
    const up = said<NodeUp>(child)
    try {
      this.#running.set(name, { child, up: await up })
    } catch (error) {
      await end(child)
      throw error
    }
  }

  /** One order at a time for each node. */
  async ask(name: string, order: Order): Promise<unknown> {
    const { child } = this.#running.get(name) as Running
    const answered = said<{ readonly answer?: unknown; readonly problem?: string }>(child)
    child.send(order)
    const { answer, problem } = await answered
    if (problem !== undefined) throw new Error(`${name}: ${order.order}: ${problem}`)
    return answer
  }

  status = (name: string) => this.ask(name, { order: "status" }) as Promise<NodeStatus>

  async leader(): Promise<string> {
    for (;;) {
      for (const name of this.#running.keys()) if ((await this.status(name)).role === "leader") return name
      await sleep(20)
    }
  }

  /** The heads of all, when they stand still at one position; what there is after a minute without that. */
  async heads(): Promise<ReadonlyArray<Pick<NodeStatus, "position" | "hash">>> {
    for (let tries = 0, last = -1; ; tries++) {
      const all = await Promise.all([...this.#running.keys()].map((name) => this.status(name)))
      const heads = all.map(({ position, hash }) => ({ position, hash }))
      const [first] = heads
      const isOne = first !== undefined && heads.every(({ position }) => position === first.position)
      if ((isOne && first.position === last) || tries >= 600) return heads
      last = isOne ? first.position : -1
      await sleep(100)
    }
  }

  async kill(name: string): Promise<void> {
    const running = this.#running.get(name)
    this.#running.delete(name)
    if (running !== undefined) await end(running.child)
  }

  async stop(name: string): Promise<void> {
    const running = this.#running.get(name)
    this.#running.delete(name)
    if (running === undefined) return
    const exit = once(running.child, "exit")
    running.child.kill("SIGTERM")
    await exit
  }

  async end(): Promise<void> {
    for (const name of [...this.#running.keys()]) await this.kill(name)
  }

  /** With the store of one that is down: verified, its head, and the ids of all its facts. */
  journal(name: string): Promise<{ readonly head: string; readonly ids: ReadonlyArray<string> }> {
    const read = Effect.gen(function* () {
      const store = yield* EventStore
      const { position, hash } = yield* store.verify
      const ids: Array<string> = []
      while (ids.length < position) {
        const page = yield* store.readAll({ from: ids.length + 1, limit: 1000 })
        for (const { id } of page) ids.push(id)
      }
      return { head: `${position} ${hash}`, ids }
    })
    const path = join(this.#folder, name, "journal.db")
    const layer = eventStore.layer({ path, durability: "behind" }).pipe(Layer.provide(digest.layer))
    return Effect.runPromise(Effect.provide(read, layer))
  }
}
