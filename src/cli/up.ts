/**
 * `novacron up`: one node as its components. With `cluster.join` it is an agent of another node's kernel; without
 * it has a kernel of its own, with the journal, the API and the authority that issues the nodes' certificates.
 */
import { join } from "node:path"
import { Context, Effect, Layer, Schema } from "effect"
import { HttpServer } from "effect/http"
import { simulatedAgents, SimulatedHosts, simulatedHosts } from "../../simulations/world/agents.ts"
import { simulatedConsoles } from "../../simulations/world/consoles.ts"
import { makeFleet } from "../../simulations/world/hypervisor.ts"
import type { Fleet } from "../../simulations/world/hypervisor.ts"
import { actorKinds } from "../actors/kinds.ts"
import { nodeActor } from "../actors/node/chart.ts"
import { HostAgent } from "../kernel/agent.ts"
import type { Phase } from "../events/node.ts"
import { Kernel } from "../kernel/kernel.ts"
import type { Agents } from "../kernel/ports/agents.ts"
import { Hypervisor } from "../kernel/ports/hypervisor.ts"
import { describe } from "../kernel/statechart.ts"
import type { VmSpec } from "../events/vm.ts"
import { EventStore } from "../kernel/ports/event-store.ts"
import { Link } from "../kernel/ports/link.ts"
import { agentsLayer, serveAgent } from "../live/agents.ts"
import { readOrMakeToken } from "../live/api/authentication.ts"
import { apiServer } from "../live/api/server.ts"
import { caInit, caOpen, issueIdentity, loadIdentity, saveIdentity } from "../live/ca.ts"
import type { Authority, NodeIdentity } from "../live/ca.ts"
import type { CaError } from "../live/ca/files.ts"
import { joinCluster, renewHandler, renewKind, serveJoins } from "../live/ca/join.ts"
import type { Loaded } from "../live/config.ts"
import { consolesLayer, serveConsoles } from "../live/consoles.ts"
import { journalFile } from "./offline.ts"
import { makeFolders, readJoinToken, readTls, requireQemu, standingOn } from "./up-settings.ts"
import type { Setting } from "./up-settings.ts"
import * as digest from "../live/digest.ts"
import * as eventStore from "../live/event-store.ts"
import { qemuLayer } from "../live/hypervisor/qemu.ts"
import { parseAddress } from "../live/link/address.ts"
import { Endpoint, protocols } from "../live/link/endpoint.ts"
import { linkLayer } from "../live/link.ts"
import { sayHere, sayOver, serveMembership, takePart, watchHosts } from "../live/membership.ts"
import type { Say } from "../live/membership.ts"
import { measureAppends, measureCommands, measuredTurns, Metrics } from "../live/metrics.ts"
import { measureLinks } from "../live/modes.ts"
import { layer as projectorLayer, Projector } from "../live/projector.ts"
import { keepCertificate } from "../live/renewal.ts"
import type { Component } from "../live/components.ts"
import { startUp } from "../live/start-up.ts"
import { transportLayer } from "../live/transport.ts"
import { allProjections, queriesLayer, readsLayer, viewsLayer } from "../live/views.ts"

/** Who this node is to others; `authority` is null on a node that joined. */
class Identity extends Context.Service<
  Identity,
  { readonly node: NodeIdentity; readonly authority: Authority | null }
>()("novacron/cli/Identity") {}

/** The node with the kernel, and where its link is; null where that is this node. */
class KernelNode extends Context.Service<KernelNode, { readonly name: string } | null>()(
  "novacron/cli/KernelNode"
) {}

/** The configuration asks for what can't be. */
export class UpError extends Schema.TaggedError<UpError>()("UpError", { reason: Schema.String }) {
  override get message(): string {
    return this.reason
  }
}

const startLimitMs = 30_000
/** Nothing is drawn without faults, so any seed will do. */
const fleetSeed = 1

