import assert from "node:assert/strict"
import { test } from "node:test"
import { Effect } from "effect"
import * as Digest from "../../simulations/world/digest.ts"
import { layer as memoryStore } from "../../simulations/world/event-store.ts"
import type { Recorded } from "../../src/events/envelope.ts"
import { makeOperations } from "../../src/live/api/operations.ts"

const drained = (position: number): Recorded => ({
  position,
  stream: `host/h${position % 7}`,
  revision: position,
  id: `key-${position}#0`,
  type: "novacron.host.drained",
  version: 1,
  timeMs: position,
  correlation: `key-${position}`,
  causation: `key-${position}`,
  principal: { kind: "operator", name: "someone" },
  node: "n1",
  answers: null,
  data: { reason: "" },
  previousHash: "",
  hash: ""
})

test("each of the latest five thousand operations is found by its id, and of ten thousand before nothing is left", async () => {
  const count = 23_456
  const program = Effect.gen(function* () {
    const operations = yield* makeOperations()
    const found = (position: number) => operations.get(`key-${position}`)?.position
    for (let position = 1; position <= count; position++) {
      assert.equal(found(position), undefined)
      operations.begin([drained(position)])
      assert.equal(found(position), position)
    }
    for (let position = count - 4999; position <= count; position++) assert.equal(found(position), position)
    for (let position = 1; position <= count - 10_000; position++) assert.equal(found(position), undefined)
  })
  await Effect.runPromise(
    Effect.scoped(program).pipe(Effect.provide(memoryStore()), Effect.provide(Digest.layer))
  )
})
