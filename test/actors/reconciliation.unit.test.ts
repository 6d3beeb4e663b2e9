/** What the journal and a host say of each other when the host takes part again. */
import { test } from "node:test"
import { hostFacts, spec } from "./messages.ts"
import { given } from "./specification.ts"

const web = "vm/web"
const stopped = [
  { type: "vm.created", name: "web", spec, start: false },
  { type: "vm.placed", host: "a", decision: "web.1" },
  { type: "vm.defined" }
]
const running = [
  ...stopped,
  { type: "vm.startRequested", automatic: false },
  { type: "vm.started", accelerator: "tcg" }
]
const paused = [...running, { type: "vm.pauseRequested" }, { type: "vm.paused" }]
const observe = (state: string, host = "a") => ({ type: "vm.observe", host, state })
const observed = (state: string) => ({ type: "hypervisor.observed", state })
const doubted = { type: "vm.doubted", state: "defined" }

test("what is as the journal has it raises no doubt, nor does another host", () => {
  given(web, running)
    .when(observe("running"))
    .thenRefused({ unmet: ["isNotRunning"] })
  given(web, running).when(observe("absent", "b")).thenRefused()
  given(web, paused).when(observe("incoming")).thenRefused()
  given(web, stopped).when(observe("absent")).thenRefused()
})

for (const [what, facts, state] of [
  ["running", running, "defined"],
  ["paused", paused, "running"],
  ["stopped", stopped, "running"]
] as const) {
  test(`${what}, and its host has it ${state}: the host is asked`, () => {
    given(web, facts)
      .when(observe(state))
      .thenRecords({ type: "vm.doubted", state })
      .thenAsks("observe at a")
      .thenState(`${what}.verifying`)
    given(web, [...facts, doubted])
      .when({ type: "hypervisor.failed", op: "observe", code: "lost", reason: "no link" })
      .thenRecords({ type: "vm.operationFailed", operation: "observe" })
      .thenState(`${what}.idle`)
  })
}

test("a guest that is gone is a crash: it starts again where its policy says so", () => {
  given(web, [...running, doubted])
    .when(observed("defined"))
    .thenRecords({ type: "vm.crashed" }, { type: "vm.startRequested", automatic: true })
    .thenAsks("start at a")
  const stays = [{ ...stopped[0]!, spec: { ...spec, onCrash: "stop" } }, ...running.slice(1), doubted]
  given(web, stays).when(observed("absent")).thenRecords({ type: "vm.crashed" }).thenState("stopped.idle")
  given(web, [...paused, doubted])
    .when(observed("defined"))
    .thenRecords({ type: "vm.crashed" })
    .thenState("stopped.idle")
})

test("a guest that stands still and should run is resumed", () => {
  for (const state of ["paused", "incoming", "handed-over"]) {
    given(web, [...running, doubted])
      .when(observed(state))
      .thenRecords({ type: "vm.foundPaused" }, { type: "vm.resumeRequested" })
      .thenAsks("resume at a")
      .thenState("resuming")
  }
})

test("a guest that runs is running, whatever the journal had", () => {
  for (const facts of [running, paused, stopped]) {
    given(web, [...facts, doubted])
      .when(observed("running"))
      .thenRecords({ type: "vm.foundRunning" })
      .thenState("running.idle")
  }
})

test("a migration that could not see the guest run leaves a doubt", () => {
  const locked = [...running, { type: "vm.locked", migration: "m" }]
  given(web, locked)
    .when({ type: "vm.unlock", migration: "m", doubtful: true })
    .thenRecords({ type: "vm.unlocked" }, { type: "vm.doubted" })
    .thenAsks("observe at a")
    .thenState("running.verifying")
})

const host = "host/a"
const register = { type: "host.register", address: "a@127.0.0.1:1", facts: hostFacts }
const registered = { type: "host.registered", name: "a", address: "a@127.0.0.1:1", facts: hostFacts }
const needs = { cpus: 1, memoryMib: 512, diskMib: 64 }
const reserved = { type: "host.reserved", reservation: "m", vm: "web", needs }
const lost = { type: "host.lost", reason: "no link" }
const release = { type: "host.release", reservation: "m", vm: "web", leftover: "no link" }
const found = (vm: string) => ({ type: "host.leftoverFound", vm, reason: "no link" })
const removing = (vm: string) => ({ type: "host.leftoverRemoving", vm })
const kept = (vm: string) => ({ type: "host.leftoverKept", vm, reason: "no link" })

test("what could not be removed is noted with the release of its room, and removed", () => {
  given(host, [registered, reserved])
    .when(release)
    .thenRecords({ type: "host.released" }, found("web"), removing("web"))
    .thenAsks("remove at a")
  given(host, [registered, reserved, found("web"), removing("web")])
    .when({ type: "hypervisor.removed" })
    .thenRecords({ type: "host.leftoverRemoved", vm: "web" })
    .thenAsks()
})

test("leftovers are removed one after the other", () => {
  given(host, [registered, reserved, found("x"), removing("x")])
    .when(release)
    .thenRecords({ type: "host.released" }, found("web"))
    .thenAsks()
  given(host, [registered, found("x"), removing("x"), found("web")])
    .when({ type: "hypervisor.removed" })
    .thenRecords({ type: "host.leftoverRemoved", vm: "x" }, removing("web"))
    .thenAsks("remove at a")
})

test("a host that could not be asked is asked again when it registers", () => {
  const unreachable = { type: "hypervisor.failed", op: "remove", code: "lost", reason: "no link" }
  given(host, [registered, lost, found("web"), removing("web")])
    .when(unreachable)
    .thenRecords(kept("web"))
    .thenAsks()
  for (const before of [
    [registered, lost],
    [registered],
    [registered, { type: "host.drained", reason: "maintenance" }]
  ]) {
    given(host, [...before, found("web"), removing("web"), kept("web")])
      .when(register)
      .thenRecords({ type: "host.registered" }, removing("web"))
      .thenAsks("remove at a")
  }
  const drained = [registered, { type: "host.drained", reason: "maintenance" }, lost]
  given(host, [...drained, found("web"), removing("web"), kept("web")])
    .when(register)
    .thenRecords({ type: "host.registered" }, { type: "host.drained" }, removing("web"))
    .thenState("draining")
})

test("no room for a machine whose leftover lies here, and no removal of one that has come back", () => {
  const reserve = { type: "host.reserve", reservation: "n", vm: "web", needs }
  given(host, [registered, found("web"), removing("web"), kept("web")])
    .when(reserve)
    .thenRefused({ unmet: ["hasRoomAndNoLeftover"] })
  given(host, [registered, { ...reserved, reservation: "n" }])
    .when(release)
    .thenRecords({ type: "host.released" })
    .thenAsks()
})

// Found by the simulated fleet with seed 250: a pause was asked for, the guest crashed and was started, and then paused.
for (const [what, facts, report] of [
  ["running", running, "hypervisor.paused"],
  ["running", running, "hypervisor.stopped"],
  ["paused", paused, "hypervisor.rebooted"],
  ["stopped", stopped, "hypervisor.resumed"]
] as const) {
  test(`${what}, and ${report} comes late: the host is asked`, () => {
    given(web, facts)
      .when({ type: report })
      .thenRecords({ type: "vm.doubted" })
      .thenAsks("observe at a")
      .thenState(`${what}.verifying`)
  })
}
