/** The host's actor, command by command. Leftovers are in reconciliation.unit.test.ts. */
import { test } from "node:test"
import { hostFacts } from "./messages.ts"
import { given } from "./specification.ts"

const host = "host/a"
const register = { type: "host.register", address: "a@127.0.0.1:1", facts: hostFacts }
const registered = { type: "host.registered", name: "a", address: "a@127.0.0.1:1", facts: hostFacts }
const drained = { type: "host.drained", reason: "maintenance" }
const lost = { type: "host.lost", reason: "no link" }
const needs = { cpus: 1, memoryMib: 512, diskMib: 64 }
const reserve = (more: Partial<typeof needs> = {}, reservation = "r", vm = "web") => ({
  type: "host.reserve",
  reservation,
  vm,
  needs: { ...needs, ...more }
})
const reserved = (more: Partial<typeof needs> = {}, reservation = "r") => ({
  ...reserve(more, reservation),
  type: "host.reserved"
})
const release = { type: "host.release", reservation: "r", vm: "web", leftover: "" }

test("a host is known from its first registration on, and learns its facts at each", () => {
  given(host, []).when(register).thenRecords({ type: "host.registered", name: "a" }).thenState("up")
  given(host, []).when(reserve()).thenRefused({ state: "unknown" })
  const bigger = { ...register, facts: { ...hostFacts, memoryMib: 8192 } }
  given(host, [registered])
    .when(bigger)
    .thenRecords({ type: "host.registered", facts: bigger.facts })
    .thenState("up")
})

test("room is given while there is some: memory and disk once, CPUs four times", () => {
  given(host, [registered]).when(reserve()).thenRecords(reserved())
  given(host, [registered])
    .when(reserve({ memoryMib: hostFacts.memoryMib }))
    .thenRecords({ type: "host.reserved" })
  const full = [registered, reserved({ memoryMib: hostFacts.memoryMib - 100 })]
  const unmet = { unmet: ["hasRoomAndNoLeftover"] }
  given(host, full)
    .when(reserve({ memoryMib: 101 }, "s"))
    .thenRefused(unmet)
  given(host, full)
    .when(reserve({ memoryMib: 100 }, "s"))
    .thenRecords({ type: "host.reserved" })
  given(host, [registered])
    .when(reserve({ diskMib: hostFacts.diskMib + 1 }))
    .thenRefused(unmet)
  given(host, [registered])
    .when(reserve({ cpus: hostFacts.cpus * 4 }))
    .thenRecords({ type: "host.reserved" })
  given(host, [registered])
    .when(reserve({ cpus: hostFacts.cpus * 4 + 1 }))
    .thenRefused(unmet)
})

test("asking for the same reservation again is asking once, and given back room is free", () => {
  const full = [registered, reserved({ memoryMib: hostFacts.memoryMib })]
  given(host, full)
    .when(reserve({ memoryMib: hostFacts.memoryMib }))
    .thenRecords({ type: "host.reserved" })
  given(host, full).when(release).thenRecords({ type: "host.released", reservation: "r" }).thenAsks()
  given(host, [...full, { type: "host.released", reservation: "r", vm: "web" }])
    .when(reserve({ memoryMib: hostFacts.memoryMib }, "s"))
    .thenRecords({ type: "host.reserved" })
})

test("a draining host takes nothing new, gives room back, and takes part again when it is activated", () => {
  given(host, [registered]).when({ type: "host.drain", reason: "maintenance" }).thenRecords(drained)
  given(host, [registered, drained]).when(reserve()).thenRefused({ state: "draining" })
  given(host, [registered, reserved(), drained]).when(release).thenRecords({ type: "host.released" })
  given(host, [registered, drained])
    .when({ type: "host.activate" })
    .thenRecords({ type: "host.activated" })
    .thenState("up")
  given(host, [registered]).when({ type: "host.activate" }).thenRefused({ state: "up" })
})

test("a lost host comes back by registering, and goes on draining if it was", () => {
  given(host, [registered]).when({ type: "host.lose", reason: "no link" }).thenRecords(lost).thenState("lost")
  given(host, [registered, lost]).when(reserve()).thenRefused({ state: "lost" })
  given(host, [registered, lost]).when(register).thenRecords({ type: "host.registered" }).thenState("up")
  given(host, [registered, drained, lost])
    .when(register)
    .thenRecords({ type: "host.registered" }, { type: "host.drained" })
    .thenState("draining")
  given(host, [registered, reserved(), lost]).when(release).thenRecords({ type: "host.released" })
})
