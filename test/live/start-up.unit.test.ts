import assert from "node:assert/strict"
import { test } from "node:test"
import { Context, Effect, Exit, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import { levels, startUp, StartUpFailed } from "../../src/live/start-up.ts"
import type { Component, StartUpObserver } from "../../src/live/start-up.ts"

class Value extends Context.Service<Value, number>()("test/Value") {}

const component = (name: string, extra: Partial<Component> = {}): Component => ({
  name,
  phase: "core",
  level: "critical",
  needs: [],
  layer: Layer.empty,
  ...extra
})

function recorder(): StartUpObserver & { readonly said: Array<string> } {
  const said: Array<string> = []
  return {
    said,
    component: (one, state) => said.push(`${one.name} ${state}`),
    phase: (phase) => said.push(phase),
    error: (one, reason) => said.push(`${one.name}! ${reason}`)
  }
}

const resource = (name: string, log: Array<string>) =>
  Layer.effectDiscard(
    Effect.acquireRelease(
      Effect.sync(() => log.push(`+${name}`)),
      () => Effect.sync(() => log.push(`-${name}`))
    )
  )

test("components are levelled by their needs, phase after phase", () => {
  const order = levels([
    component("api", { phase: "service", needs: ["kernel"] }),
    component("kernel", { needs: ["store", "config"] }),
    component("store"),
    component("config", { phase: "pre-init" }),
    component("links")
  ])
  assert.deepEqual(
    order.map((level) => level.map((one) => one.name)),
    [["config"], ["store", "links"], ["kernel"], ["api"]]
  )
})

for (const [what, components, problem] of [
  ["a cycle", [component("a", { needs: ["b"] }), component("b", { needs: ["a"] })], /cycle among a, b/],
  ["an unknown need", [component("a", { needs: ["x"] })], /needs x, which does not exist/],
  [
    "a need of a later phase",
    [component("a", { needs: ["b"] }), component("b", { phase: "service" })],
    /needs b of service/
  ],
  ["a name used twice", [component("a"), component("a")], /two components have one name/]
] as const) {
  test(`${what} is refused`, () => {
    assert.throws(() => levels(components), { _tag: "StartUpOrderError", problem })
  })
}

test("a component uses what earlier ones offer; closing stops in reverse order", async () => {
  const log: Array<string> = []
  const offers = Layer.merge(resource("a", log), Layer.succeed(Value, 7))
  const uses = Layer.effectDiscard(Effect.map(Value, (value) => log.push(`b saw ${value}`)))
  await Effect.runPromise(
    Effect.scoped(
      startUp(
        [
          component("b", { needs: ["a"], layer: Layer.merge(uses, resource("b", log)) }),
          component("a", { layer: offers })
        ],
        recorder(),
        30_000
      )
    )
  )
  assert.deepEqual(
    log.filter((line) => !line.startsWith("b saw")),
    ["+a", "+b", "-b", "-a"]
  )
  assert.ok(log.includes("b saw 7"))
})

test("a critical failure stops what was started and names the component", async () => {
  const log: Array<string> = []
  const exit = await Effect.runPromise(
    Effect.exit(
      Effect.scoped(
        startUp(
          [
            component("a", { layer: resource("a", log) }),
            component("b", { needs: ["a"], layer: Layer.effectDiscard(Effect.fail(new Error("no port"))) })
          ],
          recorder(),
          30_000
        )
      )
    )
  )
  assert.ok(Exit.isFailure(exit))
  assert.deepEqual(log, ["+a", "-a"])
  assert.match(String(exit.cause), /b \(core\) did not start: no port/)
  assert.ok(StartUpFailed)
})

test("a degraded component is tried again after 1, 2 and 4 s, then left out", async () => {
  const observer = recorder()
  let attempts = 0
  const failing = Layer.effectDiscard(
    Effect.suspend(() => {
      attempts++
      return Effect.fail(new Error("later"))
    })
  )
  await Effect.runPromise(
    Effect.gen(function* () {
      const starting = yield* Effect.forkChild(
        Effect.scoped(startUp([component("ml", { level: "degraded", layer: failing })], observer, 30_000))
      )
      const seen: Array<number> = []
      for (const step of [500, 600, 1800, 200, 3800, 200, 10_000]) {
        yield* TestClock.adjust(step)
        seen.push(attempts)
      }
      yield* Fiber.join(starting)
      assert.deepEqual(seen, [1, 2, 2, 3, 3, 4, 4])
    }).pipe(Effect.provide(TestClock.layer()))
  )
  assert.equal(observer.said.filter((line) => line === "ml! later").length >= 4, true)
  assert.ok(observer.said.includes("ml failed"))
})

test("a warning component is tried once", async () => {
  const observer = recorder()
  const failing = Layer.effectDiscard(Effect.fail(new Error("absent")))
  await Effect.runPromise(
    Effect.scoped(startUp([component("mdns", { level: "warning", layer: failing })], observer, 30_000))
  )
  assert.deepEqual(observer.said.slice(0, 3), ["pre-init", "mdns starting", "mdns! absent"])
})

test("a start that takes too long fails", async () => {
  const exit = await Effect.runPromise(
    Effect.gen(function* () {
      const starting = yield* Effect.forkChild(
        Effect.exit(
          Effect.scoped(
            startUp([component("slow", { layer: Layer.effectDiscard(Effect.never) })], recorder(), 30_000)
          )
        )
      )
      yield* TestClock.adjust("31 seconds")
      return yield* Fiber.join(starting)
    }).pipe(Effect.provide(TestClock.layer()))
  )
  assert.ok(Exit.isFailure(exit))
  assert.match(String(exit.cause), /not ready within 30000 ms/)
})
