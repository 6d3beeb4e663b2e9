/** Nodes that vote, with the production kernel and member of a group, in virtual time: many seeds keep every promise. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { run } from "../../simulations/cluster/run.ts"
import type { ClusterVerdict } from "../../simulations/cluster/run.ts"
import { allKept, assertShown, neverHappened } from "./shown.ts"

const seeds = 60
/** In these disks lose what they had acknowledged, in each way, and writes fail: that is rare. */
const damaged = [241, 502, 1008, 1142]
const verdicts: Array<ClusterVerdict> = []

test(`${seeds} seeds keep every promise, with every fault among them`, () => {
  for (let seed = 1; seed <= seeds; seed++) verdicts.push(run(seed))
  for (const seed of damaged) verdicts.push(run(seed))
  const counts = allKept(verdicts)
  assert.deepEqual(neverHappened(counts), [], "what never happened")
  assertShown(verdicts, [
    "state leader",
    "move candidate leader",
    "state vm/running.idle",
    "move vm/absent vm/placing",
    "input host/lost host.register",
    "fact cluster.changed"
  ])
  console.log(`  ${JSON.stringify(counts)}`)
})

test("seed 10253: a host is not heard before the nodes that hear no leader have lost their patience", () => {
  assert.equal(run(10_253).violation, null)
})

test("seed 10359: who gave its journal is gone before it was whole, and others that offer theirs give the rest", () => {
  assert.equal(run(10_359).violation, null)
})

test("seed 500044: a read at a node that was removed after it had asked ends", () => {
  assert.equal(run(500_044).violation, null)
})

test("seeds 1284 and 20581: a node that leads again places nothing that its kernel of before had its actors say", () => {
  for (const seed of [1284, 20_581]) assert.equal(run(seed).violation, null)
})
