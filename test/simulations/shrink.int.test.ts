/** A run that breaks a promise is made smaller: less befalls it, it breaks the same, and it can be written down. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { saidByChild } from "./child.ts"
import type { Smaller } from "./shrink-child.ts"

for (const name of ["vote-without-log-check"])
  test(`the run that finds ${name} becomes a short scenario`, async () => {
    const { faults, faultsLeft, promised, promisedLeft, text, isSame, isRepeated } =
      await saidByChild<Smaller>("shrink-child.ts", [name])
    console.log(`  ${faults} faults, ${faultsLeft} left`)
    assert.equal(promisedLeft, promised)
    assert.ok(faultsLeft < faults, `${faultsLeft} of ${faults} are left`)
    assert.ok(isSame, "the file is the same run")
    assert.ok(isRepeated, "nothing is drawn on the way")
    assert.match(text, new RegExp(`^broken: ${promised}$`, "m"))
  })
