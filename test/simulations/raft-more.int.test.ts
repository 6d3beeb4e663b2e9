/** As many seeds again as `raft.int.test.ts` has, in a file of their own for the limit that each file has. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { runCli } from "../../src/cli/main.ts"

test("1000 more seeds keep every promise", async () => {
  let [out, err] = ["", ""]
  const code = await runCli(
    ["simulate", "raft", "--seed", "1001", "--seeds", "1000", "--json"],
    {},
    {
      out: (text) => (out += text),
      err: (text) => (err += text),
      isOutTerminal: false,
      isErrTerminal: false,
      environment: {},
      ask: null
    }
  )
  assert.equal(code, 0, err)
  const { seeds, seedsPerHour } = JSON.parse(out) as { seeds: number; seedsPerHour: number }
  console.log(`  ${seeds} seeds, ${seedsPerHour} an hour`)
  assert.equal(seeds, 1000)
})
