/** The register of certificates over the real kernel and actors, with a store in memory. */
import { Context, Effect, Layer, Stream } from "effect"
import { actorKinds as kinds } from "../../src/actors/kinds.ts"
import { authorityStream } from "../../src/events/authority.ts"
import type { AuthorityState } from "../../src/events/authority.ts"
import type { Message } from "../../src/events/envelope.ts"
import { Kernel } from "../../src/kernel/kernel.ts"
import { Agents } from "../../src/kernel/ports/agents.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import { issueIdentity } from "../../src/live/ca.ts"
import type { Authority } from "../../src/live/ca.ts"
import { HeldKey } from "../../src/live/ca/held-key.ts"
import { Register } from "../../src/live/ca/register.ts"
import { newSecret, tokenHash, tokenText } from "../../src/live/ca/tokens.ts"
import { layer as digest } from "../../simulations/world/digest.ts"
import { layer as memoryStore } from "../../simulations/world/event-store.ts"
import { noViews } from "../kernel/views.ts"

const kernelLayer = () =>
  Kernel.layer({ kinds, node: "node-ca" }).pipe(
    Layer.provideMerge(
      Layer.mergeAll(Layer.succeed(Agents, Agents.of({ perform: () => Stream.never })), noViews)
    ),
    Layer.provideMerge(memoryStore()),
    Layer.provide(digest)
  )

/** Nothing is prepared: what is asked of the register waits for `prepare`. */
export const registerOver = Effect.fnUntraced(function* (ca: Authority) {
  const context = yield* Layer.build(kernelLayer())
  const kernel = Context.get(context, Kernel)
  const store = Context.get(context, EventStore)
  const key = new HeldKey("/nonexistent", ca)
  const register = new Register(kernel, key)
  let commands = 0
  const say = (message: Message) => {
    const id = `said-${++commands}`
    const principal = { kind: "operator", name: "test" } as const
    return kernel.submit({ stream: authorityStream, message, id, correlation: id, principal })
  }
  const makeToken = Effect.fnUntraced(function* (
    more: { readonly node?: string; readonly votes?: boolean; readonly lifetimeMs?: number } = {}
  ) {
    const secret = newSecret()
    const { node = null, votes = false, lifetimeMs = 60_000 } = more
    yield* say({ type: "authority.makeToken", token: tokenHash(secret), node, votes, lifetimeMs, reason: "" })
    return { secret, text: tokenText(secret, ca.hash) }
  })
  const state = Effect.map(kernel.state(authorityStream), (actor) => actor.chart.context as AuthorityState)
  return { register, key, kernel, store, say, makeToken, state }
})

/** That of the node `node-ca`, which has the key. */
export const startRegister = Effect.fnUntraced(function* (ca: Authority) {
  const world = yield* registerOver(ca)
  yield* world.register.prepare(yield* issueIdentity(ca, "node-ca"), null)
  return world
})
