/** The scenarios are tried on mistakes that others have made: each, planted in the production source, changes what one of them shows. */
import assert from "node:assert/strict"
import { fork } from "node:child_process"
import { test } from "node:test"
import { fileURLToPath } from "node:url"
import { end, said } from "../bench/children.ts"
import { mutants } from "../simulations/mutants.ts"
import type { Noticed } from "./mutant-child.ts"

const child = fileURLToPath(new URL("mutant-child.ts", import.meta.url))

async function seek(name: string): Promise<Noticed> {
  const running = fork(child, [name])
  try {
    return await said<Noticed>(running)
  } finally {
    await end(running)
  }
}

/** Scenarios have no disks. */
const ofTheProtocol = mutants.filter(({ edits }) =>
  edits.every(({ file }) => file !== "src/kernel/records.ts")
)

/** As many as there were when the scenarios were written; later ones may be about what no scenario has. */
const noticedMin = 32

test("mutants are noticed by a scenario, all of those that no seed finds", { concurrency: 2 }, async (t) => {
  let noticed = 0
  await Promise.all(
    ofTheProtocol.map(({ name, story, seed }) =>
      t.test(`${name}: ${story}`, async (one) => {
        const { scenarios, unapplied } = await seek(name)
        assert.deepEqual(unapplied, [], "edits whose text is not there once")
        one.diagnostic(`noticed by ${scenarios.join(", ") || "none"}`)
        if (scenarios.length > 0) noticed++
        assert.ok(scenarios.length > 0 || seed !== null, "neither a seed nor a scenario shows it")
      })
    )
  )
  assert.ok(noticed >= noticedMin, `${noticed} of ${ofTheProtocol.length}`)
})
