/**
 * A simulated host of a cluster: a hypervisor whose machines outlive the agent's process, the agent, and a line to each node. It
 * does what any node asks, and nothing for one that asks in an earlier term than another did.
 */
import { Context, Effect, Exit, Layer, Scope } from "effect"
import type { HostFacts } from "../../src/events/host.ts"
import { HostAgent } from "../../src/kernel/agent.ts"
import { takePart } from "../../src/kernel/membership.ts"
import type { Say } from "../../src/kernel/membership.ts"
import type { Hypervisor } from "../../src/kernel/ports/hypervisor.ts"
import { crashHost, hostOf, simFacts, simLayer } from "../world/hypervisor.ts"
import type { Fleet } from "../world/hypervisor.ts"
import { Line } from "../world/line.ts"
import type { LineOptions } from "../world/line.ts"
import type { Random } from "../world/random.ts"
import type { Runtime } from "../world/runtime.ts"
import { simTransport } from "../world/transport.ts"
import { epochMs } from "../world/runtime.ts"

type Services = HostAgent | Hypervisor

interface World {
  readonly fleet: Fleet
  readonly runtime: Runtime
  readonly random: Random
  readonly line: () => LineOptions
  readonly say: (host: ClusterHost) => Say
}

export class ClusterHost {
  readonly name: string
  readonly #world: World
  readonly #facts: HostFacts
  readonly #lines = new Map<string, Line>()
  #scope: Scope.Closeable | null = null
  agent: HostAgent["Service"] | null = null
  /** The latest term in which it was asked; of the agent's process. */
  #term = 0
  #asked = 0
  #hadPower = true

  constructor(name: string, memoryMib: number, world: World) {
    this.name = name
    this.#world = world
    this.#facts = { ...simFacts, memoryMib }
  }

  get isUp(): boolean {
    return this.#scope !== null
  }

  lineTo(node: string): Line {
    let line = this.#lines.get(node)
    if (line === undefined)
      this.#lines.set(
        node,
        (line = new Line(this.#world.random.split(`line ${this.name} ${node}`), this.#world.line))
      )
    return line
  }

  get lines(): ReadonlyMap<string, Line> {
    return this.#lines
  }

  /** Null when whoever asks in this term is listened to, else why not; as `serveAgent` of `src/live/agents.ts`. */
  hears(term: number): string | null {
    if (term < this.#term) return `it asks in term ${term}, and ${this.#term} has begun: it leads no more`
    this.#term = term
    return null
  }

  /** Somebody else had lost it, and asks it to register again. */
  askToRegister(): void {
    this.#asked++
  }

  /** Changes whenever one of its lines is a new one; null while there is none. */
  get #linkedSince(): string | null {
    const up = [...this.#lines].filter(([, line]) => line.isUp)
    if (up.length === 0) return null
    return [this.#asked, ...up.map(([node, line]) => `${node}.${line.since}`)].join("-")
  }

  /** The agent's process begins. */
  start(): void {
    if (this.#scope !== null) return
    // What the agent still did in the moment in which the power went is lost too.
    if (!this.#hadPower) this.#endMachines()
    this.#hadPower = true
    this.#term = 0
    const scope = Scope.makeUnsafe()
    this.#scope = scope
    const hypervisor = simLayer(this.#world.fleet, this.name, this.#facts)
    const services = HostAgent.layer(this.name).pipe(
      Layer.provideMerge(hypervisor),
      Layer.provide(simTransport)
    )
    const part = Effect.gen({ self: this }, function* () {
      const context: Context.Context<Services> = yield* Layer.buildWithScope(services, scope)
      if (this.#scope !== scope) return
      this.agent = Context.get(context, HostAgent)
      const options = {
        host: this.name,
        address: this.name,
        labels: {},
        linkedSince: Effect.sync(() => this.#linkedSince)
      }
      yield* takePart(this.#world.say(this), options).pipe(Effect.provide(context), Effect.forkIn(scope))
    })
    this.#world.runtime.fork(part)
  }

  breakLines(): void {
    for (const line of this.#lines.values()) line.break()
  }

  /** The agent's process dies; its machines go on. */
  crashAgent(): void {
    const scope = this.#scope
    if (scope === null) return
    this.breakLines()
    this.#scope = null
    this.agent = null
    this.#world.runtime.fork(Scope.close(scope, Exit.void))
  }

  /** The whole host loses its power. */
  crash(): void {
    this.crashAgent()
    this.#hadPower = false
    this.#endMachines()
  }

  #endMachines(): void {
    const { fleet, runtime } = this.#world
    crashHost(fleet, hostOf(fleet, this.name), epochMs + Math.floor(runtime.schedule.nowMs))
  }
}