export interface Up {
  readonly node: string
  /** Base URL of the API; null on a node that joined another's kernel. */
  readonly url: string | null
  readonly tokenFile: string | null
  readonly linkAddress: string
  /** Since this process began. */
  readonly readySeconds: number
  /** Record that the node stops, and why, before its scope is closed. */
  readonly stop: (reason: string) => Effect.Effect<void>
}

/** Start the node in the surrounding scope; it runs until that closes. */
export const up = Effect.fn("up")(function* (loaded: Loaded, version: string) {
  const { config, resolved } = loaded
  const joins = config.cluster.join !== ""
  if (joins && config.hypervisor.driver === "sim") {
    return yield* new UpError({
      reason:
        "cluster.join and hypervisor.driver sim exclude each other: simulated hosts live with their kernel"
    })
  }
  const metrics = yield* Effect.service(Metrics).pipe(Effect.provide(Metrics.layer))
  const fleet = config.hypervisor.driver === "sim" ? makeFleet({ seed: fleetSeed }) : null
  const components = joins
    ? [...base(loaded, [], fleet), ...joined(loaded)]
    : [...base(loaded, ["database"], fleet), ...own(loaded, version, metrics, fleet)]
  let readySeconds = 0
  const { offered, stop } = yield* startUp(components, {
    node: resolved.nodeId,
    version,
    kind: nodeActor,
    limitMs: startLimitMs,
    observer: {
      component: (one, state, seconds) => {
        metrics.componentStatus(one.name, state === "up" ? "running" : state)
        if (state === "up") metrics.componentStarted(one.name, seconds)
      },
      error: (one) => metrics.initializationError(one.name, one.phase),
      announce: (phases) =>
        Effect.sync(() => {
          for (const { phase, durationMs } of phases) metrics.phase(phase, durationMs / 1000)
          readySeconds = process.uptime()
          metrics.bootTime(readySeconds)
          return readySeconds * 1000
        })
    }
  })
  const address = joins
    ? null
    : Context.get(offered as Context.Context<HttpServer.HttpServer>, HttpServer.HttpServer)
  const endpoint = Context.get(offered as Context.Context<Endpoint>, Endpoint)
  const result: Up = {
    node: resolved.nodeId,
    url: address === null ? null : HttpServer.formatAddress(address.address),
    tokenFile: joins ? null : resolved.tokenFile,
    linkAddress: endpoint.address,
    readySeconds,
    stop
  }
  const { stop: _, ...said } = result
  yield* Effect.logInfo("ready", { ...said, driver: config.hypervisor.driver })
  return result
})

const component = (
  name: string,
  phase: Phase,
  needs: ReadonlyArray<string>,
  layer: Layer.Any
): Component => ({ name, phase, level: "critical", needs, layer })

const layerOf = <A, E, R>(effect: Effect.Effect<A, E, R>) => Layer.effectDiscard(effect)

/**
 * What every node has: folders, an identity, links, machines and their agent. What fails most, a port or QEMU, comes
 * after what `first` names: the journal, where there is one, so that the failure is in it.
 */
function base(
  { config, resolved }: Loaded,
  first: ReadonlyArray<string>,
  fleet: Fleet | null
): ReadonlyArray<Component> {
  const { dataDir, imageDir, nodeId } = resolved
  const runDir = join(dataDir, "run")
  return [
    component(
      "environment",
      "pre-init",
      [],
      layerOf(
        makeFolders([
          { key: "system.data_dir", value: dataDir },
          { key: "system.data_dir", value: runDir },
          { key: "hypervisor.image_dir", value: imageDir }
        ])
      )
    ),
    component(
      "security",
      "core",
      ["environment"],
      Layer.effect(Identity, identityOf(config.cluster, dataDir, nodeId))
    ),
    component(
      "network",
      "core",
      ["security", ...first],
      Layer.unwrap(
        Effect.map(Identity, ({ node }) => {
          const { listen_address: host, bind_port: port } = config.network
          const endpoint = standingOn(
            {
              key: "network.listen_address:bind_port",
              value: `${host}:${port}`,
              allowed: "an address of this machine and a free port; port 0 takes any"
            },
            Endpoint.layer({ identity: node, host, port })
          )
          return linkLayer().pipe(Layer.provideMerge(endpoint))
        })
      )
    ),
    ...(fleet === null ? machines(resolved, first) : simulated(fleet, config.hypervisor.sim_hosts))
  ]
}

