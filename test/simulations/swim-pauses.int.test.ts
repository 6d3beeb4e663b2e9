/** Lifeguard beside plain SWIM, on the same seeds: whom they accuse wrongly while a tenth of the members stands still again and again. */
import assert from "node:assert/strict"
import { test } from "node:test"
import type { SwimSettings } from "../../src/events/swim.ts"
import { lanSettings, plainSettings } from "../../src/events/swim.ts"
import { aTenth, measurePauses } from "../../simulations/swim/measure.ts"
import type { PauseRun } from "../../simulations/swim/measure.ts"

const seeds = [1, 2, 3]
const members = 50

/** As the bench's (docs/benchmarks.md), of a smaller group with a shorter life. */
const pauses = { ...aTenth, stops: "messages", durationMs: 90_000 } as const

function measured(settings: SwimSettings): PauseRun {
  const runs = seeds.map((seed) => measurePauses(seed, members, settings, pauses))
  const sum = (field: keyof PauseRun) => runs.reduce((all, one) => all + one[field], 0)
  return {
    falseDeaths: sum("falseDeaths"),
    falseDeathsAtHealthy: sum("falseDeathsAtHealthy"),
    accused: sum("accused"),
    pausedDeaths: sum("pausedDeaths"),
    suspicions: sum("suspicions")
  }
}

test("where messages stand still, Lifeguard takes members that are well for dead at least 50 times more seldom", () => {
  const plain = measured(plainSettings)
  const guarded = measured(lanSettings)
  console.log(
    `  seeds ${seeds.join(", ")}: plain ${JSON.stringify(plain)}, Lifeguard ${JSON.stringify(guarded)}`
  )
  assert.ok(
    plain.falseDeaths >= 100,
    `plain SWIM takes too few for dead to compare with: ${plain.falseDeaths}`
  )
  assert.ok(guarded.falseDeaths * 50 <= plain.falseDeaths, "more than a fiftieth")
  assert.ok(guarded.pausedDeaths <= plain.pausedDeaths, "more of those that stood still")
  // What local health is for: who hears nobody holds it against itself first. A death needs more than one such suspicion.
  assert.ok(guarded.suspicions * 2 <= plain.suspicions, "more than half of the suspicions")
})
