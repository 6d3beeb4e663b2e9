/** The Agents port over hosts of a simulated fleet, all in this process. */
import { Context, Effect, Layer, Stream } from "effect"
import { HostAgent } from "../../src/kernel/agent.ts"
import { Agents, AgentUnreachable } from "../../src/kernel/ports/agents.ts"
import type { Hypervisor } from "../../src/kernel/ports/hypervisor.ts"
import { simLayer } from "./hypervisor.ts"
import type { Fleet } from "./hypervisor.ts"
import { simTransport } from "./transport.ts"

export interface SimulatedHost {
  readonly name: string
  readonly services: Context.Context<HostAgent | Hypervisor>
}

/** The hosts that this process simulates. */
export class SimulatedHosts extends Context.Service<SimulatedHosts, ReadonlyArray<SimulatedHost>>()(
  "novacron/simulations/SimulatedHosts"
) {}

export const simulatedHosts = (fleet: Fleet, names: ReadonlyArray<string>): Layer.Layer<SimulatedHosts> =>
  Layer.effect(
    SimulatedHosts,
    Effect.forEach(names, (name) =>
      Effect.map(
        Layer.build(
          HostAgent.layer(name).pipe(Layer.provideMerge(simLayer(fleet, name)), Layer.provide(simTransport))
        ),
        (services) => ({ name, services })
      )
    )
  )

export const simulatedAgents: Layer.Layer<Agents, never, SimulatedHosts> = Layer.effect(
  Agents,
  Effect.map(SimulatedHosts, (hosts) =>
    Agents.of({
      perform: (key, request) => {
        const host = hosts.find((one) => one.name === request.host)
        return host
          ? Context.get(host.services, HostAgent).perform(key, request)
          : Stream.fail(new AgentUnreachable({ host: request.host, reason: "it is not simulated here" }))
      }
    })
  )
)
