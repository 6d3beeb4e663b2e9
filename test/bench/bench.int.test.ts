import assert from "node:assert/strict"
import { spawnSync } from "node:child_process"
import { test } from "node:test"
import { fileURLToPath } from "node:url"
import { line, parts, readArguments } from "./main.ts"
import type { Part } from "./main.ts"
import { figure, spread } from "./measure.ts"
import type { Figure } from "./measure.ts"

const seed = 1

async function measured(part: Part): Promise<ReadonlyArray<Figure>> {
  const figures: Array<Figure> = []
  for await (const one of parts[part]({ size: "smoke", seed })) figures.push(one)
  return figures
}

/** A migration needs machines, and a group three processes: they have tests of their own. */
const dear: ReadonlyArray<Part> = ["migration", "cluster", "failover"]
const cheap = (Object.keys(parts) as ReadonlyArray<Part>).filter((part) => !dear.includes(part))

for (const part of cheap) {
  test(`${part}: every figure is measured, and the same seed gives the same result (seed ${seed})`, async () => {
    const first = await measured(part)
    const second = await measured(part)
    assert.ok(first.length > 0)
    for (const one of first) {
      assert.ok(one.value.median > 0, line(part, one))
      assert.match(one.result, /^[0-9a-f]{16}$/)
      if (one.yardstick) assert.ok(one.yardstick.share.median > 0, line(part, one))
    }
    const results = (all: ReadonlyArray<Figure>) => all.map(({ name, result }) => [name, result])
    assert.deepEqual(results(second), results(first))
  })
}

test("a wrong option ends with 2 and what is allowed", () => {
  const main = fileURLToPath(new URL("main.ts", import.meta.url))
  for (const [args, allowed] of [
    [["--size", "small"], /allowed are smoke, full/],
    [["--only", "everything"], /allowed are store, kernel/],
    [["--seed", "-1"], /--seed/],
    [["--quick"], /--quick/],
    [["smoke"], /smoke/]
  ] as const) {
    const { status, stderr, stdout } = spawnSync(process.execPath, [main, ...args], { encoding: "utf8" })
    assert.equal(status, 2, args.join(" "))
    assert.match(stderr, allowed)
    assert.equal(stdout, "")
  }
})

test("options are read, and all parts are measured unless told", () => {
  assert.deepEqual(
    readArguments(["--only", "kernel", "--only", "turns", "--size", "smoke", "--seed", "7", "--json"]),
    {
      only: ["kernel", "turns"],
      size: "smoke",
      seed: 7,
      json: true
    }
  )
  assert.deepEqual(readArguments([]).only, Object.keys(parts))
})

test("a figure is the median of its rounds, its share the median of their shares, and all have one result", () => {
  assert.deepEqual(spread([3, 1, 2]), { median: 2, min: 1, max: 3 })
  assert.deepEqual(spread([4, 1, 2, 3]), { median: 2.5, min: 1, max: 4 })
  const rounds = [
    { value: 10, yardstick: 20, result: "a" },
    { value: 40, yardstick: 40, result: "a" },
    { value: 30, yardstick: 40, result: "a" }
  ]
  const { value, yardstick } = figure("x", "y", rounds, { yardstick: "z" })
  assert.equal(value.median, 30)
  assert.deepEqual(yardstick?.share, { median: 0.75, min: 0.5, max: 1 })
  assert.throws(() => figure("x", "y", [...rounds, { value: 1, result: "b" }]), /different work/)
})
