import assert from "node:assert/strict"
import { test } from "node:test"
import { line } from "./main.ts"
import type { Figure } from "./measure.ts"
import { migration } from "./migration.ts"

test("the bench of a migration beside plain QEMU runs, with a disk to move", async () => {
  const figures: Array<Figure> = []
  for await (const one of migration({ size: "smoke", seed: 1 })) figures.push(one)
  assert.equal(figures.length, 3)
  for (const one of figures) {
    assert.ok(one.value.median > 0 && one.yardstick !== null && one.yardstick.value.median > 0, one.name)
    console.log(line("migration", one))
  }
})
