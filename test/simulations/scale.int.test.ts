/** A day of 120 hosts and 600 machines: enough for decisions that do not name every host. */
import assert from "node:assert/strict"
import { hash } from "node:crypto"
import { test } from "node:test"
import { scaleOf } from "../../simulations/scale/options.ts"
import { noInstruments, run as live } from "../../simulations/scale/run.ts"

const options = { ...scaleOf(120, 1), machines: 600 }
const instruments = { ...noInstruments, sha256: (text: string) => hash("sha256", text) }
const run = (seed: number) => live(seed, options, instruments)
const seed = 1

test(`everything comes to rest, packed, and the same seed is the same journal (seed ${seed})`, () => {
  const verdict = run(seed)
  assert.equal(verdict.violation, null)
  const { counts, packed } = verdict
  assert.equal(counts["hostsUpgraded"], options.hosts)
  for (const what of ["arrivals", "departures", "hostFailures", "rackFailures", "siteFailures"])
    assert.ok((counts[what] ?? 0) > 0, `no ${what}`)
  // Of hosts that failed machines started elsewhere by the production's fencing, where their disks allow it.
  const { hostsFenced = 0, machinesFenced = 0, machinesWaiting = 0, recoveryDecisions = 0 } = counts
  assert.ok(hostsFenced >= options.hosts / options.sites && machinesFenced > 0 && machinesWaiting > 0)
  assert.ok(recoveryDecisions >= machinesFenced)
  assert.equal(counts["givenUp"], 0)
  assert.ok((counts["rebalanceDecisions"] ?? 0) > 20 && (counts["rebalanceMoves"] ?? 0) > 0)
  assert.ok((counts["migrationsCompleted"] ?? 0) > options.hosts)
  assert.equal(counts["unplaced"], 0)
  assert.ok(packed.ofUsedHosts >= 0.8, `${packed.ofUsedHosts} of the memory of hosts in use is promised`)
  assert.equal(run(seed).hash, verdict.hash)
  assert.notEqual(run(seed + 1).hash, verdict.hash)
})
