/** Nodes of a group in this process: real endpoints on loopback, real files, the production kernel, and a small actor. */
import { closeSync, readdirSync, readlinkSync, realpathSync, rmSync } from "node:fs"
import { join } from "node:path"
import { Context, Effect, Exit, Layer, Scope, Stream } from "effect"
import type { RaftSettings } from "../../src/events/raft.ts"
import { raftProtocol } from "../../src/actors/protocols.ts"
import { Kernel } from "../../src/kernel/kernel.ts"
import { Agents } from "../../src/kernel/ports/agents.ts"
import { Consensus } from "../../src/kernel/ports/consensus.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import type { GroupMessage } from "../../src/kernel/group-node.ts"
import { issueIdentity } from "../../src/live/ca.ts"
import type { Authority, NodeIdentity } from "../../src/live/ca.ts"
import { consensusLayer } from "../../src/live/consensus.ts"
import type { ConsensusOptions } from "../../src/live/consensus.ts"
import { encodeMessage } from "../../src/live/consensus/codec.ts"
import { Directory } from "../../src/live/consensus/directory.ts"
import * as digest from "../../src/live/digest.ts"
import * as eventStore from "../../src/live/event-store.ts"
import { Endpoint, protocols } from "../../src/live/link/endpoint.ts"
import { lamp } from "../kernel/lamp.ts"
import { noViews } from "../kernel/views.ts"

export const settings: RaftSettings = {
  heartbeatMs: 50,
  electionMs: 300,
  messageBytesMax: 1024 * 1024,
  inflightBytesMax: 8 * 1024 * 1024,
  inflightEntriesMax: 1024,
  uncommittedBytesMax: 16 * 1024 * 1024,
  readsMax: 10_000,
  lagEntriesMax: 1000,
  leaseDriftPercent: 0
}

export interface GroupNodeOptions extends Partial<ConsensusOptions> {
  readonly patienceMs?: number
  readonly compactEvery?: number
}

/** One node, which can be ended and started again on what it has on its disk. */
export class LiveNode {
  readonly name: string
  readonly folder: string
  readonly identity: NodeIdentity
  readonly options: GroupNodeOptions
  readonly #ca: Authority
  /** Requests that this node's kernel performed. */
  readonly performed: Array<string> = []
  #scope: Scope.Closeable | null = null
  #context: Context.Context<Kernel | EventStore | Consensus | Directory | Endpoint> | null = null
  #port = 0

  constructor(
    ca: Authority,
    name: string,
    folder: string,
    identity: NodeIdentity,
    options: GroupNodeOptions
  ) {
    this.#ca = ca
    this.name = name
    this.folder = folder
    this.identity = identity
    this.options = options
  }

  static make = (ca: Authority, name: string, folder: string, options: GroupNodeOptions = {}) =>
    Effect.map(
      issueIdentity(ca, name),
      (identity) => new LiveNode(ca, name, join(folder, name), identity, options)
    )

  get isUp(): boolean {
    return this.#scope !== null
  }

  get address(): string {
    return `${this.name}@127.0.0.1:${this.#port}`
  }

