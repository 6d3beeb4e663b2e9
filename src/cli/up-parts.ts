/** What the parts of `up` share: how a component is said, and who the node is. */
import { Context, Effect, Layer } from "effect"
import type { Phase } from "../events/node.ts"
import type { Say } from "../kernel/membership.ts"
import type { LinkError } from "../kernel/ports/link.ts"
import type { NodeIdentity } from "../live/ca.ts"
import type { HeldKey } from "../live/ca/held-key.ts"
import type { Component } from "../live/components.ts"
import type { Loaded } from "../live/config.ts"
import { addressesIn, parseAddress } from "../live/link/address.ts"
import { Endpoint, protocols } from "../live/link/endpoint.ts"

/** Who this node is to others, and the authority's key, which a voter has or gets. */
export class Identity extends Context.Service<
  Identity,
  { readonly node: NodeIdentity; readonly key: HeldKey }
>()("novacron/cli/Identity") {}

/** The node with the kernel, and where its link is. */
export class KernelNode extends Context.Service<KernelNode, KernelNodeAt>()("novacron/cli/KernelNode") {}

export const component = (
  name: string,
  phase: Phase,
  needs: ReadonlyArray<string>,
  layer: Layer.Any
): Component => ({ name, phase, level: "critical", needs, layer })

export const layerOf = <A, E, R>(effect: Effect.Effect<A, E, R>) => Layer.effectDiscard(effect)

export type Parts = Pick<Loaded, "config" | "resolved">

/** Where others reach this node's endpoint, with its name. */
export const advertised = ({ config, resolved }: Parts, bound: string): string => {
  const address = config.cluster.advertise_address || bound
  return address.includes("@") ? address : `${resolved.nodeId}@${address}`
}

export const registration = Effect.fnUntraced(function* (parts: Parts) {
  const endpoint = yield* Endpoint
  return {
    host: parts.resolved.nodeId,
    address: advertised(parts, endpoint.address),
    labels: parts.config.hypervisor.labels
  }
})

/** How a node without a kernel speaks to those that have one. */
export class Saying extends Context.Service<Saying, Say>()("novacron/cli/Saying") {}

/** A node with a kernel, at one of the addresses of `cluster.join`. */
export interface KernelNodeAt {
  readonly name: string
  readonly address: string
}

const namedIn = (addresses: ReadonlyArray<string>): KernelNodeAt | null => {
  for (const address of addresses) {
    const name = parseAddress(address)?.node
    if (name) return { name, address }
  }
  return null
}

/**
 * The first of these that answers, by the name in the certificate that it shows; where none does, the first whose address tells its
 * name. One that is alone and tells it is not asked.
 */
export const kernelNodeAt = Effect.fnUntraced(function* (
  join: string
): Effect.fn.Return<KernelNodeAt, LinkError, Endpoint> {
  const addresses = addressesIn(join)
  const named = namedIn(addresses)
  if (named !== null && addresses.length === 1) return named
  const endpoint = yield* Endpoint
  const at = (address: string) =>
    Effect.map(
      endpoint.dial(address, protocols.link, parseAddress(address)?.node ?? null),
      ({ socket, peer }): KernelNodeAt => {
        socket.destroy()
        return { name: peer, address }
      }
    )
  const [first = "", ...others] = addresses
  const found = others.reduce((tried, address) => tried.pipe(Effect.catch(() => at(address))), at(first))
  return yield* named === null ? found : Effect.orElseSucceed(found, () => named)
})
