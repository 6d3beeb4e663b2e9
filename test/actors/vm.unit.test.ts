/** The machine's actor, command by command. Doubts and leftovers are in reconciliation.unit.test.ts. */
import { test } from "node:test"
import { spec } from "./messages.ts"
import { given } from "./specification.ts"

const web = "vm/web"
const created = { type: "vm.created", name: "web", spec, start: false }
const placed = { type: "vm.placed", host: "a", decision: "web.1" }
const placing = [created]
const defining = [created, placed]
const stopped = [...defining, { type: "vm.defined" }]
const starting = [...stopped, { type: "vm.startRequested", automatic: false }]
const running = [...starting, { type: "vm.started", accelerator: "tcg" }]
const paused = [...running, { type: "vm.pauseRequested" }, { type: "vm.paused" }]
const locked = [...running, { type: "vm.locked", migration: "m" }]
const moved = [...locked, { type: "vm.handedOver", migration: "m", from: "a", to: "b", decision: "m" }]
const unplaced = [created, { type: "vm.notPlaced", decision: "web.1", reason: "a: it is full" }]
const failed = (op: string) => ({ type: "hypervisor.failed", op, code: "failed", reason: "because" })
const ended = (cause: string, host = "a") => ({ type: "vm.reportEnded", host, cause, reason: "killed" })

test("a machine is created once, and its place is asked for", () => {
  given(web, [])
    .when({ type: "vm.create", spec, start: true })
    .thenRecords({ type: "vm.created", name: "web", start: true })
    .thenAsks("placement.request to placement/web.1")
    .thenState("placing")
  given(web, stopped).when({ type: "vm.create", spec, start: false }).thenRefused({ state: "stopped.idle" })
})

test("it goes where it is placed; without a place it waits, starts over or is deleted at once", () => {
  given(web, placing)
    .when({ type: "vm.place", host: "a", address: "a@x:1", decision: "web.1" })
    .thenRecords({ type: "vm.placed", host: "a", decision: "web.1" })
    .thenAsks("define at a")
  given(web, placing)
    .when({ type: "vm.refusePlacement", decision: "web.1", reason: "a: it is full" })
    .thenRecords({ type: "vm.notPlaced", reason: "a: it is full" })
    .thenState("unplaced")
  given(web, unplaced).when({ type: "vm.start" }).thenAsks("placement.request to placement/web.2")
  given(web, unplaced)
    .when({ type: "vm.delete" })
    .thenRecords({ type: "vm.deleted" })
    .thenAsks()
    .thenState("absent")
})

test("once defined it is stopped, or starts where that was wanted", () => {
  given(web, defining)
    .when({ type: "hypervisor.defined" })
    .thenRecords({ type: "vm.defined" })
    .thenState("stopped.idle")
  given(web, [{ ...created, start: true }, placed])
    .when({ type: "hypervisor.defined" })
    .thenRecords({ type: "vm.defined" }, { type: "vm.startRequested", automatic: false })
    .thenAsks("start at a")
})

test("what can't be defined gives its room back, and the host removes what there may be of it", () => {
  given(web, defining)
    .when(failed("define"))
    .thenRecords({ type: "vm.operationFailed", operation: "create", reason: "because" })
    .thenAsks("host.release to host/a")
    .thenState("unplaced")
})

for (const [command, facts, fact, asks, state] of [
  ["start", stopped, "startRequested", "start at a", "starting"],
  ["stop", running, "stopRequested", "stop at a", "stopping"],
  ["stop", paused, "stopRequested", "stop at a", "stopping"],
  ["pause", running, "pauseRequested", "pause at a", "running.pausing"],
  ["resume", paused, "resumeRequested", "resume at a", "resuming"],
  ["reboot", running, "rebootRequested", "reboot at a", "running.rebooting"],
  ["delete", stopped, "deleteRequested", "remove at a", "deleting"]
] as const) {
  test(`${command} is asked of its host`, () => {
    given(web, facts)
      .when({ type: `vm.${command}`, force: false })
      .thenRecords({ type: `vm.${fact}` })
      .thenAsks(asks)
      .thenState(state)
  })
}

