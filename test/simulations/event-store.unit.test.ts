import assert from "node:assert/strict"
import { test } from "node:test"
import { Effect, Layer } from "effect"
import { StoreDamaged, StoreFailure } from "../../src/kernel/ports/event-store.ts"
import * as SimulatedDigest from "../../simulations/world/digest.ts"
import { layer, memoryDisk } from "../../simulations/world/event-store.ts"
import type { MemoryDisk } from "../../simulations/world/event-store.ts"
import { draft, drafts, eventStoreConformance, within } from "../conformance/event-store.ts"

const placeOn = (disk: MemoryDisk) => ({
  layer: Layer.provideMerge(Layer.fresh(layer(disk)), SimulatedDigest.layer),
  remove: () => {}
})

eventStoreConformance("the simulated world", () => placeOn(memoryDisk()))

test("a fault of the disk fails the operation and keeps nothing", async () => {
  const disk = memoryDisk("node-1")
  await within(placeOn(disk), (store) =>
    Effect.gen(function* () {
      disk.fault = (operation) => (operation === "append" ? "disk full" : null)
      const batch = [{ stream: "vm/a", expectedRevision: -1, facts: drafts("a", 1) }]
      const error = yield* Effect.flip(store.append(batch))
      assert.deepEqual(error, new StoreFailure({ operation: "append", reason: "disk full" }))
      assert.equal((yield* store.head).position, 0)
      disk.fault = () => null
      assert.equal((yield* store.append(batch)).length, 1)
    })
  )
})

test("verify finds the first fact that was changed behind the store's back", async () => {
  const disk = memoryDisk("node-1")
  await within(placeOn(disk), (store) =>
    Effect.gen(function* () {
      yield* store.append([{ stream: "vm/a", expectedRevision: -1, facts: drafts("a", 5) }])
      const third = disk.facts[2]
      assert.ok(third)
      disk.facts[2] = { ...third, dataText: '{"type":"vm.stopped"}' }
      const error = yield* Effect.flip(store.verify)
      assert.ok(error instanceof StoreDamaged)
      assert.equal(error.position, 3)
      assert.equal(error.path, "node-1")
      disk.facts[2] = third
      disk.facts.splice(3, 1)
      assert.equal((yield* Effect.flip(store.verify))._tag, "StoreDamaged")
    })
  )
})

test("what a reader does to a fact changes nothing that is stored", async () => {
  await within(placeOn(memoryDisk()), (store) =>
    Effect.gen(function* () {
      const data: Record<string, unknown> = { type: "vm.started", labels: { tier: "web" } }
      const [fact] = yield* store.append([
        { stream: "vm/a", expectedRevision: -1, facts: [draft("a", data)] }
      ])
      data["labels"] = null
      assert.ok(fact)
      Object.assign(fact.data, { labels: "changed" })
      assert.deepEqual((yield* store.readAll())[0]?.data, { type: "vm.started", labels: { tier: "web" } })
    })
  )
})
