/** That verdicts say what was done to what was simulated, and what was seen of its charts. */
import assert from "node:assert/strict"
import type { Verdict } from "../../simulations/verdict.ts"

/** Every fault that is told of has a count, and happened; what was seen are these kinds of things, and among them all of `wanted`. */
export function assertShown(verdicts: ReadonlyArray<Verdict>, wanted: ReadonlyArray<string>): void {
  const [first] = verdicts
  assert.ok(first !== undefined && first.injected.length > 0, "no faults")
  for (const fault of first.injected)
    assert.ok(
      verdicts.some(({ counts }) => (counts[fault] ?? 0) > 0),
      `${fault} never happened`
    )
  const coverage = new Set(verdicts.flatMap((one) => one.coverage))
  const strange = [...coverage].filter((one) => !/^(state|fact) \S+$|^(move|input) \S+ \S+$/.test(one))
  assert.deepEqual(strange, [])
  assert.deepEqual(
    wanted.filter((one) => !coverage.has(one)),
    []
  )
}

/** No promise was broken; gives what all of them counted, together. */
export function allKept(verdicts: ReadonlyArray<Verdict>): Readonly<Record<string, number>> {
  const broken = verdicts.flatMap(({ seed, violation }) =>
    violation === null ? [] : [`seed ${seed}: ${violation.message.slice(0, 500)}`]
  )
  assert.deepEqual(broken, [])
  const counts: Record<string, number> = {}
  for (const verdict of verdicts)
    for (const [name, count] of Object.entries(verdict.counts)) counts[name] = (counts[name] ?? 0) + count
  return counts
}

export const neverHappened = (counts: Readonly<Record<string, number>>): ReadonlyArray<string> =>
  Object.entries(counts).flatMap(([name, count]) => (count === 0 ? [name] : []))
