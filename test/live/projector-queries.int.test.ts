import assert from "node:assert/strict"
import { test } from "node:test"
import { Effect, Fiber, Layer } from "effect"
import { Views } from "../../src/kernel/ports/views.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import { Projector } from "../../src/live/projector.ts"
import { Reads } from "../../src/live/api/reads.ts"
import { Metrics } from "../../src/live/metrics.ts"
import { Queries, queriesLayer, readsLayer, viewsLayer } from "../../src/live/views.ts"
import type { AuditEntry } from "../../src/projections/audit.ts"
import { draftOf, hostFacts, policy, spec } from "../projections/facts.ts"
import type { Said } from "../projections/facts.ts"
import { memoryDisk, say, withProjector } from "./projector-world.ts"
import type { Opened } from "./projector-world.ts"

interface Served extends Opened {
  readonly queries: Queries["Service"]
  readonly views: Views["Service"]
  readonly reads: Reads["Service"]
}

/** The queries and the port over a projector, with the facts given already seen. */
const withQueries = <A, E>(history: ReadonlyArray<Said>, use: (served: Served) => Effect.Effect<A, E>) =>
  withProjector(memoryDisk(), {}, (opened) => {
    const { store, projector } = opened
    const base = Layer.mergeAll(
      Layer.succeed(Projector, projector),
      Layer.succeed(EventStore, store),
      Metrics.layer
    )
    const layer = Layer.provideMerge(readsLayer, Layer.mergeAll(queriesLayer, viewsLayer())).pipe(
      Layer.provide(base)
    )
    const program = Effect.gen(function* () {
      yield* say(store, history)
      const { position } = yield* store.head
      yield* projector.caughtUp(position)
      const [queries, views, reads] = [yield* Queries, yield* Views, yield* Reads]
      return yield* use({ ...opened, queries, views, reads })
    })
    return Effect.provide(program, layer)
  })

const created = (name: string): Said => [`vm/${name}`, { type: "vm.created", name, spec, start: false }]
const registered = (name: string): Said => [
  `host/${name}`,
  { type: "host.registered", name, address: `${name}:1`, facts: hostFacts }
]

test("the view of the hosts waits for the position that was asked for", async () => {
  await withQueries([registered("h2"), registered("h1")], ({ views, store }) =>
    Effect.gen(function* () {
      const now = yield* views.hosts(2)
      assert.deepEqual(
        now.hosts.map((host) => host.name),
        ["h1", "h2"]
      )
      const waiting = yield* Effect.forkChild(views.hosts(3))
      yield* Effect.yieldNow
      assert.equal(waiting.pollUnsafe(), undefined)
      yield* say(store, [["host/h1", { type: "host.drained", reason: "" }]])
      const later = yield* Fiber.join(waiting)
      assert.equal(later.position, 3)
      assert.equal(later.hosts[0]?.state, "draining")
    })
  )
})

test("lists are in order of names, migrations the latest first and by state", async () => {
  const migration = (id: string, vm: string): Said => [
    `migration/${id}`,
    { type: "migration.requested", migration: id, vm, policy, reason: "" }
  ]
  const history: ReadonlyArray<Said> = [
    created("b"),
    created("a"),
    migration("m1", "a"),
    ["migration/m1", { type: "migration.failed", reason: "no" }],
    migration("m2", "a"),
    migration("m3", "b")
  ]
  await withQueries(history, ({ queries, reads }) =>
    Effect.gen(function* () {
      const names = queries.vms().map((vm) => vm.name)
      assert.deepEqual(names, ["a", "b"])
      assert.equal(queries.vm("c"), null)
      const ids = (filter?: Parameters<typeof queries.migrations>[0]) =>
        queries.migrations(filter).map((row) => row.migration)
      assert.deepEqual(ids(), ["m3", "m2", "m1"])
      assert.deepEqual(ids({ vm: "a" }), ["m2", "m1"])
      assert.deepEqual(ids({ state: "failed" }), ["m1"])
      assert.deepEqual(ids({ state: "active", vm: "a" }), ["m2"])
      const read = yield* reads.migration("m1")
      assert.deepEqual([read?.id, read?.state], ["m1", "failed"])
      assert.match(yield* reads.metrics, /process_cpu_seconds_total/)
    })
  )
})

