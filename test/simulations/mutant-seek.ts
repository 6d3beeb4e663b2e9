/**
 * Tries each of a catalogue of mutants, each in a process of its own: a seed has to find it. Those whose seed is among the
 * first ones are the catalogue; a later seed says that its mutant is rare, and is all that is tried of it.
 */
import assert from "node:assert/strict"
import { test } from "node:test"
import { saidByChild } from "./child.ts"
import type { Found, Scenario } from "./mutant-child.ts"
import type { Mutant } from "./mutants.ts"

const seek = (scenario: Scenario, name: string, first: number, seeds: number) =>
  saidByChild<Found>("mutant-child.ts", [scenario, name, String(first), String(seeds)])

/** What both say of a mutant that was found. */
function assertFound(name: string, found: Found, wanted: string): void {
  assert.deepEqual(found.unapplied, [], "edits whose text is not there once")
  assert.notEqual(found.seed, null, wanted)
  assert.doesNotMatch(
    found.message,
    /TypeError|ReferenceError|SyntaxError/,
    "an edit that only breaks the code"
  )
  console.log(`  ${name}: seed ${found.seed}, ${found.message.split("\n")[0]?.slice(0, 100)}`)
}

export function seekAll(
  scenario: Scenario,
  mutants: ReadonlyArray<Mutant>,
  { seeds_max, least }: { readonly seeds_max: number; readonly least: number }
): void {
  const known = mutants.flatMap(({ seed, ...mutant }) => (seed === null ? [] : [{ ...mutant, seed }]))
  const within = known.filter(({ seed }) => seed <= seeds_max)
  const rare = known.filter(({ seed }) => seed > seeds_max)

  test(
    `each of ${within.length} mutants is found within ${seeds_max} seeds`,
    { concurrency: 2 },
    async (t) => {
      assert.ok(within.length >= least)
      await Promise.all(
        within.map(({ name, story, seed }) =>
          t.test(`${name}: ${story}`, async () => {
            const found = await seek(scenario, name, seed, seeds_max)
            assertFound(name, found, `no seed up to ${seeds_max} finds it`)
            assert.ok(Number(found.seed) <= seeds_max, `only seed ${found.seed} finds it`)
          })
        )
      )
    }
  )

  // Nobody would meet these by chance within a test's time: only the seed that is known is tried.
  if (rare.length > 0)
    test(
      `one known seed finds each of ${rare.length} rare mutants: ${rare.map(({ seed }) => seed).join(", ")}`,
      { concurrency: 2 },
      async (t) => {
        await Promise.all(
          rare.map(({ name, story, seed }) =>
            t.test(`${name}, by seed ${seed}: ${story}`, async () => {
              const found = await seek(scenario, name, seed, 0)
              assertFound(name, found, `seed ${seed} does not find it any more`)
              assert.equal(found.seed, seed)
            })
          )
        )
      }
    )

  const unknown = mutants.filter(({ seed }) => seed === null).map(({ name }) => name)

  test("those that no seed has found yet are still planted where they belong", async () => {
    for (const name of unknown) assert.deepEqual((await seek(scenario, name, 1, 0)).unapplied, [], name)
  })

  // Told at the end of every run: what the catalogue has no seed for is not shown.
  for (const name of unknown) {
    const reason = `no seed up to ${seeds_max} finds this mistake yet`
    test(`${name} is found`, { skip: reason })
  }
}
