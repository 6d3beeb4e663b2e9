import assert from "node:assert/strict"
import { test } from "node:test"
import { bench } from "./main.ts"

test("the benches run, and the same work gives the same results", async () => {
  const first = await bench("smoke")
  const second = await bench("smoke")
  assert.ok(first.length >= 9)
  for (const figure of first) assert.ok(figure.value > 0, figure.name)
  assert.deepEqual(
    second.map(({ name, result }) => [name, result]),
    first.map(({ name, result }) => [name, result])
  )
  assert.ok(first.some(({ result }) => result !== null))
})
