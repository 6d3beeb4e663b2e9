/** Hosts that are fenced, and what becomes of their machines, command by command. */
import { test } from "node:test"
import { fencedByLease, hostFacts, spec } from "./messages.ts"
import { given } from "./specification.ts"

const host = "host/a"
const registered = { type: "host.registered", name: "a", address: "a@127.0.0.1:1", facts: hostFacts }
const register = { type: "host.register", address: "a@127.0.0.1:1", facts: hostFacts }
const lost = { type: "host.lost", reason: "no link" }
const fence = { type: "host.fence", loss: 1, reason: "it ran out", evidence: fencedByLease }
const fenced = { type: "host.fenced", reason: "it ran out", evidence: fencedByLease }
const confirmOff = { type: "host.confirmOff", reason: "it is in my hands" }

test("a lost host is fenced when its lease has run out, or when somebody says that it is off; another is not", () => {
  given(host, [registered, lost])
    .when(fence)
    .thenRecords({ type: "host.fenced", reason: "it ran out", evidence: fencedByLease })
    .thenState("fenced")
  given(host, [registered, lost])
    .when(confirmOff)
    .thenRecords({ type: "host.fenced", reason: "it is in my hands", evidence: { by: "operator" } })
    .thenState("fenced")
  given(host, [registered]).when(fence).thenRefused({ state: "up" })
  given(host, [registered]).when(confirmOff).thenRefused({ state: "up" })
  given(host, [registered, lost, fenced]).when(confirmOff).thenRefused({ state: "fenced" })
})

test("what was waited for one loss does not fence after the next", () => {
  given(host, [registered, lost, registered, lost])
    .when(fence)
    .thenRefused({ unmet: ["isOfThisLoss"] })
  given(host, [registered, lost, registered, lost])
    .when({ ...fence, loss: 2 })
    .thenRecords({ type: "host.fenced" })
})

test("why a lost host is not fenced is recorded once, and again when the reason is another", () => {
  const hold = { type: "host.holdFencing", loss: 1, reason: "no watcher" }
  const held = { type: "host.fencingHeld", reason: "no watcher" }
  given(host, [registered, lost]).when(hold).thenRecords(held).thenState("lost")
  given(host, [registered, lost, held])
    .when(hold)
    .thenRefused({ unmet: ["isNewReason"] })
  given(host, [registered, lost, held])
    .when({ ...hold, reason: "most are lost" })
    .thenRecords({ type: "host.fencingHeld", reason: "most are lost" })
  given(host, [registered, lost, held]).when(fence).thenRecords({ type: "host.fenced" })
})

test("a fenced host gives no room, takes back what is released, and is up when it registers", () => {
  const before = [registered, lost, fenced]
  const needs = { cpus: 1, memoryMib: 64, diskMib: 0 }
  given(host, before)
    .when({ type: "host.reserve", reservation: "r", vm: "web", needs })
    .thenRefused({ state: "fenced" })
  given(host, before).when(register).thenRecords({ type: "host.registered" }).thenState("up")
  given(host, before)
    .when({ type: "host.reportLeaseEnd", vms: ["web"] })
    .thenRecords({ type: "host.leaseRanOut", vms: ["web"] })
  const drained = { type: "host.drained", reason: "maintenance" }
  given(host, [registered, drained, lost, fenced])
    .when(register)
    .thenRecords({ type: "host.registered" }, { type: "host.drained" })
    .thenState("draining")
})

test("what is left behind on a fenced host is removed when it is back, without the disks that other hosts see", () => {
  const left = { type: "host.release", reservation: "r", vm: "web", leftover: "it starts elsewhere" }
  const found = { type: "host.leftoverFound", vm: "web", reason: "it starts elsewhere" }
  const kept = { type: "host.leftoverKept", vm: "web", reason: "the host was fenced" }
  given(host, [registered, lost, fenced])
    .when(left)
    .thenRecords({ type: "host.released" }, found, { type: "host.leftoverRemoving", vm: "web" })
  given(host, [registered, lost, fenced, found, { type: "host.leftoverRemoving", vm: "web" }, kept])
    .when(register)
    .thenRecords({ type: "host.registered" }, { type: "host.leftoverRemoving", vm: "web" })
    .thenAsksWith({ op: "remove", host: "a", vm: "web", keepShared: true })
})

const web = "vm/web"
const shared = { ...spec, disks: [{ name: "root", sizeMib: 64, storage: "shared" }] }
const runs = (of: object) => [
  { type: "vm.created", name: "web", spec: of, start: true, host: "a", cloneOf: { vm: "old" } },
  { type: "vm.placed", host: "a", decision: "web.1" },
  { type: "vm.defined" },
  { type: "vm.startRequested", automatic: false },
  { type: "vm.started", accelerator: "tcg" }
]
const isFenced = { type: "vm.fence", host: "a", loss: 1, runs: 1, reason: "a was fenced" }
const left = { type: "vm.fenced", host: "a", reason: "a was fenced" }
const notPlaced = { type: "vm.notPlaced", decision: "web.2", reason: "b: it is full" }

