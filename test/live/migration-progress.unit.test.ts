import assert from "node:assert/strict"
import { test } from "node:test"
import * as fc from "fast-check"
import { Schema } from "effect"
import { Progress } from "../../src/events/requests.ts"
import { memoryProgress, migrationInfo, mirrorProgress } from "../../src/live/hypervisor/progress.ts"

const LIMIT_MS = 60_000

test("percent never goes back, whatever QEMU says", () => {
  const answer = fc.record({
    status: fc.constantFrom("setup", "active", "pre-switchover", "device", "postcopy-active", "completed"),
    ram: fc.option(
      fc.record({
        transferred: fc.nat(),
        remaining: fc.nat(),
        total: fc.nat(),
        "dirty-pages-rate": fc.nat(100_000),
        "page-size": fc.constant(4096),
        mbps: fc.double({ min: 0, max: 1e5, noNaN: true }),
        "dirty-sync-count": fc.nat(100)
      }),
      { nil: undefined }
    )
  })
  fc.assert(
    fc.property(fc.array(answer), fc.array(fc.tuple(fc.nat(), fc.nat())), (answers, copies) => {
      let previous: typeof Progress.Type | null = null
      const check = (next: typeof Progress.Type) => {
        Schema.decodeUnknownSync(Progress)(next)
        assert.ok(next.percent >= (previous?.percent ?? 0) && next.percent <= 100)
        if (next.remainingMs !== null) {
          assert.ok(next.remainingMs.low <= next.remainingMs.high || next.remainingMs.high === LIMIT_MS)
        }
        previous = next
      }
      for (const [doneBytes, totalBytes] of copies) {
        const percent = (previous as typeof Progress.Type | null)?.percent ?? 0
        check(mirrorProgress({ doneBytes, totalBytes }, 1000, 4096, LIMIT_MS, percent))
      }
      for (const each of answers) {
        check(memoryProgress(migrationInfo(each), { doneBytes: 0, totalBytes: 0 }, LIMIT_MS, previous))
      }
    })
  )
})

test("what QEMU leaves out is nothing, and a stream that is dirtied faster than it flows ends at the time-out", () => {
  assert.deepEqual(migrationInfo({}), {
    ...{ status: "none", totalMs: null, downtimeMs: null, throttlePercent: 0, error: null, ram: null }
  })
  const info = migrationInfo({
    status: "active",
    ram: { transferred: 1, remaining: 8e6, total: 1e8, "dirty-pages-rate": 1000, "page-size": 4096, mbps: 8 }
  })
  const progress = memoryProgress(info, { doneBytes: 0, totalBytes: 0 }, LIMIT_MS, null)
  assert.equal(progress.phase, "pre-copy")
  assert.deepEqual(progress.remainingMs, { low: 8000, high: LIMIT_MS })
})
