/**
 * How a host comes to be known, and known to be gone, over links. Its node registers it at every start and whenever the
 * link to the kernel's node is new; the kernel's node says that a host is lost when its link stays down.
 */
import { Clock, Effect, Option, Schema, Stream } from "effect"
import type { Fencer } from "../kernel/fencing.ts"
import { Kernel } from "../kernel/kernel.ts"
import { commandOf, hear, Machines, Said, sayToAny, watchMs } from "../kernel/membership.ts"
import { Consensus } from "../kernel/ports/consensus.ts"
import { HandlerFailed, Link } from "../kernel/ports/link.ts"

const kind = "node.say"
const decode = Schema.decodeUnknownEffect(Schema.Union([Said, Machines]), { onExcessProperty: "error" })

/** A node may register the host of its own name, and say what became of machines there and of itself; nothing else. */
function mayNotSay(peer: string, said: Said | Machines): string | null {
  if ("machines" in said) return said.host === peer ? null : `${peer} may not say what lies on ${said.host}`
  const { stream, message } = said
  const isOfHost = message.type === "host.register" || message.type === "host.reportLeaseEnd"
  if (isOfHost && stream === `host/${peer}`) return null
  const isOfNode = message.type === "node.report" || message.type === "node.reportStop"
  if (isOfNode && stream === `node/${peer}`) return null
  if (message.type === "vm.reportEnded" && message.host === peer && stream.startsWith("vm/")) return null
  return `${peer} may not say ${message.type} to ${stream}`
}

/** At the node with the kernel: take what other nodes say. */
export const serveMembership = Effect.fn("serveMembership")(function* () {
  const kernel = yield* Kernel
  const link = yield* Link
  yield* link.serve(kind, (peer, payload) =>
    Stream.fromEffect(
      Effect.gen(function* () {
        const said = yield* decode(payload)
        const refusal = mayNotSay(peer, said)
        if (refusal !== null) return yield* new HandlerFailed({ reason: refusal })
        yield* hear(kernel, peer, said)
        return { accepted: true }
      }).pipe(Effect.mapError((error) => new HandlerFailed({ reason: error.message.slice(0, 2000) })))
    )
  )
})

/** Say it over the links to nodes with a kernel. */
export const sayOver = Effect.fn("sayOver")(function* (kernels: () => ReadonlyArray<string>) {
  const link = yield* Link
  const sayTo = (node: string, said: Said | Machines) =>
    link.call(node, kind, said).pipe(
      Stream.runDrain,
      Effect.mapError((error) => ({ message: `${error.code}: ${error.reason}` }))
    )
  return sayToAny(kernels, sayTo)
})

const saidAtOnce = 16
const registerKind = "agent.register"
const backAfterMs = 2000

const askToRegister = (link: Link["Service"], host: string): Effect.Effect<void> =>
  Effect.ignore(Effect.timeout(Stream.runDrain(link.call(host, registerKind, {})), watchMs))

/**
 * At a host: whoever has a kernel may ask it to register again. Gives how often it was asked, which is to be a part of
 * `linkedSince`.
 */
export const serveRegistering = Effect.fn("serveRegistering")(function* (
  kernels: () => ReadonlyArray<string>
) {
  const link = yield* Link
  let asked = 0
  yield* link.serve(registerKind, (peer) =>
    Stream.fromEffect(
      kernels().includes(peer)
        ? Effect.sync(() => ({ asked: ++asked }))
        : Effect.fail(new HandlerFailed({ reason: `${peer} has no kernel` }))
    )
  )
  return Effect.sync(() => asked)
})

function hostsOf(kernel: Kernel["Service"]): Set<string> {
  const hosts = new Set<string>()
  for (const stream of kernel.resident().keys())
    if (stream.startsWith("host/")) hosts.add(stream.slice("host/".length))
  return hosts
}

const away: ReadonlyArray<unknown> = ["lost", "fenced"]

/**
 * At the node whose kernel performs: a registered host whose link is down for `lostAfterMs` is lost; and `fencer` says what becomes
 * of those that are.
 */
export const watchHosts = Effect.fn("watchHosts")(function* (
  node: string,
  own: ReadonlySet<string>,
  lostAfterMs: number,
  fencer: Fencer
) {
  const kernel = yield* Kernel
  const link = yield* Link
  const order = Option.getOrNull(yield* Effect.serviceOption(Consensus))
  const downSince = new Map<string, number>()
  const backSince = new Map<string, number>()
  // Who was known when this node began to perform, or has had a link since: not all actors there are, which are many more than hosts.
  let known: Set<string> | null = null
  for (;;) {
    if (!kernel.isPerforming()) {
      // Whoever performs next gives every host its time anew.
      downSince.clear()
      backSince.clear()
      known = null
      fencer.look(null, [], kernel.resident())
      yield* Effect.sleep(watchMs)
      continue
    }
    known ??= new Set([...hostsOf(kernel), ...own])
    const now = yield* Clock.currentTimeMillis
    const connected = new Set<string>()
    for (const peer of yield* link.peers) {
      known.add(peer.node)
      if (peer.state === "connected") connected.add(peer.node)
    }
    for (const host of known) {
      const actor = kernel.resident().get(`host/${host}`)
      if (actor === undefined) continue
      const isLost = away.includes(actor.chart.value)
      const gone = !own.has(host) && !connected.has(host) && !isLost
      // It registers by itself when its link is new. When somebody else had lost it, it does not know.
      if (!isLost || !connected.has(host)) backSince.delete(host)
      else if (!backSince.has(host)) backSince.set(host, now)
      else if (now - (backSince.get(host) ?? now) >= backAfterMs) {
        backSince.delete(host)
        yield* askToRegister(link, host)
      }
      if (!gone) downSince.delete(host)
      else if (!downSince.has(host)) downSince.set(host, now)
      else if (now - (downSince.get(host) ?? now) >= lostAfterMs) {
        const reason = `no link for ${Math.round(lostAfterMs / 1000)} s`
        const id = `lose/${host}/${downSince.get(host)}`
        const said: Said = { stream: actor.stream, id, message: { type: "host.lose", reason } }
        yield* kernel.submit(commandOf(node, said)).pipe(Effect.ignore)
        downSince.delete(host)
      }
    }
    const found = fencer.look(order?.status().term ?? 0, known, kernel.resident())
    yield* Effect.forEach(found, (said) => Effect.ignore(kernel.submit(commandOf(node, said))), {
      concurrency: saidAtOnce,
      discard: true
    })
    yield* Effect.sleep(watchMs)
  }
})
