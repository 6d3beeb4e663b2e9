/** What only QEMU does, and the suite of the port therefore can't ask of every driver. */
import assert from "node:assert/strict"
import { after, before, test } from "node:test"
import { Effect, Stream } from "effect"
import type { MigrationPolicy } from "../../src/events/requests.ts"
import type { MigrationReport } from "../../src/kernel/ports/hypervisor.ts"
import { makeTwoQemuHosts } from "./qemu-hosts.ts"

type Hosts = Awaited<ReturnType<typeof makeTwoQemuHosts>>
let hosts: Hosts

before(async () => {
  hosts = await makeTwoQemuHosts()
})
after(() => hosts.close())

const POLICY: MigrationPolicy = {
  // Never reached by pre-copy with this guest on this link.
  downtimeBudgetMs: 1,
  bandwidthBytesPerSecond: 24 * 1024 * 1024,
  postCopy: true,
  throttle: false,
  timeoutMs: 60_000
}

test("a guest that dirties its memory too fast moves by post-copy, and runs at the destination meanwhile", async (t) => {
  const { source, destination, run } = hosts
  const spec = hosts.spec({ disk: "local", dirtyMibPerSecond: 64 })
  await run(source.driver().define("busy", spec))
  await run(source.driver().start("busy"))
  const from = await source.watch("busy")
  while (from.ticks.length < 50) await hosts.pass(20)
  const able = (await run(destination.driver().facts)).capabilities.includes("post-copy")
  const channels = await run(destination.driver().prepareIncoming("busy", spec, "move-1"))
  const to = await destination.watch("busy")
  t.after(() => [from, to].forEach((watch) => watch.close()))
  const reports: Array<MigrationReport> = []
  const error = await run(
    source
      .driver()
      .migrate("busy", "move-1", channels, POLICY)
      .pipe(
        Stream.runForEach((report) => {
          reports.push(report)
          return report.type === "hypervisor.handedOver" ? destination.driver().resume("busy") : Effect.void
        }),
        Effect.match({ onFailure: (cause) => cause.code, onSuccess: () => null })
      )
  )
  if (!able) {
    // The kernel keeps userfaultfd for the privileged: the guest stays.
    assert.equal(error, "lost")
    assert.equal(await run(source.driver().observe("busy")), "running")
    return
  }
  assert.equal(error, null)
  const types = reports.map((report) => report.type)
  assert.equal(types.filter((type) => type === "hypervisor.handedOver").length, 1)
  assert.equal(types.at(-1), "hypervisor.migrated")
  const phases = reports.flatMap((report) =>
    report.type === "hypervisor.progressed" ? report.progress.phase : []
  )
  assert.ok(phases.includes("post-copy"))
  assert.equal(await run(source.driver().observe("busy")), "handed-over")
  assert.equal(await run(destination.driver().observe("busy")), "running")
  // Also a driver that was started anew knows that the guest must not run here again.
  await source.reopen()
  const refused = await run(Effect.flip(source.driver().resume("busy")))
  assert.equal(refused.code, "wrong-state")
  assert.match(refused.reason, /went on at the destination by post-copy/)
  while (to.ticks.length < 50) await hosts.pass(20)
  assert.ok((to.ticks[0]?.count ?? 0) > (from.ticks.at(-1)?.count ?? Number.MAX_VALUE))
})
