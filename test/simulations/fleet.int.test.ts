/** The production kernel and actors in a small simulated fleet: many seeds keep every promise. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { run } from "../../simulations/fleet/run.ts"
import type { FleetVerdict } from "../../simulations/fleet/run.ts"
import { allKept, assertShown, neverHappened } from "./shown.ts"

const seeds = 120
const verdicts: Array<FleetVerdict> = []

test(`${seeds} seeds keep every promise, with every fault and command among them`, () => {
  for (let seed = 1; seed <= seeds; seed++) verdicts.push(run(seed))
  const counts = allKept(verdicts)
  assert.deepEqual(neverHappened(counts), [], "faults and commands that never happened")
  const seen = new Set(verdicts.flatMap(({ coverage }) => coverage))
  const facts = new Set([...seen].filter((one) => one.startsWith("fact ")))
  console.log(`  ${facts.size} kinds of facts, ${JSON.stringify(counts)}`)
  assert.ok(facts.size >= 65)
  assertShown(verdicts, [
    "state vm/running.idle",
    "state migration/transferring",
    "move vm/absent vm/placing",
    "move host/up host/lost",
    "input vm/absent vm.stop",
    "fact vm.created"
  ])
})