  readonly start = Effect.fnUntraced(function* (this: LiveNode) {
    const scope = yield* Scope.make()
    this.#scope = scope
    const endpoint = Endpoint.layer({ identity: this.identity, host: "127.0.0.1", port: this.#port })
    const store = eventStore
      .layer({ path: join(this.folder, "journal.db"), durability: "behind" })
      .pipe(Layer.provide(digest.layer))
    const agents = Layer.succeed(Agents, {
      perform: (key) => {
        this.performed.push(key)
        return Stream.make({ type: "hypervisor.observed", state: "running" } as const)
      }
    })
    const consensus = Layer.unwrap(
      Effect.map(Endpoint, ({ address }) => {
        this.#port = Number(address.split(":").at(-1))
        return consensusLayer({
          node: this.name,
          folder: join(this.folder, "consensus"),
          address: this.address,
          seeds: [],
          settings,
          protocol: raftProtocol,
          ...this.options
        })
      })
    )
    const { patienceMs, compactEvery } = this.options
    const kernel = Kernel.layer({
      kinds: [lamp],
      node: this.name,
      ...(patienceMs === undefined ? {} : { patienceMs }),
      ...(compactEvery === undefined ? {} : { compactEvery })
    })
    const all = kernel.pipe(
      Layer.provideMerge(consensus),
      Layer.provideMerge(Layer.mergeAll(store, agents, noViews)),
      Layer.provideMerge(endpoint)
    )
    this.#context = yield* Layer.buildWithScope(all, scope)
  })

  /** In good order; what was not answered stays so. */
  readonly stop = Effect.fnUntraced(function* (this: LiveNode) {
    const scope = this.#scope
    this.#scope = null
    this.#context = null
    if (scope !== null) yield* Scope.close(scope, Exit.void)
  })

  #service<I, S>(tag: Context.Service<I, S>): S {
    if (this.#context === null) throw new Error(`${this.name} is down`)
    return Context.get(this.#context as Context.Context<I>, tag)
  }

  get kernel(): Kernel["Service"] {
    return this.#service(Kernel)
  }

  get store(): EventStore["Service"] {
    return this.#service(EventStore)
  }

  get consensus(): Consensus["Service"] {
    return this.#service(Consensus)
  }

  get directory(): Directory["Service"] {
    return this.#service(Directory)
  }

  /** While it is down. */
  withStore<A, E>(use: (store: EventStore["Service"]) => Effect.Effect<A, E>) {
    const store = eventStore
      .layer({ path: join(this.folder, "journal.db"), durability: "behind" })
      .pipe(Layer.provide(digest.layer))
    return Effect.flatMap(EventStore, use).pipe(Effect.provide(store))
  }

  /** While it is down. */
  loseJournal(): void {
    for (const name of readdirSync(this.folder))
      if (name.startsWith("journal.db")) rmSync(join(this.folder, name))
  }

  /** The next write to its log fails: its file is closed under it, as a disk that is gone. */
  refuseLog(): void {
    const [name = ""] = readdirSync(join(this.folder, "consensus")).filter((one) => one.endsWith(".log"))
    const path = realpathSync(join(this.folder, "consensus", name))
    for (const descriptor of readdirSync("/proc/self/fd"))
      if (targetOf(descriptor) === path) closeSync(Number(descriptor))
  }

  /** Somebody with a certificate of the authority, who is no member, on the group's protocol. */
  readonly strangerWith = Effect.fnUntraced(function* (this: LiveNode, votes: boolean) {
    const name = votes ? "stranger" : "agent"
    const identity = yield* votes ? issueIdentity(this.#ca, name) : joined(this.#ca, name)
    const context = yield* Layer.build(Endpoint.layer({ identity, host: "127.0.0.1", port: 0 }))
    const endpoint = Context.get(context, Endpoint)
    const { socket } = yield* endpoint.dial(this.address, protocols.group, this.name)
    let isOver = false
    socket.on("close", () => (isOver = true))
    socket.resume()
    const sayBytes = (bytes: Buffer) => {
      const frame = Buffer.alloc(4 + bytes.length)
      frame.writeUInt32LE(bytes.length)
      bytes.copy(frame, 4)
      socket.write(frame)
    }
    return {
      isOver: () => isOver,
      isClosed: Effect.delay(
        Effect.sync(() => isOver),
        200
      ),
      sayBytes,
      say: (message: GroupMessage) => sayBytes(encodeMessage(message, 0))
    }
  })
}

const targetOf = (descriptor: string): string | null => {
  try {
    return readlinkSync(`/proc/self/fd/${descriptor}`)
  } catch {
    return null
  }
}

/** A node that has joined without being allowed to vote. */
const joined = (ca: Authority, name: string) => issueIdentity(ca, name, false)

/** Until it holds, or the limit is over: then it says what there was. */
export const until = Effect.fnUntraced(function* (
  what: string,
  holds: () => boolean,
  said: () => string = () => "",
  limitMs = 20_000
) {
  for (let waitedMs = 0; !holds(); waitedMs += 10) {
    if (waitedMs >= limitMs) throw new Error(`${what} did not come true within ${limitMs} ms; ${said()}`)
    yield* Effect.sleep(10)
  }
})
