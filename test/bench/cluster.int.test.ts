/** The benches of a group take longer than others: each is tried once. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { line, parts } from "./main.ts"
import type { Figure } from "./measure.ts"

const seed = 1

for (const part of ["cluster", "failover"] as const)
  test(`${part}: every figure is measured (seed ${seed})`, async () => {
    const figures: Array<Figure> = []
    for await (const one of parts[part]({ size: "smoke", seed })) figures.push(one)
    assert.ok(figures.length > 0)
    for (const one of figures) {
      assert.ok(one.value.median > 0, line(part, one))
      assert.match(one.result, /^[0-9a-f]{16}$/)
      assert.ok(one.yardstick !== null || part === "failover" || one.note.includes("NOT COMPARED"))
    }
  })
