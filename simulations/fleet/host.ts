/** A simulated host: a hypervisor whose machines outlive the agent's process, the agent, and its line to the kernel's node. */
import { Context, Effect, Exit, Layer, Scope } from "effect"
import type { HostFacts } from "../../src/events/host.ts"
import { HostAgent } from "../../src/kernel/agent.ts"
import { keepLease } from "../../src/kernel/lease.ts"
import type { LeaseKeeping } from "../../src/kernel/lease.ts"
import { takePart } from "../../src/kernel/membership.ts"
import type { Say } from "../../src/kernel/membership.ts"
import type { Hypervisor } from "../../src/kernel/ports/hypervisor.ts"
import { crashHost, hostOf, simFacts, simLayer } from "../world/hypervisor.ts"
import type { Fleet } from "../world/hypervisor.ts"
import type { Line } from "../world/line.ts"
import type { Runtime } from "../world/runtime.ts"
import { simTransport } from "../world/transport.ts"
import { epochMs } from "../world/runtime.ts"
import type { HostFencing } from "./fencing.ts"

type Services = HostAgent | Hypervisor

export class SimulatedHost {
  readonly name: string
  readonly line: Line
  readonly #fleet: Fleet
  readonly #runtime: Runtime
  readonly #facts: HostFacts
  readonly #say: (host: SimulatedHost) => Say
  #scope: Scope.Closeable | null = null
  agent: HostAgent["Service"] | null = null
  /** Since when nobody can reach it; null while somebody can. */
  silentSinceMs: number | null = 0
  #hadPower = true
  readonly fencing: HostFencing | null
  readonly #askLease: ((host: SimulatedHost) => LeaseKeeping["ask"]) | null

  constructor(
    name: string,
    memoryMib: number,
    world: { readonly fleet: Fleet; readonly runtime: Runtime; readonly line: Line },
    say: (host: SimulatedHost) => Say,
    leases: {
      readonly host: HostFencing
      readonly ask: (host: SimulatedHost) => LeaseKeeping["ask"]
    } | null = null
  ) {
    this.name = name
    this.line = world.line
    this.#fleet = world.fleet
    this.#runtime = world.runtime
    this.#facts = { ...simFacts, memoryMib }
    this.#say = say
    this.fencing = leases?.host ?? null
    this.#askLease = leases?.ask ?? null
  }

  get isUp(): boolean {
    return this.#scope !== null
  }

  /** The agent's process begins. */
  start(): void {
    if (this.#scope !== null) return
    // What the agent still did in the moment in which the power went is lost too.
    if (!this.#hadPower) this.#endMachines()
    this.#hadPower = true
    if (this.fencing !== null) this.fencing.hasPower = true
    const scope = Scope.makeUnsafe()
    this.#scope = scope
    const lease = this.fencing?.keeping(this.#askLease?.(this) ?? Effect.never)
    const hypervisor = simLayer(this.#fleet, this.name, this.#facts, lease?.lease.mayRun)
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
        linkedSince: Effect.sync(() => this.line.since),
        ...(lease === undefined ? {} : { lease })
      }
      if (lease !== undefined) yield* keepLease(lease).pipe(Effect.forkIn(scope))
      yield* takePart(this.#say(this), options).pipe(Effect.provide(context), Effect.forkIn(scope))
    })
    this.#runtime.fork(part)
  }

  /** The agent's process dies; its machines go on. */
  crashAgent(): void {
    const scope = this.#scope
    if (scope === null) return
    this.line.break()
    this.#scope = null
    this.agent = null
    // Of a host that is fenced meanwhile nothing may run that was begun in this very moment.
    const ends = Effect.sync(() => {
      if (this.fencing !== null && !this.#hadPower) this.#endMachines()
    })
    this.#runtime.fork(Effect.andThen(Scope.close(scope, Exit.void), ends))
  }

  /** The whole host loses its power. */
  crash(): void {
    this.crashAgent()
    this.#hadPower = false
    this.#endMachines()
    this.fencing?.powerLost()
  }

  #endMachines(): void {
    crashHost(this.#fleet, hostOf(this.#fleet, this.name), epochMs + Math.floor(this.#runtime.schedule.nowMs))
  }
}