for (const [what, facts, report, fact, state] of [
  ["started", starting, { type: "hypervisor.started", accelerator: "kvm" }, "started", "running.idle"],
  ["paused", [...running, { type: "vm.pauseRequested" }], undefined, "paused", "paused.idle"],
  ["resumed", [...paused, { type: "vm.resumeRequested" }], undefined, "resumed", "running.idle"],
  ["rebooted", [...running, { type: "vm.rebootRequested" }], undefined, "rebooted", "running.idle"],
  ["stopped", [...running, { type: "vm.stopRequested", force: true }], undefined, "stopped", "stopped.idle"]
] as const) {
  test(`${what} is so when the host says it`, () => {
    given(web, facts)
      .when(report ?? { type: `hypervisor.${what}` })
      .thenRecords({ type: `vm.${fact}` })
      .thenState(state)
  })
}

for (const [operation, facts, state] of [
  ["delete", [...stopped, { type: "vm.deleteRequested" }], "stopped.idle"],
  ["snapshot", [...running, { type: "vm.snapshotRequested", snapshot: "s" }], "running.idle"],
  ["snapshot", [...stopped, { type: "vm.snapshotRequested", snapshot: "s" }], "stopped.idle"]
] as const) {
  test(`${operation} that fails leaves it ${state}, with the reason`, () => {
    given(web, facts)
      .when(failed(operation === "delete" ? "remove" : operation))
      .thenRecords({ type: "vm.operationFailed", operation, reason: "because" })
      .thenState(state)
  })
}

// It may have been done, or the host may have ended meanwhile: found by the simulated fleet with seeds 3 and 7.
for (const [operation, facts, state] of [
  ["start", starting, "stopped.verifying"],
  ["pause", [...running, { type: "vm.pauseRequested" }], "running.verifying"],
  ["resume", [...paused, { type: "vm.resumeRequested" }], "paused.verifying"],
  ["reboot", [...running, { type: "vm.rebootRequested" }], "running.verifying"],
  ["stop", [...running, { type: "vm.stopRequested", force: false }], "running.verifying"]
] as const) {
  test(`${operation} that fails is told with the reason, and the host is asked how it is`, () => {
    given(web, facts)
      .when(failed(operation))
      .thenRecords({ type: "vm.operationFailed", operation, reason: "because" }, { type: "vm.doubted" })
      .thenAsks("observe at a")
      .thenState(state)
  })
}

test("what its state does not allow is refused and records nothing", () => {
  for (const command of ["pause", "reboot", "resume", "stop"])
    given(web, stopped)
      .when({ type: `vm.${command}`, force: false })
      .thenRefused({ state: "stopped.idle" })
  for (const command of ["start", "delete", "resume", "restore"])
    given(web, running)
      .when({ type: `vm.${command}`, snapshot: "s" })
      .thenRefused({ state: "running.idle" })
  for (const command of ["stop", "pause", "reboot", "snapshot", "delete", "lock"])
    given(web, locked)
      .when({ type: `vm.${command}`, force: false, snapshot: "s", migration: "n" })
      .thenRefused({ state: "migrating" })
})

test("deleted, it gives its room back and its name may be used again", () => {
  given(web, [...stopped, { type: "vm.deleteRequested" }])
    .when({ type: "hypervisor.removed" })
    .thenRecords({ type: "vm.deleted" })
    .thenAsks("host.release to host/a")
    .thenState("absent")
})

