/**
 * `novacron up`: one node as its components. With `cluster.join` it is an agent of another node's kernel; without
 * it has a kernel of its own, with the journal, the API and the authority that issues the nodes' certificates.
 */
import { join } from "node:path"
import { Context, Effect, Layer, Schema } from "effect"
import { HttpServer } from "effect/http"
import { simulatedHosts } from "../../simulations/world/agents.ts"
import { makeFleet } from "../../simulations/world/hypervisor.ts"
import type { Fleet } from "../../simulations/world/hypervisor.ts"
import { nodeActor } from "../actors/node/chart.ts"
import type { PhaseTime } from "../events/node.ts"
import { HostAgent } from "../kernel/agent.ts"
import { Kernel } from "../kernel/kernel.ts"
import { sayHere, takePart } from "../kernel/membership.ts"
import type { Say } from "../kernel/membership.ts"
import { serveAgent } from "../live/agents.ts"
import {
  caInit,
  identityVotes,
  issueIdentity,
  loadIdentity,
  reissueIdentity,
  saveIdentity
} from "../live/ca.ts"
import type { CaError } from "../live/ca/files.ts"
import { HeldKey } from "../live/ca/held-key.ts"
import { joinCluster } from "../live/ca/join.ts"
import { followRevoked } from "../live/ca/revoked.ts"
import type { Component } from "../live/components.ts"
import type { Loaded } from "../live/config.ts"
import { Directory } from "../live/consensus/directory.ts"
import { serveConsoles } from "../live/consoles.ts"
import { qemuLayer } from "../live/hypervisor/qemu.ts"
import { followKernels, rememberedKernels } from "../live/kernel-nodes.ts"
import { linkLayer } from "../live/link.ts"
import { addressesIn } from "../live/link/address.ts"
import { Endpoint } from "../live/link/endpoint.ts"
import { askForLease } from "../live/leases.ts"
import { sayOver, serveRegistering } from "../live/membership.ts"
import { Metrics } from "../live/metrics.ts"
import { keepCertificate, renewOver } from "../live/renewal.ts"
import { tellStart, tellStop } from "../live/start-report.ts"
import { startUp } from "../live/start-up.ts"
import { transportLayer } from "../live/transport.ts"
import { takePartInGossip } from "./up-gossip.ts"
import { keepOwnLease, ownLease, OwnLease } from "./up-fencing.ts"
import { kernelComponents } from "./up-kernel.ts"
import { component, Identity, KernelNode, kernelNodeAt, layerOf, registration, Saying } from "./up-parts.ts"
import { makeFolders, readJoinToken, requireQemu, standingOn } from "./up-settings.ts"

/** The configuration asks for what can't be. */
export class UpError extends Schema.TaggedError<UpError>()("UpError", { reason: Schema.String }) {
  override get message(): string {
    return this.reason
  }
}

/** The node ran, and can't go on: started again it begins with what is on its disk. */
export class UpBroken extends Schema.TaggedError<UpBroken>()("UpBroken", { reason: Schema.String }) {
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
  /** Fails when this node can take part in deciding no more, as when its disk refuses its log. */
  readonly broken: Effect.Effect<never, UpBroken>
}

