import assert from "node:assert/strict"
import { test } from "node:test"
import { array, assert as check, boolean, nat, property } from "fast-check"
import type { Recorded } from "../../src/events/envelope.ts"
import { causeOf, entryOf } from "../../src/projections/audit.ts"
import { hostViewsOf, inventory } from "../../src/projections/inventory.ts"
import { migrations, migrations_max } from "../../src/projections/migrations.ts"
import { decisionsOf, decisionsPerVm_max, placement } from "../../src/projections/placement.ts"
import type { Projection } from "../../src/projections/projection.ts"
import { textOf } from "../../src/projections/table.ts"
import type { Table } from "../../src/projections/table.ts"
import { histories, hostFacts, policy, progress, recorded, spec } from "./facts.ts"
import type { Said } from "./facts.ts"

function given<State>(projection: Projection<State>, ...history: ReadonlyArray<Said>): State {
  let state = projection.initial()
  for (const fact of recorded(history)) state = projection.apply(state, fact)
  return state
}

const vm = "vm/web-1"
const started: ReadonlyArray<Said> = [
  [vm, { type: "vm.created", name: "web-1", spec, start: true }],
  [vm, { type: "vm.placed", host: "h1", decision: "d1" }],
  [vm, { type: "vm.defined" }],
  [vm, { type: "vm.startRequested", automatic: false }],
  [vm, { type: "vm.started", accelerator: "kvm" }]
]

test("a started machine runs on its host and nothing says why it does not", () => {
  const row = given(inventory, ...started).vms.get("web-1")
  assert.equal(row?.state, "running")
  assert.equal(row?.host, "h1")
  assert.equal(row?.accelerator, "kvm")
  assert.equal(row?.notRunning, null)
  assert.deepEqual([row?.change.type, row?.change.position, row?.change.revision], ["vm.started", 5, 4])
})

test("a stopped machine says who stopped it", () => {
  const history: ReadonlyArray<Said> = [
    ...started,
    [vm, { type: "vm.stopRequested", force: false }],
    [vm, { type: "vm.stopped" }]
  ]
  const row = given(inventory, ...history).vms.get("web-1")
  assert.equal(row?.state, "stopped")
  assert.equal(row?.notRunning?.reason, "stopped at the request of operator ada")
})

test("a machine whose guest powered off, or crashed, or that no host could take, says so", () => {
  const off = given(inventory, ...started, [vm, { type: "vm.stopped" }]).vms.get("web-1")
  assert.equal(off?.notRunning?.reason, "the guest powered off by itself")
  const crashed = given(inventory, ...started, [vm, { type: "vm.crashed", reason: "panic" }]).vms.get("web-1")
  assert.equal(crashed?.notRunning?.reason, "the guest crashed: panic")
  assert.equal(crashed?.crashes, 1)
  const unplaced = given(inventory, started[0] as Said, [
    vm,
    { type: "vm.notPlaced", decision: "d1", reason: "h1 is full" }
  ]).vms.get("web-1")
  assert.equal(unplaced?.state, "unplaced")
  assert.equal(unplaced?.notRunning?.reason, "no host could take it: h1 is full")
})

test("an operation that failed leaves the machine where it was, with the reason", () => {
  const row = given(
    inventory,
    ...started,
    [vm, { type: "vm.pauseRequested" }],
    [vm, { type: "vm.operationFailed", operation: "pause", reason: "QMP is gone" }]
  ).vms.get("web-1")
  assert.equal(row?.state, "running")
  assert.deepEqual([row?.failure?.operation, row?.failure?.reason], ["pause", "QMP is gone"])
})