/** Machines of this host, by QEMU, and the agent that performs what is asked of them. */
function machines(
  { dataDir, imageDir, nodeId }: Loaded["resolved"],
  first: ReadonlyArray<string>
): ReadonlyArray<Component> {
  const runDir = join(dataDir, "run")
  return [
    component("transport", "core", ["network"], transportLayer({ folder: runDir })),
    component(
      "hypervisor",
      "core",
      ["environment", ...first],
      Layer.provideMerge(qemuLayer({ dataDir, imageDir, runDir }), layerOf(requireQemu))
    ),
    component("agent", "core", ["hypervisor", "transport"], HostAgent.layer(nodeId))
  ]
}

/** The node of a kernel: journal, views, actors, API. */
function own(
  { config, resolved }: Loaded,
  version: string,
  metrics: Metrics["Service"],
  fleet: Fleet | null
): ReadonlyArray<Component> {
  const { dataDir } = resolved
  const store = eventStore.layer({ path: join(dataDir, journalFile) }).pipe(Layer.provide(digest.layer))
  const measured = Layer.effect(
    EventStore,
    Effect.map(EventStore, (one) => measureAppends(one, metrics))
  )
  return [
    {
      ...component("database", "core", ["security"], measured.pipe(Layer.provide(store))),
      gives: "journal"
    },
    component(
      "cache",
      "core",
      ["database"],
      Layer.mergeAll(viewsLayer(), queriesLayer).pipe(
        Layer.provideMerge(projectorLayer({ path: join(dataDir, "views.db"), projections: allProjections }))
      )
    ),
    {
      ...component(
        "orchestration",
        "service",
        ["cache", "agent"],
        kernelLayer({ config, resolved }, metrics)
      ),
      gives: "kernel"
    },
    component(
      "console",
      "service",
      ["agent"],
      fleet === null ? consolesLayer(resolved.nodeId) : simulatedConsoles(fleet)
    ),
    component("monitoring", "service", ["orchestration"], monitoring(metrics)),
    component(
      "api",
      "service",
      ["orchestration", "monitoring", "console"],
      Layer.unwrap(
        Effect.map(apiOptions({ config, resolved }, version), (options) =>
          standingOn(
            listensAt({ config, resolved }),
            apiServer({ ...options, observe: metrics.httpRequest })
          ).pipe(Layer.provide(readsLayer), Layer.provide(Layer.succeed(Metrics, metrics)))
        )
      )
    ),
    component(
      "discovery",
      "post-init",
      ["orchestration"],
      layerOf(takeMembers({ config, resolved }, metrics))
    )
  ]
}

type Parts = Pick<Loaded, "config" | "resolved">

/** The kernel, measured, and the agents of the hosts that it asks. */
function kernelLayer({ config, resolved: { nodeId } }: Parts, metrics: Metrics["Service"]) {
  const kernel = Kernel.layer({
    kinds: actorKinds,
    node: nodeId,
    unreachableMs: config.cluster.unreachable_timeout,
    takeTurn: measuredTurns(metrics)
  })
  const agents = config.hypervisor.driver === "sim" ? simulatedAgents : agentsLayer(nodeId)
  return Layer.effect(
    Kernel,
    Effect.map(Kernel, (one) => measureCommands(one, metrics))
  ).pipe(Layer.provide(kernel), Layer.provideMerge(agents as Layer.Layer<Agents>))
}

