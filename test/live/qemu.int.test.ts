import assert from "node:assert/strict"
import { after, before, test } from "node:test"
import { arrival } from "../conformance/arrival.ts"
import { hypervisorConformance } from "../conformance/hypervisor.ts"
import { makeTwoQemuHosts } from "./qemu-hosts.ts"

hypervisorConformance("qemu", makeTwoQemuHosts)

let hosts: Awaited<ReturnType<typeof makeTwoQemuHosts>>

before(async () => {
  hosts = await makeTwoQemuHosts()
})
after(() => hosts.close())

test("a QEMU that gives no answer holds up no other machine, and can be ended and removed", async () => {
  const { source, run } = hosts
  const spec = hosts.spec({ disk: "none" })
  for (const vm of ["stuck", "well"]) {
    await run(source.driver().define(vm, spec))
    await run(source.driver().start(vm))
  }
  const pid = await source.pid("stuck")
  process.kill(pid, "SIGSTOP")
  await source.reopen()
  const all = [
    { vm: "stuck", state: "running" },
    { vm: "well", state: "running" }
  ]
  assert.deepEqual(await run(source.driver().list), all)
  await run(source.driver().stop("stuck", { force: true }))
  assert.equal(await run(source.driver().observe("stuck")), "defined")
  await run(source.driver().start("stuck"))
  process.kill(await source.pid("stuck"), "SIGSTOP")
  await run(source.driver().remove("stuck"))
  assert.equal(await run(source.driver().observe("stuck")), "absent")
  await run(source.driver().remove("well"))
})

test("what was to arrive, and gives no answer, can be given up; a driver that was started anew knows of it", async () => {
  const { destination, run } = hosts
  const channels = await run(
    destination.driver().prepareIncoming("late", hosts.spec({ disk: "local" }), arrival("m"))
  )
  process.kill(await destination.pid("late"), "SIGSTOP")
  await destination.reopen()
  assert.deepEqual(await run(destination.driver().arriving), [{ vm: "late", ...arrival("m"), channels }])
  await run(destination.driver().abandonIncoming("late", "m"))
  assert.equal(await run(destination.driver().observe("late")), "absent")
})
