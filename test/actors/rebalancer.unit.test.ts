/** Which machines leave which hosts, and how often; and the rebalancer word by word. */
import assert from "node:assert/strict"
import { test } from "node:test"
import * as fc from "fast-check"
import { Schema } from "effect"
import { afterDecision, decideRebalance } from "../../src/actors/rebalancer/decide.ts"
import { RebalancePolicy } from "../../src/events/rebalancer.ts"
import type { Loads, RebalancerState } from "../../src/events/rebalancer.ts"
import { loads } from "./messages.ts"
import { given } from "./specification.ts"

const policy = (more: Record<string, unknown> = {}) =>
  Schema.decodeUnknownSync(RebalancePolicy)({ hold: 1, marginPercent: 10, ...more })
type Known = RebalancerState & { readonly policy: RebalancePolicy }
const none: Known = { policy: policy(), held: {}, moved: {}, moves: 0, last: null }
/** A mean of 50, and one host at this. */
const oneAt = (percent: number, machines: ReadonlyArray<readonly [string, number, number]>): Loads => ({
  hosts: 10,
  meanPercent: 50,
  most: [
    {
      host: "full",
      percent,
      machines: machines.map(([vm, share, memoryMib]) => ({ vm, percent: share, memoryMib }))
    }
  ],
  position: 7
})
const decide = (context: Partial<Known>, seen: Loads, nowMs = 1_000_000) =>
  decideRebalance({ ...none, ...context }, seen, nowMs)
const moved = ({ moves }: ReturnType<typeof decide>) => moves.map(({ vm }) => vm)
const stays = ({ tooFull }: ReturnType<typeof decide>) => tooFull.map((one) => one.stays)

test("within the margin nothing moves, beyond it the machine with the least memory whose going is enough", () => {
  const three = [
    ["large", 30, 9000],
    ["middle", 16, 5000],
    ["small", 4, 1000]
  ] as const
  assert.deepEqual(moved(decide({}, oneAt(60, three))), [])
  assert.deepEqual(moved(decide({}, oneAt(75, three))), ["middle"])
  // It would leave the host below the mean: the largest that does not goes first.
  assert.deepEqual(
    moved(
      decide(
        {},
        oneAt(70, [
          ["large", 30, 9000],
          ["small", 4, 1000],
          ["less", 2, 500]
        ])
      )
    ),
    ["small"]
  )
  const nobody = decide({}, oneAt(70, [["large", 30, 9000]]))
  assert.deepEqual(stays(nobody), ["none of 1 machines is of a size that helps"])
  assert.deepEqual(stays(decide({}, oneAt(70, []))), ["no machine runs there that is not moving"])
})

test("a host has to be too full at several looks in a row, and from one that a machine left it begins anew", () => {
  const seen = oneAt(80, [["web", 20, 100]])
  let context: Known = { ...none, policy: policy({ hold: 2, cooldownMs: 0 }) }
  const looked: Array<ReadonlyArray<string>> = []
  for (const at of [seen, oneAt(55, []), seen, seen, seen, seen]) {
    const decision = decide(context, at)
    looked.push(moved(decision))
    context = { ...context, ...afterDecision(context, decision, 1_000_000) }
  }
  assert.deepEqual(looked, [[], [], [], ["web"], [], ["web"]])
  assert.equal(context.moves, 2)
  assert.deepEqual(
    context.last?.moves.map(({ migration }) => migration),
    ["rebalance-2"]
  )
})

test("a machine that was moved stays for a while, and what is over its time is forgotten", () => {
  const seen = oneAt(80, [["web", 20, 100]])
  const context = { policy: policy({ cooldownMs: 5000 }), moved: { web: 996_000, old: 990_000 } }
  assert.deepEqual(stays(decide(context, seen)), ["all 1 machines were moved a short while ago"])
  assert.deepEqual(moved(decide(context, seen, 1_001_000)), ["web"])
  const after = afterDecision({ ...none, ...context }, decide(context, seen), 1_000_000)
  assert.deepEqual(after.moved, { web: 996_000 })
})

test("of a thousand machines it is remembered that they were moved, of those that were moved last", () => {
  const many = Object.fromEntries(Array.from({ length: 1000 }, (_, at) => [`vm-${at}`, 900_000 + at]))
  const context = { ...none, policy: policy({ cooldownMs: 600_000 }), moved: many }
  const seen = oneAt(80, [["web", 20, 100]])
  const { moved: kept } = afterDecision(context, decide(context, seen), 1_000_000)
  assert.equal(Object.keys(kept).length, 1000)
  assert.equal(kept["web"], 1_000_000)
  assert.equal(kept["vm-0"], undefined)
})

