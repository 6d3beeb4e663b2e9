/** A run that breaks a promise is made smaller: less befalls it, it breaks the same, and it can be written down. */
import assert from "node:assert/strict"
import { fork } from "node:child_process"
import { test } from "node:test"
import { fileURLToPath } from "node:url"
import type { Smaller } from "./shrink-child.ts"

const child = fileURLToPath(new URL("./shrink-child.ts", import.meta.url))

const shrinkOf = (name: string) =>
  new Promise<Smaller>((resolve, reject) => {
    const shrinking = fork(child, [name])
    let smaller: Smaller | null = null
    shrinking.on("message", (said) => (smaller = said as Smaller))
    shrinking.on("error", reject)
    shrinking.on("exit", (code) =>
      smaller === null ? reject(new Error(`${name}: ended with ${code} and no word`)) : resolve(smaller)
    )
  })

for (const name of ["vote-without-log-check"])
  test(`the run that finds ${name} becomes a short scenario`, async () => {
    const { faults, faultsLeft, promised, promisedLeft, text, isSame, isRepeated } = await shrinkOf(name)
    console.log(`  ${faults} faults, ${faultsLeft} left`)
    assert.equal(promisedLeft, promised)
    assert.ok(faultsLeft < faults, `${faultsLeft} of ${faults} are left`)
    assert.ok(isSame, "the file is the same run")
    assert.ok(isRepeated, "nothing is drawn on the way")
    assert.match(text, new RegExp(`^broken: ${promised}$`, "m"))
  })
