import assert from "node:assert/strict"
import { test } from "node:test"
import { bench } from "./main.ts"

test("the bench of a migration beside plain QEMU runs, with a disk to move", async () => {
  const figures = await bench("smoke", ["migration"])
  assert.equal(figures.length, 3)
  for (const { name, value, yardstick } of figures) {
    assert.ok(value > 0 && yardstick !== null && yardstick.value > 0, name)
    console.log(`  ${name}: ${value.toFixed(0)} ms, plain QEMU ${yardstick.value.toFixed(0)} ms`)
  }
})
