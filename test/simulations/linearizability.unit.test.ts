/** The checker of histories, on histories whose answer is known. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { isLinearizable } from "../../simulations/checkers/linearizability.ts"
import type { Call } from "../../simulations/checkers/linearizability.ts"
import { makeRandom } from "../../simulations/world/random.ts"
import type { Operation, Result } from "../../simulations/raft/machine.ts"

const key = "k"
const call = (calledMs: number, answeredMs: number, operation: Operation, result?: Result): Call => ({
  operation,
  calledMs,
  answeredMs,
  result: result === undefined && answeredMs !== Number.POSITIVE_INFINITY ? null : result
})
const write = (from: number, to: number, value: string) => call(from, to, { op: "write", key, value })
const read = (from: number, to: number, value: string | null) => call(from, to, { op: "read", key }, value)
const swap = (from: number, to: number, expected: string | null, value: string, isDone: boolean) =>
  call(from, to, { op: "swap", key, expected, value }, isDone)
const never = Number.POSITIVE_INFINITY

test("what could have happened in some order is told from what could not", () => {
  assert.equal(isLinearizable([]), true)
  assert.equal(isLinearizable([write(0, 1, "a"), read(2, 3, "a")]), true)
  assert.equal(isLinearizable([write(0, 1, "a"), read(2, 3, null)]), false, "a stale read")
  assert.equal(isLinearizable([write(0, 5, "a"), read(1, 2, null), read(3, 4, "a")]), true)
  assert.equal(isLinearizable([write(0, 5, "a"), read(1, 2, "a"), read(3, 4, null)]), false, "back and forth")
  assert.equal(isLinearizable([write(0, 1, "a"), write(2, 3, "b"), read(4, 5, "a")]), false)
  assert.equal(isLinearizable([read(0, 1, "a")]), false, "from nowhere")
})

test("what was never answered may have happened later, or not at all", () => {
  assert.equal(isLinearizable([write(0, never, "a"), read(5, 6, null), read(7, 8, "a")]), true)
  assert.equal(isLinearizable([write(0, never, "a"), read(5, 6, "a"), read(7, 8, null)]), false)
  assert.equal(isLinearizable([write(5, never, "a"), read(0, 1, "a")]), false, "before it was asked")
})

test("a swap is done once, by what it finds", () => {
  assert.equal(isLinearizable([swap(0, 1, null, "a", true), swap(0, 1, null, "b", true)]), false)
  assert.equal(isLinearizable([swap(0, 1, null, "a", true), swap(0, 1, null, "b", false)]), true)
  assert.equal(isLinearizable([swap(0, never, null, "a", true), swap(2, 3, null, "b", false)]), true)
})

test("histories of a real register pass, and with one answer changed most of them don't", () => {
  const seed = 20_261_121
  console.log(`  seed ${seed}`)
  const random = makeRandom(seed)
  let refused = 0
  for (let round = 0; round < 200; round++) {
    let register: string | null = null
    const calls: Array<Call> = []
    for (let at = 0; at < 30; at++) {
      // Each takes effect at `at`, and was called and answered around it.
      const [from, to] = [at - random.next() * 3, at + random.next() * 3]
      if (random.chance(0.5)) calls.push(read(from, to, register))
      else calls.push(write(from, to, (register = `v${at}`)))
    }
    assert.equal(isLinearizable(calls), true)
    const reads = calls.filter(({ operation }) => operation.op === "read")
    const changed = reads[random.int(0, reads.length - 1)]
    if (changed === undefined) continue
    const other = { ...changed, result: `v${random.int(0, 29)}` }
    if (isLinearizable(calls.map((one) => (one === changed ? other : one))) === false) refused++
  }
  assert.ok(refused > 100, `${refused} of 200 were refused`)
})
