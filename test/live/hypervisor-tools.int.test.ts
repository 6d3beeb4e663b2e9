import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { join } from "node:path"
import { test } from "node:test"

const source = (path: string) => JSON.stringify(join(import.meta.dirname, "..", "..", path))

test("asking two programs that are not there, of which the first answer ends the second, ends nobody else", async () => {
  const text = `
    import { Effect } from "effect"
    import { runTool } from ${source("src/live/hypervisor/tools.ts")}
    const both = Effect.forEach(["novacron-no-such-a", "novacron-no-such-b"], (program) => runTool(program, [], 1000), {
      concurrency: 2
    })
    for (let round = 0; round < 100; round++) {
      const error = await Effect.runPromise(Effect.flip(both))
      if (!/ENOENT|No such file/.test(error.reason)) throw error
    }
  `
  // In a process group of its own: what is tried here once ended the runner of the tests.
  const child = spawn(process.execPath, ["--input-type=module", "--eval", text], {
    cwd: join(import.meta.dirname, "..", ".."),
    detached: true,
    stdio: "inherit"
  })
  assert.deepEqual(await once(child, "exit"), [0, null])
})
