/** Which of many hosts a placement is told of, and what is said of the others. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { decidePlacement } from "../../src/actors/placement/decide.ts"
import type { PlacementQuestion } from "../../src/events/placement.ts"
import { drawnOrder, hostsFor, named_max, scored_max } from "../../src/projections/candidates.ts"
import { inventory } from "../../src/projections/inventory.ts"
import type { HostRow, Inventory } from "../../src/projections/inventory.ts"
import { othersOf } from "../../src/cli/decision.ts"
import { hostFacts, spec } from "../actors/messages.ts"

const none = { cpus: 0, memoryMib: 0, diskMib: 0 }
const nameOf = (index: number) => `h${String(index).padStart(5, "0")}`

/** Hosts of which `state` and `usedMib` say what is there. */
function fleetOf(count: number, more: (index: number) => Partial<HostRow> = () => ({})): Inventory {
  const state = inventory.initial()
  for (let index = 0; index < count; index++)
    state.hosts.set(nameOf(index), {
      name: nameOf(index),
      state: "up",
      address: nameOf(index),
      facts: { ...hostFacts, machines: ["q35"], cpuModels: ["qemu64"] },
      total: { cpus: 64, memoryMib: 4096, diskMib: 100_000 },
      used: none,
      reservations: {},
      leftovers: {},
      vms: [],
      reason: "",
      fencingHeld: null,
      sinceMs: 0,
      change: {
        type: "",
        position: 0,
        revision: 0,
        timeMs: 0,
        by: { kind: "system", name: "" },
        correlation: ""
      },
      ...more(index)
    })
  return state
}

const question = (more: Partial<PlacementQuestion> = {}): PlacementQuestion => ({
  vm: "web",
  spec,
  platform: null,
  capabilities: [],
  purpose: "create",
  from: null,
  pinned: null,
  ...more
})

const full = { used: { cpus: 0, memoryMib: 4096, diskMib: 0 } }

test("up to a hundred hosts are all named, with every reason, as ever", () => {
  const told = hostsFor(
    fleetOf(named_max, (index) => (index < 50 ? full : {})),
    { question: question(), draw: "web.1/1" }
  )
  assert.equal(told.hosts.length, named_max)
  assert.equal(told.others, undefined)
})

test("of many, enough that fit are named and the others counted by the reason that leaves them out", () => {
  const state = fleetOf(10_000, (index) =>
    index % 3 === 0 ? full : index % 3 === 1 ? { state: "draining" } : {}
  )
  const { hosts, others } = hostsFor(state, { question: question(), draw: "web.1/1" })
  assert.equal(hosts.length, scored_max)
  const isFree = ({ name }: { name: string }) => Number(name.slice(1)) % 3 === 2
  assert.ok(hosts.every(isFree))
  assert.ok(others !== undefined)
  assert.equal(others.hosts, 10_000)
  const counted = others.out.reduce((sum, group) => sum + group.hosts, 0)
  assert.equal(others.looked, hosts.length + counted)
  assert.ok(others.looked < 300, `${others.looked} were looked at`)
  assert.deepEqual(others.out.map(({ filter }) => filter).sort(), ["memory", "state"])
  for (const { filter, examples } of others.out)
    for (const { host, reason } of examples) {
      const third = Number(host.slice(1)) % 3
      assert.equal(third, filter === "memory" ? 0 : 1)
      assert.match(reason, filter === "memory" ? /512 memoryMib needed, 0 of 4096 free/ : /it is draining/)
    }
  const decision = decidePlacement(question(), hosts, others)
  assert.ok(hosts.some(({ name }) => name === decision.chosen))
  assert.ok(JSON.stringify(decision).length < 8192)
})

test("the last host with room is found, and when there is none the reasons add up to all hosts", () => {
  const one = hostsFor(
    fleetOf(5000, (index) => (index === 4321 ? {} : full)),
    { question: question(), draw: "x" }
  )
  assert.deepEqual(
    one.hosts.map(({ name }) => name),
    [nameOf(4321)]
  )
  const { hosts, others } = hostsFor(
    fleetOf(5000, () => full),
    { question: question(), draw: "x" }
  )
  assert.equal(others?.looked, 5000)
  const { chosen, reason } = decidePlacement(question(), hosts, others)
  assert.equal(chosen, null)
  assert.match(
    reason,
    /^no host can take web: memory leaves 5000 hosts out, h\d+ for one: 512 memoryMib needed/
  )
})

test("the same draw is the same choice, and other draws see other hosts", () => {
  const state = fleetOf(10_000)
  const of = (draw: string) => hostsFor(state, { question: question(), draw })
  assert.deepEqual(of("web.1/1"), of("web.1/1"))
  const seen = new Set(
    Array.from({ length: 100 }, (_, one) => of(`web-${one}.1/1`).hosts.map(({ name }) => name)).flat()
  )
  assert.ok(seen.size > 2000, `${seen.size} different hosts of 3200`)
  const order = [...drawnOrder("x", 7919)].sort((a, b) => a - b)
  assert.deepEqual(
    order,
    Array.from({ length: 7919 }, (_, index) => index)
  )
})

test("the host that was asked for, and those of the machines to be near, are named whatever they are", () => {
  const state = fleetOf(1000, (index) => (index === 7 || index === 8 ? full : {}))
  const pinned = hostsFor(state, { question: question({ pinned: nameOf(7) }), draw: "x" })
  assert.deepEqual(pinned.others?.out, [{ filter: "pinned", hosts: 999, examples: [] }])
  assert.match(
    decidePlacement(question({ pinned: nameOf(7) }), pinned.hosts, pinned.others).reason,
    /^no host can take web: h00007: 512 memoryMib needed, 0 of 4096 free$/
  )
  const unknown = hostsFor(state, { question: question({ pinned: "nowhere" }), draw: "x" })
  assert.match(
    decidePlacement(question({ pinned: "nowhere" }), unknown.hosts, unknown.others).reason,
    /^there is no host nowhere; hosts: 1000 others$/
  )
  state.vms.set("db", { name: "db", host: nameOf(8) } as never)
  const near = hostsFor(state, { question: question({ spec: { ...spec, affinity: ["db"] } }), draw: "x" })
  const { candidates } = decidePlacement(question({ spec: { ...spec, affinity: ["db"] } }), near.hosts)
  assert.equal(candidates.find(({ host }) => host === nameOf(8))?.excluded[0]?.filter, "memory")
})

test("why tells of the hosts that are not named how many are out for which reason, and who was not looked at", () => {
  const state = fleetOf(1000, (index) => (index % 2 === 0 ? full : {}))
  const { others } = hostsFor(state, { question: question(), draw: "web.1/1" })
  const lines = othersOf(others)
  assert.equal(lines.length, 2)
  assert.match(lines[0] ?? "", /^\d+ others: out, memory; h\d+: 512 memoryMib needed, 0 of 4096 free; h\d+: /)
  assert.match(lines[1] ?? "", /^9\d\d of 1000: not looked at, enough could take it$/)
  assert.deepEqual(othersOf(undefined), [])
})
