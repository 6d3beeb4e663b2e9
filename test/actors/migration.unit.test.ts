import { test } from "node:test"
import type { Message } from "../../src/events/envelope.ts"
import { policy, progress, spec } from "./messages.ts"
import { given } from "./specification.ts"

const m = "migration/m"
const requested = { type: "migration.requested", migration: "m", vm: "web", policy, reason: "test" }
const begun = { type: "migration.begun", from: "a", decision: "web.1", spec }
const placed = { type: "migration.placed", to: "b", address: "b@127.0.0.1:1", decision: "m" }
const placing = [requested, begun]
const checking = [...placing, placed]
const preparing = [...checking, { type: "migration.checked" }]
const transferring = [...preparing, { type: "migration.prepared", channels: ["ram"] }]
const switching = [...transferring, { type: "migration.handedOver" }]
const cancel = { type: "migration.cancel", reason: "enough" }
const failed = (op: string, code = "failed"): Message => ({
  type: "hypervisor.failed",
  op,
  code,
  reason: "because"
})

test("a migration begins with the machine's lock", () => {
  given(m, [])
    .when({ type: "migration.request", vm: "web", policy, reason: "test" })
    .thenRecords({ type: "migration.requested", vm: "web" })
    .thenAsks("vm.lock to vm/web")
})

test("a machine that can't be locked ends it at once", () => {
  given(m, [requested])
    .when({ type: "actor.refused", to: "vm/web", command: "vm.lock", reason: "it is stopped" })
    .thenRecords({ type: "migration.failed", reason: "it is stopped" })
    .thenState("failed")
})

test("the way to the hand-over: place, check, prepare, transfer", () => {
  given(m, [requested])
    .when({ type: "migration.begin", from: "a", decision: "web.1", spec })
    .thenAsks("placement.request to placement/m")
  given(m, placing)
    .when({ type: "migration.place", host: "b", address: "b@127.0.0.1:1", decision: "m" })
    .thenAsks("checkIncoming at b")
  given(m, checking).when({ type: "hypervisor.checked", blockers: [] }).thenAsks("prepareIncoming at b")
  given(m, preparing)
    .when({ type: "hypervisor.incomingPrepared", channels: ["ram"] })
    .thenAsks("migrate at a")
  given(m, transferring)
    .when({ type: "hypervisor.handedOver" })
    .thenAsks("resume at b")
    .thenState("switching")
})

test("what the machine runs on, and post-copy, are asked of the place and of the destination", () => {
  const platform = { accelerator: "tcg", machine: "pc-q35-7.2" }
  const asked = { ...requested, policy: { ...policy, postCopy: true } }
  const begin = { from: "a", decision: "web.1", spec, platform }
  given(m, [asked])
    .when({ type: "migration.begin", ...begin })
    .thenRecords({ type: "migration.begun", platform })
    .thenAsksWith({ type: "placement.request", platform, capabilities: ["post-copy"] })
  const begun = [asked, { type: "migration.begun", ...begin }]
  const placed = { type: "migration.placed", to: "b", address: "b@127.0.0.1:1", decision: "m" }
  given(m, begun)
    .when({ type: "migration.place", host: "b", address: "b@127.0.0.1:1", decision: "m" })
    .thenAsksWith({ op: "checkIncoming", platform })
  given(m, [...begun, placed])
    .when({ type: "hypervisor.checked", blockers: [] })
    .thenAsksWith({ op: "prepareIncoming", platform })
})

test("after the destination runs, the machine is told, the source cleared, the lock released", () => {
  given(m, switching).when({ type: "hypervisor.resumed" }).thenAsks("vm.handOver to vm/web")
  const resumed = [...switching, { type: "migration.resumed" }]
  const measured = { type: "migration.measured", totalMs: 1, downtimeMs: 1, transferredBytes: 1 }
  given(m, [...resumed, measured])
    .when({ type: "actor.accepted", to: "vm/web", command: "vm.handOver" })
    .thenRecords({ type: "migration.ownerChanged" }, { type: "migration.sourceClearing" })
    .thenAsks("remove at a")
  given(m, [...resumed, { type: "migration.ownerChanged" }])
    .when({ type: "hypervisor.migrated", totalMs: 1, downtimeMs: 1, transferredBytes: 1 })
    .thenRecords({ type: "migration.measured" }, { type: "migration.sourceClearing" })
  const clearing = [
    ...resumed,
    measured,
    { type: "migration.ownerChanged" },
    { type: "migration.sourceClearing" }
  ]
  given(m, clearing)
    .when({ type: "hypervisor.removed" })
    .thenAsks("host.release to host/a", "vm.unlock to vm/web")
  given(m, [...clearing, { type: "migration.sourceCleared", leftover: "" }])
    .when({ type: "actor.accepted", to: "vm/web", command: "vm.unlock" })
    .thenRecords({ type: "migration.completed" })
    .thenState("completed")
})

