/**
 * A node with a kernel: the journal, its views, the actors and the API. It decides alone, or, as a voter, what its group has
 * ordered.
 */
import { join } from "node:path"
import { Effect, Layer, Option, Schedule } from "effect"
import { simulatedAgents, SimulatedHosts } from "../../simulations/world/agents.ts"
import { simulatedConsoles } from "../../simulations/world/consoles.ts"
import type { Fleet } from "../../simulations/world/hypervisor.ts"
import { actorKinds } from "../actors/kinds.ts"
import { raftProtocol } from "../actors/protocols.ts"
import type { RaftSettings } from "../events/raft.ts"
import type { VmSpec } from "../events/vm.ts"
import { Kernel } from "../kernel/kernel.ts"
import { sayHere, takePart } from "../kernel/membership.ts"
import type { Say } from "../kernel/membership.ts"
import type { Agents } from "../kernel/ports/agents.ts"
import { Consensus, Unavailable } from "../kernel/ports/consensus.ts"
import { EventStore } from "../kernel/ports/event-store.ts"
import { Hypervisor } from "../kernel/ports/hypervisor.ts"
import { Link } from "../kernel/ports/link.ts"
import { describe } from "../kernel/statechart.ts"
import { agentsLayer, serveAgent, tellTerm } from "../live/agents.ts"
import { readOrMakeToken } from "../live/api/authentication.ts"
import { apiServer } from "../live/api/server.ts"
import type { Component } from "../live/components.ts"
import type { Loaded } from "../live/config.ts"
import { consensusLayer } from "../live/consensus.ts"
import { Directory } from "../live/consensus/directory.ts"
import { joinGroup, linkMembers, serveJoining, serveKernelNodes } from "../live/consensus/joining.ts"
import { consolesLayer, serveConsoles } from "../live/consoles.ts"
import * as digest from "../live/digest.ts"
import * as eventStore from "../live/event-store.ts"
import { addressesIn } from "../live/link/address.ts"
import { Endpoint } from "../live/link/endpoint.ts"
import { askForLease, serveLeases } from "../live/leases.ts"
import { serveMembership, serveRegistering, watchHosts } from "../live/membership.ts"
import { measureAppends, measureCommands, measuredTurns, Metrics } from "../live/metrics.ts"
import { gossipGauges } from "../live/gossip/gauges.ts"
import type { GossipNode } from "../live/gossip/node.ts"
import { measureLinks } from "../live/modes.ts"
import { layer as projectorLayer, Projector } from "../live/projector.ts"
import { allProjections, queriesLayer, readsLayer, viewsLayer } from "../live/views.ts"
import { journalFile } from "./offline.ts"
import { authorityOf, serveAuthority } from "./up-authority.ts"
import { fencerOf, keepOwnLease } from "./up-fencing.ts"
import { noticeOthers, takePartInGossip } from "./up-gossip.ts"
import { advertised, component, kernelNodeAt, layerOf, registration } from "./up-parts.ts"
import type { Parts } from "./up-parts.ts"
import { readTls, standingOn } from "./up-settings.ts"
import type { Setting } from "./up-settings.ts"
/** Journal, views, actors, API; of a voter its place in the group too. */
export function kernelComponents(
  { config, resolved }: Loaded,
  version: string,
  metrics: Metrics["Service"],
  fleet: Fleet | null
): ReadonlyArray<Component> {
  const { dataDir } = resolved
  const votes = config.cluster.voter
  const gossip = gossipPlace(metrics)
  const store = eventStore
    .layer({ path: join(dataDir, journalFile), durability: votes ? "behind" : "full" })
    .pipe(Layer.provide(digest.layer))
  const measured = Layer.effect(
    EventStore,
    Effect.map(EventStore, (one) => measureAppends(one, metrics))
  )
  return [
    {
      ...component("database", "core", ["security"], measured.pipe(Layer.provide(store))),
      // A voter's journal has only what its group has ordered.
      ...(votes ? {} : { gives: "journal" as const })
    },
    component(
      "cache",
      "core",
      ["database"],
      Layer.mergeAll(viewsLayer(), queriesLayer).pipe(
        Layer.provideMerge(projectorLayer({ path: join(dataDir, "views.db"), projections: allProjections }))
      )
    ),
    ...(votes
      ? [component("consensus", "core", ["database", "network"], consensus({ config, resolved }))]
      : []),
    {
      ...component(
        "orchestration",
        "service",
        ["cache", "agent", ...(votes ? ["consensus"] : [])],
        kernelLayer({ config, resolved }, metrics)
      ),
      ...(votes ? {} : { gives: "kernel" as const })
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
        Effect.map(apiOptions({ config, resolved }, version, gossip), (options) =>
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
      layerOf(takeMembers({ config, resolved }, metrics, gossip))
    )
  ]
}

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

/** Of a voter, by the configuration; the limits are what a step may hold in memory. */
export const raftSettings = ({ config }: Parts): RaftSettings => ({
  heartbeatMs: config.dwcp.consensus.heartbeat_interval,
  electionMs: config.dwcp.consensus.election_timeout,
  messageBytesMax: 1024 * 1024,
  inflightBytesMax: 16 * 1024 * 1024,
  inflightEntriesMax: 4096,
  uncommittedBytesMax: 64 * 1024 * 1024,
  readsMax: 100_000,
  lagEntriesMax: 1000,
  leaseDriftPercent: config.dwcp.consensus.lease_drift
})

const consensus = (parts: Parts) =>
  Layer.unwrap(
    Effect.map(Endpoint, (endpoint) =>
      consensusLayer({
        node: parts.resolved.nodeId,
        folder: join(parts.resolved.dataDir, "consensus"),
        address: advertised(parts, endpoint.address),
        seeds: addressesIn(parts.config.cluster.join),
        settings: raftSettings(parts),
        protocol: raftProtocol
      })
    )
  )

/** Let nodes join and speak, watch them and the links to them, and take part with the machines of this node. */
const takeMembers = Effect.fnUntraced(function* (
  parts: Parts,
  metrics: Metrics["Service"],
  gossip: GossipPlace
) {
  const { config, resolved } = parts
  const { nodeId } = resolved
  yield* serveMembership()
  yield* serveAuthority(parts)
  const say = yield* sayHere(nodeId)
  const asked = yield* config.cluster.voter ? takePartInGroup(parts) : servedAlone(parts)
  const own = yield* takePartHere(parts, say, asked)
  gossip.node = yield* noticeOthersHere(parts)
  yield* Effect.forkScoped(watchHosts(nodeId, new Set(own), config.cluster.lost_after, fencerOf(parts)))
  const { forced_mode, detection_interval: intervalMs, enable_auto_detection: detects } = config.dwcp
  const forced = forced_mode === "" ? null : forced_mode
  yield* Effect.forkScoped(measureLinks({ node: nodeId, intervalMs, detects, forced }, metrics))
})

/** Filled when the node takes part, after the API is there. */
interface GossipPlace {
  node: GossipNode | null
}

const gossipPlace = ({ registry }: Metrics["Service"]): GossipPlace => {
  const place: GossipPlace = { node: null }
  gossipGauges(registry, () => place.node?.member ?? null)
  return place
}

/** Be noticed, and notice; a kernel that is the only one waits for the first node that joins it. */
const noticeOthersHere = Effect.fnUntraced(function* (parts: Parts) {
  const { voter, join: joins } = parts.config.cluster
  const directory = yield* Effect.serviceOption(Directory)
  const members = directory._tag === "None" ? () => [] : directory.value.members
  let seed: ReadonlyArray<string> = []
  if (joins !== "" && members().length === 0) {
    const found = Effect.map(seedOf(parts), ({ name }) => {
      seed = [name]
    })
    yield* Effect.forkScoped(found)
  }
  const kernels = () => [...new Set([...members(), ...seed])]
  const place = yield* takePartInGossip(parts, { kernels, founds: joins === "", isAlone: !voter })
  if (place !== null) yield* noticeOthers(parts, place)
  return place
})

/** The only kernel there is. */
const servedAlone = Effect.fnUntraced(function* (parts: Parts) {
  const { host: node, address } = yield* registration(parts)
  yield* serveKernelNodes(() => ({ nodes: [{ node, address }] }))
  return Effect.succeed(0)
})

const termEveryMs = 250

/** Never ends: whenever this node begins to lead, the hosts hear of it. */
const tellTerms = Effect.gen(function* () {
  const kernel = yield* Kernel
  const order = yield* Consensus
  for (let told = 0; ;) {
    const { term } = order.status()
    if (kernel.isPerforming() && term !== told) {
      yield* tellTerm(term)
      told = term
    }
    yield* Effect.sleep(termEveryMs)
  }
})

/** Whom this node joined, as soon as it is there. A voter that is in the group does not need it. */
const seedOf = (parts: Parts) =>
  Effect.retry(kernelNodeAt(parts.config.cluster.join), { schedule: Schedule.spaced("5 seconds") })

const joinAt = Effect.fnUntraced(function* (parts: Parts) {
  const order = yield* Consensus
  const link = yield* Link
  // What the log has is known at once, what the others have decided meanwhile is not.
  if (order.status().members.voters.length > 0) return
  const { name, address } = yield* seedOf(parts)
  // For the time before it is known as a member.
  yield* Effect.ignore(link.connect(name, address))
  yield* joinGroup(name)
})

/** Take in who asks, be taken in, and do on this host what any voter asks. Gives how often it was asked to register again. */
const takePartInGroup = Effect.fnUntraced(function* (parts: Parts) {
  const { host: own, address } = yield* registration(parts)
  const directory = yield* Directory
  const { join: seed } = parts.config.cluster
  const addressOf = (node: string) => (node === own ? address : directory.addressOf(node))
  yield* serveKernelNodes(() => ({
    nodes: directory.members().flatMap((node) => {
      const at = addressOf(node)
      return at === null ? [] : [{ node, address: at }]
    })
  }))
  yield* serveJoining()
  yield* serveAgent(own, directory.members)
  yield* serveConsoles(directory.members)
  yield* Effect.forkScoped(linkMembers())
  yield* Effect.forkScoped(tellTerms)
  if (seed !== "") yield* Effect.forkScoped(joinAt(parts))
  return yield* serveRegistering(directory.members)
})

/** Register the hosts of this process; gives their names. */
const takePartHere = Effect.fnUntraced(function* (
  parts: Parts,
  say: Say,
  linkedSince: Effect.Effect<number>
) {
  const { labels, driver } = parts.config.hypervisor
  const give = yield* serveLeases()
  if (driver !== "sim") {
    const registering = { ...(yield* registration(parts)), linkedSince }
    const { host } = registering
    const directory = Option.getOrNull(yield* Effect.serviceOption(Directory))
    const others = () => (directory?.members() ?? []).filter((node) => node !== host)
    const askLease = yield* askForLease(others, () => give(host))
    yield* Effect.forkScoped(
      Effect.flatMap(keepOwnLease(parts, others, askLease), (lease) =>
        takePart(say, { ...registering, lease })
      )
    )
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

const apiOptions = Effect.fnUntraced(function* (
  { config, resolved }: Parts,
  version: string,
  gossip: GossipPlace
) {
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
    inFlight_max: config.system.max_concurrency,
    gossips: () => gossip.node?.member != null,
    authority: yield* authorityOf,
    ...(config.cluster.voter ? { group: yield* groupOptions } : {})
  }
})

/** What a view may take to come as far as the journal is. */
const viewsBehindMs = 5000

/** What the API of a voter tells of its group, and what a read of it waits for. */
export const groupOptions = Effect.gen(function* () {
  const kernel = yield* Kernel
  const order = yield* Consensus
  const directory = yield* Directory
  const store = yield* EventStore
  const projector = yield* Projector
  const caughtUp = Effect.flatMap(store.head, ({ position }) =>
    projector.caughtUp(position, { timeoutMs: viewsBehindMs })
  ).pipe(
    Effect.mapError(
      (error) => new Unavailable({ node: order.node, mayHappen: false, reason: error.message.slice(0, 500) })
    )
  )
  return {
    fresh: Effect.andThen(kernel.fresh, caughtUp),
    status: () => {
      const { node, role, term, leader, commit, last, base, members } = order.status()
      const { voters, outgoing, learners } = members
      const all = directory.members()
      const connected = [node, ...directory.connected().filter((id) => all.includes(id))]
      const removed = directory.removed()
      return { node, role, term, leader, voters, outgoing, learners, connected, commit, last, base, removed }
    }
  }
})
