/** What only QEMU does, and the suite of the port therefore can't ask of every driver. */
import assert from "node:assert/strict"
import { once } from "node:events"
import { existsSync } from "node:fs"
import { connect, createServer } from "node:net"
import type { Socket } from "node:net"
import { mkdtemp, readFile, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, test } from "node:test"
import type { TestContext } from "node:test"
import { Effect, Stream } from "effect"
import { arrival } from "../conformance/arrival.ts"
import type { MigrationPolicy } from "../../src/events/requests.ts"
import type { MigrationReport } from "../../src/kernel/ports/hypervisor.ts"
import { mayUserfault } from "../../src/live/hypervisor/probe.ts"
import { connectQmp } from "../../src/live/hypervisor/qmp.ts"
import { makeTwoQemuHosts } from "./qemu-hosts.ts"

const isAble = await Effect.runPromise(mayUserfault)
const skip = isAble ? false : "the kernel keeps userfaultfd for the privileged: no post-copy"

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
  const { capabilities } = await run(destination.driver().facts)
  assert.equal(capabilities.includes("post-copy"), isAble)
  const channels = await run(destination.driver().prepareIncoming("busy", spec, arrival("move-1")))
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
  if (!isAble) {
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

/** A unix socket in front of another. Cut, it holds new connections, as the transport does, until it is healed. */
async function cuttable(path: string) {
  const folder = await mkdtemp(join(tmpdir(), "nv-cut-"))
  const sockets = new Set<Socket>()
  let held: Array<Socket> | null = null
  const carry = (near: Socket) => {
    const far = connect(path)
    for (const [one, other] of [
      [near, far],
      [far, near]
    ] as const) {
      sockets.add(one)
      one.on("error", () => undefined)
      one.on("close", () => {
        sockets.delete(one)
        other.destroy()
      })
    }
    near.pipe(far)
    far.pipe(near)
  }
  const server = createServer({ pauseOnConnect: true }, (near) => {
    if (held === null) carry(near)
    else held.push(near)
  })
  const front = join(folder, "ram.sock")
  server.listen(front)
  await once(server, "listening")
  return {
    path: front,
    cut: () => {
      held = []
      for (const socket of sockets) socket.destroy()
    },
    heal: () => {
      for (const near of held ?? []) carry(near)
      held = null
    },
    close: async () => {
      for (const socket of sockets) socket.destroy()
      server.close()
      await rm(folder, { recursive: true })
    }
  }
}

/** `path`: where QEMU listens for its source. */
type Breaking = (cut: () => void, path: string) => Promise<void>

/** A machine whose link is cut when it runs at the destination; its guest's ticks there, and how its move ends. */
async function tear(vm: string, migration: string, breaking: Breaking = async (cut) => cut()) {
  const { source, destination, run } = hosts
  const spec = hosts.spec({ disk: "none", dirtyMibPerSecond: 64 })
  await run(source.driver().define(vm, spec))
  await run(source.driver().start(vm))
  const from = await source.watch(vm)
  while (from.ticks.length < 50) await hosts.pass(20)
  const channels = await run(destination.driver().prepareIncoming(vm, spec, arrival(migration)))
  const path = channels.find(({ name }) => name === "ram")?.path ?? ""
  const link = await cuttable(path)
  const to = await destination.watch(vm)
  const reports: Array<MigrationReport> = []
  const broken = Promise.withResolvers<void>()
  const slow = { ...POLICY, bandwidthBytesPerSecond: 12 * 1024 * 1024 }
  const moved = run(
    source
      .driver()
      .migrate(vm, migration, [{ name: "ram", path: link.path }], slow)
      .pipe(
        Stream.runForEach((report) => {
          reports.push(report)
          if (report.type !== "hypervisor.handedOver") return Effect.void
          return Effect.tap(destination.driver().resume(vm), () =>
            Effect.promise(() => breaking(link.cut, path).then(broken.resolve))
          )
        }),
        Effect.match({ onFailure: (cause) => `${cause.code}: ${cause.reason}`, onSuccess: () => null })
      )
  )
  const close = async () => {
    for (const watch of [from, to]) watch.close()
    await link.close()
  }
  // Before QEMU listens again a link that is healed leads nowhere.
  const isBroken = Promise.race([broken.promise, moved])
  return { link, to, reports, moved, isBroken, close }
}

async function mends(t: TestContext, vm: string, breaking?: Breaking) {
  const { source, destination, run } = hosts
  const { link, to, reports, moved, isBroken, close } = await tear(vm, `move-${vm}`, breaking)
  t.after(close)
  await isBroken
  await hosts.pass(2500)
  assert.notEqual(reports.at(-1)?.type, "hypervisor.migrated", "there was nothing left to send")
  link.heal()
  assert.equal(await moved, null)
  assert.equal(reports.at(-1)?.type, "hypervisor.migrated")
  assert.equal(await run(destination.driver().settleArrival(vm, `move-${vm}`)), true)
  assert.equal(await run(destination.driver().observe(vm)), "running")
  const before = to.ticks.length
  while (to.ticks.length < before + 50) await hosts.pass(20)
  for (const [index, { count }] of to.ticks.entries()) {
    if (index > 0) assert.ok(count > (to.ticks[index - 1]?.count ?? Number.MAX_VALUE))
  }
  await run(destination.driver().remove(vm))
  await run(source.driver().remove(vm))
}

test(
  "a post-copy whose link breaks waits for it, and the guest goes on with all of its memory",
  { skip },
  (t) =>
    mends(t, "torn", async (cut, path) => {
      // Whoever comes before QEMU is told to listen again would be thrown out with its old socket: it is gone while the link
      // holds, and not only when all has come, when there is nothing left to mend.
      while (existsSync(path)) await hosts.pass(5)
      cut()
    })
)

/** Have QEMU's main loop read the guest's memory: it waits for what has not come, as a device of its own may have it do. */
async function stall(vm: string): Promise<void> {
  const command = await readFile(`/proc/${await hosts.destination.pid(vm)}/cmdline`, "utf8")
  const socket = /\0socket,id=qmp,path=([^,\0]+)/.exec(command)?.[1] ?? ""
  const args = { val: 0, size: 127 * 1024 * 1024, filename: `${socket}.memory` }
  const reading = Effect.flatMap(connectQmp(socket), (qmp) => qmp.execute("pmemsave", args, 500))
  const { code } = await Effect.runPromise(Effect.flip(Effect.scoped(reading)))
  assert.equal(code, "timeout", "its main loop waits")
}

test(
  "so it does when the driver of its destination ends as well, and QEMU itself waits for memory",
  { skip },
  (t) =>
    mends(t, "orphan", async (cut) => {
      // At once: there is not much left to send.
      cut()
      await hosts.destination.reopen(() => stall("orphan"))
    })
)

test("a guest whose memory will not come whole is ended, and can be started again", { skip }, async (t) => {
  const { source, destination, run } = hosts
  const { moved, isBroken, close } = await tear("half", "move-3")
  t.after(close)
  await isBroken
  await hosts.pass(1000)
  assert.equal((await run(destination.driver().arriving)).length, 1)
  assert.equal(await run(destination.driver().settleArrival("half", "move-3")), false)
  assert.equal(await run(destination.driver().observe("half")), "defined")
  assert.deepEqual(await run(destination.driver().arriving), [])
  await run(source.driver().remove("half"))
  assert.match((await moved) ?? "", /^lost/)
  await run(destination.driver().start("half"))
  assert.equal(await run(destination.driver().observe("half")), "running")
  await run(destination.driver().remove("half"))
})
