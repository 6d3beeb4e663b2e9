/** What the parts of `up` share: how a component is said, and who the node is. */
import { Context, Effect, Layer } from "effect"
import type { Phase } from "../events/node.ts"
import type { NodeIdentity } from "../live/ca.ts"
import type { HeldKey } from "../live/ca/held-key.ts"
import type { Component } from "../live/components.ts"
import type { Loaded } from "../live/config.ts"
import { parseAddress } from "../live/link/address.ts"
import { Endpoint, protocols } from "../live/link/endpoint.ts"

/** Who this node is to others, and the authority's key, which a voter has or gets. */
export class Identity extends Context.Service<
  Identity,
  { readonly node: NodeIdentity; readonly key: HeldKey }
>()("novacron/cli/Identity") {}

/** The node with the kernel, and where its link is; null where that is this node. */
export class KernelNode extends Context.Service<KernelNode, { readonly name: string } | null>()(
  "novacron/cli/KernelNode"
) {}

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

/** The name of the node at this address: told by the address itself, or by the certificate that it shows. */
export const kernelNodeAt = Effect.fnUntraced(function* (address: string) {
  const named = parseAddress(address)?.node
  if (named) return { name: named }
  const endpoint = yield* Endpoint
  const { socket, peer } = yield* endpoint.dial(address, protocols.link, null)
  socket.destroy()
  return { name: peer }
})
