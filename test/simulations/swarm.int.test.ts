/** A swarm's seed draws which of the other scenarios it is: each of them is drawn, and is run as it is by itself. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { resolve, scenarioOf } from "../../simulations/scenarios.ts"
import { saidBy } from "../cli/said.ts"

interface Summary {
  readonly scenario: string
  readonly faults: Readonly<Record<string, number>>
  readonly counts: Readonly<Record<string, number>>
  readonly run: { readonly hash: string; readonly options: object }
}

for (const name of ["raft", "swim", "fleet", "fencing", "cluster"])
  test(`swarm draws ${name}, and says its options and what happened`, async () => {
    const seed = Array.from({ length: 100 }, (_, at) => at).find(
      (one) => resolve("swarm", one)?.name === name
    )
    assert.ok(seed !== undefined, `no seed up to 100 draws ${name}`)
    const { code, out, err } = await saidBy("simulate", "swarm", "--seed", String(seed), "--json")
    assert.equal(code, 0, err)
    const { scenario, faults, counts, run } = JSON.parse(out) as Summary
    assert.equal(scenario, "swarm")
    assert.ok(Object.values({ ...faults, ...counts }).some((count) => count > 0))
    assert.ok(Object.keys(run.options).length > 0)
    assert.equal(run.hash, scenarioOf(name)?.run(seed).hash, `seed ${seed}`)
    console.log(`  seed ${seed}`)
  })
