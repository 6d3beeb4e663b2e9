/**
 * How a node becomes a voter: it asks any member over the link, and that one has the group take it in, first as a learner and,
 * when it has what the others have, as a voter. Only who speaks the group's protocol already is taken in: for that it needs a certificate
 * with which it may vote.
 */
import { Clock, Effect, Schema, Stream } from "effect"
import { clusterStream } from "../../events/cluster.ts"
import { Name, text } from "../../events/fields.ts"
import { Kernel } from "../../kernel/kernel.ts"
import { Consensus } from "../../kernel/ports/consensus.ts"
import { HandlerFailed, Link } from "../../kernel/ports/link.ts"
import { Directory } from "./directory.ts"

const joinKind = "group.join"
const Join = Schema.Struct({ id: text(256) })
const decodeJoin = Schema.decodeUnknownEffect(Join, { onExcessProperty: "error" })
const retryMs = 200
const askAgainMs = 5000

/** At every member: have the cluster's actor take in who asks. The answer says that it will be seen to. */
export const serveJoining = Effect.fn("serveJoining")(function* () {
  const kernel = yield* Kernel
  const directory = yield* Directory
  const link = yield* Link
  yield* link.serve(joinKind, (peer, payload) =>
    Stream.fromEffect(
      Effect.gen(function* () {
        if (!directory.connected().includes(peer)) {
          const reason = `${peer} has no connection of the group's protocol: its certificate has to be one of a voter (novacron ca token --voter)`
          return yield* new HandlerFailed({ reason })
        }
        const { id } = yield* decodeJoin(payload)
        const principal = { kind: "node", name: peer } as const
        const message = { type: "cluster.admit", node: peer, reason: "it asks to be a voter" }
        yield* kernel.submit({ stream: clusterStream, message, id, correlation: id, principal })
        return { asked: true }
      }).pipe(Effect.mapError((error) => new HandlerFailed({ reason: error.message.slice(0, 2000) })))
    )
  )
})

/** Ask the member `node` to take this one in, until it is in the group. */
export const joinGroup = Effect.fn("joinGroup")(function* (node: string) {
  const order = yield* Consensus
  const link = yield* Link
  const isIn = () => order.status().members.voters.includes(order.node)
  let told = ""
  for (let tries = 0; !isIn(); tries++) {
    const id = `admit/${order.node}/${yield* Clock.currentTimeMillis}`
    // While it is being seen to, asking again is refused, which says nothing new.
    const said = yield* Effect.result(Stream.runDrain(link.call(node, joinKind, { id })))
    const reason = said._tag === "Failure" ? said.failure.message : ""
    if (reason !== "" && reason !== told) yield* Effect.logInfo(`not in the group yet: ${reason}`)
    told = reason
    for (let waitedMs = 0; waitedMs < askAgainMs && !isIn(); waitedMs += retryMs) yield* Effect.sleep(retryMs)
  }
  yield* Effect.logInfo("this node is a voter of the group")
})

/** Keep a link to every member, so that whoever leads reaches all their hosts. Never ends. */
export const linkMembers = Effect.fn("linkMembers")(function* () {
  const directory = yield* Directory
  const link = yield* Link
  const linked = new Map<string, string>()
  for (;;) {
    for (const node of directory.members()) {
      const address = directory.addressOf(node)
      if (node === link.node || address === null || linked.get(node) === address) continue
      linked.set(node, address)
      yield* link
        .connect(node, address)
        .pipe(Effect.catch((error) => Effect.logWarning(`no link to ${node} is kept: ${error.message}`)))
    }
    yield* Effect.sleep(retryMs)
  }
})

const nodesKind = "kernel.nodes"
export const KernelNodes = Schema.Struct({
  nodes: Schema.Array(Schema.Struct({ node: Name, address: text(256) })).check(Schema.isMaxLength(64))
})
export type KernelNodes = typeof KernelNodes.Type
const decodeNodes = Schema.decodeUnknownEffect(KernelNodes)

/** At every node with a kernel: who else has one. */
export const serveKernelNodes = Effect.fn("serveKernelNodes")(function* (tell: () => KernelNodes) {
  const link = yield* Link
  yield* link.serve(nodesKind, () => Stream.fromEffect(Effect.sync(tell)))
})

/** Ask a node with a kernel which ones there are. */
export const askKernelNodes = Effect.fn("askKernelNodes")(function* (node: string) {
  const link = yield* Link
  const replies = yield* Stream.runCollect(Stream.take(link.call(node, nodesKind, {}), 1))
  return yield* decodeNodes(replies[0])
})