test("no destination: nothing to take back but the lock", () => {
  given(m, placing)
    .when({ type: "migration.refusePlacement", decision: "m", reason: "a: it is full" })
    .thenRecords({ type: "migration.givenUp", outcome: "failed", reason: "a: it is full" })
    .thenAsks("vm.unlock to vm/web")
})

for (const [phase, facts, message] of [
  ["checking finds blockers", checking, { type: "hypervisor.checked", blockers: ["no CPU model"] }],
  ["checking fails", checking, failed("checkIncoming")],
  ["preparing fails", preparing, failed("prepareIncoming")],
  ["the transfer fails", transferring, failed("migrate", "lost")],
  ["the destination is gone before it ran", switching, failed("resume", "not-found")]
] as const) {
  test(`${phase}: rolled back`, () => {
    given(m, facts)
      .when(message)
      .thenRecords({ type: "migration.rollingBack", outcome: "failed" })
      .thenAsks("cancelMigration at a")
  })
}

test("rolled back in this order: transfer, destination, source", () => {
  const rolling = [...transferring, { type: "migration.rollingBack", outcome: "failed", reason: "x" }]
  given(m, rolling).when({ type: "hypervisor.migrationCancelled" }).thenAsks("abandonIncoming at b")
  const stopped = [...rolling, { type: "migration.transferStopped" }]
  given(m, stopped)
    .when({ type: "hypervisor.incomingAbandoned" })
    .thenAsks("host.release to host/b", "resume at a")
  const cleared = [...stopped, { type: "migration.destinationCleared", leftover: "" }]
  given(m, cleared).when({ type: "hypervisor.resumed" }).thenAsks("vm.unlock to vm/web")
})

const switchingTorn = [...transferring, { type: "migration.handedOver", postCopy: true }]
const arriving = [...switchingTorn, { type: "migration.resumed" }, { type: "migration.ownerChanged" }]
const accepted = (command: string) => ({ type: "actor.accepted", to: "vm/web", command })

test("by post-copy it is told how far the rest is, also after the hand-over", () => {
  given(m, transferring)
    .when({ type: "hypervisor.handedOver", postCopy: true })
    .thenRecords({ type: "migration.handedOver", postCopy: true })
  const progressed = { type: "hypervisor.progressed", progress }
  given(m, switchingTorn).when(progressed).thenRecords({ type: "migration.progressed" })
  given(m, arriving).when(progressed).thenRecords({ type: "migration.progressed" })
  given(m, switching).when(progressed).thenNothing()
})

test("by post-copy, when nothing more will come, the destination is asked whether that was all", () => {
  const doubted = { type: "migration.arrivalDoubted" }
  given(m, arriving)
    .when(failed("migrate", "lost"))
    .thenRecords({ type: "migration.notMeasured" }, doubted)
    .thenAsks("settleArrival at b")
  given(m, arriving)
    .when({ type: "migration.reportCrash", reason: "QEMU ended" })
    .thenRecords(doubted)
    .thenAsks("settleArrival at b")
  const resumed = [...switchingTorn, { type: "migration.resumed" }]
  given(m, [...resumed, { type: "migration.notMeasured", reason: "because" }])
    .when(accepted("vm.handOver"))
    .thenRecords({ type: "migration.ownerChanged" }, { ...doubted, reason: "because" })
})

test("by post-copy a guest that has come whole goes on; another is ended, and the migration has failed", () => {
  const settling = [...arriving, { type: "migration.arrivalDoubted", reason: "because" }]
  given(m, settling)
    .when({ type: "hypervisor.arrivalSettled", whole: true })
    .thenRecords({ type: "migration.arrivalConfirmed" })
    .thenAsks("remove at a")
  given(m, [
    ...settling,
    { type: "migration.arrivalConfirmed" },
    { type: "migration.sourceCleared", leftover: "" }
  ])
    .when(accepted("vm.unlock"))
    .thenRecords({ type: "migration.completed" })
  for (const message of [{ type: "hypervisor.arrivalSettled", whole: false }, failed("settleArrival")])
    given(m, settling).when(message).thenRecords({ type: "migration.guestLost" }).thenAsks("remove at a")
  const lost = [...settling, { type: "migration.guestLost", reason: "lost" }]
  given(m, lost).when({ type: "hypervisor.removed" }).thenAsksWith({ type: "vm.unlock", doubtful: true })
  given(m, [...lost, { type: "migration.sourceCleared", leftover: "" }])
    .when(accepted("vm.unlock"))
    .thenRecords({ type: "migration.failed", reason: "lost" })
})

