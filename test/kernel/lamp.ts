/** A small actor for the kernel's tests, and a kernel over a disk that survives it. */
import { Context, Effect, Exit, Layer, ManagedRuntime, References, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { assign, setup } from "xstate"
import * as digest from "../../simulations/world/digest.ts"
import { layer as memoryStore, memoryDisk } from "../../simulations/world/event-store.ts"
import type { MemoryDisk } from "../../simulations/world/event-store.ts"
import type { Message } from "../../src/events/envelope.ts"
import type { HypervisorReport, HypervisorRequest, Request } from "../../src/events/requests.ts"
import { recorder } from "../../src/kernel/actor.ts"
import type { ActorKind } from "../../src/kernel/actor.ts"
import { Kernel } from "../../src/kernel/kernel.ts"
import type { KernelOptions } from "../../src/kernel/kernel.ts"
import { Agents } from "../../src/kernel/ports/agents.ts"
import type { AgentUnreachable } from "../../src/kernel/ports/agents.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import type { StreamAppend } from "../../src/kernel/ports/event-store.ts"
import { describe } from "../../src/kernel/statechart.ts"
import { noViews } from "./views.ts"

type Event =
  | { type: "lamp.switch"; afterMs: number }
  | { type: "lamp.leave" }
  | { type: "lamp.look" }
  | { type: "lamp.break" }
  | { type: "timer.fired"; name: string }
  | { type: "hypervisor.observed"; state: string }
  | { type: "hypervisor.failed"; op: string; code: string; reason: string }
  | { type: "lamp.lit"; afterMs: number }
  | { type: "lamp.left" }
  | { type: "lamp.darkened" }
  | { type: "lamp.looked" }
  | { type: "lamp.seen"; what: string }

interface LampContext {
  readonly lit: number
  readonly seen: string
}
const record = recorder<LampContext, Event, Message>()
const startTimer = {
  type: "request" as const,
  params: ({ event }: { event: { afterMs: number } }): Request => ({
    port: "timer",
    op: "start",
    name: "dark",
    afterMs: event.afterMs
  })
}

/** Lit for a while by a command; looks at a machine of host `h` when asked to. */
const chart = setup({
  types: { context: {} as LampContext, events: {} as Event, emitted: {} as Message },
  actions: { request: (_, _params: Request) => {} },
  guards: { isNotDazzling: ({ context }) => context.lit < 1000 }
}).createMachine({
  id: "lamp",
  context: { lit: 0, seen: "" },
  initial: "dark",
  on: {
    "lamp.look": { actions: record("lamp.look", () => ({ type: "lamp.looked" })) },
    "lamp.break": {
      actions: record("lamp.break", () => {
        throw new Error("a bug in the chart")
      })
    },
    "lamp.looked": {
      actions: {
        type: "request",
        params: (): Request => ({ port: "hypervisor", op: "observe", host: "h", vm: "web" })
      }
    },
    "hypervisor.observed": {
      actions: record("hypervisor.observed", ({ event }) => ({ type: "lamp.seen", what: event.state }))
    },
    "hypervisor.failed": {
      actions: record("hypervisor.failed", ({ event }) => ({ type: "lamp.seen", what: event.code }))
    },
    "lamp.seen": { actions: assign({ seen: ({ event }) => event.what }) }
  },
  states: {
    dark: {
      on: {
        "lamp.switch": {
          actions: record("lamp.switch", ({ event }) => ({ type: "lamp.lit", afterMs: event.afterMs }))
        },
        "lamp.lit": {
          target: "lit",
          actions: [assign({ lit: ({ context }) => context.lit + 1 }), startTimer]
        }
      }
    },
    lit: {
      on: {
        "lamp.switch": {
          guard: "isNotDazzling",
          actions: record("lamp.switch", ({ event }) => ({ type: "lamp.lit", afterMs: event.afterMs }))
        },
        "lamp.lit": { actions: [assign({ lit: ({ context }) => context.lit + 1 }), startTimer] },
        "lamp.leave": { actions: record("lamp.leave", () => ({ type: "lamp.left" })) },
        "lamp.left": {
          actions: { type: "request", params: (): Request => ({ port: "timer", op: "stop", name: "dark" }) }
        },
        "timer.fired": { actions: record("timer.fired", () => ({ type: "lamp.darkened" })) },
        "lamp.darkened": { target: "dark" }
      }
    }
  }
})

export const lamp: ActorKind = {
  kind: "lamp",
  chart,
  commands: ["lamp.switch", "lamp.leave", "lamp.look", "lamp.break"],
  reports: ["timer.fired", "hypervisor.observed", "hypervisor.failed"],
  facts: ["lamp.lit", "lamp.left", "lamp.darkened", "lamp.looked", "lamp.seen"],
  snapshotVersion: 1
}

type Perform = (key: string, request: HypervisorRequest) => Stream.Stream<HypervisorReport, AgentUnreachable>

export class World {
  readonly runtime = ManagedRuntime.make(
    Layer.merge(TestClock.layer(), Layer.succeed(References.MinimumLogLevel, "None" as const))
  )
  readonly disk: MemoryDisk = memoryDisk()
  readonly options: Partial<KernelOptions>
  /** Batches that reached the store, as they came. */
  readonly appends: Array<ReadonlyArray<StreamAppend>> = []
  /** Keys that the agents were asked with, and how many facts were durable then. */
  readonly asked: Array<{ readonly key: string; readonly durable: number }> = []
  perform: Perform = () => Stream.make({ type: "hypervisor.observed", state: "running" } as const)
  /** Between the decision and the append of a batch. */
  beforeAppend: Effect.Effect<void> = Effect.void
  readonly #around: <A, E, R>(building: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  #scope = Scope.makeUnsafe()
  #context!: Context.Context<Kernel | EventStore>

  /** `around` is put around the building of the kernel, whose fibers thus live in it. */
  constructor(
    options: Partial<KernelOptions> = {},
    around: <A, E, R>(building: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R> = (building) => building
  ) {
    this.options = options
    this.#around = around
  }

  static async open(options: Partial<KernelOptions> = {}): Promise<World> {
    const world = new World(options)
    await world.start()
    return world
  }

  async start(): Promise<void> {
    const store = memoryStore(this.disk).pipe(Layer.provide(digest.layer))
    const watched = Layer.effect(
      EventStore,
      Effect.map(EventStore, (one) =>
        EventStore.of({
          ...one,
          append: (batch, mark) =>
            Effect.suspend(() => {
              this.appends.push(batch)
              return Effect.andThen(this.beforeAppend, one.append(batch, mark))
            })
        })
      )
    ).pipe(Layer.provide(store))
    const agents = Layer.succeed(Agents, {
      perform: (key, request) => {
        this.asked.push({ key, durable: this.disk.facts.length })
        return this.perform(key, request)
      }
    })
    const kernel = Kernel.layer({ kinds: [lamp], node: "n", ...this.options })
    const layer = kernel.pipe(Layer.provideMerge(Layer.mergeAll(watched, agents, noViews)))
    this.#scope = Scope.makeUnsafe()
    this.#context = await this.runtime.runPromise(this.#around(Layer.buildWithScope(layer, this.#scope)))
  }

  /** Nothing of the process survives, and no finalizer of it writes. */
  async crash(): Promise<void> {
    const { fault } = this.disk
    this.disk.fault = () => "the process is dead"
    await this.runtime.runPromise(Scope.close(this.#scope, Exit.void))
    this.disk.fault = fault
  }

  async restart(): Promise<void> {
    await this.crash()
    await this.start()
  }

  async close(): Promise<void> {
    await this.runtime.runPromise(Scope.close(this.#scope, Exit.void))
    await this.runtime.dispose()
  }

  get kernel(): Kernel["Service"] {
    return Context.get(this.#context, Kernel)
  }

  get store(): EventStore["Service"] {
    return Context.get(this.#context, EventStore)
  }

  run<A, E>(effect: Effect.Effect<A, E>): Promise<A> {
    return this.runtime.runPromise(effect)
  }

  command(stream: string, message: Message, id: string) {
    const principal = { kind: "operator" as const, name: "t" }
    return this.kernel.submit({ stream, message, id, correlation: id, principal })
  }

  /** Let time go by, and what it brings happen. */
  async pass(ms: number): Promise<void> {
    await this.run(TestClock.adjust(ms))
    for (let turn = 0; turn < 5; turn++) {
      await new Promise((resolve) => {
        setImmediate(resolve)
      })
    }
  }

  state(stream: string): string {
    const actor = this.kernel.resident().get(stream)
    return actor === undefined ? "not resident" : describe(actor.chart)
  }

  context(stream: string): LampContext | undefined {
    return this.kernel.resident().get(stream)?.chart.context as LampContext | undefined
  }

  facts(stream: string): ReadonlyArray<string> {
    return this.disk.facts
      .filter((fact) => fact.stream === stream)
      .map(({ type }) => type.replace("novacron.", ""))
  }
}

export const light = (afterMs = 1000) => ({ type: "lamp.switch", afterMs })
export const look = { type: "lamp.look" }
