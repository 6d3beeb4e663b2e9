/** The production SWIM in the simulated world: many seeds keep every promise. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { saidBy } from "../cli/said.ts"

const seeds = 200

interface Summary {
  readonly seeds: number
  readonly seedsPerHour: number
  readonly simulatedSecondsPerSecond: number
  readonly faults: Readonly<Record<string, number>>
  readonly counts: Readonly<Record<string, number>>
  readonly coverage: ReadonlyArray<string>
  readonly violations: ReadonlyArray<unknown>
}

const simulate = (...argv: ReadonlyArray<string>) => saidBy("simulate", "swim", ...argv)

test(`${seeds} seeds keep every promise, with every fault among them`, async () => {
  const { code, out, err } = await simulate("--seeds", String(seeds), "--json")
  assert.equal(code, 0, err)
  const summary = JSON.parse(out) as Summary
  console.log(
    `  ${summary.seeds} seeds, ${summary.seedsPerHour} an hour, ${summary.simulatedSecondsPerSecond} simulated seconds a second`
  )
  assert.equal(summary.seeds, seeds)
  assert.deepEqual(summary.violations, [])
  const never = Object.entries({ ...summary.faults, ...summary.counts }).flatMap(([name, count]) =>
    count === 0 ? [name] : []
  )
  assert.deepEqual(never, [], "what never happened")
  for (const fault of ["crashes", "partitions", "pauses", "lost", "duplicated"])
    assert.ok((summary.faults[fault] ?? 0) > 0, `${fault} is no fault`)
  for (const move of ["alone member", "member alone", "member leaving", "leaving left"])
    assert.ok(summary.coverage.includes(`move ${move}`), move)
  const missing = wantedPairs().filter((pair) => !summary.coverage.includes(`input ${pair}`))
  assert.deepEqual(missing, [], "inputs that a role never took")
})

/** Whatever a role may meet: a stranger is pinged by those that still know it from before. */
function wantedPairs(): ReadonlyArray<string> {
  const heads = ["ping", "pingRequest", "ack", "nack", "gossip", "compare", "entries"]
  const tick = "swim.tick"
  return [
    ...[...heads, tick, "swim.describe", "swim.leave"].map((input) => `member ${input}`),
    ...[tick, "swim.begin", "swim.join", "swim.describe", "ping", "gossip", "compare"].map(
      (input) => `alone ${input}`
    ),
    ...[...heads, tick].map((input) => `leaving ${input}`)
  ]
}
