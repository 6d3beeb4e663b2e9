/**
 * A node of a group, in a process of its own: the production parts that a command goes through, put together as `up` does, without
 * machines and their agents. Its identity lies in its folder. Takes orders by the channel of `fork`, and answers each.
 */
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { Context, Effect, Layer } from "effect"
import { HttpServer } from "effect/http"
import { simulatedConsoles } from "../../simulations/world/consoles.ts"
import { makeFleet } from "../../simulations/world/hypervisor.ts"
import { actorKinds } from "../../src/actors/kinds.ts"
import { raftProtocol } from "../../src/actors/protocols.ts"
import { groupOptions, raftSettings } from "../../src/cli/up-kernel.ts"
import type { Parts } from "../../src/cli/up-parts.ts"
import { Kernel } from "../../src/kernel/kernel.ts"
import { Consensus } from "../../src/kernel/ports/consensus.ts"
import type { GroupStatus } from "../../src/kernel/ports/consensus.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import { apiServer } from "../../src/live/api/server.ts"
import { loadIdentity } from "../../src/live/ca.ts"
import type { NodeIdentity } from "../../src/live/ca.ts"
import { consensusLayer } from "../../src/live/consensus.ts"
import { Directory } from "../../src/live/consensus/directory.ts"
import * as digest from "../../src/live/digest.ts"
import * as eventStore from "../../src/live/event-store.ts"
import { Endpoint } from "../../src/live/link/endpoint.ts"
import {
  makeMetrics,
  measureAppends,
  measureCommands,
  measuredTurns,
  Metrics
} from "../../src/live/metrics.ts"
import { layer as projectorLayer } from "../../src/live/projector.ts"
import { allProjections, queriesLayer, readsLayer, viewsLayer } from "../../src/live/views.ts"
import { traced } from "./failover-timeline.ts"
import { quietAgents, registerHost } from "./kernel.ts"

export interface NodeArguments {
  readonly folder: string
  /** What is listened on for the group and for the API. */
  readonly host: string
  readonly port: number
  readonly apiPort: number
  readonly seeds: ReadonlyArray<string>
  readonly token: string
  readonly heartbeatMs: number
  readonly electionMs: number
  /** Its folder gets a timeline of elections. */
  readonly isTraced: boolean
}

export type Order =
  | { readonly order: "admit"; readonly node: string }
  | { readonly order: "register"; readonly hosts: number }
  | { readonly order: "status" }

export interface NodeStatus extends GroupStatus {
  readonly position: number
  readonly hash: string
  /** This process has used, in milliseconds of one core. */
  readonly cpuMs: number
}

/** What it says when it is up. */
export interface NodeUp {
  readonly apiPort: number
  readonly address: string
}

function node(options: NodeArguments, identity: NodeIdentity) {
  const metrics = makeMetrics()
  const endpoint = Endpoint.layer({ identity, host: options.host, port: options.port })
  const store = Layer.effect(
    EventStore,
    Effect.map(EventStore, (one) => measureAppends(one, metrics))
  ).pipe(
    Layer.provide(eventStore.layer({ path: join(options.folder, "journal.db"), durability: "behind" })),
    Layer.provide(digest.layer)
  )
  const views = projectorLayer({ path: join(options.folder, "views.db"), projections: allProjections })
  const { heartbeatMs, electionMs } = options
  const asked = { heartbeat_interval: heartbeatMs, election_timeout: electionMs, lease_drift: 0 }
  const consensus = Layer.unwrap(
    Effect.map(Endpoint, ({ address }) =>
      consensusLayer({
        node: identity.node,
        folder: join(options.folder, "consensus"),
        address: `${identity.node}@${address}`,
        seeds: options.seeds,
        settings: raftSettings({ config: { dwcp: { consensus: asked } } } as Parts),
        protocol: options.isTraced ? traced(raftProtocol, identity.node, options.folder) : raftProtocol
      })
    )
  )
  const kernel = Layer.effect(
    Kernel,
    Effect.map(Kernel, (one) => measureCommands(one, metrics))
  ).pipe(
    Layer.provide(Kernel.layer({ kinds: actorKinds, node: identity.node, takeTurn: measuredTurns(metrics) })),
    Layer.provideMerge(consensus),
    Layer.provideMerge(
      Layer.mergeAll(viewsLayer(), queriesLayer, quietAgents, Layer.succeed(Metrics, metrics))
    ),
    Layer.provideMerge(views),
    Layer.provideMerge(store),
    Layer.provideMerge(endpoint)
  )
  const api = Layer.unwrap(
    Effect.map(groupOptions, (group) =>
      apiServer({
        listen: { host: options.host, port: options.apiPort },
        tls: { certificate: identity.certificate, key: identity.key },
        token: options.token,
        node: identity.node,
        version: "0",
        observe: metrics.httpRequest,
        group
      })
    )
  )
  return api.pipe(
    Layer.provide(simulatedConsoles(makeFleet({ seed: 1 }))),
    Layer.provideMerge(readsLayer),
    Layer.provideMerge(kernel)
  )
}

/** As a learner first, and as a voter when it has what the others have. */
const admit = Effect.fnUntraced(function* (order: Consensus["Service"], name: string) {
  for (;;) {
    const { voters, outgoing, learners } = order.status().members
    if (voters.includes(name) && outgoing.length === 0) return
    const next = learners.includes(name)
      ? order.change([...voters, name], [])
      : order.change(voters, [...learners, name])
    yield* Effect.ignore(next)
    yield* Effect.sleep(20)
  }
})

const main = Effect.gen(function* () {
  const options = JSON.parse(process.argv[2] ?? "{}") as NodeArguments
  const identity = yield* loadIdentity(join(options.folder, "identity"))
  const context = yield* Layer.build(node(options, identity))
  const order = Context.get(context, Consensus)
  const kernel = Context.get(context, Kernel)
  const store = Context.get(context, EventStore)
  const obey = Effect.fnUntraced(function* (wanted: Order) {
    switch (wanted.order) {
      case "admit":
        yield* admit(order, wanted.node)
        return null
      case "register":
        for (let host = 0; host < wanted.hosts; host++) yield* kernel.submit(registerHost(host, 0))
        return null
      case "status": {
        const { user, system } = process.cpuUsage()
        return { ...order.status(), ...(yield* store.head), cpuMs: (user + system) / 1000 }
      }
    }
  })
  process.on("message", (wanted: Order) => {
    Effect.runPromise(obey(wanted)).then(
      (answer) => process.send?.({ answer }),
      (error: unknown) => process.send?.({ problem: String(error) })
    )
  })
  const { address } = Context.get(context, HttpServer.HttpServer)
  const up: NodeUp = {
    apiPort: (address as unknown as AddressInfo).port,
    address: `${identity.node}@${Context.get(context, Endpoint).address}`
  }
  process.send?.(up)
  const broken = yield* Context.get(context, Directory).broken
  console.error(`${identity.node}: ${broken}`)
  process.exit(1)
})

process.on("disconnect", () => process.exit(0))
// Ends in good order, with what a profiler has to write.
process.on("SIGTERM", () => process.exit(0))
await Effect.runPromise(Effect.scoped(main))
