/** The rules themselves: one repository that breaks each of them, and one that only looks as if it did. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { fileLinesMax, functionLinesMax } from "./code.ts"
import { rules } from "./rules.ts"
import { parse } from "./source.ts"
import { worldsDifference } from "./tree.ts"

const lines = (count: number, line: string) => `${line}\n`.repeat(count)

// In pieces: the rules that read text would find them here.
const unfinished = ["TO", "DO"].join("")
const silencer = `@ts-${"ignore"}`

const bad = parse(
  new Map([
    ["package.json", `{ "scripts": { "bench": "node test/bench/main.ts" } }`],
    ["src/main.ts", `import "./cli/a.ts"\nimport { setup } from "xstate"\n`],
    ["src/cli/a.ts", `import { b } from "./b.ts"\nexport const a = b\n`],
    ["src/cli/b.ts", `import type { a } from "./a.ts"\nexport const b = 1 as unknown as typeof a\n`],
    ["src/events/vm.ts", `import { Effect } from "effect"\nimport "node:fs"\nimport "../kernel/turn.ts"\n`],
    [
      "src/events/fields.ts",
      `import { Effect, Schema } from "effect"\nexport const x = Effect.fail(Schema)\n`
    ],
    [
      "src/actors/vm/chart.ts",
      `import type { H } from "../host/chart.ts"\nimport { Schema } from "effect"\n`
    ],
    ["src/actors/host/chart.ts", `import "../../kernel/turn.ts"\nexport type H = import("../vm/x.ts").X\n`],
    ["src/kernel/turn.ts", `import "xstate"\nimport "effect/unstable/http"\nimport "../live/disk.ts"\n`],
    ["src/projections/all.ts", `import { Effect } from "effect"\nconst late = import("../kernel/turn.ts")\n`],
    ["src/live/disk.ts", `import "../../simulations/world/disk.ts"\nimport "../actors/vm/chart.ts"\n`],
    ["simulations/world/disk.ts", `import "node:fs"\nimport "../../src/live/disk.ts"\n`],
    [
      "src/kernel/time.ts",
      [
        "export const a = [Date.now(), new Date(), Date(), Math.random(), performance.now()]",
        "const { now } = Date",
        "export const b = globalThis.setTimeout(() => process.env.HOME, 1)",
        "export const c = crypto.randomUUID() + setInterval(now, 1) + (a as any) // " + silencer
      ].join("\n")
    ],
    ["src/cli/index.ts", `export * from "./a.ts"\nexport { b } from "./b.ts"\n`],
    ["src/cli/string-utils.ts", `export const s = "x" // ${unfinished}: more\n`],
    ["src/cli/common/x.ts", lines(fileLinesMax + 1, "f()")],
    ["src/cli/long.ts", `export const f = () => {\n${lines(functionLinesMax, "  f()")}}\n`],
    ["src/kernel/ports/clock.ts", "export const clock = 1\n"],
    ["src/kernel/ports/disk.ts", "export const disk = 1\n"],
    [
      "test/a.unit.test.ts",
      `import test from "node:test"\ntest.only("a", () => {})\ntest("b", { skip: true }, (t) => t.skip("no"))\n`
    ],
    [
      "README.md",
      "See [here](docs/no.md#x),\n[there](src/cli) and `[not](this.md)`.\n\n```\n[nor](that.md)\n```\n"
    ]
  ])
)

const found = (name: keyof typeof rules) =>
  rules[name](bad).map(({ path, line, message }) => `${path}:${line} ${message}`)

test("each forbidden import is found, types and import() among them", () => {
  assert.deepEqual(found("the import table").toSorted(), [
    "simulations/world/disk.ts:1 simulations may not import node:fs",
    "simulations/world/disk.ts:2 simulations may not import src/live/disk.ts",
    "src/actors/host/chart.ts:1 actors may not import src/kernel/turn.ts",
    "src/actors/host/chart.ts:2 actors may not import src/actors/vm/x.ts",
    "src/actors/vm/chart.ts:1 actors may not import src/actors/host/chart.ts",
    "src/actors/vm/chart.ts:2 actors may not import effect",
    "src/events/fields.ts:1 events may take only Schema and Effect from effect, not Effect.fail",
    "src/events/vm.ts:1 events may take only Schema from effect, not Effect",
    "src/events/vm.ts:2 events may not import node:fs",
    "src/events/vm.ts:3 events may not import src/kernel/turn.ts",
    "src/kernel/turn.ts:1 kernel may not import xstate",
    "src/kernel/turn.ts:2 kernel may not import effect/unstable/http",
    "src/kernel/turn.ts:3 kernel may not import src/live/disk.ts",
    "src/live/disk.ts:1 live may not import simulations/world/disk.ts",
    "src/live/disk.ts:2 live may not import src/actors/vm/chart.ts",
    "src/main.ts:2 cli, main may not import xstate",
    "src/projections/all.ts:1 projections may not import effect",
    "src/projections/all.ts:2 projections may not import src/kernel/turn.ts"
  ])
})

test("import cycles are found, by types too", () => {
  assert.ok(
    found("no import cycles").some((line) => line.endsWith("src/cli/a.ts → src/cli/b.ts → src/cli/a.ts"))
  )
})

test("a file that only re-exports is a barrel", () => {
  assert.deepEqual(found("no barrels"), ["src/cli/index.ts:0 only re-exports: import the files themselves"])
})

test("a file that nothing reaches is dead, and its imports with it", () => {
  const dead = found("no dead files").map((line) => line.split(":")[0])
  assert.ok(dead.includes("src/cli/index.ts") && dead.includes("src/live/disk.ts"))
  assert.ok(!dead.includes("src/cli/b.ts") && !dead.includes("test/a.unit.test.ts"))
})

test("clocks, chance, timers and the environment are found, also under another name", () => {
  const where = found("time, chance and environment by ports").map((line) =>
    line.split(" ").slice(0, 2).join(" ")
  )
  assert.deepEqual(where.toSorted(), [
    "src/kernel/time.ts:1 Math.random",
    "src/kernel/time.ts:1 performance.now",
    "src/kernel/time.ts:1 the",
    "src/kernel/time.ts:1 the",
    "src/kernel/time.ts:1 the",
    "src/kernel/time.ts:2 the",
    "src/kernel/time.ts:3 process.env",
    "src/kernel/time.ts:3 setTimeout",
    "src/kernel/time.ts:4 randomUUID",
    "src/kernel/time.ts:4 setInterval"
  ])
})

test("ways around the types, left-out tests and unfinished work are found", () => {
  assert.deepEqual(found("no way around the types"), ["src/kernel/time.ts:4 `as any` hides a mistake"])
  assert.deepEqual(found("no silenced compiler"), ["src/kernel/time.ts:4 silences the compiler"])
  assert.deepEqual(found("no test left out"), [
    "test/a.unit.test.ts:2 .only leaves tests out",
    "test/a.unit.test.ts:3 skip: leaves a test out, always",
    "test/a.unit.test.ts:3 .skip leaves tests out"
  ])
  assert.deepEqual(found("nothing unfinished"), [
    "src/cli/string-utils.ts:1 finish it, or write an ADR that says why not"
  ])
})

test("files and functions that are too long, and empty names, are found", () => {
  assert.deepEqual(found("files of at most 500 lines"), ["src/cli/common/x.ts:0 501 lines, 500 at most"])
  assert.deepEqual(found("functions of at most 70 lines"), [
    "src/cli/long.ts:1 function of 72 lines, 70 at most"
  ])
  assert.deepEqual(found("names that say something"), [
    'src/cli/string-utils.ts:0 "string-utils" says nothing',
    'src/cli/common/x.ts:0 "common" says nothing'
  ])
})

test("a port that no world has is found, and one that only one has is told", () => {
  assert.deepEqual(found("every port in a world"), [
    'src/kernel/ports/clock.ts:0 neither src/live nor simulations/world has "clock"'
  ])
  assert.deepEqual(worldsDifference(bad.files), [])
  const liveOnly = new Map([...bad.files].filter(([path]) => !path.startsWith("simulations/")))
  assert.deepEqual(worldsDifference(liveOnly), ["port disk: only in src/live"])
})

test("a link to nowhere is found, and code is not read for links", () => {
  assert.deepEqual(found("links that lead somewhere"), ["README.md:1 no such file: docs/no.md#x"])
})

const good = parse(
  new Map([
    ["package.json", `{ "scripts": { "bench": "node test/bench/main.ts" } }`],
    [
      "src/main.ts",
      `import "./live/disk.ts"\nimport "../simulations/main.ts"\nimport "node:fs"\nimport "./actors/kinds.ts"\n`
    ],
    [
      "src/events/fields.ts",
      `import { Effect, Schema } from "effect"\nexport const x = [Effect.succeed(1), Schema]\n`
    ],
    ["src/actors/kinds.ts", `import "./vm/chart.ts"\n`],
    [
      "src/actors/vm/chart.ts",
      `import "../../events/fields.ts"\nimport "../../kernel/actor.ts"\nimport "./plan.ts"\nimport "xstate"\n`
    ],
    [
      "src/actors/vm/plan.ts",
      `export const at = (ms: number): Date => new Date(ms)\nexport const text = "setTimeout(Date.now())"\n`
    ],
    [
      "src/kernel/actor.ts",
      `import { emit } from "xstate"\nimport { Effect } from "effect"\nexport const e = [emit, Effect, Date.UTC(2000, 1)]\n`
    ],
    [
      "src/live/disk.ts",
      `import "../kernel/actor.ts"\nexport const now = Date.now()\nexport const worker = new URL("./worker.ts", import.meta.url)\n`
    ],
    ["src/live/worker.ts", `// Math.random() in a comment is no call.\nexport const w = process.env.HOME\n`],
    ["simulations/main.ts", `import "node:process"\nexport const s = process.env.SEED\n`],
    ["test/bench/main.ts", `import { y } from "node:test"\nexport { y }\nexport const z = y.skip\n`],
    [
      "test/b.unit.test.ts",
      `import { describe, test } from "node:test"\ndescribe("all", () => {\n${lines(80, "  test('x', { skip: process.env.NO })")}})\n`
    ],
    ["docs/a.md", "[up](../src/main.ts) [folder](../src) [web](https://example.org) [here](#a)\n"]
  ])
)

for (const [name, rule] of Object.entries(rules)) {
  test(`nothing is found where nothing is wrong: ${name}`, () => {
    assert.deepEqual(rule(good), [])
  })
}
