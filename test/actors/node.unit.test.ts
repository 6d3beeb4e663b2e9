/** A node's start, as it is decided: what begins when, what a failure means, and what an end without a word leaves. */
import assert from "node:assert/strict"
import { test } from "node:test"
import * as fc from "fast-check"
import { orderProblem, phases } from "../../src/actors/node/decide.ts"
import { nodeActor } from "../../src/actors/node/chart.ts"
import type { Message } from "../../src/events/envelope.ts"
import type { Plan } from "../../src/events/node.ts"
import { emptyActor } from "../../src/kernel/turn.ts"
import type { ActorState, Outstanding } from "../../src/kernel/turn.ts"
import { lintChart } from "../tidy/charts.ts"
import { begin, componentFailed, initialised, nodePlan, reportOf } from "./messages.ts"
import { given, input } from "./specification.ts"

const stream = "node/n1"
const { type: _, ...plan } = begin()
const began: ReadonlyArray<Message> = [
  { type: "node.startBegan", ...plan },
  { type: "node.phaseBegan", phase: "core", components: ["store"] }
]
const up = (component: string) => ({
  type: "node.componentInitialised",
  component,
  attempt: 1,
  durationMs: 3
})
const linksBegan = { type: "node.componentsBegan", components: ["links"] }
const coreUp = [...began, up("store"), linksBegan, up("links")]
const postInit: ReadonlyArray<Message> = [
  ...coreUp,
  { type: "node.phaseEnded", phase: "core", durationMs: 10 },
  { type: "node.phaseBegan", phase: "post-init", components: ["mdns"] }
]
const started: ReadonlyArray<Message> = [
  ...postInit,
  up("mdns"),
  { type: "node.phaseEnded", phase: "post-init", durationMs: 1 },
  { type: "node.started", durationMs: 11, leftOut: [] }
]
const ready: ReadonlyArray<Message> = [...started, { type: "node.ready", bootMs: 600 }]
const failing: ReadonlyArray<Message> = [
  ...began,
  { ...componentFailed("store"), type: "node.componentFailed", outcome: "start-fails", retryMs: 0 },
  { type: "node.startFailed", component: "store", phase: "core", reason: "no port" }
]

test("the chart keeps the contract", () => assert.deepEqual(lintChart(nodeActor), []))

test("a start begins with what needs nothing, within its limit", () => {
  given(stream, [])
    .when(begin())
    .thenRecords(...began)
    .thenState("starting")
    .thenAsks("timer start", "component initialise store")
})

test("what needed a component begins when that is up", () => {
  given(stream, began)
    .when(initialised("store"))
    .thenRecords(up("store"), linksBegan)
    .thenAsks("component initialise links")
})

test("the phase after it begins when a phase is over, and says how long it took", () => {
  given(stream, [...began, up("store"), linksBegan])
    .when(initialised("links"))
    .thenRecords(
      up("links"),
      { type: "node.phaseEnded", phase: "core" },
      { type: "node.phaseBegan", phase: "post-init", components: ["mdns"] }
    )
    .thenAsks("component initialise mdns")
})

test("when the last is up the node is announced, and the limit is lifted", () => {
  given(stream, postInit)
    .when(initialised("mdns"))
    .thenRecords(
      up("mdns"),
      { type: "node.phaseEnded", phase: "post-init" },
      { type: "node.started", leftOut: [] }
    )
    .thenState("announcing")
    .thenAsks("timer stop", "component announce")
  given(stream, started)
    .when({ type: "component.announced", start: "s1", bootMs: 600 })
    .thenRecords({ type: "node.ready", bootMs: 600 })
    .thenState("ready")
})

test("a critical component takes the start with it, and what was started is stopped", () => {
  given(stream, began)
    .when(componentFailed("store"))
    .thenRecords(
      { type: "node.componentFailed", component: "store", reason: "no port", outcome: "start-fails" },
      { type: "node.startFailed", component: "store", phase: "core", reason: "no port" }
    )
    .thenState("failing")
    .thenAsks("timer stop", "component stop")
  given(stream, failing)
    .when({ type: "component.stopped", start: "s1", durationMs: 5 })
    .thenRecords({ type: "node.stopped", durationMs: 5 })
    .thenState("failed")
})

test("a degraded component is tried again after 1, 2 and 4 s, and then left out", () => {
  let facts: ReadonlyArray<Message> = [...began, up("store"), linksBegan]
  for (const [index, retryMs] of [1000, 2000, 4000].entries()) {
    const failed = { ...componentFailed("links", index + 1), outcome: "tried-again", retryMs }
    const { start: _start, ...fact } = { ...failed, type: "node.componentFailed" }
    given(stream, facts)
      .when(componentFailed("links", index + 1))
      .thenRecords(fact)
      .thenAsks("timer start")
    given(stream, [...facts, fact])
      .when({ type: "timer.fired", name: "retry-links" })
      .thenRecords(linksBegan)
      .thenAsks("component initialise links")
    facts = [...facts, fact, linksBegan]
  }
  given(stream, facts)
    .when(componentFailed("links", 4))
    .thenRecords(
      { type: "node.componentFailed", component: "links", attempt: 4, outcome: "left-out", retryMs: 0 },
      { type: "node.phaseEnded", phase: "core" },
      { type: "node.phaseBegan", phase: "post-init", components: ["mdns"] }
    )
})