test("a migrated machine is on its new host and no longer locked; a deleted one is gone", () => {
  const moved: ReadonlyArray<Said> = [
    ...started,
    [vm, { type: "vm.locked", migration: "m1" }],
    [vm, { type: "vm.handedOver", migration: "m1", from: "h1", to: "h2", decision: "d2" }]
  ]
  const locked = given(inventory, ...moved).vms.get("web-1")
  assert.deepEqual([locked?.state, locked?.host, locked?.migration], ["migrating", "h2", "m1"])
  const free: ReadonlyArray<Said> = [...moved, [vm, { type: "vm.unlocked", migration: "m1" }]]
  const row = given(inventory, ...free).vms.get("web-1")
  assert.deepEqual([row?.state, row?.host, row?.migration], ["running", "h2", null])
  assert.equal(given(inventory, ...free, [vm, { type: "vm.deleted" }]).vms.get("web-1"), undefined)
})

test("what a guest is told at its first boot is not in the view", () => {
  const secret = { ...spec, cloudInit: { userData: "password: hunter2", metaData: "" } }
  const state = given(inventory, [vm, { type: "vm.created", name: "web-1", spec: secret, start: false }])
  assert.equal(state.vms.get("web-1")?.spec.cloudInit, true)
  assert.ok(!textOf(inventory.tables(state)).includes("hunter2"))
})

const host = "host/h1"
const registered: Said = [host, { type: "host.registered", name: "h1", address: "h1:1", facts: hostFacts }]
const needs = { cpus: 2, memoryMib: 512, diskMib: 10 }
const reserve = (reservation: string, name: string): Said => [
  host,
  { type: "host.reserved", reservation, vm: name, needs }
]

test("a host's view has what is promised and to whom, and less again when it is released", () => {
  const both = given(inventory, registered, reserve("r1", "web-1"), reserve("r2", "db"))
  assert.deepEqual(hostViewsOf(both), [
    {
      name: "h1",
      address: "h1:1",
      state: "up",
      total: { cpus: 8, memoryMib: 16_384, diskMib: 100_000 },
      used: { cpus: 4, memoryMib: 1024, diskMib: 20 },
      driver: "sim",
      accelerators: ["tcg"],
      capabilities: [],
      machines: ["q35"],
      cpuModels: ["qemu64"],
      labels: { zone: "a" },
      vms: ["db", "web-1"]
    }
  ])
  const one = given(inventory, registered, reserve("r1", "web-1"), reserve("r2", "db"), [
    host,
    { type: "host.released", reservation: "r1", vm: "web-1" }
  ])
  assert.deepEqual(hostViewsOf(one)[0]?.used, needs)
  assert.deepEqual(hostViewsOf(one)[0]?.vms, ["db"])
})

test("a draining host that registers again goes on draining, a lost one is up again with its promises", () => {
  const drained: Said = [host, { type: "host.drained", reason: "new kernel" }]
  const lost: Said = [host, { type: "host.lost", reason: "no heartbeat" }]
  const draining = given(inventory, registered, drained, registered).hosts.get("h1")
  assert.deepEqual([draining?.state, draining?.reason], ["draining", "new kernel"])
  const back = given(inventory, registered, reserve("r1", "web-1"), lost, registered).hosts.get("h1")
  assert.deepEqual([back?.state, back?.reason, back?.vms], ["up", "", ["web-1"]])
})

const decided = (chosen: string | null) => ({
  attempt: 1,
  policy: "weighted-1",
  weights: {},
  viewPosition: 1,
  candidates: [
    { host: "h1", excluded: [], scores: {}, total: 1 },
    { host: "h2", excluded: [{ filter: "memory", reason: "full" }], scores: {}, total: 0 }
  ],
  reason: chosen === null ? "h1: full; h2: full" : "h1 scores best"
})
const requested = (decision: string, name: string): Said => [
  `placement/${decision}`,
  {
    type: "placement.requested",
    decision,
    vm: name,
    spec,
    purpose: "create",
    replyTo: `vm/${name}`
  }
]

