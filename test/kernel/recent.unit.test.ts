import assert from "node:assert/strict"
import { test } from "node:test"
import * as fc from "fast-check"
import { idsOf, isRecent, recentInputs_max, recentOf, remember } from "../../src/kernel/recent.ts"
import type { Recent } from "../../src/kernel/recent.ts"

const seed = 20_261_122

/** Ids that end alike, so that many have the same print, and some that come again. */
const id = fc.oneof(
  fc.nat(300).map((n) => `input-${n}`),
  fc.nat(300).map((n) => `${n}-the same end`),
  fc.constant("")
)

/** From any state that there was so far, as a dry run or a batch that fails leaves one behind. */
const step = fc.record({ from: fc.nat(1000), isLatest: fc.integer({ min: 0, max: 9 }), id })

test("a state's ids are what a list of its own would have, whatever other states are made of the same", () => {
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 400, size: "max" }),
      fc.array(id, { maxLength: 80, size: "max" }),
      (steps, kept) => {
        const first = kept.slice(-recentInputs_max)
        const states: Array<{ readonly recent: Recent; readonly ids: ReadonlyArray<string> }> = [
          { recent: recentOf(first), ids: first }
        ]
        for (const { from, isLatest, id } of steps) {
          const before = states[isLatest > 0 ? states.length - 1 : from % states.length]!
          const ids = before.ids.at(-1) === id ? before.ids : [...before.ids, id].slice(-recentInputs_max)
          states.push({ recent: remember(before.recent, id), ids })
        }
        for (const { recent, ids } of states) {
          assert.deepEqual(idsOf(recent), ids)
          for (const { id } of steps) assert.equal(isRecent(recent, id), ids.includes(id))
        }
      }
    ),
    { seed, numRuns: 60 }
  )
})

test("an actor that lives long keeps no more of its ids than it may look at, and some", () => {
  let recent = recentOf([])
  for (let n = 0; n < 10_000; n++) {
    recent = remember(recent, `input-${n}`)
    assert.ok(recent.log.ids.length <= 1.5 * recentInputs_max + 1)
    assert.equal(recent.log.prints.length, recent.log.ids.length)
  }
  assert.ok(isRecent(recent, "input-9999") && !isRecent(recent, `input-${9999 - recentInputs_max}`))
})
