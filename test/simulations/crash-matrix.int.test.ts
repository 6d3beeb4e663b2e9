/**
 * The crash matrix in virtual time: at every recorded fact of a migration, one at a time, the kernel with the agents
 * of its process, a machine's process or the link dies. Whatever it was, in the end there is one running machine,
 * where its actor says it is, with a counter that never went back, and nothing is left over.
 */
import assert from "node:assert/strict"
import { test } from "node:test"
import { Context, Effect, Exit, Fiber, Layer, ManagedRuntime, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import { SimulatedHosts, simulatedAgents, simulatedHosts } from "../../simulations/world/agents.ts"
import * as digest from "../../simulations/world/digest.ts"
import { layer as memoryStore, memoryDisk } from "../../simulations/world/event-store.ts"
import type { MemoryDisk } from "../../simulations/world/event-store.ts"
import { counterOf, killMachine, makeFleet, runningOn } from "../../simulations/world/hypervisor.ts"
import type { Fleet } from "../../simulations/world/hypervisor.ts"
import { actorKinds } from "../../src/actors/kinds.ts"
import { VmSpec } from "../../src/events/vm.ts"
import { Kernel } from "../../src/kernel/kernel.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import { Views } from "../../src/kernel/ports/views.ts"
import { replay } from "../../src/kernel/replay.ts"
import { describe as stateOf } from "../../src/kernel/statechart.ts"
import { serialize } from "../../src/kernel/turn.ts"
import { sayHere, takePart } from "../../src/kernel/membership.ts"
import { hostViewsOf, inventory } from "../../src/projections/inventory.ts"
import { noHosts } from "../kernel/views.ts"

const vm = "web"
const hosts = ["a", "b"]
const victims = ["kernel", "source", "destination", "link"] as const
type Victim = (typeof victims)[number]

/** All of one node and its hosts over what survives: the disk of the journal and the fleet. */
function nodeLayer(disk: MemoryDisk, fleet: Fleet) {
  const store = memoryStore(disk).pipe(Layer.provide(digest.layer))
  const views = Layer.effect(
    Views,
    Effect.map(EventStore, (events) => ({
      ...noHosts,
      hosts: () =>
        Effect.gen(function* () {
          let state = inventory.initial()
          for (const fact of yield* events.readAll({ limit: 100_000 }).pipe(Effect.orDie)) {
            state = inventory.apply(state, fact)
          }
          return { hosts: hostViewsOf(state), position: (yield* events.head.pipe(Effect.orDie)).position }
        })
    }))
  )
  return Kernel.layer({ kinds: actorKinds, node: "n", unreachableMs: 5000 }).pipe(
    Layer.provideMerge(Layer.mergeAll(simulatedAgents, views)),
    Layer.provideMerge(Layer.merge(store, simulatedHosts(fleet, hosts)))
  )
}

type Services = Kernel | EventStore | SimulatedHosts

class World {
  readonly runtime = ManagedRuntime.make(TestClock.layer())
  readonly disk = memoryDisk()
  readonly fleet: Fleet
  scope = Scope.makeUnsafe()
  context!: Context.Context<Services>
  counters: Array<number> = []

  constructor(seed: number) {
    this.fleet = makeFleet({ seed, bandwidthBytesPerSecond: 100 * 1024 * 1024 })
  }

  async open(): Promise<void> {
    this.scope = Scope.makeUnsafe()
    this.context = (await this.run(
      Layer.buildWithScope(nodeLayer(this.disk, this.fleet), this.scope)
    )) as Context.Context<Services>
    const members = Effect.gen(function* () {
      const say = yield* sayHere("n")
      for (const { name, services } of yield* SimulatedHosts) {
        const options = { host: name, address: name, labels: {}, linkedSince: Effect.succeed(0) }
        yield* Effect.forkScoped(takePart(say, options).pipe(Effect.provide(services)))
      }
    })
    await this.run(members.pipe(Effect.provide(this.context), Scope.provide(this.scope)))
  }

  /** No finalizer of a process that was killed writes anything. */
  async crash(): Promise<void> {
    this.disk.fault = () => "the process is dead"
    await this.run(Scope.close(this.scope, Exit.void))
    this.disk.fault = () => null
    await this.open()
  }

  async pass(ms: number): Promise<void> {
    await this.runtime.runPromise(TestClock.adjust(ms))
    for (let turn = 0; turn < 3; turn++) {
      await new Promise((resolve) => {
        setImmediate(resolve)
      })
    }
    for (const host of hosts) {
      if (!runningOn(this.fleet, vm).includes(host)) continue
      const counter = await this.runtime.runPromise(counterOf(this.fleet, host, vm))
      if (counter !== null && counter !== this.counters.at(-1)) this.counters.push(counter)
    }
  }

  async run<A, E>(effect: Effect.Effect<A, E>): Promise<A> {
    const fiber = this.runtime.runFork(effect)
    while (fiber.pollUnsafe() === undefined) await this.pass(5)
    return this.runtime.runPromise(Fiber.join(fiber))
  }

  submit(stream: string, message: { type: string; [key: string]: unknown }): Promise<unknown> {
    const id = `${stream}/${message.type}`
    const command = {
      stream,
      message,
      id,
      correlation: id,
      principal: { kind: "operator", name: "t" } as const
    }
    return this.run(Context.get(this.context, Kernel).submit(command))
  }

  state(stream: string): string {
    const actor = Context.get(this.context, Kernel).resident().get(stream)
    return actor ? stateOf(actor.chart) : "absent"
  }

  facts(): ReadonlyArray<string> {
    return this.disk.facts.filter((fact) => fact.stream === "migration/m").map((fact) => fact.type)
  }

  /** Nothing is outstanding, and the machine is where it will stay. */
  async settle(): Promise<void> {
    for (let waited = 0; waited < 600_000; waited += 50) {
      const actors = [...Context.get(this.context, Kernel).resident().values()]
      const quiet = actors.every((actor) => actor.outstanding.length === 0)
      if (quiet && this.state(`vm/${vm}`).startsWith("running") && final.has(this.state("migration/m")))
        return
      await this.pass(50)
    }
    assert.fail(`not settled: vm ${this.state(`vm/${vm}`)}, migration ${this.state("migration/m")}`)
  }
}

const final = new Set(["completed", "cancelled", "failed"])
const policy = {
  downtimeBudgetMs: 300,
  bandwidthBytesPerSecond: 0,
  postCopy: false,
  throttle: true,
  timeoutMs: 600_000
}

async function injure(world: World, victim: Victim): Promise<void> {
  if (victim === "kernel") return world.crash()
  if (victim === "link") {
    world.fleet.linkDown = true
    await world.pass(200)
    world.fleet.linkDown = false
    return
  }
  await world.run(killMachine(world.fleet, victim === "source" ? "a" : "b", vm))
  // The agent tells it in its own time; before that nobody knows.
  await world.pass(200)
}

async function prepared(): Promise<World> {
  const world = new World(7)
  await world.open()
  while (world.state("host/a") !== "up" || world.state("host/b") !== "up") await world.pass(50)
  const spec = Schema.decodeUnknownSync(VmSpec)({
    memoryMib: 128,
    disks: [{ name: "root", sizeMib: 64 }],
    labels: { "dirty-mib-per-second": "40" }
  })
  await world.submit(`vm/${vm}`, { type: "vm.create", spec, host: "a", start: true })
  while (!world.state(`vm/${vm}`).startsWith("running")) await world.pass(20)
  await world.submit("migration/m", { type: "migration.request", vm, policy, reason: "test" })
  return world
}

function check(world: World, what: string): void {
  const kernel = Context.get(world.context, Kernel)
  const running = runningOn(world.fleet, vm)
  assert.equal(running.length, 1, `${what}: it runs on ${running.join(" and ") || "no host"}`)
  const machine = kernel.resident().get(`vm/${vm}`)?.chart.context as { host: string; decision: string }
  assert.equal(machine.host, running[0], `${what}: its actor says ${machine.host}`)
  for (let n = 1; n < world.counters.length; n++) {
    assert.ok(world.counters[n]! > world.counters[n - 1]!, `${what}: the counter went back`)
  }
  for (const host of hosts) {
    const actor = kernel.resident().get(`host/${host}`)
    assert.ok(actor)
    const { reservations } = actor.chart.context as { reservations: Record<string, unknown> }
    const expected = host === machine.host ? [machine.decision] : []
    assert.deepEqual(Object.keys(reservations), expected, `${what}: reservations on ${host}`)
    const machines = [...(world.fleet.hosts.get(host)?.machines.values() ?? [])]
    assert.equal(
      machines.length,
      expected.length,
      `${what}: machines on ${host}: ${JSON.stringify(machines)}`
    )
  }
  assert.equal(
    world.facts().filter((type) => final.has(type.replace("novacron.migration.", ""))).length,
    1,
    what
  )
}

async function checkReplay(world: World, what: string): Promise<void> {
  const store = Context.get(world.context, EventStore)
  const again = await world.run(replay(store, actorKinds, { snapshots: false }))
  for (const [stream, live] of Context.get(world.context, Kernel).resident()) {
    assert.equal(serialize(again.get(stream)!), serialize(live), `${what}: replay of ${stream}`)
  }
}

async function close(world: World): Promise<void> {
  await world.run(Scope.close(world.scope, Exit.void))
  await world.runtime.dispose()
}

test("the undisturbed migration completes", async () => {
  const world = await prepared()
  await world.settle()
  assert.equal(world.state("migration/m"), "completed")
  check(world, "undisturbed")
  await checkReplay(world, "undisturbed")
  await close(world)
})

for (const victim of victims) {
  test(`the ${victim} dies at every fact of a migration`, async () => {
    const outcomes = new Map<string, number>()
    for (let at = 1; at < 200; at++) {
      const world = await prepared()
      while (world.facts().length < at && !final.has(world.state("migration/m"))) await world.pass(5)
      const ended = world.facts().length < at
      const what = `${victim} at fact ${at}, ${world.facts().at(-1)}`
      if (!ended) {
        await injure(world, victim)
        await world.settle()
        check(world, what)
        await checkReplay(world, what)
        const outcome = world.state("migration/m")
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
      }
      await close(world)
      if (ended) break
    }
    const cases = [...outcomes.values()].reduce((sum, count) => sum + count, 0)
    assert.ok(cases >= 10, `only ${cases} cases`)
    console.log(`  ${victim}: ${[...outcomes].map(([outcome, count]) => `${count} ${outcome}`).join(", ")}`)
  })
}
