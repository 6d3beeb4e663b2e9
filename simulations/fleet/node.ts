/** The process with the kernel: over a disk that outlives it, asking agents over lines that may break. */
import { Context, Effect, Exit, Layer, Scope, Stream } from "effect"
import { actorKinds } from "../../src/actors/kinds.ts"
import { Kernel } from "../../src/kernel/kernel.ts"
import { commandOf, reconcile } from "../../src/kernel/membership.ts"
import type { Say } from "../../src/kernel/membership.ts"
import { Agents, AgentUnreachable } from "../../src/kernel/ports/agents.ts"
import { Digest } from "../../src/kernel/ports/digest.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import { Views } from "../../src/kernel/ports/views.ts"
import type { Charts } from "../checkers/charts.ts"
import { layer as digest } from "../world/digest.ts"
import { memoryDisk, openEventStore } from "../world/event-store.ts"
import { Line } from "../world/line.ts"
import type { Random } from "../world/random.ts"
import type { Runtime } from "../world/runtime.ts"
import { SlowStore } from "../world/slow-store.ts"
import type { StoreCounts } from "../world/slow-store.ts"
import { makeViews } from "../world/views.ts"
import type { SimulatedHost } from "./host.ts"
import type { Issued, Operated } from "./operators.ts"
import type { RunOptions } from "./options.ts"

/** One life of it. */
interface Life {
  readonly scope: Scope.Closeable
  store: SlowStore | null
  kernel: Kernel["Service"] | null
}

export class SimulatedNode {
  readonly disk = memoryDisk("journal")
  readonly hosts: ReadonlyMap<string, SimulatedHost>
  /** What is asked of the kernel is lost with its process. */
  readonly line: Line
  readonly counts: StoreCounts = { appends: 0, appendsFailed: 0, writesLost: 0, writesKept: 0 }
  readonly #runtime: Runtime
  readonly #random: Random
  readonly #charts: Charts
  readonly #options: () => RunOptions
  #life: Life | null = null
  /** Called with a reason when a life could not begin. */
  onFailure: (reason: string) => void = () => {}

  constructor(
    world: { readonly runtime: Runtime; readonly random: Random; readonly charts: Charts },
    hosts: ReadonlyMap<string, SimulatedHost>,
    options: () => RunOptions
  ) {
    this.#runtime = world.runtime
    this.#random = world.random.split("node")
    this.#charts = world.charts
    this.hosts = hosts
    this.#options = options
    this.line = new Line(world.random.split("operators' line"), () => options().line)
  }

  get kernel(): Kernel["Service"] | null {
    return this.#life?.kernel ?? null
  }

  get isUp(): boolean {
    return this.#life !== null
  }

  start(): void {
    if (this.#life !== null) return
    const life: Life = { scope: Scope.makeUnsafe(), store: null, kernel: null }
    this.#life = life
    this.#runtime.start(this.#open(life).pipe(Scope.provide(life.scope)), (exit) => {
      if (this.#life !== life) return
      if (Exit.isFailure(exit)) this.onFailure(String(exit.cause))
      else this.line.make()
    })
  }

  readonly #open = Effect.fnUntraced(function* (this: SimulatedNode, life: Life) {
    const options = this.#options()
    const { sha256 } = Context.get(yield* Layer.build(digest), Digest)
    const inner = yield* openEventStore(this.disk).pipe(Effect.provideService(Digest, Digest.of({ sha256 })))
    const store = new SlowStore(inner, this.#random, () => this.#options().store, this.counts)
    life.store = store
    const lag = Effect.suspend(() =>
      Effect.sleep(-Math.log(1 - this.#random.next()) * this.#options().viewLagMeanMs)
    )
    const { views } = yield* makeViews(store.service, lag)
    const ports = Layer.mergeAll(
      Layer.succeed(EventStore, store.service),
      Layer.succeed(Views, views),
      Layer.succeed(Agents, this.#agents(life))
    )
    const kernel = Kernel.layer({
      kinds: actorKinds,
      node: "n",
      takeTurn: this.#charts.takeTurn,
      unreachableMs: options.unreachableMs,
      waiting_max: options.waiting_max,
      checkpointEvery: options.checkpointEvery
    }).pipe(Layer.provide(ports))
    const context = yield* Layer.buildWithScope(kernel, life.scope)
    if (this.#life === life) life.kernel = Context.get(context, Kernel)
  })

  #agents(life: Life): Agents["Service"] {
    return Agents.of({
      perform: (key, request) =>
        Stream.suspend(() => {
          const unreachable = (reason: string) => new AgentUnreachable({ host: request.host, reason })
          const host = this.hosts.get(request.host)
          const agent = host?.agent ?? null
          if (this.#life !== life || host === undefined || agent === null || !host.line.isUp)
            return Stream.fail(unreachable("there is no line to it"))
          return host.line
            .follow(Stream.suspend(() => (host.agent === agent ? agent.perform(key, request) : Stream.never)))
            .pipe(Stream.mapError(({ message }) => unreachable(message)))
        })
    })
  }

  /** One try of an operator. */
  submit({ stream, message, id }: Issued): ReturnType<Operated["submit"]> {
    const work = Effect.suspend(() => {
      const { kernel } = this
      const principal = { kind: "operator", name: "somebody" } as const
      return kernel === null
        ? Effect.never
        : kernel.submit({ stream, message, id, correlation: id, principal })
    })
    return this.line.ask(work)
  }

  /** What a host says goes to the kernel that is there when it arrives. */
  sayFrom(host: SimulatedHost): Say {
    return (said) =>
      host.line.ask(
        Effect.suspend(() => {
          const kernel = this.kernel
          if (kernel === null) return Effect.never
          return "machines" in said
            ? reconcile(kernel, host.name, said)
            : Effect.asVoid(kernel.submit(commandOf(host.name, said)))
        })
      )
  }

  /** No finalizer of a process that was killed writes anything. */
  crash(): void {
    const life = this.#life
    if (life === null) return
    this.#life = null
    this.line.break()
    for (const { line } of this.hosts.values()) line.break()
    life.store?.crash()
    life.kernel = null
    this.#runtime.fork(Scope.close(life.scope, Exit.void))
  }

  /** A store of its own over what is on the disk. */
  readonly read = Effect.fnUntraced(function* <A, E>(
    this: SimulatedNode,
    use: (store: EventStore["Service"]) => Effect.Effect<A, E>
  ) {
    const { sha256 } = Context.get(yield* Layer.build(digest), Digest)
    return yield* Effect.flatMap(
      openEventStore(this.disk).pipe(Effect.provideService(Digest, Digest.of({ sha256 }))),
      use
    )
  }, Effect.scoped)
}