test("why a machine is where it is comes with every candidate and score", async () => {
  const decided = {
    attempt: 1,
    policy: "weighted-1",
    weights: { packing: 1 },
    viewPosition: 1,
    candidates: [{ host: "h1", excluded: [], scores: { packing: 0.5 }, total: 0.5 }],
    reason: "h1 scores best"
  }
  const history: ReadonlyArray<Said> = [
    [
      "placement/d1",
      { type: "placement.requested", decision: "d1", vm: "a", spec, purpose: "create", replyTo: "vm/a" }
    ],
    ["placement/d1", { type: "placement.decided", ...decided, chosen: "h1", address: "h1:1" }],
    ["placement/d1", { type: "placement.settled", host: "h1" }]
  ]
  await withQueries(history, ({ queries }) =>
    Effect.gen(function* () {
      const [decision] = yield* queries.decisions("a")
      assert.equal(decision?.outcome, "settled")
      assert.deepEqual(decision?.facts[1]?.data["candidates"], decided.candidates)
      assert.deepEqual(yield* queries.decisions("b"), [])
    })
  )
})

test("the causes of a fact lead back to whoever asked", async () => {
  await withQueries([created("a")], ({ store, queries }) =>
    Effect.gen(function* () {
      const actor = { principal: { kind: "actor" as const, name: "vm/a" }, causation: "vm/a@0#0" }
      const request: Said = [
        "placement/d1",
        { type: "placement.requested", decision: "d1", vm: "a", spec, purpose: "create", replyTo: "vm/a" }
      ]
      yield* store.append([
        { stream: "placement/d1", expectedRevision: -1, facts: [draftOf(request, 900, actor)] }
      ])
      const chain = yield* queries.causes(2)
      const steps = chain.map((entry) => [entry.what, entry.who.kind])
      assert.deepEqual(steps, [
        ["placement.requested", "actor"],
        ["vm.created", "operator"]
      ])
      assert.deepEqual(yield* queries.causes(3), [])
    })
  )
})

test("the audit pages back through all facts without gaps, by stream, time and person", async () => {
  // More than one look goes through.
  const length = 22_500
  const history = Array.from({ length }, (_, index): Said => created(`v${index % 50}`))
  await withQueries([], ({ store, projector, queries }) =>
    Effect.gen(function* () {
      const revisions = new Map<string, number>()
      const appends = history.map((said, index) => {
        const revision = revisions.get(said[0]) ?? -1
        revisions.set(said[0], revision + 1)
        const who = { kind: "operator" as const, name: index % 1000 === 0 ? "grace" : "ada" }
        return {
          stream: said[0],
          expectedRevision: revision,
          facts: [draftOf(said, index, { principal: who })]
        }
      })
      yield* store.append(appends)
      yield* projector.caughtUp(length, { timeoutMs: 30_000 })
      const all = (query: Parameters<typeof queries.audit>[0]) =>
        Effect.gen(function* () {
          const entries: Array<AuditEntry> = []
          let page = yield* queries.audit(query)
          entries.push(...page.entries)
          while (page.next !== null) {
            page = yield* queries.audit({ ...query, from: page.next })
            entries.push(...page.entries)
          }
          return entries.map((entry) => entry.position)
        })
      const expected = Array.from({ length }, (_, index) => length - index)
      assert.deepEqual(yield* all({ limit: 1000 }), expected)
      // A page that is full with the first fact is the last one.
      assert.equal((yield* queries.audit({ from: 900, limit: 900 })).next, null)
      assert.equal((yield* queries.audit({ from: 901, limit: 900 })).next, 1)
      assert.deepEqual(
        yield* all({ who: "grace", limit: 3 }),
        expected.filter((position) => (position - 1) % 1000 === 0)
      )
      assert.deepEqual(
        yield* all({ stream: "vm/v7", limit: 17 }),
        expected.filter((position) => (position - 1) % 50 === 7)
      )
      assert.deepEqual(yield* all({ fromMs: 1_000_010, toMs: 1_000_012 }), [13, 12, 11])
      const page = yield* queries.history("vm/v7", { limit: 2, direction: "backwards" })
      assert.deepEqual(
        page.map((fact) => fact.revision),
        [449, 448]
      )
    })
  )
})

test("the audit of a long stream pages back to its first fact, and each page begins before the last", async () => {
  const length = 20_500
  await withQueries([], ({ store, queries }) =>
    Effect.gen(function* () {
      const said = created("long")
      const facts = Array.from({ length }, (_, index) => draftOf(said, index, {}))
      yield* store.append([{ stream: said[0], expectedRevision: -1, facts }])
      let next: number | null = length
      let found = 0
      while (next !== null) {
        const page: { entries: ReadonlyArray<AuditEntry>; next: number | null } = yield* queries.audit({
          stream: said[0],
          limit: 1000,
          from: next
        })
        found += page.entries.length
        assert.ok(page.next === null || page.next < next, `${page.next} after ${next}`)
        next = page.next
      }
      assert.equal(found, length)
    })
  )
})
