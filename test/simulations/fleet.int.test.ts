/** The production kernel and actors in a small simulated fleet: many seeds keep every promise. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { run } from "../../simulations/fleet/run.ts"
import type { FleetVerdict } from "../../simulations/fleet/run.ts"
import { assertShown } from "./shown.ts"

const seeds = 120
const verdicts: Array<FleetVerdict> = []

test(`${seeds} seeds keep every promise, with every fault and command among them`, () => {
  for (let seed = 1; seed <= seeds; seed++) verdicts.push(run(seed))
  const broken = verdicts.flatMap(({ seed, violation }) =>
    violation === null ? [] : [`seed ${seed}: ${violation.message.slice(0, 500)}`]
  )
  assert.deepEqual(broken, [])
  const counts: Record<string, number> = {}
  for (const verdict of verdicts)
    for (const [name, count] of Object.entries(verdict.counts)) counts[name] = (counts[name] ?? 0) + count
  const never = Object.entries(counts).flatMap(([name, count]) => (count === 0 ? [name] : []))
  assert.deepEqual(never, [], "faults and commands that never happened")
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
