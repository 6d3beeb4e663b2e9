import assert from "node:assert/strict"
import { test } from "node:test"
import { line } from "./main.ts"
import type { Figure } from "./measure.ts"
import { migration } from "./migration.ts"

test("the bench of a migration beside plain QEMU runs, with a disk to move", async () => {
  const figures: Array<Figure> = []
  for await (const one of migration({ size: "smoke", seed: 1 })) figures.push(one)
  assert.equal(figures.length, 6)
  for (const one of figures) {
    // QEMU tells its downtime in whole milliseconds, and zero is one of them; the rest took time.
    const least = one.name.endsWith("downtime by QEMU") ? 0 : 1
    assert.ok(one.value.median >= least, `${one.name}: ${one.value.median}`)
    assert.ok(one.yardstick !== null && one.yardstick.value.median >= least, one.name)
    console.log(line("migration", one))
  }
})