/** Let nodes join and speak, watch them and the links to them, and take part with the machines of this node. */
const takeMembers = Effect.fnUntraced(function* (parts: Parts, metrics: Metrics["Service"]) {
  const { config, resolved } = parts
  const { dataDir, nodeId } = resolved
  const { authority, node } = yield* Identity
  const link = yield* Link
  yield* serveMembership()
  if (authority) {
    yield* serveJoins(authority)
    yield* link.serve(renewKind, renewHandler(authority))
    yield* Effect.forkScoped(keepCertificate(join(dataDir, "identity"), node, authority))
  }
  const say = yield* sayHere(nodeId)
  const own = yield* takePartHere(parts, say)
  yield* Effect.forkScoped(watchHosts(nodeId, new Set(own), config.cluster.lost_after))
  const { forced_mode, detection_interval: intervalMs, enable_auto_detection: detects } = config.dwcp
  const forced = forced_mode === "" ? null : forced_mode
  yield* Effect.forkScoped(measureLinks({ node: nodeId, intervalMs, detects, forced }, metrics))
})

/** Register the hosts of this process; gives their names. */
const takePartHere = Effect.fnUntraced(function* (parts: Parts, say: Say) {
  const linkedSince = Effect.succeed(0)
  const { labels, driver } = parts.config.hypervisor
  if (driver !== "sim") {
    yield* Effect.forkScoped(takePart(say, { ...(yield* registration(parts)), linkedSince }))
    return [parts.resolved.nodeId]
  }
  const hosts = yield* SimulatedHosts
  for (const { name, services } of hosts) {
    yield* remakeMachines(name).pipe(Effect.provide(services))
    const options = { host: name, address: name, labels: { ...labels, simulated: "true" }, linkedSince }
    yield* Effect.forkScoped(takePart(say, options).pipe(Effect.provide(services)))
  }
  return hosts.map(({ name }) => name)
})

/** A simulated machine lives in its node's process and is gone with it: it is made anew as the journal has it. */
const remakeMachines = Effect.fnUntraced(function* (host: string) {
  const kernel = yield* Kernel
  const hypervisor = yield* Hypervisor
  for (const { stream, chart } of kernel.resident().values()) {
    const placed = chart.context as { readonly host?: string | null; readonly spec?: VmSpec | null }
    if (!stream.startsWith("vm/") || placed.host !== host || !placed.spec) continue
    const vm = stream.slice("vm/".length)
    const runs = ["running", "migrating", "pausing", "paused", "resuming", "stopping"]
    const state = describe(chart).split(".")[0] ?? ""
    yield* hypervisor.define(vm, placed.spec)
    if (runs.includes(state)) yield* hypervisor.start(vm)
    if (state === "paused" || state === "resuming") yield* hypervisor.pause(vm)
  }
})

/** Hosts that are only simulated, and say so by their names and their driver. */
function simulated(fleet: Fleet, count: number): ReadonlyArray<Component> {
  const names = Array.from({ length: count }, (_, index) => `sim-${index + 1}`)
  return [component("agent", "core", ["environment"], simulatedHosts(fleet, names))]
}

const monitoring = (metrics: Metrics["Service"]) =>
  layerOf(
    Effect.gen(function* () {
      const kernel = yield* Kernel
      yield* metrics.observe(yield* Projector, {
        mailboxWaiting: kernel.waiting,
        outstandingRequests: () => {
          let open = 0
          for (const { outstanding } of kernel.resident().values()) open += outstanding.length
          return open
        }
      })
    })
  )

const listensAt = ({ config: { api }, resolved: { socket } }: Parts): Setting =>
  socket === null
    ? {
        key: "api.listen_address:port",
        value: `${api.listen_address}:${api.port}`,
        allowed: "an address of this machine and a free port; port 0 takes any"
      }
    : { key: "api.socket", value: socket, allowed: "a path in a folder that this process can write in" }

