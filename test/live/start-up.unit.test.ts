import assert from "node:assert/strict"
import { test } from "node:test"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Layer, Stream } from "effect"
import { TestClock } from "effect/testing"
import { actorKinds } from "../../src/actors/kinds.ts"
import { nodeActor } from "../../src/actors/node/chart.ts"
import { typePrefix } from "../../src/events/envelope.ts"
import { Kernel } from "../../src/kernel/kernel.ts"
import { Agents } from "../../src/kernel/ports/agents.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import { replay } from "../../src/kernel/replay.ts"
import { describe, keep } from "../../src/kernel/statechart.ts"
import { serialize } from "../../src/kernel/turn.ts"
import type { Component, StartUpObserver } from "../../src/live/components.ts"
import { startUp, StartUpFailed } from "../../src/live/start-up.ts"
import { layer as digest } from "../../simulations/world/digest.ts"
import { layer as memoryStore } from "../../simulations/world/event-store.ts"
import { noViews } from "../kernel/views.ts"

type Store = EventStore["Service"]

class Value extends Context.Service<Value, number>()("test/Value") {}

const component = (name: string, extra: Partial<Component> = {}): Component => ({
  name,
  phase: "core",
  level: "critical",
  needs: [],
  layer: Layer.empty,
  ...extra
})

const failing = (reason: string) => Layer.effectDiscard(Effect.fail(new Error(reason)))

function recorder(): StartUpObserver & { readonly said: Array<string> } {
  const said: Array<string> = []
  return {
    said,
    component: (one, state) => said.push(`${one.name} ${state}`),
    error: (one, reason) => said.push(`${one.name}! ${reason}`),
    announce: (phases) => {
      said.push(...phases.map(({ phase }) => phase))
      return Effect.succeed(7)
    }
  }
}

const begin = (components: ReadonlyArray<Component>, observer: StartUpObserver = recorder()) =>
  startUp(components, { node: "n1", version: "1", kind: nodeActor, limitMs: 30_000, observer })

const resource = (name: string, log: Array<string>) =>
  Layer.effectDiscard(
    Effect.acquireRelease(
      Effect.sync(() => log.push(`+${name}`)),
      () => Effect.sync(() => log.push(`-${name}`))
    )
  )

const failureOf = <A, E>(exit: Exit.Exit<A, E>): StartUpFailed => {
  assert.ok(Exit.isFailure(exit))
  const error = Cause.squash(exit.cause)
  assert.ok(error instanceof StartUpFailed, String(error))
  return error
}

/** Everybody who can go on without time passing has done so. */
const settle = Effect.repeat(Effect.yieldNow, { times: 200 })

test("a component uses what earlier ones offer; closing stops in reverse order", async () => {
  const log: Array<string> = []
  const offers = Layer.merge(resource("a", log), Layer.succeed(Value, 7))
  const uses = Layer.effectDiscard(Effect.map(Value, (value) => log.push(`b saw ${value}`)))
  const observer = recorder()
  const components = [
    component("b", { needs: ["a"], layer: Layer.merge(uses, resource("b", log)) }),
    component("a", { layer: offers }),
    component("c", { phase: "service" })
  ]
  await Effect.runPromise(Effect.scoped(begin(components, observer)))
  assert.deepEqual(
    log.filter((line) => !line.startsWith("b saw")),
    ["+a", "+b", "-b", "-a"]
  )
  assert.ok(log.includes("b saw 7"))
  assert.deepEqual(observer.said.slice(-2), ["core", "service"])
})

test("a critical failure stops what was started and names the component, its phase and its error", async () => {
  const log: Array<string> = []
  const components = [
    component("a", { layer: resource("a", log) }),
    component("b", { needs: ["a"], layer: failing("no port") })
  ]
  const error = failureOf(await Effect.runPromiseExit(Effect.scoped(begin(components))))
  assert.deepEqual(log, ["+a", "-a"])
  assert.equal(error.message, "b (core) did not start: no port")
})

test("a plan that can't be ordered starts nothing", async () => {
  const log: Array<string> = []
  const components = [component("a", { layer: resource("a", log) }), component("b", { needs: ["x"] })]
  const error = failureOf(await Effect.runPromiseExit(Effect.scoped(begin(components))))
  assert.equal(error.message, "the node did not start: b needs x, which does not exist")
  assert.deepEqual(log, [])
})

