/** What waits for one viewer is bounded, in the order in which it came, and says what is missing. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { Effect } from "effect"
import * as fc from "fast-check"
import { Inbox } from "../../src/live/console/inbox.ts"
import type { ConsoleItem } from "../../src/live/console/inbox.ts"

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31))
console.log(`SEED=${seed}`)
const waitingBytes_max = 256 * 1024

const bytesIn = (items: ReadonlyArray<ConsoleItem>) =>
  items.reduce((sum, item) => sum + (item instanceof Uint8Array ? item.length : 0), 0)
const skippedIn = (items: ReadonlyArray<ConsoleItem>) =>
  items.reduce(
    (sum, item) => sum + (!(item instanceof Uint8Array) && item.type === "skipped" ? item.bytes : 0),
    0
  )

test("whatever comes, so much waits at most, and what is shown and what is told to be missing is all of it", async () => {
  const step = fc.oneof(
    { weight: 4, arbitrary: fc.integer({ min: 1, max: 100_000 }) },
    { weight: 1, arbitrary: fc.constant("take" as const) }
  )
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const inbox = new Inbox()
      let [sent, waiting, got] = [0, 0, 0]
      const take = async () => {
        if (waiting === 0) return
        const items = await Effect.runPromise(inbox.take)
        assert.ok(items.length > 0 && bytesIn(items) <= waitingBytes_max)
        got += bytesIn(items) + skippedIn(items)
        waiting = 0
        assert.equal(got, sent)
      }
      for (const one of steps) {
        if (one === "take") await take()
        else {
          inbox.data(new Uint8Array(one))
          sent += one
          waiting += one
        }
      }
      await take()
      assert.equal(got, sent)
    }),
    { seed }
  )
})

test("after what was skipped nothing newer overtakes it, and closed is the last word", async () => {
  const inbox = new Inbox()
  inbox.notice({ type: "connected", host: "a", simulated: false })
  inbox.data(new Uint8Array(waitingBytes_max))
  inbox.data(new Uint8Array(10))
  inbox.notice({ type: "closed", cause: "ended", reason: "it stopped" })
  inbox.data(new Uint8Array(1))
  inbox.notice({ type: "connected", host: "b", simulated: false })
  const items = await Effect.runPromise(inbox.take)
  assert.deepEqual(
    items.map((item) => (item instanceof Uint8Array ? item.length : item.type)),
    ["connected", waitingBytes_max, "skipped", "closed"]
  )
})

test("notices are bounded too, but for the last one", async () => {
  const inbox = new Inbox()
  for (let count = 0; count < 1000; count++) inbox.notice({ type: "connected", host: "a", simulated: true })
  inbox.notice({ type: "closed", cause: "lost", reason: "" })
  const items = await Effect.runPromise(inbox.take)
  assert.equal(items.length, 65)
  assert.equal((items.at(-1) as { type: string }).type, "closed")
})
