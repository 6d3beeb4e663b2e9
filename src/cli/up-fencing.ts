/** What the parts of `up` do for fencing: this host's lease with its watcher, and what the kernel's side waits for. */
import { Context, Effect, Layer } from "effect"
import { Fencer } from "../kernel/fencing.ts"
import type { LeaseKeeping } from "../kernel/lease.ts"
import { hostLease, openLease } from "../live/fencing/keeper.ts"
import type { OpenLease } from "../live/fencing/keeper.ts"
import { component } from "./up-parts.ts"
import type { Parts } from "./up-parts.ts"

export class OwnLease extends Context.Service<OwnLease, OpenLease>()("novacron/cli/OwnLease") {}

export const ownLease = (dataDir: string) =>
  component(
    "lease",
    "core",
    ["environment"],
    Layer.effect(
      OwnLease,
      Effect.sync(() => openLease(dataDir))
    )
  )

/**
 * Keep the lease of this host, in the surrounding scope; none is asked for where this node is the only one that decides. Unless told, none
 * either where one other node decides alone: its being away for a while would end machines of all hosts. `kernels` are the other nodes with one.
 */
export const keepOwnLease = Effect.fnUntraced(function* (
  { config, resolved: { dataDir } }: Parts,
  kernels: () => ReadonlyArray<string>,
  ask: LeaseKeeping["ask"]
) {
  const { fencing, host_lease, join, voter } = config.cluster
  const several = () => kernels().length >= (voter ? 1 : 2)
  const wants = () => (fencing === "auto" ? several() : fencing === "on" && (voter || join !== ""))
  return yield* hostLease(yield* OwnLease, { dataDir, lengthMs: () => (wants() ? host_lease : null) }, ask)
})

/** A watcher looks ten times a second, and a process that is killed is gone within two; the rest is for a host under load. */
const marginMs = 3000

export const fencerOf = ({ config, resolved }: Parts): Fencer =>
  new Fencer({
    node: resolved.nodeId,
    nowMs: () => performance.now(),
    // A leader that is cut off knows it after one; as for `cluster.unreachable_timeout`.
    handOverMs: config.cluster.voter ? 2 * config.dwcp.consensus.election_timeout : 0,
    marginMs,
    recovering_max: config.cluster.recovery_concurrency,
    lostPercentMax: config.cluster.fencing_lost_max
  })
