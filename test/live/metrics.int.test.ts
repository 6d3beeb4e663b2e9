import assert from "node:assert/strict"
import { test } from "node:test"
import { Effect } from "effect"
import * as fc from "fast-check"
import { Histogram, Registry } from "prom-client"
import { labelValues_max, makeMetrics, measureAppends } from "../../src/live/metrics.ts"
import { hostFacts, policy, spec } from "../projections/facts.ts"
import type { Said } from "../projections/facts.ts"
import { memoryDisk, say, withProjector } from "./projector-world.ts"

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31))
console.log(`seed ${seed}`)

const created = (name: string): Said => [`vm/${name}`, { type: "vm.created", name, spec, start: false }]
const m = "migration/m1"
const migrated: ReadonlyArray<Said> = [
  [m, { type: "migration.requested", migration: "m1", vm: "a", policy, reason: "" }],
  [m, { type: "migration.measured", totalMs: 4000, downtimeMs: 120, transferredBytes: 5000 }],
  [m, { type: "migration.completed" }]
]
const host: Said = ["host/h1", { type: "host.registered", name: "h1", address: "h1:1", facts: hostFacts }]

const value = (text: string, series: string): number | undefined => {
  const line = text.split("\n").find((one) => one.startsWith(`${series} `))
  return line === undefined ? undefined : Number(line.slice(series.length))
}

test("facts are counted from the start of the process on, and what there is is read from the views", async () => {
  const disk = memoryDisk()
  await withProjector(disk, {}, ({ store }) => say(store, [created("old"), ...migrated]))
  await withProjector(disk, {}, ({ store, projector }) =>
    Effect.scoped(
      Effect.gen(function* () {
        const metrics = makeMetrics()
        yield* metrics.observe(projector, { mailboxWaiting: () => 3, outstandingRequests: () => 2 })
        yield* projector.caughtUp(4)
        const before = yield* Effect.promise(metrics.render)
        assert.equal(value(before, 'novacron_facts_total{type="vm.created"}'), undefined)
        assert.equal(value(before, 'novacron_vms{state="placing"}'), 1)
        const again = migrated.map(([, fact]): Said => ["migration/m2", fact])
        yield* say(store, [created("new"), host, ...again])
        yield* projector.caughtUp(9)
        // Views may be ahead of what is counted: they catch up on their own, the counters follow the feed.
        let text = ""
        while (value(text, 'novacron_migrations_total{result="completed"}') === undefined) {
          yield* Effect.sleep(5)
          text = yield* Effect.promise(metrics.render)
        }
        assert.equal(value(text, 'novacron_facts_total{type="vm.created"}'), 1)
        assert.equal(value(text, 'novacron_vms{state="placing"}'), 2)
        assert.equal(value(text, 'novacron_hosts{state="up"}'), 1)
        assert.equal(value(text, 'novacron_migrations_total{result="completed"}'), 1)
        assert.equal(value(text, 'novacron_migration_duration_seconds_count{result="completed"}'), 1)
        assert.equal(value(text, "novacron_migration_downtime_seconds_sum"), 0.12)
        assert.equal(value(text, "novacron_migration_bytes_total"), 5000)
        assert.equal(value(text, 'novacron_projection_lag_facts{projection="inventory"}'), 0)
        assert.equal(value(text, "novacron_mailbox_waiting"), 3)
        assert.equal(value(text, "novacron_outstanding_requests"), 2)
      })
    )
  )
})

test("what is counted between two reads is in the second, once", async () => {
  const metrics = makeMetrics()
  const series = 'novacron_http_requests_total{method="POST",route="/v1/vms",status="200"}'
  const read = async () => value(await metrics.render(), series)
  assert.equal(await read(), undefined)
  metrics.httpRequest("POST", "/v1/vms", 200, 0.001)
  metrics.httpRequest("POST", "/v1/vms", 200, 0.001)
  metrics.httpRequest("POST", "/v1/vms", 409, 0.001)
  assert.equal(await read(), 2)
  assert.equal(await read(), 2)
  metrics.httpRequest("POST", "/v1/vms", 200, 0.001)
  assert.equal(await read(), 3)
  metrics.command("vm.start", "accepted")
  metrics.command("vm.start", "refused")
  metrics.command("vm.start", "accepted")
  const text = await metrics.render()
  assert.equal(value(text, 'novacron_commands_total{type="vm.start",outcome="accepted"}'), 2)
  assert.equal(value(text, 'novacron_commands_total{type="vm.start",outcome="refused"}'), 1)
})