test("a machine of a fenced host forgets what it asked there, leaves it, and asks where it may start", () => {
  given(web, runs(shared))
    .when(isFenced)
    .thenRecords(left)
    .thenAsks("agents forget", "host.release to host/a", "placement.request to placement/web.2")
    .thenAsksWith({
      type: "host.release",
      reservation: "web.1",
      leftover: "its host was fenced, and it was to start elsewhere"
    })
    .thenState("placing")
  given(web, runs(shared)).when(isFenced).thenAsksWith({ type: "placement.request", purpose: "recover" })
  given(web, [...runs(shared), left])
    .when({ type: "vm.place", host: "b", address: "b@x:1", decision: "web.2" })
    .thenAsksWith({ op: "define", host: "b" })
  given(web, [...runs(shared), left, { type: "vm.placed", host: "b", decision: "web.2" }])
    .when({ type: "hypervisor.defined" })
    .thenRecords({ type: "vm.defined" }, { type: "vm.startRequested", automatic: false })
    .thenAsks("start at b")
})

test("an answer from the fenced host that comes later is none any more", () => {
  given(web, [...runs(shared), { type: "vm.rebootRequested" }])
    .when(isFenced)
    .thenRecords(left)
    .thenAsks("agents forget", "host.release to host/a", "placement.request to placement/web.2")
})

test("one that was to start when its host went starts elsewhere; one that was stopped, or is paused, stays", () => {
  const starting = runs(shared).slice(0, -1)
  given(web, starting).when(isFenced).thenRecords(left)
  const failed = [...starting, { type: "vm.operationFailed", operation: "start", reason: "no answer" }]
  given(web, failed).when(isFenced).thenRecords(left)
  const stopped = [...runs(shared), { type: "vm.stopRequested", force: false }, { type: "vm.stopped" }]
  given(web, stopped)
    .when(isFenced)
    .thenRefused({ unmet: ["leavesHostAndWasToRun", "waitsForHostAndWasToRun"] })
  given(web, [...runs(shared), { type: "vm.pauseRequested" }, { type: "vm.paused" }])
    .when(isFenced)
    .thenRefused({ state: "paused.idle" })
})

test("a fence of a host that it is not on, or of before it was asked to run again, is not meant for it", () => {
  const unmet = { unmet: ["leavesHost", "waitsForHost"] }
  given(web, runs(shared))
    .when({ ...isFenced, host: "b" })
    .thenRefused(unmet)
  const again = [
    ...runs(shared),
    { type: "vm.crashed", reason: "killed" },
    { type: "vm.startRequested", automatic: true },
    { type: "vm.started", accelerator: "tcg" }
  ]
  given(web, again).when(isFenced).thenRefused(unmet)
  given(web, [...runs(shared), { type: "vm.doubted" }, { type: "vm.foundRunning" }])
    .when(isFenced)
    .thenRefused(unmet)
})

test("one whose disks lie there, or that is to wait, says so once a loss", () => {
  given(web, runs(spec))
    .when(isFenced)
    .thenRecords({ type: "vm.waitsForHost", host: "a", reason: "its disk root lies on that host alone" })
    .thenAsks()
    .thenState("running.idle")
  given(web, runs({ ...shared, onHostFailure: "wait" }))
    .when(isFenced)
    .thenRecords({ type: "vm.waitsForHost", reason: "its specification says to wait for its host" })
  const waits = { type: "vm.waitsForHost", host: "a", loss: 1, reason: "" }
  given(web, [...runs(spec), waits])
    .when(isFenced)
    .thenRefused({ unmet: ["leavesHost", "waitsForHost"] })
  given(web, [...runs(spec), waits])
    .when({ ...isFenced, loss: 2 })
    .thenRecords({ type: "vm.waitsForHost", loss: 2 })
})

test("without a place it is tried again after a while, each time longer, and a person may do so sooner", () => {
  const placing = [...runs(shared), left]
  const refuse = { type: "vm.refusePlacement", decision: "web.2", reason: "b: it is full" }
  given(web, placing)
    .when(refuse)
    .thenRecords(notPlaced, { type: "vm.recoveryDelayed", attempt: 1, afterMs: 5000 })
    .thenAsksWith({ port: "timer", op: "start", name: "recover", afterMs: 5000 })
    .thenState("unplaced")
  const waiting = [...placing, notPlaced, { type: "vm.recoveryDelayed", attempt: 1, afterMs: 5000 }]
  const again = { type: "vm.startRequested", automatic: true }
  given(web, waiting)
    .when({ type: "timer.fired", name: "recover" })
    .thenRecords(again)
    .thenAsks("placement.request to placement/web.3")
  given(web, [...waiting, again])
    .when(refuse)
    .thenRecords(notPlaced, { type: "vm.recoveryDelayed", attempt: 2, afterMs: 10_000 })
  const asked = { type: "vm.startRequested", automatic: false }
  given(web, waiting).when({ type: "vm.start" }).thenRecords(asked)
  given(web, [...waiting, again, notPlaced, asked])
    .when(refuse)
    .thenRecords(notPlaced, { type: "vm.recoveryDelayed", attempt: 1 })
  given(web, [...waiting, { type: "vm.deleted" }])
    .when({ type: "timer.fired", name: "recover" })
    .thenNothing()
  const often = Array.from({ length: 99 }, () => [again, notPlaced]).flat()
  given(web, [...waiting, ...often.slice(0, -1)])
    .when(refuse)
    .thenRecords(notPlaced)
    .thenState("unplaced")
})

test("a host that can't make it is given its room back, and another is looked for later", () => {
  given(web, [...runs(shared), left, { type: "vm.placed", host: "b", decision: "web.2" }])
    .when({ type: "hypervisor.failed", op: "define", code: "failed", reason: "no such image" })
    .thenRecords(
      { type: "vm.operationFailed", operation: "create" },
      { type: "vm.recoveryDelayed", attempt: 1 }
    )
    .thenState("unplaced")
})