/** Start the node in the surrounding scope; it runs until that closes. */
export const up = Effect.fn("up")(function* (loaded: Loaded, version: string) {
  const { config, resolved } = loaded
  const { voter } = config.cluster
  const hasKernel = voter || config.cluster.join === ""
  if ((voter || !hasKernel) && config.hypervisor.driver === "sim") {
    return yield* new UpError({
      reason:
        "hypervisor.driver sim excludes cluster.join and cluster.voter: simulated hosts live with their only kernel"
    })
  }
  const metrics = yield* Effect.service(Metrics).pipe(Effect.provide(Metrics.layer))
  const fleet = config.hypervisor.driver === "sim" ? makeFleet({ seed: fleetSeed }) : null
  const components = hasKernel
    ? [...base(loaded, ["database"], fleet), ...kernelComponents(loaded, version, metrics, fleet)]
    : [...base(loaded, [], fleet), ...joined(loaded)]
  let readySeconds = 0
  let phases: ReadonlyArray<PhaseTime> = []
  const leftOut = new Set<string>()
  const { start, offered, stop } = yield* startUp(components, {
    node: resolved.nodeId,
    version,
    kind: nodeActor,
    limitMs: startLimitMs,
    observer: {
      component: (one, state, seconds) => {
        metrics.componentStatus(one.name, state === "up" ? "running" : state)
        if (state === "failed") leftOut.add(one.name)
        else leftOut.delete(one.name)
        if (state === "up") metrics.componentStarted(one.name, seconds)
      },
      error: (one) => metrics.initializationError(one.name, one.phase),
      announce: (took) =>
        Effect.sync(() => {
          phases = took
          for (const { phase, durationMs } of took) metrics.phase(phase, durationMs / 1000)
          readySeconds = process.uptime()
          metrics.bootTime(readySeconds)
          return readySeconds * 1000
        })
    }
  })
  const address = hasKernel
    ? Context.get(offered as Context.Context<HttpServer.HttpServer>, HttpServer.HttpServer)
    : null
  const endpoint = Context.get(offered as Context.Context<Endpoint>, Endpoint)
  const say = yield* sayingOf(offered, resolved.nodeId, { hasKernel, voter })
  if (say !== null) {
    const bootMs = Math.round(readySeconds * 1000)
    const report = { start, version, phases, bootMs, leftOut: [...leftOut] }
    yield* Effect.forkScoped(tellStart(say, resolved.nodeId, report))
  }
  const result: Up = {
    node: resolved.nodeId,
    url: address === null ? null : HttpServer.formatAddress(address.address),
    tokenFile: hasKernel ? resolved.tokenFile : null,
    linkAddress: endpoint.address,
    readySeconds,
    stop: (reason) =>
      say === null
        ? stop(reason)
        : Effect.andThen(tellStop(say, resolved.nodeId, start, reason), stop(reason)),
    broken: voter ? brokenOf(Context.get(offered as Context.Context<Directory>, Directory)) : Effect.never
  }
  const { stop: _, broken: _broken, ...said } = result
  yield* Effect.logInfo("ready", { ...said, driver: config.hypervisor.driver })
  return result
})

/** How the start of this node is told to the cluster; null where it is in the node's own journal. */
const sayingOf = (
  offered: Context.Context<any>,
  node: string,
  { hasKernel, voter }: { readonly hasKernel: boolean; readonly voter: boolean }
): Effect.Effect<Say | null> => {
  if (!hasKernel) return Effect.succeed(Context.get(offered as Context.Context<Saying>, Saying))
  if (!voter) return Effect.succeed(null)
  return Effect.provideService(sayHere(node), Kernel, Context.get(offered as Context.Context<Kernel>, Kernel))
}

const brokenOf = ({ broken }: Directory["Service"]) =>
  Effect.flatMap(broken, (reason) => new UpBroken({ reason }))

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
  { dataDir, imageDir, nodeId, sharedDir }: Loaded["resolved"],
  first: ReadonlyArray<string>
): ReadonlyArray<Component> {
  const runDir = join(dataDir, "run")
  return [
    component("transport", "core", ["network"], transportLayer({ folder: runDir })),
    ownLease(dataDir),
    component(
      "hypervisor",
      "core",
      ["environment", "lease", ...first],
      Layer.provideMerge(
        Layer.unwrap(
          Effect.map(OwnLease, ({ lease: { mayRun } }) =>
            qemuLayer({ dataDir, imageDir, runDir, mayRun, sharedDir: sharedDir ?? undefined })
          )
        ),
        layerOf(requireQemu)
      )
    ),
    component("agent", "core", ["hypervisor", "transport"], HostAgent.layer(nodeId))
  ]
}

/** Hosts that are only simulated, and say so by their names and their driver. */
function simulated(fleet: Fleet, count: number): ReadonlyArray<Component> {
  const names = Array.from({ length: count }, (_, index) => `sim-${index + 1}`)
  return [component("agent", "core", ["environment"], simulatedHosts(fleet, names))]
}