test("the times of requests are told as prom-client tells a histogram", async () => {
  const name = "novacron_http_request_duration_seconds"
  const rows = fc.array(
    fc.tuple(
      fc.constantFrom("POST", "GET"),
      fc.constantFrom("/v1/vms", '/v1/"quoted"\\'),
      // On a bound, between two, above the last and none at all.
      fc.oneof(fc.constantFrom(0, 0.001, 0.005, 10, 11), fc.double({ min: 0, max: 20, noNaN: true }))
    ),
    { maxLength: 60, size: "max" }
  )
  const property = fc.asyncProperty(rows, async (observed) => {
    const metrics = makeMetrics()
    const buckets = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
    const registers = [new Registry()]
    const theirs = new Histogram({
      name,
      help: "Time to answer",
      buckets,
      labelNames: ["method", "route"],
      registers
    })
    for (const [method, route, seconds] of observed) {
      metrics.httpRequest(method, route, 200, seconds)
      theirs.observe({ method, route }, seconds)
    }
    const linesOf = (text: string) =>
      text
        .split("\n")
        .filter((line) => line.includes(name))
        .sort()
    assert.deepEqual(linesOf(await metrics.render()), linesOf(await registers[0]!.metrics()))
  })
  await fc.assert(property, { seed, numRuns: 100 })
})

test("a rebuild counts nothing twice", async () => {
  await withProjector(memoryDisk(), {}, ({ store, projector }) =>
    Effect.scoped(
      Effect.gen(function* () {
        const metrics = makeMetrics()
        yield* metrics.observe(projector)
        yield* say(store, [created("a"), created("b")])
        yield* projector.caughtUp(2)
        yield* projector.rebuild("inventory")
        const text = yield* Effect.promise(metrics.render)
        assert.equal(value(text, 'novacron_facts_total{type="vm.created"}'), 2)
      })
    )
  )
})

test("appends are measured, those that fail too", async () => {
  const disk = memoryDisk()
  await withProjector(disk, {}, ({ store }) =>
    Effect.gen(function* () {
      const metrics = makeMetrics()
      const measured = measureAppends(store, metrics)
      yield* say(measured, [created("a")])
      disk.fault = (operation) => (operation === "append" ? "full" : null)
      yield* Effect.flip(say(measured, [created("b")]))
      disk.fault = () => null
      const text = yield* Effect.promise(metrics.render)
      assert.equal(value(text, "novacron_append_duration_seconds_count"), 2)
    })
  )
})

test("a label takes no more values than its limit", async () => {
  const metrics = makeMetrics()
  for (let index = 0; index < labelValues_max + 50; index++) metrics.command(`type-${index}`, "accepted")
  metrics.httpRequest("BREW", "/vms/{name}", 418, 0.01)
  const text = await metrics.render()
  assert.equal(value(text, 'novacron_commands_total{type="other",outcome="accepted"}'), 50)
  assert.equal(
    value(text, 'novacron_http_requests_total{method="other",route="/vms/{name}",status="418"}'),
    1
  )
})

test("start-up, components and the network's mode have the names that dashboards ask for", async () => {
  const metrics = makeMetrics()
  metrics.phase("core", 0.2)
  metrics.componentStarted("database", 0.1)
  metrics.componentStatus("database", "starting")
  metrics.componentStatus("database", "running")
  metrics.initializationError("cache", "core")
  metrics.bootTime(1.5)
  metrics.mode("internet")
  metrics.turn(0.0001)
  const text = await metrics.render()
  assert.equal(value(text, 'phase_duration_seconds_count{phase="core"}'), 1)
  assert.equal(value(text, 'component_init_duration_seconds_count{component="database"}'), 1)
  assert.equal(value(text, 'component_status{component="database",state="running"}'), 1)
  assert.equal(value(text, 'component_status{component="database",state="starting"}'), 0)
  assert.equal(value(text, 'initialization_errors_total{component="cache",phase="core"}'), 1)
  assert.equal(value(text, "total_boot_time_seconds"), 1.5)
  assert.equal(value(text, 'dwcp_mode{mode="internet"}'), 1)
  assert.equal(value(text, 'dwcp_mode{mode="hybrid"}'), 0)
  assert.equal(value(text, "novacron_turn_duration_seconds_count"), 1)
})