test("a decision tells how many were considered, who was chosen and how it ended", () => {
  const state = given(
    placement,
    requested("d1", "web-1"),
    ["placement/d1", { type: "placement.decided", ...decided("h1"), chosen: "h1" }],
    ["placement/d1", { type: "placement.settled", host: "h1" }],
    requested("d2", "web-1"),
    ["placement/d2", { type: "placement.noHost", ...decided(null), chosen: null }]
  )
  const [latest, first] = decisionsOf(state, "web-1")
  assert.deepEqual([latest?.decision, latest?.outcome, latest?.host], ["d2", "no-host", null])
  assert.deepEqual([first?.outcome, first?.host], ["settled", "h1"])
  assert.deepEqual([first?.attempts[0]?.considered, first?.attempts[0]?.excluded], [2, 1])
})

test("no more decisions are kept per machine than the limit, the latest ones", () => {
  const count = decisionsPerVm_max + 5
  const state = given(
    placement,
    ...Array.from({ length: count }, (_, index) => requested(`d${index}`, "web-1"))
  )
  const kept = decisionsOf(state, "web-1")
  assert.equal(kept.length, decisionsPerVm_max)
  assert.equal(kept[0]?.decision, `d${count - 1}`)
  assert.equal(state.decisions.size, decisionsPerVm_max)
})

const m = "migration/m1"
const under: ReadonlyArray<Said> = [
  [m, { type: "migration.requested", migration: "m1", vm: "web-1", policy, reason: "drain" }],
  [m, { type: "migration.begun", from: "h1", decision: "d0", spec }],
  [m, { type: "migration.placed", to: "h2", address: "h2:1", decision: "d2" }],
  [m, { type: "migration.checked" }],
  [m, { type: "migration.prepared", channels: ["ram"] }]
]

test("a migration's progress never goes back and is 100 only when it is completed", () => {
  const half = given(
    migrations,
    ...under,
    [m, { type: "migration.progressed", progress: progress(60, 6000) }],
    [m, { type: "migration.progressed", progress: progress(40, 4000) }]
  ).migrations.get("m1")
  assert.deepEqual([half?.percent, half?.transferredBytes, half?.phase], [60, 6000, "pre-copy"])
  assert.deepEqual([half?.from, half?.to, half?.result], ["h1", "h2", null])
  const full = given(migrations, ...under, [
    m,
    { type: "migration.progressed", progress: progress(100, 9000) }
  ]).migrations.get("m1")
  assert.ok((full?.percent ?? 100) < 100)
  const done = given(
    migrations,
    ...under,
    [m, { type: "migration.progressed", progress: progress(100, 9000) }],
    [m, { type: "migration.handedOver" }],
    [m, { type: "migration.measured", totalMs: 4000, downtimeMs: 12, transferredBytes: 9500 }],
    [m, { type: "migration.completed" }]
  ).migrations.get("m1")
  assert.deepEqual([done?.percent, done?.result, done?.phase], [100, "completed", "ended"])
  assert.deepEqual([done?.downtimeMs, done?.transferredBytes, done?.remainingMs], [12, 9500, null])
})

test("a migration that failed says why and what was left behind", () => {
  const row = given(
    migrations,
    ...under,
    [m, { type: "migration.rollingBack", outcome: "failed", reason: "the link broke" }],
    [m, { type: "migration.progressed", progress: progress(70, 7000) }],
    [m, { type: "migration.destinationCleared", leftover: "/dev/shm/x" }],
    [m, { type: "migration.sourceKept", trouble: "" }],
    [m, { type: "migration.failed", reason: "the link broke" }]
  ).migrations.get("m1")
  assert.deepEqual([row?.result, row?.reason], ["failed", "the link broke"])
  assert.deepEqual(row?.troubles, ["left at the destination: /dev/shm/x"])
  assert.ok(row?.endedMs !== null)
})