/** The node without a kernel: it dials the one that has it, and does what that one asks. */
function joined(parts: Loaded): ReadonlyArray<Component> {
  const { config, resolved } = parts
  const kernelsPath = join(resolved.dataDir, "kernel-nodes.json")
  // Whom it joined may be gone for good; the others are remembered.
  const found = kernelNodeAt(config.cluster.join).pipe(
    Effect.catch((error) =>
      Effect.suspend(() => {
        const [known] = rememberedKernels(kernelsPath)
        return known === undefined
          ? Effect.fail(error)
          : Effect.succeed({ name: known.node, address: known.address })
      })
    )
  )
  return [
    component("kernel-link", "service", ["network"], Layer.effect(KernelNode, found)),
    component(
      "discovery",
      "post-init",
      ["kernel-link", "agent"],
      Layer.effect(Saying, discovered(parts, kernelsPath))
    )
  ]
}

/** Linked with those that have a kernel, and heard by them. */
const discovered = Effect.fnUntraced(function* (parts: Loaded, kernelsPath: string) {
  const { resolved } = parts
  const { name, address } = yield* KernelNode
  const kernels = yield* followKernels({ node: name, address }, kernelsPath)
  yield* followRevoked(kernels.names, join(resolved.dataDir, "revoked.json"))
  yield* serveAgent(resolved.nodeId, kernels.names)
  yield* serveConsoles(kernels.names)
  const asked = yield* serveRegistering(kernels.names)
  const { node } = yield* Identity
  yield* Effect.forkScoped(
    keepCertificate(join(resolved.dataDir, "identity"), node, renewOver(kernels.names))
  )
  const linkedSince = Effect.zipWith(kernels.linkedSince, asked, (since, count) =>
    since === null ? null : `${since}.${count}`
  )
  yield* takePartInGossip(parts, { kernels: kernels.names, founds: false, isAlone: false })
  const say = yield* sayOver(kernels.names)
  const askLease = yield* askForLease(kernels.names)
  const registering = { ...(yield* registration(parts)), linkedSince }
  yield* Effect.forkScoped(
    Effect.flatMap(keepOwnLease(parts, kernels.names, askLease), (lease) =>
      takePart(say, { ...registering, lease })
    )
  )
  return say
})

const identityOf = Effect.fnUntraced(function* (
  cluster: Loaded["config"]["cluster"],
  dataDir: string,
  node: string
) {
  const folder = join(dataDir, "identity")
  const known = yield* Effect.result(loadIdentity(folder))
  const key = yield* HeldKey.open(join(dataDir, "ca"))
  if (cluster.join !== "") {
    if (known._tag === "Success") return { node: known.success, key }
    const identity = yield* readJoinToken(cluster.join_token_file).pipe(
      Effect.flatMap((token) => joinCluster(addressesIn(cluster.join), token.trim(), node)),
      Effect.mapError((error) => damageOf(known.failure) ?? error)
    )
    yield* saveIdentity(folder, identity)
    return { node: identity, key }
  }
  if (key.authority === null && known._tag === "Success" && known.success.node === node) {
    // Others have the key: this node founded the cluster, and was removed from those who decide.
    yield* Effect.logWarning(`the authority's key is not in ${key.folder}: this node lets nobody in`)
    return { node: known.success, key }
  }
  const authority = key.authority ?? (yield* caInit(key.folder))
  const held = key.authority === null ? new HeldKey(key.folder, authority) : key
  if (known._tag === "Success" && known.success.node === node) {
    if (identityVotes(known.success)) return { node: known.success, key: held }
    // Of an older release, which had no voters.
    const reissued = yield* reissueIdentity(authority, known.success)
    yield* saveIdentity(folder, reissued)
    return { node: reissued, key: held }
  }
  // What is damaged is not replaced: it may be mended, and somebody should know.
  const damage = known._tag === "Failure" ? damageOf(known.failure) : null
  if (damage !== null) return yield* damage
  const identity = yield* issueIdentity(authority, node)
  yield* saveIdentity(folder, identity)
  return { node: identity, key: held }
})

/** When no new identity can take its place, what is wrong with the one that is there says more. */
const damageOf = (error: CaError): CaError | null => (error.code === "missing" ? null : error)