test("a degraded component is tried again after 1, 2 and 4 s, then left out", async () => {
  const observer = recorder()
  let attempts = 0
  const layer = Layer.effectDiscard(
    Effect.suspend(() => {
      attempts++
      return Effect.fail(new Error("later"))
    })
  )
  await Effect.runPromise(
    Effect.gen(function* () {
      const starting = yield* Effect.forkChild(
        Effect.scoped(begin([component("ml", { level: "degraded", layer })], observer))
      )
      const seen: Array<number> = []
      yield* settle
      for (const step of [500, 600, 1800, 200, 3800, 200, 10_000]) {
        yield* TestClock.adjust(step)
        yield* settle
        seen.push(attempts)
      }
      yield* Fiber.join(starting)
      assert.deepEqual(seen, [1, 2, 2, 3, 3, 4, 4])
    }).pipe(Effect.provide(TestClock.layer()))
  )
  assert.equal(observer.said.filter((line) => line === "ml! later").length, 4)
})

test("a start that takes too long fails", async () => {
  const slow = component("slow", { layer: Layer.effectDiscard(Effect.never) })
  const exit = await Effect.runPromise(
    Effect.gen(function* () {
      const starting = yield* Effect.forkChild(Effect.exit(Effect.scoped(begin([slow]))))
      yield* TestClock.adjust("31 seconds")
      return yield* Fiber.join(starting)
    }).pipe(Effect.provide(TestClock.layer()))
  )
  const { message } = failureOf(exit)
  assert.equal(message, "the node did not start: not ready within 30000 ms; under way: slow")
})

/** A journal that outlives the starts on it. */
const withStore = <A, E>(use: (store: Store) => Effect.Effect<A, E>): Promise<A> =>
  Effect.runPromise(
    Effect.scoped(
      Effect.gen(function* () {
        const context = yield* Layer.build(memoryStore().pipe(Layer.provide(digest)))
        return yield* use(Context.get(context, EventStore))
      })
    )
  )

const ports = Layer.mergeAll(Layer.succeed(Agents, { perform: () => Stream.empty }), noViews)

/** Something before the journal, the journal, the kernel, something beside it, and something after it. */
const nodeOf = (store: Store, ...more: ReadonlyArray<Component>): ReadonlyArray<Component> => [
  component("folders", { phase: "pre-init" }),
  component("database", { gives: "journal", layer: Layer.succeed(EventStore, store) }),
  component("orchestration", {
    phase: "service",
    needs: ["database"],
    gives: "kernel",
    layer: Kernel.layer({ kinds: actorKinds, node: "n1" }).pipe(Layer.provideMerge(ports))
  }),
  component("monitoring", { phase: "service" }),
  ...more
]

const factsOf = (store: Store) =>
  Effect.map(store.readStream("node/n1"), (facts) =>
    facts.map(({ type, data }) => [type.slice(typePrefix.length), data] as const)
  )
const typesIn = (store: Store) => Effect.map(factsOf(store), (facts) => facts.map(([type]) => type))

const startFacts = [
  "node.startBegan",
  "node.phaseBegan",
  "node.componentInitialised",
  "node.phaseEnded",
  "node.phaseBegan",
  "node.componentInitialised",
  "node.phaseEnded",
  "node.phaseBegan",
  "node.componentInitialised",
  "node.componentInitialised",
  "node.phaseEnded",
  "node.started",
  "node.ready"
]

test("a start and a stop are in the journal: what came before it was open too, and the end before it closed", () =>
  withStore((store) =>
    Effect.gen(function* () {
      yield* Effect.scoped(
        Effect.gen(function* () {
          const { stop, offered } = yield* begin(nodeOf(store))
          assert.deepEqual(yield* typesIn(store), startFacts)
          const kernel = Context.get(offered, Kernel)
          // What is durable becomes visible in the kernel right after it.
          yield* settle
          assert.equal(describe((yield* kernel.state("node/n1")).chart), "ready")
          assert.deepEqual((yield* kernel.state("node/n1")).outstanding, [])
          yield* stop("SIGTERM")
        })
      )
      const facts = yield* factsOf(store)
      assert.deepEqual(
        facts.slice(startFacts.length).map(([type]) => type),
        ["node.stopping", "node.stopped"]
      )
      assert.equal(facts.at(-2)?.[1]["reason"], "SIGTERM")
    })
  ))

test("a start that fails once the journal is open is in it, with the reason and what was undone", () =>
  withStore((store) =>
    Effect.gen(function* () {
      for (const phase of ["core", "service", "post-init"] as const) {
        const broken = component("api", { phase, needs: ["database"], layer: failing("no port") })
        const error = failureOf(yield* Effect.exit(Effect.scoped(begin(nodeOf(store, broken)))))
        assert.equal(error.message, `api (${phase}) did not start: no port`)
        const [failed, startFailed, stopped] = (yield* factsOf(store)).slice(-3)
        assert.equal(failed?.[0], "node.componentFailed")
        assert.deepEqual(startFailed, ["node.startFailed", { component: "api", phase, reason: "no port" }])
        assert.equal(stopped?.[0], "node.stopped")
      }
      assert.ok(!(yield* typesIn(store)).includes("node.crashed"))
    })
  ))

