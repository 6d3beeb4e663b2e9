import assert from "node:assert/strict"
import { test } from "node:test"
import { Effect } from "effect"
import { clusterActor } from "../../src/actors/cluster/chart.ts"
import type { Members } from "../../src/events/raft.ts"
import type { Message } from "../../src/events/envelope.ts"
import { changeGroup } from "../../src/kernel/group-change.ts"
import { Consensus, Unavailable } from "../../src/kernel/ports/consensus.ts"
import type { GroupStatus } from "../../src/kernel/ports/consensus.ts"
import { allowedCommands, decide, evolve, initialState } from "../../src/kernel/statechart.ts"
import { lintChart } from "../tidy/charts.ts"

const stamp = { self: "cluster/voters", timeMs: 0 }

/** Inputs one after the other: what each recorded, and the state in the end. */
function after(...inputs: ReadonlyArray<Message>) {
  let state = initialState(clusterActor)
  const recorded: Array<ReadonlyArray<Message>> = []
  const asked: Array<unknown> = []
  for (const input of inputs) {
    const facts = decide(clusterActor, state, input, stamp)
    recorded.push(facts)
    for (const fact of facts) {
      const evolved = evolve(clusterActor, state, { ...fact, stamp })
      asked.push(...evolved.requests)
      state = evolved.state
    }
  }
  return { recorded, asked, state }
}

const admit = { type: "cluster.admit", node: "n2", reason: "it asks" }
const changed = { type: "group.changed", op: "admit", node: "n2", voters: ["n1", "n2"] }

test("the chart keeps the contract", () => {
  assert.deepEqual(lintChart(clusterActor), [])
})

test("a change is asked of the group, one at a time, and what came of it is a fact", () => {
  const { recorded, asked, state } = after(admit, { ...admit, type: "cluster.remove", node: "n3" }, changed)
  assert.deepEqual(recorded, [
    [{ type: "cluster.admissionAsked", node: "n2", reason: "it asks" }],
    [],
    [{ type: "cluster.changed", op: "admit", node: "n2", voters: ["n1", "n2"] }]
  ])
  assert.deepEqual(asked, [{ port: "group", op: "admit", node: "n2" }])
  assert.deepEqual(state.context, { voters: ["n1", "n2"] })
  assert.deepEqual(allowedCommands(clusterActor, state), ["cluster.admit", "cluster.remove", "cluster.lead"])
})

test("a change that did not come about leaves the voters, and the next one may be asked", () => {
  const lead = { type: "cluster.lead", node: "n9", reason: "" }
  const { recorded, state } = after(
    lead,
    { type: "group.unchanged", op: "lead", node: "n9", reason: "n9 is no voter" },
    lead
  )
  assert.deepEqual(recorded[1], [
    { type: "cluster.unchanged", op: "lead", node: "n9", reason: "n9 is no voter" }
  ])
  assert.equal(recorded[2]?.length, 1)
  assert.equal(state.value, "changing")
})

/** A group that does at once, or after some tries, what it is asked. */
function groupOf(voters: ReadonlyArray<string>, refusals = 0) {
  let members: Members = { voters, outgoing: [], learners: [], learnersNext: [] }
  let leader = voters[0] ?? null
  let left = refusals
  const asked: Array<string> = []
  const tried = (what: string, work: () => void) =>
    Effect.suspend(() => {
      asked.push(what)
      if (left-- > 0) return Effect.fail(new Unavailable({ node: "n1", mayHappen: false, reason: "behind" }))
      work()
      return Effect.void
    })
  const status = (): GroupStatus => ({
    node: "n1",
    role: "leader",
    term: 1,
    leader,
    commit: 1,
    last: 1,
    base: 1,
    members
  })
  const order = Consensus.of({
    node: "n1",
    follow: () => {},
    propose: () => 0,
    readIndex: Effect.succeed(0),
    factsAfter: () => Effect.succeed([]),
    applied: () => {},
    halt: () => {},
    leadsNow: () => true,
    status,
    change: (to, learners) =>
      tried(`${to.join("+")}/${learners.join("+")}`, () => {
        members = { ...members, voters: to, learners }
      }),
    transfer: (to) =>
      tried(`lead ${to}`, () => {
        leader = to
      })
  })
  return { order, asked }
}

const perform = (order: Consensus["Service"] | null, op: "admit" | "remove" | "lead", node: string) =>
  Effect.runPromise(changeGroup(order, { port: "group", op, node }))

test("who is taken in learns first; what is so already is done; what can't be is said", async () => {
  const { order, asked } = groupOf(["n1"], 1)
  assert.deepEqual(await perform(order, "admit", "n2"), {
    type: "group.changed",
    op: "admit",
    node: "n2",
    voters: ["n1", "n2"]
  })
  assert.deepEqual(asked, ["n1/n2", "n1/n2", "n1+n2/"], "the first was refused and tried again")
  await perform(order, "admit", "n2")
  assert.equal(asked.length, 3)
  assert.equal((await perform(order, "lead", "n2")).type, "group.changed")
  assert.deepEqual(await perform(order, "lead", "n7"), {
    type: "group.unchanged",
    op: "lead",
    node: "n7",
    reason: "n7 is no voter; those are n1, n2"
  })
  assert.equal((await perform(order, "remove", "n1")).type, "group.changed")
  const last = await perform(order, "remove", "n2")
  assert.match(last.type === "group.unchanged" ? last.reason : "", /n2 is the only voter/)
  const alone = await perform(null, "remove", "n2")
  assert.match(alone.type === "group.unchanged" ? alone.reason : "", /decides alone/)
})
