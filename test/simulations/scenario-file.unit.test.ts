/** A run that was drawn is the same when it is written down and read again, and a text that is no scenario is refused. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { raft } from "../../simulations/raft/scenario.ts"
import { NoScenario, parseScenario, scenarioText } from "../../simulations/scenario-file.ts"
import type { Script } from "../../simulations/verdict.ts"

const script = raft.script as Script

function written(seed: number): string {
  const { plan, verdict } = script.plan(seed)
  return scenarioText({
    purpose: "it is the same",
    scenario: raft,
    plan,
    broken: null,
    journal: verdict.hash
  })
}

for (const seed of [2, 12, 23, 31])
  test(`seed ${seed} is the same life by its list of faults`, () => {
    const text = written(seed)
    const file = parseScenario(text)
    assert.ok(file.plan.faults.length > 0)
    assert.equal(script.run(file.plan).hash, file.journal)
    assert.equal(scenarioText(file), text)
    // Without its first half it is another, and still a life.
    const half = script.run({ ...file.plan, faults: file.plan.faults.slice(file.plan.faults.length >> 1) })
    assert.notEqual(half.hash, file.journal)
    assert.equal(half.violation, null)
  })

test("options that differ from what the seed draws are written, and read as what they are", () => {
  const { plan } = script.plan(12)
  const options = { ...plan.options, members: 9, voters: 3 }
  const text = scenarioText({
    purpose: "more",
    scenario: raft,
    plan: { ...plan, options },
    broken: "lease",
    journal: "x"
  })
  assert.match(text, /^option members = 9$/m)
  const file = parseScenario(text)
  assert.deepEqual(file.plan.options, options)
  assert.equal(file.broken, "lease")
})

test("what is wrong is told with its line", () => {
  const text = written(12)
  const wrong = (change: (text: string) => string, message: RegExp) =>
    assert.throws(
      () => parseScenario(change(text)),
      (error) => error instanceof NoScenario && message.test(error.message)
    )
  wrong((all) => all.replace("seed: 12", "seed: -1"), /the seed is -1: allowed is from 0 to 4294967295/)
  wrong((all) => all.replace("scenario: raft", "scenario: other"), /no scenario "other" can be replayed/)
  wrong((all) => all.replace("purpose:", "reason:"), /line 1: "reason: it is the same" is no heading/)
  wrong((all) => all.replace(/^journal.*$/m, ""), /there is no "journal:"/)
  wrong((all) => `${all}option membres = 3`, /there is no option "membres"/)
  wrong((all) => `${all}option members = many`, /members is many, and a number is wanted/)
  wrong((all) => `${all}at 3 ms: crash id=n1`, /"crash id=n1" is no fault of this scenario/)
  wrong((all) => `${all}at noon ms: crash id=n1 forMs=1 requests=-`, /has no time/)
})
