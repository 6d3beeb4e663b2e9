/** A host's agent over real links: who may ask it, and in which term. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { Context, Effect, Layer, Stream } from "effect"
import type { Scope } from "effect"
import { HostAgent } from "../../src/kernel/agent.ts"
import { Agents } from "../../src/kernel/ports/agents.ts"
import { Consensus } from "../../src/kernel/ports/consensus.ts"
import { Link } from "../../src/kernel/ports/link.ts"
import { agentsLayer, serveAgent, tellTerm } from "../../src/live/agents.ts"
import { isConnected, newAuthority, startNode, until } from "./link-nodes.ts"

const run = <A, E>(work: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Effect.scoped(work))

const request = { port: "hypervisor", op: "start", host: "h", vm: "web" } as const

test("an agent does what kernels ask in the latest term that it has heard of, and nothing else", () =>
  run(
    Effect.gen(function* () {
      const ca = yield* newAuthority
      const host = yield* startNode(ca, "h")
      const asked: Array<string> = []
      const agent = HostAgent.of({
        perform: (key) => {
          asked.push(key)
          return Stream.make({ type: "hypervisor.stopped" } as const)
        },
        ended: Stream.never
      })
      yield* serveAgent("h", () => ["k1", "k2"]).pipe(
        Effect.provideService(HostAgent, agent),
        Effect.provideService(Link, host.link)
      )
      const kernelAt = Effect.fnUntraced(function* (name: string, term: number | null) {
        const { link } = yield* startNode(ca, name)
        yield* link.connect("h", host.endpoint.address)
        yield* until(isConnected(link, "h"))
        const order = { status: () => ({ term }) } as unknown as Consensus["Service"]
        const layer = agentsLayer(null).pipe(
          Layer.provide(Layer.succeed(Link, link)),
          Layer.provide(Layer.succeed(HostAgent, agent)),
          Layer.provide(term === null ? Layer.empty : Layer.succeed(Consensus, order))
        )
        const agents = Context.get(yield* Layer.build(layer), Agents)
        return { link, ask: (key: string) => Stream.runCollect(agents.perform(key, request)) }
      })
      const alone = yield* kernelAt("k1", null)
      assert.deepEqual(yield* alone.ask("a"), [{ type: "hypervisor.stopped" }])
      const second = yield* kernelAt("k2", 7)
      yield* second.ask("b")
      const late = yield* Effect.flip(alone.ask("c"))
      assert.match(late.message, /k1 asks in term 0, and 7 has begun: it leads no more/)
      yield* tellTerm(9).pipe(Effect.provideService(Link, second.link))
      const own = yield* Effect.flip(second.ask("d"))
      assert.match(own.message, /k2 asks in term 7, and 9 has begun/)
      const stranger = yield* kernelAt("x", 12)
      assert.match((yield* Effect.flip(stranger.ask("e"))).message, /x has no kernel; only k1, k2 may ask/)
      assert.deepEqual(asked, ["a", "b"])
    })
  ))