test("a warning component is tried once, and the node is ready without it and says so", () => {
  given(stream, postInit)
    .when(componentFailed("mdns"))
    .thenRecords(
      { type: "node.componentFailed", component: "mdns", outcome: "left-out" },
      { type: "node.phaseEnded", phase: "post-init" },
      { type: "node.started", leftOut: ["mdns"] }
    )
})

test("a start that is not over at its limit fails, and names what was under way", () => {
  given(stream, began)
    .when({ type: "timer.fired", name: "limit" })
    .thenRecords({
      type: "node.startFailed",
      component: null,
      phase: "core",
      reason: "not ready within 30000 ms; under way: store"
    })
    .thenState("failing")
})

test("an answer of another start, or of an attempt that is over, says nothing", () => {
  given(stream, began)
    .when(initialised("store", 1, "s0"))
    .thenNothing()
  given(stream, began).when(initialised("store", 2)).thenNothing()
  given(stream, coreUp).when(initialised("store")).thenNothing()
  given(stream, started).when({ type: "component.announced", start: "s0", bootMs: 1 }).thenNothing()
  given(stream, failing).when({ type: "component.stopped", start: "s0", durationMs: 1 }).thenNothing()
})

for (const [what, facts] of [
  ["starts", began],
  ["is ready", ready]
] as const) {
  test(`a node that ${what} stops when it is asked to, and says when it has`, () => {
    given(stream, facts)
      .when({ type: "node.stop", reason: "SIGTERM" })
      .thenRecords({ type: "node.stopping", reason: "SIGTERM" })
      .thenState("stopping")
      .thenAsks("timer stop", "component stop")
    given(stream, [...facts, { type: "node.stopping", reason: "SIGTERM" }])
      .when({ type: "component.stopped", start: "s1", durationMs: 14 })
      .thenRecords({ type: "node.stopped", durationMs: 14 })
      .thenState("off")
  })
}

for (const [during, facts, phase, underWay] of [
  ["starting", began, "core", ["store"]],
  ["announcing", started, "post-init", []],
  ["ready", ready, "post-init", []],
  ["stopping", [...ready, { type: "node.stopping", reason: "" }], "post-init", []],
  ["failing", failing, "core", []]
] as const) {
  test(`an end without a word while ${during} is told by the next start`, () => {
    given(stream, facts)
      .when(begin({ start: "s2" }))
      .thenRecords(
        { type: "node.crashed", start: "s1", during, phase, underWay },
        { type: "node.startBegan", start: "s2" },
        { type: "node.phaseBegan", phase: "core" }
      )
      .thenState("starting")
  })

  test(`and by the next start that is told of afterwards, when it ended while ${during}`, () => {
    given(stream, facts)
      .when(reportOf("s2"))
      .thenRecords(
        { type: "node.crashed", start: "s1", during, phase, underWay },
        { ...reportOf("s2"), type: "node.reported" }
      )
      .thenState("ready")
  })
}

test("a start that is told of afterwards is recorded once, and its end with it", () => {
  const reported = { ...reportOf("s1"), type: "node.reported" }
  const reportStop = { type: "node.reportStop", start: "s1", reason: "SIGTERM" }
  const stopReported = { ...reportStop, type: "node.stopReported" }
  given(stream, []).when(reportOf("s1")).thenRecords(reported).thenState("ready")
  given(stream, [reported]).when(reportOf("s1")).thenRefused()
  given(stream, [reported]).when(reportStop).thenRecords(stopReported).thenState("off")
  given(stream, [reported])
    .when({ ...reportStop, start: "s0" })
    .thenRefused()
  // Its next one is no crash; without that word it is.
  given(stream, [reported, stopReported])
    .when(reportOf("s2"))
    .thenRecords({ ...reportOf("s2"), type: "node.reported" })
  given(stream, [reported])
    .when(reportOf("s2"))
    .thenRecords(
      { type: "node.crashed", start: "s1", during: "ready", phase: null, underWay: [] },
      { ...reportOf("s2"), type: "node.reported" }
    )
})

test("a start after a stop, or after a failed start that was undone, is no crash", () => {
  const stopped = { type: "node.stopped", durationMs: 1 }
  for (const facts of [
    [...failing, stopped],
    [...ready, { type: "node.stopping", reason: "" }, stopped]
  ]) {
    given(stream, facts)
      .when(begin({ start: "s2" }))
      .thenRecords({ type: "node.startBegan", start: "s2" }, { type: "node.phaseBegan", phase: "core" })
  }
})

const component = (name: string, needs: ReadonlyArray<string>, phase: Plan["phase"] = "core"): Plan => ({
  name,
  phase,
  level: "critical",
  needs
})

