import assert from "node:assert/strict"
import { test } from "node:test"
import { Effect, Layer, Schema, Stream } from "effect"
import { actorKinds } from "../../src/actors/kinds.ts"
import type { Message } from "../../src/events/envelope.ts"
import type { HostView } from "../../src/events/placement.ts"
import type { HypervisorReport } from "../../src/events/requests.ts"
import { VmSpec } from "../../src/events/vm.ts"
import { Fencer } from "../../src/kernel/fencing.ts"
import { Kernel } from "../../src/kernel/kernel.ts"
import { Agents } from "../../src/kernel/ports/agents.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import { Link } from "../../src/kernel/ports/link.ts"
import type { LinkHandler, Peer } from "../../src/kernel/ports/link.ts"
import { describe as describeState } from "../../src/kernel/statechart.ts"
import { Views } from "../../src/kernel/ports/views.ts"
import { serveLeases } from "../../src/live/leases.ts"
import { serveMembership, watchHosts } from "../../src/live/membership.ts"
import { hostFacts } from "../actors/messages.ts"
import * as digest from "../../simulations/world/digest.ts"
import * as eventStore from "../../simulations/world/event-store.ts"
import { hostView } from "../actors/messages.ts"
import { noHosts } from "../kernel/views.ts"

const register = { type: "host.register", address: "b@127.0.0.1:1", facts: hostFacts }

const fencer = () =>
  new Fencer({
    node: "a",
    nowMs: () => performance.now(),
    handOverMs: 0,
    marginMs: 100,
    recovering_max: 4,
    lostPercentMax: 60
  })

const peer = (node: string, state: Peer["state"]): Peer => ({
  node,
  state,
  sinceMs: 0,
  address: null,
  version: 1,
  features: [],
  sample: null,
  lastError: null
})

/** A host that does what it is asked, and whose machines are gone when it is asked for them. */
const answers: Readonly<Record<string, HypervisorReport>> = {
  define: { type: "hypervisor.defined" },
  start: { type: "hypervisor.started", accelerator: "tcg" },
  observe: { type: "hypervisor.observed", state: "absent" }
}

/** A kernel, and a link whose other ends are this test. */
const run = <A, E>(
  use: (
    handlers: Map<string, LinkHandler>,
    peers: Array<Peer>,
    asked: Array<string>
  ) => Effect.Effect<A, E, any>
): Promise<A> => {
  const handlers = new Map<string, LinkHandler>()
  const peers: Array<Peer> = []
  const asked: Array<string> = []
  const link = Layer.mock(Link, {
    node: "a",
    serve: (kind, handler) => Effect.sync(() => void handlers.set(kind, handler)),
    peers: Effect.sync(() => peers)
  })
  const ports = Layer.mergeAll(
    link,
    Layer.succeed(Agents, {
      perform: (_, request) => {
        asked.push(`${request.op} ${request.vm}`)
        return Stream.succeed(answers[request.op] ?? { type: "hypervisor.removed" })
      }
    }),
    Layer.succeed(Views, {
      ...noHosts,
      hosts: (position) => Effect.succeed({ hosts: [hostView("b") as HostView], position })
    }),
    eventStore.layer().pipe(Layer.provide(digest.layer))
  )
  const layer = Kernel.layer({ kinds: actorKinds, node: "a" }).pipe(Layer.provideMerge(ports))
  return Effect.runPromise(
    Effect.scoped(use(handlers, peers, asked)).pipe(Effect.provide(layer)) as Effect.Effect<A, E>
  )
}

const say = (handlers: Map<string, LinkHandler>, from: string, payload: unknown) =>
  Effect.result(Stream.runDrain(handlers.get("node.say")!(from, payload, "1")))

test("a node registers the host of its own name", () =>
  run((handlers) =>
    Effect.gen(function* () {
      yield* serveMembership()
      const result = yield* say(handlers, "b", { stream: "host/b", id: "1", message: register })
      assert.equal(result._tag, "Success")
      const kernel = yield* Kernel
      assert.equal((yield* kernel.state("host/b")).chart.value, "up")
    })
  ))

for (const [what, from, payload, pattern] of [
  [
    "another node's host",
    "b",
    { stream: "host/c", id: "1", message: register },
    /b may not say host.register to host\/c/
  ],
  [
    "a command that is not a node's",
    "b",
    { stream: "host/b", id: "1", message: { type: "host.drain", reason: "" } },
    /b may not say host.drain/
  ],
  [
    "the end of a machine on another host",
    "b",
    {
      stream: "vm/x",
      id: "1",
      message: { type: "vm.reportEnded", host: "c", cause: "crash", reason: "killed" }
    },
    /b may not say vm.reportEnded/
  ],
  ["what lies on another host", "b", { host: "c", machines: [] }, /b may not say what lies on c/],
  ["no message at all", "b", { stream: "host/b", id: "1" }, /message/],
  ["a key nobody knows", "b", { stream: "host/b", id: "1", message: register, more: 1 }, /more/]
] as const) {
  test(`a node may not say ${what}, and nothing is recorded`, () =>
    run((handlers) =>
      Effect.gen(function* () {
        yield* serveMembership()
        const result = yield* say(handlers, from, payload)
        assert.equal(result._tag, "Failure")
        if (result._tag === "Failure") assert.match(result.failure.reason, pattern)
        assert.equal((yield* (yield* EventStore).head).position, 0)
      })
    ))
}

