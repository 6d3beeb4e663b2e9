/** The production kernel, leases and fencing in a small simulated fleet: many seeds keep every promise. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { run } from "../../simulations/fencing/run.ts"
import type { FleetVerdict } from "../../simulations/fleet/run.ts"
import { assertShown } from "./shown.ts"

const seeds = 40
const verdicts: Array<FleetVerdict> = []

test(`${seeds} seeds keep every promise, with hosts fenced by leases and by operators, and machines that start elsewhere`, () => {
  for (let seed = 1; seed <= seeds; seed++) verdicts.push(run(seed))
  const broken = verdicts.flatMap(({ seed, violation }) =>
    violation === null ? [] : [`seed ${seed}: ${violation.message.slice(0, 500)}`]
  )
  assert.deepEqual(broken, [])
  const counts: Record<string, number> = {}
  for (const verdict of verdicts)
    for (const [name, count] of Object.entries(verdict.counts)) counts[name] = (counts[name] ?? 0) + count
  const fencing = ["leasesGiven", "leasesOfBefore", "leasesLate", "leasesEnded", "confirmed"]
  for (const name of fencing) assert.ok((counts[name] ?? 0) > 0, `${name} never happened`)
  const facts = ["host.fenced", "host.fencingHeld", "host.leaseRanOut"]
  facts.push("vm.fenced", "vm.waitsForHost", "vm.recoveryDelayed")
  assertShown(verdicts, [
    ...facts.map((type) => `fact ${type}`),
    "state host/fenced",
    "move host/lost host/fenced",
    "input host/lost host.fence"
  ])
  console.log(`  ${JSON.stringify(Object.fromEntries(fencing.map((name) => [name, counts[name]])))}`)
})