const apiOptions = Effect.fnUntraced(function* ({ config, resolved }: Parts, version: string) {
  const token = yield* readOrMakeToken(resolved.tokenFile)
  const tls = resolved.tls === null ? null : yield* readTls(resolved.tls)
  return {
    listen:
      resolved.socket === null
        ? { host: config.api.listen_address, port: config.api.port }
        : { path: resolved.socket },
    ...(tls ? { tls } : {}),
    token,
    node: resolved.nodeId,
    version,
    inFlight_max: config.system.max_concurrency
  }
})

/** The node without a kernel: it dials the one that has it, and does what that one asks. */
function joined({ config, resolved }: Loaded): ReadonlyArray<Component> {
  const address = config.cluster.join
  return [
    component("kernel-link", "service", ["network"], Layer.effect(KernelNode, kernelNodeAt(address))),
    component(
      "discovery",
      "post-init",
      ["kernel-link", "agent"],
      layerOf(
        Effect.gen(function* () {
          const kernelNode = yield* KernelNode
          if (kernelNode === null) return
          yield* serveAgent(resolved.nodeId, kernelNode.name)
          yield* serveConsoles(kernelNode.name)
          const link = yield* Link
          yield* link.connect(kernelNode.name, address)
          const linkedSince = Effect.map(link.peers, (peers) => {
            const peer = peers.find((one) => one.node === kernelNode.name && one.state === "connected")
            return peer?.sinceMs ?? null
          })
          const { node } = yield* Identity
          yield* Effect.forkScoped(
            keepCertificate(join(resolved.dataDir, "identity"), node, { node: kernelNode.name })
          )
          const say = yield* sayOver(kernelNode.name)
          yield* Effect.forkScoped(
            takePart(say, { ...(yield* registration({ config, resolved })), linkedSince })
          )
        })
      )
    )
  ]
}

const registration = Effect.fnUntraced(function* ({ config, resolved }: Parts) {
  const endpoint = yield* Endpoint
  const address = config.cluster.advertise_address || endpoint.address
  return {
    host: resolved.nodeId,
    address: address.includes("@") ? address : `${resolved.nodeId}@${address}`,
    labels: config.hypervisor.labels
  }
})

/** The name of the node at this address: told by the address itself, or by the certificate that it shows. */
const kernelNodeAt = Effect.fnUntraced(function* (address: string) {
  const named = parseAddress(address)?.node
  if (named) return { name: named }
  const endpoint = yield* Endpoint
  const { socket, peer } = yield* endpoint.dial(address, protocols.link, null)
  socket.destroy()
  return { name: peer }
})

const identityOf = Effect.fnUntraced(function* (
  cluster: Loaded["config"]["cluster"],
  dataDir: string,
  node: string
) {
  const folder = join(dataDir, "identity")
  const known = yield* Effect.result(loadIdentity(folder))
  if (cluster.join !== "") {
    if (known._tag === "Success") return { node: known.success, authority: null }
    const identity = yield* readJoinToken(cluster.join_token_file).pipe(
      Effect.flatMap((token) => joinCluster(cluster.join, token.trim(), node)),
      Effect.mapError((error) => damageOf(known.failure) ?? error)
    )
    yield* saveIdentity(folder, identity)
    return { node: identity, authority: null }
  }
  const authorityFolder = join(dataDir, "ca")
  const authority = yield* caOpen(authorityFolder).pipe(
    Effect.catch((error) => (error.code === "missing" ? caInit(authorityFolder) : Effect.fail(error)))
  )
  if (known._tag === "Success" && known.success.node === node) return { node: known.success, authority }
  const identity = yield* issueIdentity(authority, node).pipe(
    Effect.mapError((error) => (known._tag === "Failure" ? damageOf(known.failure) : null) ?? error)
  )
  yield* saveIdentity(folder, identity)
  return { node: identity, authority }
})

/** When no new identity can take its place, what is wrong with the one that is there says more. */
const damageOf = (error: CaError): CaError | null => (error.code === "missing" ? null : error)