test("beyond the limit the oldest migration that has ended is forgotten, never one under way", () => {
  let state = migrations.initial()
  const history: Array<Said> = []
  for (let index = 0; index <= migrations_max; index++) {
    const stream = `migration/m${index}`
    history.push([stream, { type: "migration.requested", migration: "x", vm: "v", policy, reason: "" }])
    if (index > 0) history.push([stream, { type: "migration.completed" }])
  }
  for (const fact of recorded(history)) state = migrations.apply(state, fact)
  assert.equal(state.migrations.size, migrations_max)
  assert.ok(state.migrations.get("m0"))
  assert.equal(state.migrations.get("m1"), undefined)
})

test("an entry of the audit says what failed and why, and which fact asked for it", () => {
  const one = recorded([
    [vm, { type: "vm.operationFailed", operation: "start", reason: "no KVM" }]
  ])[0] as Recorded
  const { what, why, result } = entryOf(one)
  assert.deepEqual([what, why, result], ["vm.operationFailed", "no KVM", "failed"])
  assert.deepEqual(causeOf("vm/web-1@4#0"), { stream: "vm/web-1", revision: 4 })
  assert.equal(causeOf("vm/web-1@x#0"), null)
  assert.equal(causeOf("a-command"), null)
})

test("facts of unknown types change nothing", () => {
  for (const projection of [inventory, placement, migrations] as const) {
    const before = textOf(projection.tables(projection.initial() as never))
    const after = given(
      projection as Projection<unknown>,
      ["vm/x", { type: "constructor" }],
      ["a/b", { type: "x.y" }]
    )
    assert.equal(textOf(projection.tables(after as never)), before)
  }
})

/** What a file of rows does with the changes of a table: the reference for `changes`. */
function stored(rows: Map<string, string>, table: Table<unknown>): Map<string, string> {
  for (const { key, text, moved } of table.changes()) {
    if (text === null || moved) rows.delete(key)
    if (text !== null) rows.set(key, text)
  }
  table.settle()
  return rows
}

test("storing only what changed, at any moments, stores the same rows in the same order", () => {
  const projections = [inventory, placement, migrations] as ReadonlyArray<Projection<unknown>>
  const seed = 20_260_101
  console.log(`seed ${seed}`)
  const cuts = array(boolean(), { minLength: 120, maxLength: 120 })
  const always = property(histories(120), cuts, (history, store) => {
    for (const projection of projections) {
      let state = projection.initial()
      const files = new Map<string, Map<string, string>>()
      for (const [index, fact] of recorded(history).entries()) {
        state = projection.apply(state, fact)
        if (!store[index] && index < history.length - 1) continue
        for (const [kind, table] of Object.entries(projection.tables(state)))
          files.set(kind, stored(files.get(kind) ?? new Map(), table))
      }
      const restored = projection.initial()
      for (const [kind, table] of Object.entries(projection.tables(restored)))
        for (const [key, text] of files.get(kind) ?? []) table.restore(key, text)
      assert.equal(textOf(projection.tables(restored)), textOf(projection.tables(state)))
    }
  })
  check(always, { seed, numRuns: 200 })
})

test("a fold that goes on from a stored state ends where one from the first fact ends", () => {
  const projections = [inventory, placement, migrations] as ReadonlyArray<Projection<unknown>>
  const seed = 20_260_102
  console.log(`seed ${seed}`)
  const always = property(histories(150), nat(150), (history, cut) => {
    for (const projection of projections) {
      const facts = recorded(history)
      const whole = facts.reduce((state, fact) => projection.apply(state, fact), projection.initial())
      const first = facts.slice(0, cut).reduce((s, fact) => projection.apply(s, fact), projection.initial())
      let second = projection.initial()
      for (const [kind, table] of Object.entries(projection.tables(first)))
        for (const [key, row] of table) projection.tables(second)[kind]?.restore(key, JSON.stringify(row))
      second = facts.slice(cut).reduce((state, fact) => projection.apply(state, fact), second)
      assert.equal(textOf(projection.tables(second)), textOf(projection.tables(whole)))
    }
  })
  check(always, { seed, numRuns: 200 })
})
