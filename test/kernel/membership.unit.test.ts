/** How a host takes part, in virtual time; each of these was found by the simulated fleet. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { Effect, Layer, Schema } from "effect"
import { killMachine, makeFleet, simLayer } from "../../simulations/world/hypervisor.ts"
import { makeRandom } from "../../simulations/world/random.ts"
import { Runtime } from "../../simulations/world/runtime.ts"
import { Schedule } from "../../simulations/world/schedule.ts"
import { simTransport } from "../../simulations/world/transport.ts"
import { VmSpec } from "../../src/events/vm.ts"
import { HostAgent } from "../../src/kernel/agent.ts"
import type { Kernel } from "../../src/kernel/kernel.ts"
import { hear, reconcile, sayToAny, takePart } from "../../src/kernel/membership.ts"
import type { Say } from "../../src/kernel/membership.ts"
import { Hypervisor } from "../../src/kernel/ports/hypervisor.ts"
import { Unavailable } from "../../src/kernel/ports/consensus.ts"
import { CommandRefused, Overloaded } from "../../src/kernel/refusals.ts"
import type { SubmitError } from "../../src/kernel/refusals.ts"
import { HeldLease } from "../../src/kernel/lease.ts"
import type { LeaseKeeping } from "../../src/kernel/lease.ts"

const world = () => {
  const random = makeRandom(1)
  return new Runtime(new Schedule(random.split("schedule"), 100_000), random.split("runtime"))
}

const actor = (stream: string, context: object) => [stream, { stream, chart: { context } }] as const

/** A kernel whose machine `web` is on host `a`, and which refuses with each of these before it accepts. */
function kernelOf(
  refusals: ReadonlyArray<SubmitError>,
  fresh: Kernel["Service"]["fresh"] = Effect.void,
  isLed = true
) {
  const told: Array<string> = []
  const left = [...refusals]
  const residents = new Map<string, unknown>([
    actor("host/a", { reservations: { "web.1": { vm: "web" } }, leftovers: {} }),
    actor("vm/web", { host: "a", migration: null }),
    actor("vm/other", { host: "b", migration: null })
  ])
  const kernel = {
    fresh,
    knowsLeader: () => isLed,
    resident: () => residents,
    submit: ({ stream, message }: { stream: string; message: { type: string; state?: string } }) =>
      Effect.suspend(() => {
        told.push(`${stream} ${message.type} ${message.state}`)
        const refusal = left.shift()
        return refusal === undefined ? Effect.void : Effect.fail(refusal)
      })
  } as unknown as Kernel["Service"]
  return { kernel, told }
}

const refused = (allowed: ReadonlyArray<string>) =>
  new CommandRefused({
    stream: "vm/web",
    command: "vm.observe",
    state: "running.snapshotting",
    allowed,
    unmet: []
  })
const overloaded = new Overloaded({ waiting: 2, waiting_max: 2 })

test("a node of a group that can't know whether it is behind compares nothing, so that another one is asked", () => {
  const behind = new Unavailable({ node: "n1", mayHappen: false, reason: "no leader is known" })
  const { kernel, told } = kernelOf([], Effect.fail(behind))
  const said = reconcile(kernel, "a", { host: "a", machines: [{ vm: "web", state: "defined" }] })
  assert.equal(world().run(Effect.flip(said), 1000), behind)
  assert.deepEqual(told, [])
})

test("a node that hears no leader says so at once, and the host asks another one, and that one first from then on", () => {
  const asked: Array<string> = []
  const kernels = new Map([
    ["n0", kernelOf([], Effect.never, false).kernel],
    ["n1", kernelOf([overloaded]).kernel],
    ["n2", kernelOf([]).kernel]
  ])
  let known = [...kernels.keys()]
  const say = sayToAny(
    () => known,
    (node, said) =>
      Effect.suspend(() => {
        asked.push(node)
        return hear(kernels.get(node) as Kernel["Service"], "a", said)
      })
  )
  const runtime = world()
  const machines = { host: "a", machines: [{ vm: "web", state: "defined" as const }] }
  const ended = { type: "vm.reportEnded" as const, host: "a", reason: "it crashed" }
  runtime.run(say({ stream: "vm/web", id: "1", message: ended as never }), 1)
  assert.deepEqual(asked.splice(0), ["n0", "n1", "n2"])
  runtime.run(say(machines), 1)
  assert.deepEqual(asked.splice(0), ["n2"])
  known = ["n0"]
  const { message } = runtime.run(Effect.flip(say(machines)), 1) as { readonly message: string }
  assert.match(message, /hears no leader/)
  known = []
  assert.match(runtime.run(Effect.flip(say(machines)), 1).message, /no node with a kernel is known/)
})

