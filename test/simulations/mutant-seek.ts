/** Tries each of a catalogue of mutants, each in a process of its own: a seed has to find it. */
import assert from "node:assert/strict"
import { fork } from "node:child_process"
import { test } from "node:test"
import { fileURLToPath } from "node:url"
import type { Found, Scenario } from "./mutant-child.ts"
import type { Mutant } from "./mutants.ts"

const child = fileURLToPath(new URL("./mutant-child.ts", import.meta.url))

const seek = (scenario: Scenario, name: string, first: number, seeds: number) =>
  new Promise<Found>((resolve, reject) => {
    const seeking = fork(child, [scenario, name, String(first), String(seeds)])
    let found: Found | null = null
    seeking.on("message", (said) => (found = said as Found))
    seeking.on("error", reject)
    seeking.on("exit", (code) =>
      found === null ? reject(new Error(`${name}: ended with ${code} and no word`)) : resolve(found)
    )
  })

export function seekAll(
  scenario: Scenario,
  mutants: ReadonlyArray<Mutant>,
  { seeds_max, least }: { readonly seeds_max: number; readonly least: number }
): void {
  const known = mutants.flatMap(({ seed, ...mutant }) => (seed === null ? [] : [{ ...mutant, seed }]))

  test(
    `each of ${known.length} mutants is found within ${seeds_max} seeds`,
    { concurrency: 2 },
    async (t) => {
      assert.ok(known.length >= least)
      await Promise.all(
        known.map(({ name, story, seed }) =>
          t.test(`${name}: ${story}`, async () => {
            const found = await seek(scenario, name, seed, seeds_max)
            assert.deepEqual(found.unapplied, [], "edits whose text is not there once")
            assert.notEqual(found.seed, null, `no seed up to ${seeds_max} finds it`)
            assert.doesNotMatch(
              found.message,
              /TypeError|ReferenceError|SyntaxError/,
              "an edit that only breaks the code"
            )
            console.log(`  ${name}: seed ${found.seed}, ${found.message.split("\n")[0]?.slice(0, 100)}`)
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