for (const [what, components, problem] of [
  ["a cycle", [component("x", []), component("a", ["b"]), component("b", ["a"])], "a cycle among a, b"],
  ["an unknown need", [component("a", ["x"])], "a needs x, which does not exist"],
  [
    "a need of a later phase",
    [component("a", ["b"]), component("b", [], "service")],
    "a (core) needs b of service"
  ],
  ["a name used twice", [component("a", []), component("a", [])], "two components have one name"]
] as const) {
  test(`${what} fails the start before anything begins`, () => {
    given(stream, [])
      .when(begin({ components }))
      .thenRecords(
        { type: "node.startBegan" },
        { type: "node.startFailed", component: null, phase: null, reason: problem }
      )
      .thenState("failing")
  })
}

const names = ["a", "b", "c", "d", "e", "f", "g"]
/** Plans that can be ordered: each component needs only some before it, of its phase or an earlier one. */
const plans = fc
  .tuple(
    fc.array(fc.tuple(fc.constantFrom(...phases), fc.constantFrom("critical", "degraded", "warning")), {
      minLength: 1,
      maxLength: names.length
    }),
    fc.array(fc.array(fc.nat(), { maxLength: 3 }), { minLength: names.length, maxLength: names.length })
  )
  .map(([drawn, needs]) => {
    const sorted = [...drawn].sort(([a], [b]) => phases.indexOf(a) - phases.indexOf(b))
    return sorted.map(([phase, level], index) => ({
      name: names[index] as string,
      phase,
      level,
      needs: index === 0 ? [] : [...new Set(needs[index]?.map((need) => names[need % index] as string))]
    }))
  })

/** Answer what is outstanding, in an order that is drawn, until nothing is left; the order of what was begun. */
function walk(components: ReadonlyArray<unknown>, picks: ReadonlyArray<number>, fails: ReadonlySet<string>) {
  let actor: ActorState = emptyActor(nodeActor, stream)
  const begunOrder: Array<{ component: string; up: ReadonlyArray<string> }> = []
  const upNow: Array<string> = []
  const open: Array<Outstanding> = []
  const take = (message: Message) => {
    const { turn } = input(nodeActor, actor, message)
    assert.equal(turn.outcome, "record")
    if (turn.outcome !== "record") return
    actor = turn.next
    for (const asked of turn.requests) {
      const { request } = asked
      if (request.port === "component" && request.op === "initialise") {
        begunOrder.push({ component: request.component, up: [...upNow] })
      }
      if (request.port === "component" || (request.port === "timer" && request.op === "start"))
        open.push(asked)
    }
  }
  take(begin({ components }))
  for (let step = 0; step < 200; step++) {
    const answerable = open.filter(({ request }) => !(request.port === "timer" && request.name === "limit"))
    const asked = answerable[(picks[step % picks.length] ?? 0) % Math.max(1, answerable.length)]
    if (asked === undefined) break
    open.splice(open.indexOf(asked), 1)
    const { request } = asked
    if (request.port === "timer") take({ type: "timer.fired", name: request.name })
    else if (request.port === "component" && request.op === "initialise") {
      const { component, attempt } = request
      upNow.push(component)
      take(fails.has(component) ? componentFailed(component, attempt) : initialised(component, attempt))
    } else if (request.port === "component" && request.op === "announce") {
      take({ type: "component.announced", start: "s1", bootMs: 1 })
    } else break
  }
  return { state: actor.chart.value, begunOrder }
}

test("whatever the plan and the order of the answers, nothing begins before its needs, and all of it ends ready", () => {
  fc.assert(
    fc.property(plans, fc.array(fc.nat(), { minLength: 1, maxLength: 20 }), (components, picks) => {
      assert.equal(orderProblem(components), null)
      const { state, begunOrder } = walk(components, picks, new Set())
      assert.equal(state, "ready")
      assert.equal(begunOrder.length, components.length)
      for (const { component: name, up: before } of begunOrder) {
        const own = components.find((one) => one.name === name)
        for (const need of own?.needs ?? []) assert.ok(before.includes(need), `${name} began before ${need}`)
        for (const one of components) {
          const isEarlier = phases.indexOf(one.phase) < phases.indexOf(own?.phase ?? "pre-init")
          if (isEarlier) assert.ok(before.includes(one.name), `${name} began before the phase of ${one.name}`)
        }
      }
    })
  )
})

test("whatever fails, the start ends: ready without what may be left out, or failed by a critical one", () => {
  const someFail = fc.subarray(names)
  const picksOf = fc.array(fc.nat(), { minLength: 1, maxLength: 20 })
  fc.assert(
    fc.property(plans, picksOf, someFail, (components, picks, failing) => {
      const fails = new Set(failing)
      const isFailed = components.some(({ name, level }) => level === "critical" && fails.has(name))
      assert.equal(walk(components, picks, fails).state, isFailed ? "failing" : "ready")
    })
  )
})

test("a plan in any order of its components can be ordered", () => {
  const shuffled = [...nodePlan].reverse()
  assert.equal(orderProblem(shuffled), null)
})
