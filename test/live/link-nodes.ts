/** An authority in a fresh folder, and nodes of its on free loopback ports, for the length of one scope. */
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Context, Effect, Layer, Stream } from "effect"
import { Link } from "../../src/kernel/ports/link.ts"
import { caInit, issueIdentity } from "../../src/live/ca.ts"
import type { Authority, NodeIdentity } from "../../src/live/ca.ts"
import { linkLayer } from "../../src/live/link.ts"
import type { LinkOptions } from "../../src/live/link.ts"
import { Endpoint } from "../../src/live/link/endpoint.ts"

export const scratchFolder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "novacron-"))),
  (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true }))
)

export const newAuthority = Effect.flatMap(scratchFolder, (folder) => caInit(join(folder, "ca")))

export const startEndpoint = Effect.fn("startEndpoint")(function* (ca: Authority, node: string, port = 0) {
  return yield* startEndpointAs(yield* issueIdentity(ca, node), port)
})

export const startEndpointAs = Effect.fn("startEndpointAs")(function* (identity: NodeIdentity, port: number) {
  const context = yield* Layer.build(Endpoint.layer({ identity, host: "127.0.0.1", port }))
  return { endpoint: Context.get(context, Endpoint), identity, context }
})

export const startNode = Effect.fn("startNode")(function* (
  ca: Authority,
  node: string,
  options: LinkOptions = {},
  port = 0
) {
  return yield* startNodeAs(yield* issueIdentity(ca, node), options, port)
})

/** Start a node that has its certificate already. */
export const startNodeAs = Effect.fn("startNodeAs")(function* (
  identity: NodeIdentity,
  options: LinkOptions = {},
  port = 0
) {
  const { endpoint, context } = yield* startEndpointAs(identity, port)
  const links = yield* Layer.build(Layer.provide(linkLayer(options), Layer.succeedContext(context)))
  return { endpoint, identity, link: Context.get(links, Link) }
})

/** Wait for a condition that events bring about; a test that waits in vain is ended by the runner's limit. */
export const until = (condition: Effect.Effect<boolean>): Effect.Effect<void> =>
  Effect.gen(function* () {
    while (!(yield* condition)) yield* Effect.sleep(5)
  })

export const isConnected = (link: Link["Service"], node: string) =>
  Effect.map(link.peers, (peers) => peers.some((peer) => peer.node === node && peer.state === "connected"))

export const collect = <A, E>(stream: Stream.Stream<A, E>) => Stream.runCollect(stream)
