/** What hosts are said to have promised: the scarcer of both, without what leaves, and whose machines may move. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { inventory } from "../../src/projections/inventory.ts"
import { loadsOf } from "../../src/projections/loads.ts"
import { hostFacts, recorded, spec } from "./facts.ts"
import type { Said } from "./facts.ts"

const room = { ...hostFacts, cpus: 4, memoryMib: 4000, diskMib: 100_000 }
const host = (name: string): Said => [
  `host/${name}`,
  { type: "host.registered", name, address: name, facts: room }
]
const reserved = (name: string, reservation: string, vm: string, cpus: number, memoryMib: number): Said => [
  `host/${name}`,
  { type: "host.reserved", reservation, vm, needs: { cpus, memoryMib, diskMib: 0 } }
]
const machine = (name: string, on: string, cpus: number, memoryMib: number) =>
  [
    { type: "vm.created", name, spec: { ...spec, cpus, memoryMib }, start: true },
    { type: "vm.placed", host: on, decision: name },
    { type: "vm.defined" },
    { type: "vm.startRequested", automatic: false },
    { type: "vm.started", accelerator: "tcg" }
  ].map((fact): Said => [`vm/${name}`, fact])

const fleet = [
  ...["a", "b", "c"].map(host),
  ...machine("web", "a", 1, 2000),
  reserved("a", "web", "web", 1, 2000),
  ...machine("db", "a", 1, 1000),
  reserved("a", "db", "db", 1, 1000),
  ...machine("busy", "b", 12, 400),
  reserved("b", "busy", "busy", 12, 400)
]
const of = (history: ReadonlyArray<Said>, most = 8) => {
  let state = inventory.initial()
  for (const fact of recorded(history)) state = inventory.apply(state, fact)
  return loadsOf(state, most)
}
const rounded = ({ most }: ReturnType<typeof of>) =>
  most.map(({ host: name, percent, machines }) => [
    name,
    Math.round(percent),
    ...machines.map((one) => `${one.vm} ${Math.round(one.percent)}`)
  ])

test("a host has promised what is scarcer of it, and those that have promised most come first", () => {
  const loads = of(fleet)
  assert.equal(loads.hosts, 3)
  // Four times as many processors may be promised as there are.
  assert.deepEqual(rounded(loads), [
    ["a", 75, "web 50", "db 25"],
    ["b", 75, "busy 75"],
    ["c", 0]
  ])
  assert.equal(Math.round(loads.meanPercent), 50)
  assert.deepEqual(
    of(fleet, 1).most.map((one) => one.host),
    ["a"]
  )
})

test("what moves is counted where it goes, and neither it nor what does not run may be moved", () => {
  const moving = [
    ...fleet,
    ["vm/web", { type: "vm.locked", migration: "m" }] as const,
    reserved("c", "m", "web", 1, 2000),
    ["vm/db", { type: "vm.stopRequested", force: false }] as const
  ]
  assert.deepEqual(rounded(of(moving)), [
    ["b", 75, "busy 75"],
    ["c", 50],
    ["a", 25]
  ])
})

test("hosts that are not up take no part", () => {
  const draining = [...fleet, ["host/c", { type: "host.drained", reason: "" }] as const]
  const loads = of(draining)
  assert.equal(loads.hosts, 2)
  assert.equal(Math.round(loads.meanPercent), 75)
})
