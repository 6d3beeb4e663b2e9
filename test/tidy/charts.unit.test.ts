/** The chart lint itself, on charts that break the contract one way each. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { assign, createMachine, emit, raise, sendTo, setup, spawnChild } from "xstate"
import type { AnyStateMachine } from "xstate"
import { lintChart } from "./charts.ts"

const said = emit({ type: "lamp.lit" })
const request = { type: "request", params: () => ({}) }

function lint(chart: unknown, reports: ReadonlyArray<string> = []): ReadonlyArray<string> {
  return lintChart({
    kind: "lamp",
    chart: chart as AnyStateMachine,
    facts: ["lamp.lit"],
    commands: ["lamp.light"],
    reports,
    snapshotVersion: 1
  })
}

/** A chart of one state `off`, whose parts are given. */
const lamp = (off: object, root: object = {}) =>
  createMachine({
    ...root,
    initial: "off",
    states: { off: { on: { "lamp.light": { actions: said }, "lamp.lit": "on" }, ...off }, on: {} }
  } as never)

const withOn = (on: object) =>
  lamp({ on: { "lamp.light": { actions: said }, "lamp.lit": { target: "on" }, ...on } })

test("a chart that keeps the contract passes, with named actions and a guarded command", () => {
  const chart = setup({
    actions: { count: assign({}), say: said, request: () => {} } as never,
    guards: { may: () => true }
  }).createMachine({
    initial: "off",
    states: {
      off: {
        on: {
          "lamp.light": { guard: "may", actions: "say" },
          "lamp.lit": { target: "on", actions: ["count", request, assign({})] }
        }
      },
      on: { entry: request, exit: "request" }
    }
  } as never)
  assert.deepEqual(lint(chart), [])
})

test("timers, actors and eventless transitions are refused", () => {
  const [after] = lint(lamp({ after: { 100: "on" } }))
  assert.equal(after, "lamp: off: `after`: a timer is a request, and its firing a report")
  const [invoke] = lint(lamp({ invoke: { src: "x" } }))
  assert.equal(invoke, "lamp: off: `invoke`: the kernel runs things, by requests")
  const [always] = lint(lamp({ always: "on" }))
  assert.equal(always, "lamp: off: `always`: what moves the chart is a recorded fact")
})

test("a command may not move the chart, change its data, ask, send or raise", () => {
  const command = (transition: object) => lint(withOn({ "lamp.light": transition }))
  assert.deepEqual(command({ target: "on", actions: said }), [
    "lamp: off: lamp.light has a target; only a fact moves the chart"
  ])
  assert.deepEqual(command({}), ["lamp: off: lamp.light records no fact"])
  for (const [action, name] of [
    [assign({}), "assign"],
    [request, "request"],
    [sendTo("x", { type: "y" }), "xstate.sendTo"],
    [raise({ type: "lamp.lit" }, { delay: 5 }), "xstate.raise"],
    [spawnChild("x" as never), "xstate.spawnChild"],
    [() => {}, "an inline function"],
    ["unknown", "unknown"]
  ] as const) {
    assert.deepEqual(command({ actions: [said, action] }), [
      `lamp: off: lamp.light does ${name}; it may only emit facts`
    ])
  }
})

test("a report is held to the same", () => {
  const chart = withOn({ "lamp.broke": { target: "on", actions: said } })
  assert.deepEqual(lint(chart, ["lamp.broke"]), [
    "lamp: off: lamp.broke has a target; only a fact moves the chart"
  ])
})

test("a fact may not decide, emit or do anything but assign and request", () => {
  const fact = (transition: object) => lint(withOn({ "lamp.lit": transition }))
  assert.deepEqual(fact({ target: "on", guard: () => true }), [
    "lamp: off: lamp.lit has a guard; decide where the fact is recorded"
  ])
  for (const [action, name] of [
    [said, "emit"],
    [raise({ type: "lamp.lit" }), "xstate.raise"],
    [() => {}, "an inline function"]
  ] as const) {
    assert.deepEqual(fact({ actions: [action] }), [
      `lamp: off: lamp.lit does ${name}; a fact may only assign and request`
    ])
  }
})

test("entry, exit and initial actions other than request are refused", () => {
  assert.deepEqual(lint(lamp({ entry: assign({}) })), ["lamp: off: entry does assign; only request"])
  assert.deepEqual(lint(lamp({ exit: () => {} })), ["lamp: off: exit does an inline function; only request"])
  const initial = createMachine({
    initial: { target: "off", actions: request },
    states: { off: { on: { "lamp.light": { actions: said }, "lamp.lit": {} } } }
  } as never)
  assert.deepEqual(lint(initial), ["lamp: root: the initial transition has actions"])
})

test("types that are undeclared, unhandled or declared twice are refused", () => {
  assert.deepEqual(lint(withOn({ "lamp.dim": { actions: said } })), [
    "lamp: off: lamp.dim is not declared in facts, commands or reports"
  ])
  assert.deepEqual(lint(withOn({ "*": { actions: said } })), [
    "lamp: off: * is not declared in facts, commands or reports"
  ])
  assert.deepEqual(lint(lamp({ on: {} })), [
    "lamp: fact lamp.lit is handled in no state",
    "lamp: command lamp.light is handled in no state"
  ])
  assert.deepEqual(lint(lamp({}), ["lamp.lit"]), ["lamp: lamp.lit is declared more than once"])
})
