import assert from "node:assert/strict"
import test from "node:test"
import * as fc from "fast-check"
import type { Message } from "../../src/events/envelope.ts"
import type { Mode, ModeSample } from "../../src/events/link.ts"
import { modeActor } from "../../src/actors/mode/chart.ts"
import { chooseMode, classify, margin, windowSamples, withSample } from "../../src/actors/mode/decide.ts"
import type { ModeContext } from "../../src/actors/mode/chart.ts"
import { decide, evolve, initialState } from "../../src/kernel/statechart.ts"
import type { ChartState } from "../../src/kernel/statechart.ts"
import { lintChart } from "../tidy/charts.ts"

const stamp = { self: "mode/node-b", timeMs: 0 }

const sample = (latencyMs: number, gigabits: number): ModeSample => ({
  latencyMs,
  bandwidthBitsPerSecond: gigabits * 1e9,
  lossPercent: 0,
  jitterMs: 0
})
const command = (of: ModeSample): Message => ({ type: "mode.sample", ...of })

/** Decide and evolve one command after the other; the facts of the last, and the state. */
function after(...commands: ReadonlyArray<Message>): { facts: ReadonlyArray<Message>; state: ChartState } {
  let state = initialState(modeActor)
  let facts: ReadonlyArray<Message> = []
  for (const message of commands) {
    facts = decide(modeActor, state, message, stamp)
    for (const fact of facts) {
      const evolved = evolve(modeActor, state, { ...fact, stamp })
      assert.deepEqual(evolved.requests, [])
      state = evolved.state
    }
  }
  return { facts, state }
}

const contextOf = (state: ChartState) => state.context as ModeContext
const many = (count: number, of: ModeSample) => Array.from({ length: count }, () => command(of))

test("the chart keeps the contract", () => {
  assert.deepEqual(lintChart(modeActor), [])
})

test("the table's limits: below 10 ms and from 1 Gbit/s datacenter, above 50 ms or slower internet", () => {
  const mode = (latencyMs: number, gigabits: number) =>
    classify({ latencyMs, bandwidthBitsPerSecond: gigabits * 1e9 })
  assert.equal(mode(9.99, 1), "datacenter")
  assert.equal(mode(10, 1), "hybrid")
  assert.equal(mode(50, 1), "hybrid")
  assert.equal(mode(50.01, 1), "internet")
  assert.equal(mode(1, 0.999), "internet")
})

test("a link is hybrid until three samples say otherwise; the switch is a second fact with its reason", () => {
  const near = sample(1, 10)
  assert.deepEqual(
    after(...many(2, near)).facts.map(({ type }) => type),
    ["mode.sampled"]
  )
  const { facts, state } = after(...many(3, near))
  assert.deepEqual(facts, [
    { type: "mode.sampled", ...near },
    {
      type: "mode.switched",
      from: "hybrid",
      to: "datacenter",
      reason: "mean of the last 3 samples: latency 1.00 ms, bandwidth 10.0 Gbit/s"
    }
  ])
  assert.equal(contextOf(state).mode, "datacenter")
})

test("only the last ten samples count", () => {
  const { state } = after(...many(50, sample(1, 10)), ...many(10, sample(100, 0.1)))
  assert.equal(contextOf(state).mode, "internet")
  assert.equal(contextOf(state).samples.length, windowSamples)
})

test("one odd sample among ten does not switch", () => {
  const { state } = after(...many(10, sample(1, 10)), command(sample(60, 10)))
  assert.equal(contextOf(state).mode, "datacenter")
})

test("a forced mode wins over the samples, and its release goes to what they say", () => {
  const near = many(5, sample(1, 10))
  const force = { type: "mode.force", mode: "internet" }
  const forced = after(...near, force)
  assert.deepEqual(forced.facts, [
    { type: "mode.forced", mode: "internet" },
    { type: "mode.switched", from: "datacenter", to: "internet", reason: "forced to internet" }
  ])
  const sampled = after(...near, force, ...near)
  assert.deepEqual(
    sampled.facts.map(({ type }) => type),
    ["mode.sampled"]
  )
  assert.equal(contextOf(sampled.state).mode, "internet")
  const released = after(...near, force, { type: "mode.release" })
  assert.deepEqual(
    released.facts.map(({ type }) => type),
    ["mode.released", "mode.switched"]
  )
  assert.equal(contextOf(released.state).mode, "datacenter")
  assert.equal(contextOf(released.state).forced, null)
})

test("forcing the present mode records no switch; forcing it again, or releasing what is free, records nothing", () => {
  const force = { type: "mode.force", mode: "hybrid" }
  assert.deepEqual(after(force).facts, [{ type: "mode.forced", mode: "hybrid" }])
  assert.deepEqual(after(force, force).facts, [])
  assert.deepEqual(after({ type: "mode.release" }).facts, [])
  assert.deepEqual(after(force, { type: "mode.release" }).facts, [{ type: "mode.released" }])
})

const samples = fc.record({
  latencyMs: fc.double({ min: 0, max: 200, noNaN: true }),
  bandwidthBitsPerSecond: fc.double({ min: 0, max: 1e11, noNaN: true }),
  lossPercent: fc.double({ min: 0, max: 100, noNaN: true }),
  jitterMs: fc.double({ min: 0, max: 50, noNaN: true })
})
const modes = fc.constantFrom<Mode>("datacenter", "internet", "hybrid")

test("a choice is stable: the same samples never lead on from the mode they led to", () => {
  fc.assert(
    fc.property(fc.array(samples, { maxLength: 12 }), modes, (list, current) => {
      const window = list.reduce<ReadonlyArray<ModeSample>>(withSample, [])
      const chosen = chooseMode(window, current)
      assert.equal(chooseMode(window, chosen), chosen)
    })
  )
})

test("a link that swings around a limit by less than the margin switches once at most", () => {
  const swing = fc.double({ min: -margin * 0.99, max: margin * 0.99, noNaN: true })
  const limits = fc.constantFrom([10, 10], [50, 10], [1, 1], [30, 1])
  fc.assert(
    fc.property(
      limits,
      modes,
      fc.array(fc.tuple(swing, swing), { maxLength: 60 }),
      (limit, start, swings) => {
        const [latencyMs = 0, gigabits = 0] = limit
        let mode: Mode = start
        let window: ReadonlyArray<ModeSample> = []
        let switches = 0
        for (const [byLatency, byBandwidth] of swings) {
          const moved = gigabits === 1 ? gigabits * (1 + byBandwidth) : gigabits
          window = withSample(window, sample(latencyMs * (1 + (gigabits === 1 ? 0 : byLatency)), moved))
          const next = chooseMode(window, mode)
          if (next !== mode) switches += 1
          mode = next
        }
        assert.ok(switches <= 1, `${switches} switches around ${latencyMs} ms and ${gigabits} Gbit/s`)
      }
    )
  )
})

test("a far mean is followed from every mode", () => {
  for (const from of ["datacenter", "internet", "hybrid"] as const) {
    const window = (of: ModeSample) => Array.from({ length: windowSamples }, () => of)
    assert.equal(chooseMode(window(sample(1, 10)), from), "datacenter")
    assert.equal(chooseMode(window(sample(30, 10)), from), "hybrid")
    assert.equal(chooseMode(window(sample(100, 10)), from), "internet")
    assert.equal(chooseMode(window(sample(1, 0.1)), from), "internet")
  }
})
