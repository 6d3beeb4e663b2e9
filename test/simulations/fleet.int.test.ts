/** The production kernel and actors in a small simulated fleet: many seeds keep every promise. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { run } from "../../simulations/fleet/run.ts"
import type { Verdict } from "../../simulations/fleet/run.ts"

const seeds = 120
const verdicts: Array<Verdict> = []

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
  const facts = new Set(verdicts.flatMap(({ coverage }) => coverage))
  console.log(`  ${facts.size} kinds of facts, ${JSON.stringify(counts)}`)
  assert.ok(facts.size >= 65)
})
