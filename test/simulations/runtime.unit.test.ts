import assert from "node:assert/strict"
import { test } from "node:test"
import { Clock, Effect, Fiber, Random } from "effect"
import { makeRandom } from "../../simulations/world/random.ts"
import { epochMs, Runtime } from "../../simulations/world/runtime.ts"
import { Schedule } from "../../simulations/world/schedule.ts"

function world(seed: number) {
  const random = makeRandom(seed)
  const schedule = new Schedule(random.split("schedule"), 100_000)
  return { schedule, runtime: new Runtime(schedule, random.split("runtime")) }
}

/** Who of five fibers that are all due at once comes when, and what they draw. */
function order(seed: number): string {
  const { runtime } = world(seed)
  const told: Array<string> = []
  const one = (name: string) =>
    Effect.gen(function* () {
      yield* Effect.yieldNow
      told.push(name)
      yield* Effect.sleep(10)
      told.push(`${name}${yield* Random.nextIntBetween(0, 100)}`)
    })
  const all = Effect.all(["a", "b", "c", "d", "e"].map(one), { concurrency: "unbounded", discard: true })
  runtime.run(all, 1000)
  return told.join(" ")
}

test("what is due at once comes in the seed's order, and other seeds have other orders", () => {
  assert.equal(order(1), order(1))
  const orders = new Set(Array.from({ length: 50 }, (_, seed) => order(seed)))
  assert.ok(orders.size > 40, `${orders.size} orders of 50 seeds`)
})

test("a week passes without the machine's clock, to the millisecond", () => {
  const { runtime, schedule } = world(1)
  const weekMs = 7 * 24 * 3_600_000
  const waited = Effect.gen(function* () {
    const before = yield* Clock.currentTimeMillis
    yield* Effect.sleep(weekMs)
    return [before, (yield* Clock.currentTimeMillis) - before]
  })
  assert.deepEqual(runtime.run(waited, 2 * weekMs), [epochMs, weekMs])
  assert.equal(schedule.nowMs, weekMs)
})

test("who is interrupted in his sleep is not woken", () => {
  const { runtime, schedule } = world(1)
  let woken = 0
  const sleeper = Effect.sleep(100).pipe(Effect.andThen(Effect.sync(() => woken++)))
  const work = Effect.gen(function* () {
    const fiber = yield* Effect.forkChild(sleeper)
    yield* Effect.sleep(50)
    yield* Fiber.interrupt(fiber)
  })
  runtime.run(work, 1000)
  schedule.runUntil(1000)
  assert.equal(woken, 0)
})

test("what does not end in its time, or fails, is told", () => {
  assert.throws(() => world(1).runtime.run(Effect.never, 1000), /not done within 1000 ms/)
  assert.throws(() => world(1).runtime.run(Effect.fail("the reason"), 1000), /the reason/)
})
