/** Where a machine goes, and why; and the actor that decides it and reserves the room. */
import assert from "node:assert/strict"
import { test } from "node:test"
import * as fc from "fast-check"
import { decidePlacement } from "../../src/actors/placement/decide.ts"
import type { Question } from "../../src/actors/placement/decide.ts"
import type { HostView } from "../../src/events/placement.ts"
import { hostView, spec } from "./messages.ts"
import { given } from "./specification.ts"

const seed = 20_261_121
const view = (name: string, more: Record<string, unknown> = {}) => hostView(name, more) as HostView
const question = (more: Partial<Question> = {}): Question => ({
  vm: "web",
  spec,
  platform: null,
  capabilities: [],
  purpose: "create",
  from: null,
  pinned: null,
  ...more
})
const total = { cpus: 4, memoryMib: 4096, diskMib: 10_000 }
const used = (more: Partial<typeof total>) => ({ used: { cpus: 0, memoryMib: 0, diskMib: 0, ...more } })

for (const [filter, host, more, reason] of [
  ["pinned", {}, { pinned: "b" }, /only b was asked for/],
  ["source", {}, { from: "a" }, /the machine is on it now/],
  ["state", { state: "draining" }, {}, /it is draining/],
  ["state", { state: "lost" }, {}, /it is lost/],
  ["cpus", used({ cpus: 16 }), {}, /1 cpus needed, 0 of 16 free/],
  ["memory", used({ memoryMib: 4000 }), {}, /512 memoryMib needed, 96 of 4096 free/],
  ["disk", used({ diskMib: 9999 }), {}, /64 diskMib needed, 1 of 10000 free/],
  ["machine-type", { machines: ["pc"] }, {}, /no machine type q35: pc/],
  ["cpu-model", { cpuModels: ["max"] }, {}, /can't give the CPU model qemu64/],
  [
    "machine-type",
    { machines: ["q35", "pc-q35-9.2"] },
    { platform: { accelerator: "tcg", machine: "pc-q35-7.2" } },
    /no machine type pc-q35-7.2: q35, pc-q35-9.2/
  ],
  [
    "accelerator",
    { machines: ["pc-q35-7.2"] },
    { platform: { accelerator: "kvm", machine: "pc-q35-7.2" } },
    /runs with kvm, this host has tcg/
  ],
  ["capability", {}, { capabilities: ["post-copy"] }, /can't do post-copy/],
  ["labels", {}, { spec: { ...spec, hostLabels: { zone: "eu" } } }, /label zone is not set, not eu/],
  ["anti-affinity", { vms: ["db"] }, { spec: { ...spec, antiAffinity: ["db"] } }, /db is on it/]
] as const) {
  test(`${filter} excludes, and says why: ${reason.source}`, () => {
    const { candidates, chosen } = decidePlacement(question(more), [view("a", host)])
    assert.equal(chosen, null)
    const excluded = candidates[0]?.excluded.find((one) => one.filter === filter)
    assert.match(excluded?.reason ?? "", reason)
  })
}

test("a host takes four virtual CPUs for each of its own, as its actor does", () => {
  const { chosen } = decidePlacement(question(), [view("a", used({ cpus: 15 }))])
  assert.equal(chosen, "a")
})

test("no destination is never said without its cause", () => {
  assert.match(decidePlacement(question(), []).reason, /there is no host: none has registered/)
  const gone = decidePlacement(question({ pinned: "z" }), [view("a")])
  assert.match(gone.reason, /there is no host z; hosts: a/)
  const full = decidePlacement(question(), [
    view("a", used({ memoryMib: 4096 })),
    view("b", { state: "lost" })
  ])
  assert.match(full.reason, /no host can take web: a: 512 memoryMib needed, 0 of 4096 free \| b: it is lost/)
})

test("new machines are packed, moved ones get air, friends stay together, and ties go to the first name", () => {
  const busy = view("busy", used({ cpus: 4, memoryMib: 1024 }))
  const idle = view("idle")
  assert.equal(decidePlacement(question(), [idle, busy]).chosen, "busy")
  assert.equal(decidePlacement(question({ purpose: "migrate", from: "c" }), [idle, busy]).chosen, "idle")
  const friend = { spec: { ...spec, affinity: ["db"] } }
  const near = view("near", { vms: ["db"] })
  assert.equal(decidePlacement(question(friend), [idle, near]).chosen, "near")
  assert.equal(decidePlacement(question(), [view("b"), view("a")]).chosen, "a")
})

const views = fc.uniqueArray(
  fc.record({
    name: fc.constantFrom("a", "b", "c", "d", "e", "f"),
    state: fc.constantFrom("up", "draining", "lost"),
    cpus: fc.nat(20),
    memoryMib: fc.nat(5000),
    machines: fc.subarray(["q35", "pc"]),
    vms: fc.subarray(["db", "cache", "mail"])
  }),
  { selector: ({ name }) => name, maxLength: 6 }
)

test("the choice is among the hosts that no filter excludes, highest in score, whatever their order", () => {
  const property = fc.property(
    views,
    fc.constantFrom("create" as const, "migrate" as const),
    fc.option(fc.constantFrom("a", "b"), { nil: null }),
    (hosts, purpose, pinned) => {
      const all = hosts.map(({ name, state, cpus, memoryMib, machines, vms }) =>
        view(name, { state, machines, vms, ...used({ cpus, memoryMib }) })
      )
      const affine = { ...spec, affinity: ["db"], antiAffinity: ["mail"] }
      const asked = question({ purpose, pinned, spec: affine, from: "f" })
      const decision = decidePlacement(asked, all)
      assert.deepEqual(decision, decidePlacement(asked, all.toReversed()))
      assert.equal(decision.candidates.length, all.length)
      const allowed = decision.candidates.filter(({ excluded }) => excluded.length === 0)
      if (allowed.length === 0) return assert.equal(decision.chosen, null)
      const best = Math.max(...allowed.map((one) => one.total))
      assert.equal(allowed.find((one) => one.host === decision.chosen)?.total, best)
    }
  )
  fc.assert(property, { seed, numRuns: 500 })
})

const p = "placement/web.1"
const request = { type: "placement.request", vm: "web", spec, purpose: "create", replyTo: "vm/web" }
const requested = { ...request, type: "placement.requested", decision: "web.1" }
const hosts = { type: "view.hosts", hosts: [hostView("a"), hostView("b")], position: 7 }
const decided = (attempt: number, chosen = "a") => ({
  ...{ type: "placement.decided", attempt, chosen, address: `${chosen}@127.0.0.1:1`, position: 7 },
  ...{ policy: "weighted-1", weights: {}, candidates: [], reason: "" }
})
const told = (type: string, command: string) => ({ type, to: "host/a", command, reason: "it is full" })
const contested = { type: "placement.contested", host: "a", reason: "it is full" }

test("a placement looks at all hosts, decides, and reserves the room", () => {
  given(p, []).when(request).thenRecords({ type: "placement.requested" }).thenAsks("view hosts")
  given(p, [requested])
    .when(hosts)
    .thenRecords({ type: "placement.decided", chosen: "a", attempt: 1 })
    .thenAsks("host.reserve to host/a")
  given(p, [requested, decided(1)])
    .when(told("actor.accepted", "host.reserve"))
    .thenRecords({ type: "placement.settled", host: "a" })
    .thenAsks("vm.place to vm/web")
})

test("a host that was filled meanwhile is passed over, three times at most", () => {
  const refused = told("actor.refused", "host.reserve")
  given(p, [requested, decided(1)])
    .when(refused)
    .thenRecords(contested)
    .thenAsks("view hosts")
  given(p, [requested, decided(1), contested, decided(2), contested])
    .when(hosts)
    .thenRecords({ type: "placement.decided", attempt: 3 })
  given(p, [requested, decided(1), contested, decided(2), contested, decided(3)])
    .when(refused)
    .thenRecords({ type: "placement.failed" })
    .thenAsks("vm.refusePlacement to vm/web")
})

test("without a host the asker is told why", () => {
  given(p, [requested])
    .when({ ...hosts, hosts: [] })
    .thenRecords({ type: "placement.noHost", reason: "there is no host: none has registered" })
    .thenAsks("vm.refusePlacement to vm/web")
})

test("an asker that does not want the place any more gets its room given back", () => {
  const settled = { type: "placement.settled", host: "a" }
  given(p, [requested, decided(1), settled])
    .when(told("actor.refused", "vm.place"))
    .thenRecords({ type: "placement.withdrawn" })
    .thenAsks("host.release to host/a")
  given(p, [requested, decided(1), settled])
    .when(told("actor.accepted", "vm.place"))
    .thenRecords({ type: "placement.replied" })
    .thenState("done")
})
