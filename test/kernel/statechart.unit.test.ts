/** The kernel's own reading of the charts beside XState's `transition()`: the same facts, states and requests. */
import assert from "node:assert/strict"
import { test } from "node:test"
import * as fc from "fast-check"
import { assign, emit, initialTransition, setup, transition } from "xstate"
import type { AnyMachineSnapshot } from "xstate"
import { actorKinds } from "../../src/actors/kinds.ts"
import type { Message } from "../../src/events/envelope.ts"
import { raftActor } from "../../src/actors/raft/chart.ts"
import type { RaftCommand, RaftMessage } from "../../src/events/raft.ts"
import { listType } from "../../src/kernel/actor.ts"
import type { ActorKind } from "../../src/kernel/actor.ts"
import { decide, describe, evolve, initialState, keep, resume } from "../../src/kernel/statechart.ts"
import type { ChartState } from "../../src/kernel/statechart.ts"
import { inputs } from "../actors/messages.ts"

const seed = 20261121

interface Both {
  readonly ours: ChartState
  readonly theirs: AnyMachineSnapshot
}

const begin = (kind: ActorKind): Both => ({
  ours: initialState(kind),
  theirs: initialTransition(kind.chart, undefined as never)[0]
})

type Action = { readonly type: string; readonly params?: unknown }

const byXState = (
  kind: ActorKind,
  state: AnyMachineSnapshot,
  event: Message
): [AnyMachineSnapshot, Array<Action>] =>
  transition(kind.chart, state, event as never) as unknown as [AnyMachineSnapshot, Array<Action>]

/** Compared as text: keys in the same order, so that a snapshot has the same bytes. */
const same = (ours: unknown, theirs: unknown, what: string) =>
  assert.equal(JSON.stringify(ours), JSON.stringify(theirs), what)

const listed = (fact: Message): ReadonlyArray<unknown> =>
  fact.type === listType ? (fact["facts"] as ReadonlyArray<unknown>) : [fact]

/** One input taken by both; the facts it recorded were folded by both. Null when it records nothing. */
function take(kind: ActorKind, both: Both, input: Message, timeMs: number): Both | null {
  const stamp = { self: `${kind.kind}/web`, timeMs }
  const what = `${kind.kind} in ${describe(both.ours)}: ${input.type}`
  const facts = decide(kind, both.ours, input, stamp)
  const [, said] = byXState(kind, both.theirs, { ...input, stamp } as Message)
  same(facts, said.map(({ params }) => (params as { event: Message }).event).flatMap(listed), what)
  let { ours, theirs } = both
  for (const fact of facts) {
    const evolved = evolve(kind, ours, { ...fact, stamp })
    const [next, asked] = byXState(kind, theirs, { ...fact, stamp } as Message)
    same(keep(evolved.state), { value: next.value, context: next.context }, `${what} → ${fact.type}`)
    same(evolved.requests, asked.map(({ params }) => params).flat(), `${what} → ${fact.type} asks`)
    ours = evolved.state
    theirs = next
  }
  same(keep(resume(kind, keep(ours))), keep(ours), what)
  return facts.length === 0 ? null : { ours, theirs }
}

const sample = (latencyMs: number, bandwidthBitsPerSecond: number) => ({
  ...{ type: "mode.sample", latencyMs, bandwidthBitsPerSecond },
  ...{ lossPercent: 0, jitterMs: 0 }
})

const messagesOf = ({ kind }: ActorKind): ReadonlyArray<Message> =>
  kind === "mode"
    ? [
        ...[sample(1, 1e10), sample(20, 1e9), sample(90, 1e8)],
        ...[{ type: "mode.force", mode: "internet" }, { type: "mode.release" }]
      ]
    : (inputs[kind] ?? [])

/** Every message is tried at every step, and one of those that recorded something is gone on with, as drawn. */
function walk(
  kind: ActorKind,
  messages: ReadonlyArray<Message>,
  choices: ReadonlyArray<number>,
  seen: Set<string>,
  first: ReadonlyArray<Message> = []
) {
  let both = first.reduce((before, message) => take(kind, before, message, 0) ?? before, begin(kind))
  for (const [step, choice] of choices.entries()) {
    const next: Array<Both> = []
    for (const message of messages) {
      const taken = take(kind, both, message, 1000 + step)
      seen.add(`${describe(both.ours)} ${message.type}`)
      if (taken) next.push(taken)
    }
    if (next.length === 0) return
    both = next[choice % next.length] as Both
  }
}

const choices = fc.array(fc.nat(1000), { minLength: 25, maxLength: 25 })

const samples: Readonly<Record<string, number>> = { vm: 60, node: 60, migration: 60 }