const someLoads: fc.Arbitrary<Loads> = fc
  .array(
    fc.record({
      percent: fc.double({ min: 0, max: 100, noNaN: true }),
      machines: fc.array(
        fc.record({
          percent: fc.double({ min: 0, max: 60, noNaN: true }),
          memoryMib: fc.integer({ min: 64, max: 65_536 })
        }),
        { maxLength: 5 }
      )
    }),
    { minLength: 1, maxLength: 8 }
  )
  .map((hosts) => ({
    hosts: hosts.length,
    meanPercent: hosts.reduce((sum, { percent }) => sum + percent, 0) / hosts.length,
    most: hosts
      .map(({ percent, machines }, at) => ({
        host: `h${at}`,
        percent,
        machines: machines.map((one, place) => ({ vm: `vm-${at}-${place}`, ...one }))
      }))
      .sort((a, b) => b.percent - a.percent),
    position: 1
  }))

test("no decision moves more than it may, from a host that is not too full, or so much that the host is below the mean", () => {
  fc.assert(
    fc.property(
      someLoads,
      fc.integer({ min: 1, max: 40 }),
      fc.integer({ min: 1, max: 4 }),
      (seen, marginPercent, movesAtOnce) => {
        const decision = decide({ policy: policy({ marginPercent, movesAtOnce }) }, seen)
        assert.ok(decision.moves.length <= movesAtOnce)
        assert.equal(new Set(decision.moves.map(({ from }) => from)).size, decision.moves.length)
        for (const { vm, from } of decision.moves) {
          const host = seen.most.find((one) => one.host === from)
          const machine = host?.machines.find((one) => one.vm === vm)
          assert.ok(host !== undefined && machine !== undefined)
          assert.ok(host.percent > seen.meanPercent + marginPercent)
          assert.ok(host.percent - machine.percent >= seen.meanPercent - 1e-9)
        }
        const tooFull = seen.most.filter(({ percent }) => percent > seen.meanPercent + marginPercent)
        assert.deepEqual(
          decision.tooFull.map(({ host }) => host),
          tooFull.map(({ host }) => host)
        )
      }
    )
  )
})

const fleet = "rebalancer/fleet"
const started = (more: Record<string, unknown> = {}) => ({ type: "rebalancer.started", policy: policy(more) })
const looked = { type: "rebalancer.looked" }

test("it looks when its time has come, decides, asks for the moves, and waits again", () => {
  given(fleet, [])
    .when({ type: "rebalancer.start", policy: policy() })
    .thenRecords(started())
    .thenAsks("timer start")
    .thenAsksWith({ op: "start", name: "look", afterMs: 300_000 })
    .thenState("waiting")
  given(fleet, [started()])
    .when({ type: "timer.fired", name: "look" })
    .thenRecords(looked)
    .thenAsks("view loads")
    .thenState("looking")
  const policyOfMove = { downtimeBudgetMs: 300, bandwidthBytesPerSecond: 0, postCopy: false, throttle: false }
  given(fleet, [started({ moveTimeoutMs: 60_000 }), looked])
    .when(loads(90))
    .thenAsks("migration.request to migration/rebalance-1", "timer start")
    .thenAsksWith({ type: "migration.request", vm: "web", policy: { ...policyOfMove, timeoutMs: 60_000 } })
    .thenState("waiting")
})

test("in its shadow nothing is asked for, and off nothing is decided", () => {
  given(fleet, [started({ shadow: true }), looked])
    .when(loads(90))
    .thenAsks("timer start")
  given(fleet, [started()])
    .when({ type: "rebalancer.stop", reason: "enough" })
    .thenRecords({ type: "rebalancer.stopped", reason: "enough" })
    .thenState("off")
  given(fleet, [started(), looked, { type: "rebalancer.stopped", reason: "" }])
    .when(loads(90))
    .thenNothing()
  given(fleet, []).when({ type: "rebalancer.stop", reason: "" }).thenRefused({ state: "off" })
  // What was only said to go, goes when it is meant; what went stays for its while, also when the policy is another.
  const decided = (isShadow: boolean) => ({
    type: "rebalancer.decided",
    ...decide({ policy: policy({ shadow: isShadow }) }, oneAt(90, [["web", 30, 1024]]), 999)
  })
  for (const [isShadow, asked] of [
    [true, ["migration.request to migration/rebalance-2", "timer start"]],
    [false, ["timer start"]]
  ] as const) {
    const before = [started({ shadow: isShadow }), looked, decided(isShadow), started(), looked]
    given(fleet, before)
      .when(loads(90))
      .thenAsks(...asked)
  }
})

test("a move that its migration refuses is noted", () => {
  given(fleet, [started()])
    .when({
      type: "actor.refused",
      to: "migration/rebalance-1",
      command: "migration.request",
      reason: "it is completed"
    })
    .thenRecords({ type: "rebalancer.moveRefused", migration: "rebalance-1", reason: "it is completed" })
})
