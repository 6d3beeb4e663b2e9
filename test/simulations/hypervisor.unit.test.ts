import assert from "node:assert/strict"
import { test } from "node:test"
import { Effect, Exit, Fiber, ManagedRuntime, Schema, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { arrival } from "../conformance/arrival.ts"
import { VmSpec } from "../../src/events/vm.ts"
import { Hypervisor } from "../../src/kernel/ports/hypervisor.ts"
import type { VmEnded } from "../../src/kernel/ports/hypervisor.ts"
import { Layer } from "effect"
import {
  counterOf,
  diskDigests,
  killMachine,
  makeFleet,
  powerOff,
  simLayer
} from "../../simulations/world/hypervisor.ts"
import type { Fleet } from "../../simulations/world/hypervisor.ts"
import { consolePath, openConsole } from "../../simulations/world/hypervisor/console.ts"
import { hypervisorConformance } from "../conformance/hypervisor.ts"
import type { Driver, TestHost, TwoHosts } from "../conformance/hypervisor.ts"

const watching = new Set<() => void>()
const seed = 4711
const tickMs = 10

/** One virtual clock for both hosts; it moves by itself while something waits for it. */
async function makeTwoHosts(): Promise<TwoHosts> {
  const runtime = ManagedRuntime.make(TestClock.layer())
  const fleet = makeFleet({ seed, bandwidthBytesPerSecond: 1024 * 1024 * 1024 })
  /** Real turns of the event loop between steps of virtual time let every fiber come to its next wait. */
  const pass = async (ms: number) => {
    for (let left = ms; left > 0; left -= tickMs) {
      await runtime.runPromise(TestClock.adjust(Math.min(left, tickMs)))
      await new Promise((resolve) => {
        setImmediate(resolve)
      })
    }
  }
  const run = async <A, E>(effect: Effect.Effect<A, E>): Promise<A> => {
    const fiber = runtime.runFork(effect)
    while (fiber.pollUnsafe() === undefined) await pass(tickMs)
    return runtime.runPromise(Fiber.join(fiber))
  }
  const source = await host(fleet, "source", runtime, pass)
  const destination = await host(fleet, "destination", runtime, pass)
  return {
    source,
    destination,
    run,
    pass,
    spec: ({ disk, dirtyMibPerSecond = 1 }) =>
      Schema.decodeUnknownSync(VmSpec)({
        memoryMib: 128,
        disks: disk === "none" ? [] : [{ name: "data", sizeMib: 64, storage: disk }],
        labels: { "dirty-mib-per-second": String(dirtyMibPerSecond) }
      }),
    close: async () => {
      for (const stop of watching) stop()
      await runtime.dispose()
    }
  }
}

async function host(
  fleet: Fleet,
  name: string,
  runtime: ManagedRuntime.ManagedRuntime<never, never>,
  pass: (ms: number) => Promise<void>
): Promise<TestHost> {
  const told: Array<VmEnded> = []
  const open = async () => {
    const scope = Scope.makeUnsafe()
    const context = await runtime.runPromise(Layer.buildWithScope(simLayer(fleet, name), scope))
    const driver: Driver = await runtime.runPromise(Effect.provide(Hypervisor, context))
    const listening = driver.ended.pipe(Stream.runForEach((ended) => Effect.sync(() => told.push(ended))))
    await runtime.runPromise(Effect.forkIn(listening, scope))
    return { scope, driver }
  }
  let current = await open()
  return {
    driver: () => current.driver,
    ended: () => told,
    reopen: async (meanwhile) => {
      await runtime.runPromise(Scope.close(current.scope, Exit.void))
      await meanwhile?.()
      current = await open()
    },
    kill: (vm) => runtime.runPromise(killMachine(fleet, name, vm)),
    powerOff: (vm) => runtime.runPromise(powerOff(fleet, name, vm)),
    openConsole: async (vm) => {
      const path = await runtime.runPromise(current.driver.console(vm))
      assert.equal(path, consolePath(name, vm))
      const console = await runtime.runPromise(openConsole(fleet, name, vm))
      const decoder = new TextDecoder()
      let text = ""
      const reading = runtime.runFork(
        Stream.runForEach(console.output, (octets) => Effect.sync(() => (text += decoder.decode(octets))))
      )
      return {
        text: () => text,
        hasEnded: () => reading.pollUnsafe() !== undefined,
        type: (typed) => void runtime.runFork(console.write(new TextEncoder().encode(typed))),
        close: () => reading.interruptUnsafe()
      }
    },
    diskDigests: (vm) => runtime.runPromise(diskDigests(fleet, name, vm)),
    watch: async (vm) => {
      const ticks: Array<{ count: number; atMs: number }> = []
      const watch = { open: true }
      watching.add(() => (watch.open = false))
      let seen: number | null = null
      const look = async () => {
        const running = fleet.hosts.get(name)?.machines.get(vm)?.state === "running"
        const count = running ? await runtime.runPromise(counterOf(fleet, name, vm)) : null
        // A count is a tick when it was seen to change.
        if (count !== null && seen !== null && count > seen) ticks.push({ count, atMs: 0 })
        seen = count
      }
      const loop = async () => {
        while (watch.open) {
          await look()
          await new Promise((resolve) => {
            setImmediate(resolve)
          })
        }
      }
      void loop()
      await pass(tickMs)
      return { ticks, close: () => void (watch.open = false) }
    }
  }
}

hypervisorConformance("sim", makeTwoHosts)

test("a simulated console says that it is one, and tells the guest's count while it runs", async () => {
  const fleet = makeFleet({ seed })
  const spec = Schema.decodeUnknownSync(VmSpec)({})
  const said = Effect.gen(function* () {
    const context = yield* Layer.build(simLayer(fleet, "a"))
    const driver: Driver = yield* Effect.provide(Hypervisor, context)
    yield* driver.define("vm", spec)
    yield* driver.start("vm")
    const console = yield* openConsole(fleet, "a", "vm")
    const reading = yield* Effect.forkChild(Stream.runCollect(console.output))
    yield* TestClock.adjust(250)
    yield* driver.pause("vm")
    yield* TestClock.adjust(1000)
    yield* driver.resume("vm")
    yield* TestClock.adjust(100)
    yield* driver.stop("vm", { force: true })
    yield* TestClock.adjust(100)
    return (yield* Fiber.join(reading)).map((octets) => new TextDecoder().decode(octets)).join("")
  })
  const text = await Effect.runPromise(Effect.scoped(said).pipe(Effect.provide(TestClock.layer())))
  const lines = text.split("\r\n").slice(0, -1)
  assert.match(lines[0] ?? "", /^\[simulated\] console of vm on a; no machine is behind it$/)
  const counts = lines.slice(1).map((line) => Number(/^\[simulated\] tick (\d+)$/.exec(line)?.[1]))
  assert.deepEqual(counts.slice(0, 2), [10, 20])
  assert.ok(counts.length >= 3 && counts.every((count, at) => at === 0 || count > (counts[at - 1] ?? 0)))
})

const story = (withSeed: number): Promise<string> => {
  const fleet = makeFleet({
    seed: withSeed,
    faults: { operationFails: 0.2, answerLost: 0.2, slow: 0.3, linkCut: 0.02, crash: 0.01 }
  })
  const spec = Schema.decodeUnknownSync(VmSpec)({ disks: [{ name: "data", sizeMib: 512 }] })
  const told: Array<string> = []
  const scenario = Effect.gen(function* () {
    const [a, b] = yield* Effect.all(
      ["a", "b"].map((name) =>
        Effect.map(Layer.build(simLayer(fleet, name)), (c) => Effect.provide(Hypervisor, c))
      )
    )
    const [from, to] = [yield* a!, yield* b!]
    const note = (what: string, work: Effect.Effect<unknown, { readonly code: string }>) =>
      Effect.match(work, {
        onSuccess: () => told.push(what),
        onFailure: (error) => told.push(`${what}: ${error.code}`)
      })
    for (let round = 0; round < 40; round++) {
      const vm = `vm-${round}`
      yield* note("define", from.define(vm, spec))
      yield* note("start", from.start(vm))
      const policy = {
        downtimeBudgetMs: 300,
        bandwidthBytesPerSecond: 0,
        postCopy: false,
        throttle: true,
        timeoutMs: 60_000
      }
      const channels = yield* Effect.option(to.prepareIncoming(vm, spec, arrival("m")))
      if (channels._tag === "None") continue
      yield* note("migrate", Stream.runDrain(from.migrate(vm, "m", channels.value, policy)))
    }
  })
  return Effect.runPromise(
    Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(Effect.scoped(scenario))
      while (fiber.pollUnsafe() === undefined) yield* TestClock.adjust(50)
      yield* Fiber.join(fiber)
      return JSON.stringify([told, fleet.injected])
    }).pipe(Effect.provide(TestClock.layer()))
  )
}

test("the same seed tells the same story, another seed another one, and every fault comes", async () => {
  const first = await story(seed)
  assert.equal(await story(seed), first)
  assert.notEqual(await story(seed + 1), first)
  const [, injected] = JSON.parse(first) as [unknown, Record<string, number>]
  for (const [fault, times] of Object.entries(injected)) assert.ok(times > 0, `no ${fault} with seed ${seed}`)
})