for (const kind of actorKinds) {
  test(`${kind.kind}: the compiled chart says what XState says on drawn paths (seed ${seed})`, () => {
    const messages = messagesOf(kind)
    assert.ok(messages.length > 0)
    const seen = new Set<string>()
    fc.assert(
      fc.property(choices, (drawn) => walk(kind, messages, drawn, seen)),
      { seed, numRuns: samples[kind.kind] ?? 30 }
    )
    console.log(`  ${kind.kind}: ${seen.size} pairs of state and message`)
  })
}

const settings = {
  ...{ heartbeatMs: 1, electionMs: 2, messageBytesMax: 64, inflightBytesMax: 640, inflightEntriesMax: 10 },
  ...{ uncommittedBytesMax: 100, readsMax: 2, lagEntriesMax: 10, leaseDriftPercent: 0 }
}
const received = (message: RaftMessage): RaftCommand => ({
  type: "raft.receive",
  from: "b",
  message,
  chance: 0
})
const voted = (term: number, poll: boolean) => received({ type: "vote", term, poll, granted: true })
const answered = { type: "appended", success: true, hintIndex: 0, hintTerm: 0, round: 1 } as const

/** Lists of facts, those that are not kept, and assigns that give the whole context. */
test(`raft: the compiled chart says what XState says on drawn paths (seed ${seed})`, () => {
  const members = { voters: ["a", "b", "c"], outgoing: [], learners: [], learnersNext: [] }
  const first: ReadonlyArray<RaftCommand> = [
    { type: "raft.begin", id: "a", settings, chance: 0 },
    { type: "raft.form", members }
  ]
  const entries = [{ index: 1, term: 2, data: "x", members: null }]
  const append = { type: "append", term: 2, previousIndex: 0, previousTerm: 0, commit: 1, round: 1 } as const
  const messages: ReadonlyArray<RaftCommand> = [
    { type: "raft.tick", chance: 0 },
    ...[voted(1, true), voted(1, false), voted(2, true), voted(2, false)],
    ...[1, 2].map((term) => received({ ...answered, term, index: term })),
    received({ ...append, entries }),
    { type: "raft.propose", proposals: [{ ticket: "p", data: "x" }] },
    { type: "raft.stored", index: 1, term: 1, chance: 0 },
    { type: "raft.compact", index: 1 }
  ]
  const seen = new Set<string>()
  fc.assert(
    fc.property(choices, (drawn) => walk(raftActor, messages, drawn, seen, first)),
    { seed, numRuns: 60 }
  )
  for (const role of ["follower", "poller", "candidate", "leader"])
    assert.ok(seen.has(`${role} raft.tick`), [...seen].join(", "))
})

/** What no chart has today: regions side by side, requests at the door, a guard with parameters, an inner reset. */
const odd: ActorKind = {
  kind: "odd",
  chart: setup({
    types: { context: {} as { n: number }, events: {} as { type: string } },
    actions: { request: () => {} },
    guards: {
      below: ({ context }: { context: { n: number } }, { limit }: { limit: number }) => context.n < limit
    }
  } as never).createMachine({
    id: "odd",
    type: "parallel",
    context: { n: 0 },
    states: {
      door: {
        initial: "shut",
        states: {
          shut: {
            on: {
              open: { actions: emit({ type: "opened" } as never) },
              opened: {
                target: "open",
                actions: assign({ n: ({ context }: { context: { n: number } }) => context.n + 1 })
              }
            }
          },
          open: {
            entry: { type: "request", params: { port: "timer", op: "start", name: "shut", afterMs: 5 } },
            on: {
              shut: { actions: emit({ type: "wasShut" } as never) },
              wasShut: { target: "shut" }
            }
          }
        }
      },
      lamp: {
        on: {
          press: {
            guard: { type: "below", params: { limit: 2 } },
            actions: emit({ type: "pressed" } as never)
          }
        },
        initial: "off",
        states: { off: { on: { pressed: "on" } }, on: { on: { pressed: "off" } } }
      }
    }
  } as never) as never,
  commands: ["open", "shut", "press"],
  reports: [],
  facts: ["opened", "wasShut", "pressed"],
  snapshotVersion: 1
}

test(`what is not compiled is XState's own (seed ${seed})`, () => {
  const messages = odd.commands.map((type) => ({ type }))
  const seen = new Set<string>()
  fc.assert(
    fc.property(choices, (drawn) => walk(odd, messages, drawn, seen)),
    { seed, numRuns: 20 }
  )
  assert.ok(seen.has("door.open & lamp.on press"), [...seen].join(", "))
})

test("a fact that fits nowhere is told with the state", () => {
  const [kind] = actorKinds.filter((one) => one.kind === "host")
  assert.ok(kind)
  assert.throws(
    () => evolve(kind, initialState(kind), { type: "host.drained", stamp: { self: "host/a", timeMs: 1 } }),
    /chart host: fact host.drained is not handled in unknown/
  )
})