test("snapshots have names of their own, and only one that was taken is restored, while it is stopped", () => {
  const taken = [
    ...stopped,
    { type: "vm.snapshotRequested", snapshot: "s" },
    { type: "vm.snapshotTaken", snapshot: "s", bytes: 7 }
  ]
  given(web, stopped)
    .when({ type: "vm.snapshot", snapshot: "s" })
    .thenRecords({ type: "vm.snapshotRequested", snapshot: "s" })
    .thenAsks("snapshot at a")
  given(web, taken)
    .when({ type: "vm.snapshot", snapshot: "s" })
    .thenRefused({ unmet: ["isNewSnapshot"] })
  given(web, taken)
    .when({ type: "vm.restore", snapshot: "t" })
    .thenRefused({ unmet: ["hasSnapshot"] })
  given(web, taken)
    .when({ type: "vm.restore", snapshot: "s" })
    .thenRecords({ type: "vm.restoreRequested", snapshot: "s" })
    .thenAsks("restore at a")
})

test("a guest that powers off is stopped, one that crashes starts again, at most five times in a row", () => {
  given(web, running).when(ended("guest-shutdown")).thenRecords({ type: "vm.stopped" }).thenAsks()
  given(web, running)
    .when(ended("crash"))
    .thenRecords({ type: "vm.crashed", reason: "killed" }, { type: "vm.startRequested", automatic: true })
    .thenAsks("start at a")
  const crash = [
    { type: "vm.crashed", reason: "killed" },
    { type: "vm.startRequested", automatic: true },
    { type: "vm.started", accelerator: "tcg" }
  ]
  given(web, [...running, ...crash, ...crash, ...crash, ...crash, ...crash])
    .when(ended("crash"))
    .thenRecords({ type: "vm.crashed" })
    .thenState("stopped.idle")
  const stays = [{ ...created, spec: { ...spec, onCrash: "stop" } }, ...running.slice(1)]
  given(web, stays).when(ended("crash")).thenRecords({ type: "vm.crashed" }).thenState("stopped.idle")
  given(web, running).when(ended("crash", "b")).thenRefused()
})

test("locked, it tells its migration where it is; only that one may hand it over and unlock it", () => {
  given(web, running)
    .when({ type: "vm.lock", migration: "m" })
    .thenRecords({ type: "vm.locked", migration: "m" })
    .thenAsks("migration.begin to migration/m")
    .thenState("migrating")
  const platform = { accelerator: "tcg", machine: "pc-q35-7.2" }
  given(web, [...starting, { type: "vm.started", ...platform }])
    .when({ type: "vm.lock", migration: "m" })
    .thenAsksWith({ type: "migration.begin", platform })
  given(web, locked)
    .when({ type: "vm.handOver", migration: "other", host: "b", decision: "m" })
    .thenRefused({ unmet: ["isItsMigration"] })
  given(web, locked)
    .when({ type: "vm.handOver", migration: "m", host: "b", decision: "m" })
    .thenRecords({ type: "vm.handedOver", from: "a", to: "b", decision: "m" })
    .thenAsks()
  given(web, moved)
    .when({ type: "vm.unlock", migration: "m", doubtful: false })
    .thenRecords({ type: "vm.unlocked" })
    .thenState("running.idle")
  given(web, [...moved, { type: "vm.unlocked", migration: "m" }])
    .when({ type: "vm.pause" })
    .thenAsks("pause at b")
})

test("a guest that crashed while it moved is started again, or stopped, when the migration lets go of it", () => {
  const crashed = [...locked, { type: "vm.crashed", reason: "killed" }]
  const unlock = { type: "vm.unlock", migration: "m", doubtful: false }
  given(web, locked)
    .when(ended("crash"))
    .thenRecords({ type: "vm.crashed" })
    .thenAsks("migration.reportCrash to migration/m")
    .thenState("migrating")
  given(web, crashed)
    .when(unlock)
    .thenRecords(
      { type: "vm.unlocked" },
      { type: "vm.stopped" },
      { type: "vm.startRequested", automatic: true }
    )
    .thenAsks("start at a")
  given(web, [{ ...created, spec: { ...spec, onCrash: "stop" } }, ...crashed.slice(1)])
    .when(unlock)
    .thenRecords({ type: "vm.unlocked" }, { type: "vm.stopped" })
    .thenState("stopped.idle")
})