test("a kernel that does not come up is recorded without it, with what was answered meanwhile", () =>
  withStore((store) =>
    Effect.gen(function* () {
      const [folders, database, orchestration, monitoring] = nodeOf(store)
      assert.ok(folders && database && orchestration && monitoring)
      const isUp = Deferred.makeUnsafe<void>()
      const afterwards = Layer.effectDiscard(
        Deferred.await(isUp).pipe(Effect.andThen(settle), Effect.andThen(Effect.fail(new Error("no agents"))))
      )
      const components = [
        folders,
        database,
        { ...orchestration, layer: afterwards },
        { ...monitoring, layer: Layer.effectDiscard(Deferred.succeed(isUp, undefined)) }
      ]
      const error = failureOf(yield* Effect.exit(Effect.scoped(begin(components))))
      assert.equal(error.message, "orchestration (service) did not start: no agents")
      assert.deepEqual((yield* typesIn(store)).slice(-4), [
        "node.componentInitialised",
        "node.componentFailed",
        "node.startFailed",
        "node.stopped"
      ])
    })
  ))

test("a start that never came to its journal leaves nothing in it", () =>
  withStore((store) =>
    Effect.gen(function* () {
      const broken = component("security", { phase: "pre-init", layer: failing("no key") })
      failureOf(yield* Effect.exit(Effect.scoped(begin(nodeOf(store, broken)))))
      assert.equal((yield* store.head).position, 0)
    })
  ))

test("a process that goes while it starts leaves a start without an end, and the next start says so", () =>
  withStore((store) =>
    Effect.gen(function* () {
      // As after a kill: nothing that this start would still write reaches the journal.
      let isAlive = true
      const dying = EventStore.of({
        ...store,
        append: (batch) => (isAlive ? store.append(batch) : Effect.never)
      })
      const reached = Deferred.makeUnsafe<void>()
      const hangs = Layer.effectDiscard(Effect.andThen(Deferred.succeed(reached, undefined), Effect.never))
      const slow = component("cache", { needs: ["database"], layer: hangs })
      const starting = yield* Effect.forkDetach(Effect.scoped(begin(nodeOf(dying, slow))))
      yield* Deferred.await(reached)
      isAlive = false
      const before = (yield* typesIn(store)).length
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* begin(nodeOf(store))
        })
      )
      isAlive = true
      yield* Fiber.interrupt(starting)
      const [type, data] = (yield* factsOf(store))[before] ?? []
      assert.equal(type, "node.crashed")
      assert.deepEqual(
        [data?.["during"], data?.["phase"], data?.["underWay"]],
        ["starting", "core", ["cache"]]
      )
    })
  ))

test("a start that is interrupted says that it was ended", () =>
  withStore((store) =>
    Effect.gen(function* () {
      const reached = Deferred.makeUnsafe<void>()
      const hangs = Layer.effectDiscard(Effect.andThen(Deferred.succeed(reached, undefined), Effect.never))
      const slow = component("cache", { needs: ["database"], layer: hangs })
      const starting = yield* Effect.forkDetach(Effect.scoped(begin(nodeOf(store, slow))))
      yield* Deferred.await(reached)
      yield* Fiber.interrupt(starting)
      assert.deepEqual((yield* typesIn(store)).slice(-2), ["node.stopping", "node.stopped"])
    })
  ))

test("starts cost a bounded number of facts each, and their replay is the same with snapshots and without", () =>
  withStore((store) =>
    Effect.gen(function* () {
      const counts: Array<number> = []
      for (let round = 0; round < 4; round++) {
        const before = (yield* store.head).position
        yield* Effect.scoped(
          Effect.gen(function* () {
            const { stop } = yield* begin(nodeOf(store))
            yield* stop("SIGTERM")
          })
        )
        counts.push((yield* store.head).position - before)
      }
      assert.deepEqual(new Set(counts), new Set([startFacts.length + 2]))
      const states = yield* Effect.forEach([true, false], (snapshots) =>
        replay(store, actorKinds, { snapshots })
      )
      const texts = states.map((actors) => [...actors.values()].map(serialize))
      assert.deepEqual(texts[0], texts[1])
      const node = states[1]?.get("node/n1")
      assert.ok(node)
      assert.equal(describe(node.chart), "off")
      assert.deepEqual(node.outstanding, [])
      assert.ok(JSON.stringify(keep(node.chart)).length < 2000)
    })
  ))