test("a guest that crashed is the migration's business only while its memory comes", () => {
  const crash = { type: "migration.reportCrash", reason: "QEMU ended" }
  for (const facts of [transferring, switching, switchingTorn, [...switching, { type: "migration.resumed" }]])
    given(m, facts).when(crash).thenRefused()
})

test("by post-copy a destination that never ran it leaves nothing to go on with at the source", () => {
  const rolling = [
    ...switchingTorn,
    { type: "migration.rollingBack", outcome: "failed", reason: "x" },
    { type: "migration.transferStopped" }
  ]
  given(m, rolling)
    .when({ type: "hypervisor.incomingAbandoned" })
    .thenAsks("host.release to host/b", "stop at a")
  given(m, [...rolling, { type: "migration.destinationCleared", leftover: "" }])
    .when({ type: "hypervisor.stopped" })
    .thenRecords({ type: "migration.sourceKept" })
    .thenAsksWith({ type: "vm.unlock", doubtful: true })
})

test("a cancel that comes after the switch to post-copy is too late", () => {
  const cancelling = [
    ...transferring,
    { type: "migration.cancelRequested", reason: "enough" },
    { type: "migration.rollingBack", outcome: "cancelled", reason: "enough" }
  ]
  given(m, cancelling)
    .when({ type: "hypervisor.handedOver", postCopy: true })
    .thenRecords({ type: "migration.handedOver", postCopy: true })
    .thenAsks("resume at b")
    .thenState("switching")
  given(m, cancelling).when({ type: "hypervisor.handedOver" }).thenNothing()
})

test("by post-copy an operator may give up what has not come, and nobody else's cancel is taken any more", () => {
  given(m, arriving)
    .when(cancel)
    .thenRefused({ unmet: ["forced"] })
  given(m, arriving)
    .when({ ...cancel, force: true })
    .thenRecords(
      { type: "migration.cancelRequested", reason: "enough" },
      { type: "migration.arrivalDoubted", reason: "given up: enough" }
    )
    .thenAsks("settleArrival at b")
  given(m, switching)
    .when({ ...cancel, force: true })
    .thenRefused({ state: "switching" })
})

test("whether the destination ran is not known: the source is not run again", () => {
  given(m, switching)
    .when(failed("resume", "lost"))
    .thenRecords({ type: "migration.destinationLost" })
    .thenAsks("vm.handOver to vm/web")
})

for (const [phase, facts] of [
  ["locking", [requested]],
  ["placing", placing],
  ["checking", checking],
  ["preparing", preparing]
] as const) {
  test(`a cancel while ${phase} waits for the answer`, () => {
    given(m, facts)
      .when(cancel)
      .thenRecords({ type: "migration.cancelRequested", reason: "enough" })
      .thenAsks()
    given(m, [...facts, { type: "migration.cancelRequested", reason: "enough" }])
      .when(cancel)
      .thenRefused({ unmet: ["notCancelled"] })
  })
}

test("a cancel that comes before the machine is locked is kept", () => {
  const cancelling = [requested, { type: "migration.cancelRequested", reason: "enough" }]
  given(m, [requested])
    .when(cancel)
    .thenRecords({ type: "migration.cancelRequested", reason: "enough" })
    .thenAsks()
  given(m, cancelling)
    .when({ type: "migration.begin", from: "a", decision: "web.1", spec })
    .thenRecords({ type: "migration.givenUp", outcome: "cancelled", reason: "enough" })
    .thenAsks("vm.unlock to vm/web")
  given(m, cancelling)
    .when({ type: "actor.refused", to: "vm/web", command: "vm.lock", reason: "it is stopped" })
    .thenRecords({ type: "migration.cancelled", reason: "enough" })
    .thenState("cancelled")
})

test("a cancelled preparation is rolled back once it is known to be there", () => {
  given(m, [...preparing, { type: "migration.cancelRequested", reason: "enough" }])
    .when({ type: "hypervisor.incomingPrepared", channels: ["ram"] })
    .thenRecords({ type: "migration.rollingBack", outcome: "cancelled", reason: "enough" })
})

test("a cancel of the transfer stops it at once; after the hand-over it is refused", () => {
  given(m, transferring)
    .when(cancel)
    .thenRecords(
      { type: "migration.cancelRequested" },
      { type: "migration.rollingBack", outcome: "cancelled" }
    )
    .thenAsks("cancelMigration at a")
  given(m, switching).when(cancel).thenRefused({ state: "switching" })
})
