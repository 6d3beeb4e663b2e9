/** Half a minute of cuts and heals on real sockets; `node test/live/partitions.ts` does ten. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { namespacesMissing, runPartitions } from "./partitions.ts"

const missing = namespacesMissing()
const seed = 1

test(
  `cut off and healed, what clients saw could have happened one after the other, and all have one journal (seed ${seed})`,
  missing === null ? {} : { skip: missing },
  async () => {
    const outcome = await runPartitions(30, seed)
    assert.deepEqual(outcome.wrong, [], JSON.stringify(outcome))
    assert.equal(new Set(outcome.heads).size, 1, JSON.stringify(outcome))
    assert.equal(outcome.twice, 0)
    assert.ok(outcome.answered > 50, JSON.stringify(outcome))
    assert.ok(Object.keys(outcome.cuts).length > 1, JSON.stringify(outcome))
  }
)