test("a host whose link stays down is lost, and up again when it registers anew", () =>
  run((handlers, peers) =>
    Effect.gen(function* () {
      yield* serveMembership()
      const kernel = yield* Kernel
      yield* say(handlers, "b", { stream: "host/b", id: "1", message: register })
      peers.push(peer("b", "connected"))
      yield* Effect.forkScoped(watchHosts("a", new Set(["a"]), 300, fencer()))
      yield* Effect.sleep(700)
      assert.equal((yield* kernel.state("host/b")).chart.value, "up")
      peers.length = 0
      while ((yield* kernel.state("host/b")).chart.value === "up") yield* Effect.sleep(20)
      assert.equal((yield* kernel.state("host/b")).chart.value, "lost")
      yield* say(handlers, "b", { stream: "host/b", id: "2", message: register })
      assert.equal((yield* kernel.state("host/b")).chart.value, "up")
    })
  ))

test("a lost host is fenced when its lease has run out; one without a watcher, or among too many, is not, and says why", () =>
  run((handlers, peers) =>
    Effect.gen(function* () {
      yield* serveMembership()
      const give = yield* serveLeases()
      const kernel = yield* Kernel
      const leased = { ...register, facts: { ...hostFacts, lease: { lengthMs: 400 } } }
      for (const [host, message] of [
        ["b", leased],
        ["c", register],
        ...["d", "e", "f"].map((name) => [name, leased] as const)
      ] as const) {
        yield* say(handlers, host, { stream: `host/${host}`, id: "1", message })
        peers.push(peer(host, "connected"))
      }
      assert.deepEqual(give("b"), { isGiven: true, lengthMs: 400 })
      assert.equal(give("c").isGiven, false)
      assert.equal(give("nobody").isGiven, false)
      yield* Effect.forkScoped(watchHosts("a", new Set(["a"]), 300, fencer()))
      yield* Effect.sleep(400)
      peers.splice(0, 2)
      const stateOf = (host: string) => Effect.map(kernel.state(`host/${host}`), ({ chart }) => chart)
      while ((yield* stateOf("b")).value !== "lost") yield* Effect.sleep(20)
      assert.equal(give("b").isGiven, false)
      const lostMs = performance.now()
      while ((yield* stateOf("b")).value !== "fenced") yield* Effect.sleep(20)
      // It was seen as lost up to one look later than it was.
      assert.ok(performance.now() - lostMs >= 400 * 1.01 + 100 - 20)
      const c = yield* stateOf("c")
      assert.equal(c.value, "lost")
      assert.match((c.context as { readonly held: string }).held, /confirm that it is off/)
      // Three of the four that are not fenced.
      peers.length = 0
      while ((yield* stateOf("d")).value !== "lost") yield* Effect.sleep(20)
      const held = (host: string) =>
        Effect.map(stateOf(host), ({ context }) => (context as { held: string }).held)
      while ((yield* held("d")) === null) yield* Effect.sleep(20)
      assert.match(yield* held("d"), /^4 of 4 hosts are lost, more than 60 %/)
      assert.equal((yield* stateOf("d")).value, "lost")
      yield* say(handlers, "b", { stream: "host/b", id: "2", message: leased })
      assert.equal((yield* stateOf("b")).value, "up")
      assert.equal(give("b").isGiven, true)
    })
  ))

test("what lies on a host is held against the journal; what that does not know is left alone", () =>
  run((handlers, _peers, asked) =>
    Effect.gen(function* () {
      yield* serveMembership()
      const kernel = yield* Kernel
      yield* say(handlers, "b", { stream: "host/b", id: "1", message: register })
      const command = (message: Message) => ({
        stream: "vm/web",
        message,
        id: message.type,
        correlation: "c",
        principal: { kind: "operator" as const, name: "t" }
      })
      const spec = { memoryMib: 128, onCrash: "stop" }
      yield* kernel.submit(
        command({
          type: "vm.create",
          spec: Schema.decodeUnknownSync(VmSpec)(spec),
          host: "b",
          start: true
        })
      )
      while (describeState((yield* kernel.state("vm/web")).chart) !== "running.idle") yield* Effect.sleep(5)
      const machines = [
        { vm: "web", state: "running" },
        { vm: "stranger", state: "running" }
      ]
      yield* say(handlers, "b", { host: "b", machines })
      assert.equal(describeState((yield* kernel.state("vm/web")).chart), "running.idle")
      asked.length = 0
      yield* say(handlers, "b", { host: "b", machines: machines.slice(1) })
      while (describeState((yield* kernel.state("vm/web")).chart) !== "stopped.idle") yield* Effect.sleep(5)
      assert.deepEqual(asked, ["observe web"])
    })
  ))
