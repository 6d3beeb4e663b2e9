/**
 * One file for each situation that Raft is known for, as people read it: `raft/*.txt`, in the language of `raft-script.ts`.
 * `UPDATE=1` writes what happens in the place of what is expected; look at the difference before it is kept.
 */
import assert from "node:assert/strict"
import { globSync, readFileSync, writeFileSync } from "node:fs"
import { basename, join } from "node:path"
import { test } from "node:test"
import { runScenario } from "./raft-script.ts"

const files = globSync(join(import.meta.dirname, "raft", "*.txt")).toSorted()
const isUpdate = process.env["UPDATE"] === "1"

test("there is a scenario for each known situation", () => assert.ok(files.length >= 25, `${files.length}`))

for (const file of files) {
  const source = readFileSync(file, "utf8")
  test(`${basename(file, ".txt")}: ${source.split("\n", 1)[0]?.slice(2)}`, () => {
    const { text } = runScenario(source)
    if (isUpdate) writeFileSync(file, text)
    else assert.equal(text, source)
  })
}

test("what a scenario can't do is told with its line", () => {
  assert.throws(() => runScenario("form a"), /line 1: a scenario begins with its purpose/)
  assert.throws(() => runScenario("# x\nform a\nfly a"), /line 3, fly a: there is no step fly: settings/)
  assert.throws(() => runScenario("# x\ntick a"), /line 2, tick a: there is no member a/)
  assert.throws(() => runScenario("# x\nform a\ndeliver a>b"), /no such message is on its way/)
  assert.throws(() => runScenario("# x\nsettings speed=1"), /there is no setting speed/)
})
