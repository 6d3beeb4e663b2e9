/** When a lost host is fenced, whom that is told, and when a lease holds: by clocks of the test. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { Effect } from "effect"
import { Fencer, fencingWaitMs } from "../../src/kernel/fencing.ts"
import { afterRegistering, HeldLease } from "../../src/kernel/lease.ts"
import type { ActorState } from "../../src/kernel/turn.ts"
import { emptyActor } from "../../src/kernel/turn.ts"
import { hostFacts, spec } from "../actors/messages.ts"
import { kindOf, record } from "../actors/specification.ts"

const leaseMs = 10_000
const marginMs = 500
const waitMs = fencingWaitMs(leaseMs, marginMs)

interface Asked {
  readonly handOverMs?: number
  readonly recovering_max?: number
}

function world({ handOverMs = 0, recovering_max = 8 }: Asked = {}) {
  const clock = { nowMs: 1000 }
  const actors = new Map<string, ActorState>()
  const fencer = new Fencer({
    ...{ node: "n", handOverMs, marginMs, recovering_max, lostPercentMax: 50 },
    nowMs: () => clock.nowMs
  })
  const fact = (stream: string, ...facts: ReadonlyArray<{ readonly type: string }>) => {
    const kind = kindOf(stream.slice(0, stream.indexOf("/")))
    let actor = actors.get(stream) ?? emptyActor(kind, stream)
    for (const one of facts) actor = record(kind, actor, one)
    actors.set(stream, actor)
  }
  const look = (term: number | null = 0) => {
    const hosts = [...actors.keys()].filter((name) => name.startsWith("host/")).map((name) => name.slice(5))
    return fencer.look(term, hosts, actors).map(({ stream, message }) => ({ ...message, stream }))
  }
  return { clock, fact, look }
}

const registered = (name: string, lease: object = { lease: { lengthMs: leaseMs } }) => ({
  type: "host.registered",
  name,
  address: `${name}@127.0.0.1:1`,
  facts: { ...hostFacts, ...lease }
})
const lost = { type: "host.lost", reason: "no link" }
const fenced = { type: "host.fenced", reason: "", evidence: { by: "operator" } }
const types = (said: ReadonlyArray<{ readonly type: string; readonly stream: string }>) =>
  said.map(({ type, stream }) => `${type} to ${stream}`)

test("a lost host is fenced when its lease, the drift and the margin have gone by since it was seen lost", () => {
  const { clock, fact, look } = world()
  for (const name of ["a", "b"]) fact(`host/${name}`, registered(name))
  assert.deepEqual(look(), [])
  fact("host/a", lost)
  assert.deepEqual(look(), [])
  clock.nowMs += waitMs - 1
  assert.deepEqual(look(), [])
  clock.nowMs += 1
  assert.deepEqual(look(), [
    {
      stream: "host/a",
      type: "host.fence",
      loss: 1,
      reason: `its lease of 10 s has run out: it was given none for ${Math.round(waitMs / 100) / 10} s`,
      evidence: { by: "lease", node: "n", term: 0, leaseMs, waitedMs: waitMs }
    }
  ])
  assert.ok(waitMs >= leaseMs * 1.01 + marginMs)
})

test("who newly leads waits anew, and for as long as the one before may still give leases", () => {
  const { clock, fact, look } = world({ handOverMs: 3000 })
  for (const name of ["a", "b"]) fact(`host/${name}`, registered(name))
  fact("host/a", lost)
  look(3)
  clock.nowMs += waitMs + 2000
  assert.deepEqual(look(4), [])
  clock.nowMs += waitMs + 2999
  assert.deepEqual(look(4), [])
  assert.deepEqual(look(null), [])
  assert.deepEqual(look(4), [])
  clock.nowMs += waitMs + 2999
  assert.deepEqual(look(4), [])
  clock.nowMs += 1
  assert.deepEqual(types(look(4)), ["host.fence to host/a"])
})

test("a host that was back in between is waited for anew", () => {
  const { clock, fact, look } = world()
  for (const name of ["a", "b"]) fact(`host/${name}`, registered(name))
  fact("host/a", lost)
  look()
  clock.nowMs += waitMs - 1
  fact("host/a", registered("a"), lost)
  look()
  clock.nowMs += waitMs - 1
  assert.deepEqual(look(), [])
  clock.nowMs += 1
  assert.deepEqual(
    look().map((said) => [said.type, "loss" in said && said.loss]),
    [["host.fence", 2]]
  )
})

test("with most hosts lost none is fenced, and not as soon as the first are back", () => {
  const { clock, fact, look } = world()
  for (const name of ["a", "b", "c"]) fact(`host/${name}`, registered(name))
  fact("host/a", lost)
  fact("host/b", lost)
  look()
  clock.nowMs += waitMs
  assert.deepEqual(types(look()), ["host.holdFencing to host/a", "host.holdFencing to host/b"])
  const held = {
    type: "host.fencingHeld",
    reason: "2 of 3 hosts are lost, more than 50 %: it may be this side that is cut off"
  }
  fact("host/a", held)
  fact("host/b", held)
  assert.deepEqual(look(), [])
  clock.nowMs += 60_000
  assert.deepEqual(look(), [])
  fact("host/a", registered("a"))
  assert.deepEqual(look(), [])
  clock.nowMs += waitMs
  assert.deepEqual(types(look()), ["host.fence to host/b"])
})

test("a host without a lease is not fenced by waiting, however long", () => {
  const { clock, fact, look } = world()
  for (const name of ["a", "b"]) fact(`host/${name}`, registered(name, {}))
  fact("host/a", lost)
  const [said] = look()
  assert.equal(said?.type, "host.holdFencing")
  const { reason } = said as { readonly reason?: string }
  fact("host/a", { type: "host.fencingHeld", reason } as never)
  clock.nowMs += 10 * waitMs
  assert.deepEqual(look(), [])
})

test("machines of a fenced host are told a few at a time, those that may not leave all at once", () => {
  const { fact, look } = world({ recovering_max: 2 })
  fact("host/a", registered("a"))
  fact("host/b", registered("b"))
  const needs = { cpus: 1, memoryMib: 64, diskMib: 0 }
  const shared = { ...spec, disks: [] }
  const names = ["one", "two", "three", "stays", "off"]
  for (const vm of names) {
    fact("host/a", { type: "host.reserved", reservation: `${vm}.1`, vm, needs } as never)
    fact(
      `vm/${vm}`,
      ...([
        { type: "vm.created", name: vm, spec: vm === "stays" ? spec : shared, start: true },
        { type: "vm.placed", host: "a", decision: `${vm}.1` },
        { type: "vm.defined" },
        ...(vm === "off"
          ? []
          : [
              { type: "vm.startRequested", automatic: false },
              { type: "vm.started", accelerator: "tcg" }
            ])
      ] as never as [])
    )
  }
  fact("host/a", lost, fenced)
  assert.deepEqual(types(look()), ["vm.fence to vm/one", "vm.fence to vm/two", "vm.fence to vm/stays"])
  const left = { type: "vm.fenced", host: "a", reason: "" }
  fact("vm/one", left)
  fact("vm/two", left)
  fact("vm/stays", { type: "vm.waitsForHost", host: "a", loss: 1, reason: "" } as never)
  assert.deepEqual(look(), [])
  fact("vm/one", { type: "vm.notPlaced", decision: "one.2", reason: "" } as never)
  assert.deepEqual(types(look()), ["vm.fence to vm/three"])
})

test("a lease ends where it was asked for, and nothing of before its end is done under the next one", () => {
  let nowMs = 0
  const lease = new HeldLease(() => nowMs, null)
  assert.ok(lease.mayRun()(), "none is needed")
  lease.renewed(0, 1000)
  const before = lease.mayRun()
  nowMs = 999
  assert.ok(before())
  nowMs = 1000
  assert.ok(!before())
  const during = lease.mayRun()
  assert.ok(!during())
  // The answer comes late: it holds from when it was asked for.
  lease.renewed(900, 1000)
  assert.ok(lease.mayRun()())
  assert.ok(!before() && !during(), "they were asked for before it ran out")
  lease.renewed(800, 1000)
  assert.equal(lease.untilMs, 1900, "an answer that was overtaken takes nothing back")
  lease.shortened(200)
  assert.equal(lease.untilMs, 1200)
  assert.ok(!new HeldLease(() => nowMs, 0).mayRun()(), "of before the machine was started")
})

test("however late the answer is, the lease is counted from when it was asked for, and the watcher is told so", async () => {
  let nowMs = 100
  const stored: Array<number | null> = []
  const lease = new HeldLease(() => nowMs, null)
  const ask = Effect.sync(() => {
    nowMs += 700
    return { isGiven: true as const, lengthMs: 1000 }
  })
  const store = (untilMs: number | null) => Effect.sync(() => void stored.push(untilMs))
  const keeping = { lease, ask, store, lengthMs: Effect.succeed(1000) }
  const rest = { ended: Effect.succeed([]), told: () => Effect.void }
  await Effect.runPromise(afterRegistering({ ...keeping, ...rest }, 1000))
  assert.equal(lease.untilMs, 1100)
  assert.deepEqual(stored, [1100])
  await Effect.runPromise(afterRegistering({ ...keeping, ...rest }, null))
  assert.deepEqual([lease.untilMs, stored.at(-1)], [null, null])
})
