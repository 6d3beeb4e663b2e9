/** The production kernel and actors in a small simulated fleet: many seeds keep every promise, and a seed is one life. */
import assert from "node:assert/strict"
import { spawnSync } from "node:child_process"
import { test } from "node:test"
import { fileURLToPath } from "node:url"
import { run } from "../../simulations/fleet/run.ts"
import type { Verdict } from "../../simulations/fleet/run.ts"

const seeds = 120
const self = fileURLToPath(import.meta.url)

if (process.argv[2] === "hash") console.log(run(Number(process.argv[3])).hash)
else {
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

  test("a seed is the same life, again, after a hundred others, and in another process", () => {
    const first = verdicts[2]?.hash
    assert.equal(run(3).hash, first)
    const elsewhere = spawnSync(process.execPath, [self, "hash", "3"], { encoding: "utf8" })
    assert.equal(elsewhere.stdout.trim(), first)
    assert.notEqual(run(4).hash, first)
  })
}
