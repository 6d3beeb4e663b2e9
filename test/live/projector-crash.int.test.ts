import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { test } from "node:test"
import { fileURLToPath } from "node:url"
import { Effect, Layer } from "effect"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import * as Digest from "../../src/live/digest.ts"
import { layer as sqliteStore } from "../../src/live/event-store.ts"
import { layer as projectorLayer, Projector } from "../../src/live/projector.ts"
import { allProjections } from "../../src/live/views.ts"
import { folded, served } from "./projector-world.ts"

const child = fileURLToPath(new URL("./projector-child.ts", import.meta.url))

/** Kill it, without a chance to tidy up, after it has said so many positions. Returns the last it said. */
function projectAndDie(folder: string, first: number, positions: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const process_ = spawn(process.execPath, [child, folder, String(first)], {
      stdio: ["ignore", "pipe", "pipe"]
    })
    let said = ""
    let errors = ""
    process_.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()))
    process_.stdout.on("data", (chunk: Buffer) => {
      said += chunk.toString()
      if (said.split("\n").length > positions) process_.kill("SIGKILL")
    })
    process_.on("error", reject)
    process_.on("close", (_, signal) => {
      if (signal === "SIGKILL") resolve(Number(said.trimEnd().split("\n").at(-1)))
      else reject(new Error(`it ended by itself: ${errors}`))
    })
  })
}

function storedPosition(path: string): number {
  const database = new DatabaseSync(path)
  const row = database.prepare("SELECT position FROM runs WHERE projection = 'inventory'").get()
  database.close()
  return Number(row?.["position"])
}

test("killed at any moment, what is stored is the state after exactly the stored position", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "novacron-views-"))
  t.after(() => rmSync(folder, { recursive: true }))
  const views = join(folder, "views.db")
  const store = sqliteStore({ path: join(folder, "events.db") })
  const world = Layer.provideMerge(projectorLayer({ path: views, projections: allProjections }), store)
  let before = 0
  for (let round = 0; round < 4; round++) {
    const reached = await projectAndDie(folder, round * 10_000, 5 + round * 7)
    const stored = storedPosition(views)
    assert.ok(stored > before, `position ${stored} after ${before}`)
    assert.ok(stored >= reached - 14, `position ${stored} though ${reached} was reached`)
    const compare = Effect.gen(function* () {
      const projector = yield* Projector
      assert.ok(projector.position("inventory") >= stored, "it began again from the first fact")
      const events = yield* EventStore
      const { position } = yield* events.head
      yield* projector.caughtUp(position)
      const incremental = served(projector)
      assert.deepEqual(incremental, yield* folded(events))
      for (const { name } of allProjections) yield* projector.rebuild(name)
      assert.deepEqual(served(projector), incremental)
      return position
    })
    before = await Effect.runPromise(Effect.provide(compare, Layer.fresh(Layer.provide(world, Digest.layer))))
  }
})