test("a machine that is busy when its host is back hears of it later, as one that was not heard (seeds 94 and 358)", () => {
  const { kernel, told } = kernelOf([refused(["vm.reportEnded"]), overloaded])
  world().run(reconcile(kernel, "a", { host: "a", machines: [{ vm: "web", state: "defined" }] }), 10_000)
  assert.deepEqual(
    told,
    Array.from({ length: 3 }, () => "vm/web vm.observe defined")
  )
})

test("a node that was removed while it told its machines sends the host to another one (seeds 102 and 133)", () => {
  const removed = new Unavailable({ node: "n1", mayHappen: false, reason: "no leader is known" })
  const { kernel, told } = kernelOf([refused(["vm.reportEnded"]), removed])
  const said = reconcile(kernel, "a", { host: "a", machines: [{ vm: "web", state: "defined" }] })
  assert.equal(world().run(Effect.flip(said), 10_000), removed)
  assert.equal(told.length, 2)
})

test("one that is as its host has it is told once, and one that is not there is told of as absent", () => {
  const { kernel, told } = kernelOf([refused(["vm.observe"])])
  world().run(reconcile(kernel, "a", { host: "a", machines: [] }), 10_000)
  assert.deepEqual(told, ["vm/web vm.observe absent"])
})

const spec = Schema.decodeUnknownSync(VmSpec)({ disks: [{ name: "root", sizeMib: 64 }] })

/** A host takes part, the guest of `web` ends by itself, and then this happens. */
function whenEnded<E>(
  runtime: ReturnType<typeof world>,
  say: Say,
  andThen: (hypervisor: Hypervisor["Service"]) => Effect.Effect<void, E>,
  lease?: LeaseKeeping
): void {
  const fleet = makeFleet({ seed: 1 })
  const life = Effect.gen(function* () {
    const hypervisor = yield* Hypervisor
    const options = { host: "a", address: "a", labels: {}, linkedSince: Effect.succeed(1) }
    yield* Effect.forkScoped(takePart(say, lease === undefined ? options : { ...options, lease }))
    yield* hypervisor.define("web", spec)
    yield* hypervisor.start("web")
    yield* killMachine(fleet, "a", "web")
    yield* andThen(hypervisor)
    yield* Effect.sleep(5000)
  })
  const services = HostAgent.layer("a").pipe(
    Layer.provideMerge(simLayer(fleet, "a")),
    Layer.provide(simTransport)
  )
  runtime.run(life.pipe(Effect.scoped, Effect.provide(services)), 60_000)
}

/** The ends that are told of `web`, which is started again after this time; the first of them is not heard. */
function endsTold(againMs: number): number {
  const told: Array<string> = []
  let deaf = true
  const say: Say = (said) =>
    Effect.suspend(() => {
      if (!("message" in said) || said.message.type !== "vm.reportEnded") return Effect.void
      told.push(said.stream)
      return deaf ? Effect.fail({ message: "refused" }) : Effect.void
    })
  whenEnded(world(), say, (hypervisor) =>
    Effect.gen(function* () {
      yield* Effect.sleep(againMs)
      yield* hypervisor.start("web")
      deaf = false
    })
  )
  return told.length
}

test("the end of a guest that runs again is not told any more (seed 22)", () => {
  assert.equal(endsTold(500), 1)
  assert.equal(endsTold(2500), 3)
})

test("what ended is told when the host may start machines again, and how they are only when that was taken", () => {
  const runtime = world()
  const { schedule } = runtime
  const told: Array<string> = []
  const say: Say = (said) =>
    Effect.suspend(() => {
      const what = "machines" in said ? "machines" : said.message.type
      told.push(`${what} ${schedule.nowMs < 3000 ? "early" : "later"}`)
      const isRefused = what === "vm.reportEnded" && told.length === 2
      return isRefused ? Effect.fail({ message: "refused" }) : Effect.void
    })
  const lease: LeaseKeeping = {
    // It ran out before; the kernel gives no other one for three seconds.
    lease: new HeldLease(() => schedule.nowMs + 10_000, 5000),
    lengthMs: Effect.succeed(1000),
    ask: Effect.succeed({ isGiven: false, reason: "a is lost: it has to register first" }),
    store: () => Effect.void,
    ended: Effect.succeed([]),
    told: () => Effect.void
  }
  const given = Effect.sync(() => lease.lease.renewed(schedule.nowMs + 10_000, 60_000))
  whenEnded(runtime, say, () => Effect.andThen(Effect.sleep(3000), given), lease)
  const ends = ["vm.reportEnded later", "vm.reportEnded later"]
  assert.deepEqual(told, ["host.register early", ...ends, "machines later"])
})
