import assert from "node:assert/strict"
import { after, before, test } from "node:test"
import { Effect } from "effect"
import * as fc from "fast-check"
import { exitCodes } from "../../src/cli/exit.ts"
import { openCliWorld } from "./cli-world.ts"
import type { CliWorld } from "./cli-world.ts"

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31))
console.log(`SEED=${seed}`)

let it: CliWorld
const rejections: Array<unknown> = []
const onRejection = (reason: unknown) => rejections.push(reason)
before(async () => {
  process.on("unhandledRejection", onRejection)
  it = await openCliWorld()
})
after(async () => {
  await it.world.close()
  process.off("unhandledRejection", onRejection)
  assert.deepEqual(rejections, [])
})

const words = fc.constantFrom(
  ...["vm", "host", "migrate", "migration", "why", "history", "replay", "audit", "config", "completion"],
  ...["simulate", "raft", "--seed", "--seeds", "--workers", "--hours"],
  ...["list", "show", "create", "start", "stop", "clone", "drain", "cancel", "validate", "verify", "bash"],
  ...["--json", "--plain", "--wait", "--wait-timeout", "--cpus", "--to", "--at", "--limit", "--", "-n", "-"]
)
const codes: ReadonlySet<number> = new Set(Object.values(exitCodes))

test("no arguments make it crash or record anything: each line ends with a documented code", async () => {
  const position = async () => (await Effect.runPromise(it.world.store.head)).position
  const before = await position()
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.oneof({ weight: 4, arbitrary: words }, fc.string({ unit: "grapheme" })), { maxLength: 7 }),
      async (argv) => {
        // Only what would be done is asked for: a line that happens to be right must change nothing either.
        const said = await it.cli("--no-input", ...argv.filter((word) => word !== "--"), "--dry-run")
        assert.ok(codes.has(said.code), `${JSON.stringify(argv)}: ${said.code}`)
        assert.equal(said.err.includes("error in the program"), false, said.err)
        if (said.code !== 0) assert.ok(said.err.length > 0 || said.out.length > 0)
      }
    ),
    { seed, numRuns: 300 }
  )
  assert.equal(await position(), before)
})
