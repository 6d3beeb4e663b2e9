/** The values of SWIM beside the plainest thing that does the same, and datagrams as bytes. */
import assert from "node:assert/strict"
import { test } from "node:test"
import * as fc from "fast-check"
import { swimActor } from "../../src/actors/swim/chart.ts"
import { Deadlines } from "../../src/actors/swim/deadlines.ts"
import { permuted } from "../../src/actors/swim/order.ts"
import { Queue } from "../../src/actors/swim/queue.ts"
import { partOf, Table } from "../../src/actors/swim/table.ts"
import type { Peer } from "../../src/actors/swim/table.ts"
import type { SwimContext } from "../../src/actors/swim/step.ts"
import { suspicionMs } from "../../src/actors/swim/updates.ts"
import { Vector } from "../../src/actors/swim/vector.ts"
import type { Message } from "../../src/events/envelope.ts"
import { lanSettings } from "../../src/events/swim.ts"
import type { PeerStatus, PeerUpdate, SwimDatagram } from "../../src/events/swim.ts"
import { decodeDatagram, encodeDatagram, headBytes, updateBytes } from "../../src/events/swim-wire.ts"
import { decide as decideOf, evolve, initialState } from "../../src/kernel/statechart.ts"
import type { ChartState } from "../../src/kernel/statechart.ts"
import { run } from "../../simulations/swim/run.ts"

const seed = 20_261_129
const statuses = ["alive", "suspect", "dead", "left"] as const

const peerOf = (id: string, incarnation: number, status: PeerStatus): Peer => ({
  id,
  incarnation,
  status,
  address: `${id}:1`,
  meta: "",
  sinceMs: 0,
  suspicion: null
})

test("tables that grow from one another stay what they were, and find everybody", () => {
  const change = fc.record({
    from: fc.nat(),
    id: fc.integer({ min: 0, max: 60 }),
    incarnation: fc.nat(3),
    status: fc.constantFrom(...statuses),
    isGone: fc.boolean()
  })
  fc.assert(
    fc.property(fc.array(change, { maxLength: 150 }), (changes) => {
      const all: Array<{ readonly table: Table; readonly plain: ReadonlyMap<string, Peer> }> = [
        { table: Table.empty, plain: new Map() }
      ]
      for (const { from, id, incarnation, status, isGone } of changes) {
        // Mostly the last one goes on, so that tables get large.
        const { table, plain } = all[from % 4 === 0 ? from % all.length : all.length - 1]!
        const next = new Map(plain)
        const peer = peerOf(`n${id}`, incarnation, status)
        if (isGone) next.delete(peer.id)
        else next.set(peer.id, peer)
        all.push({ table: isGone ? table.without(peer.id) : table.set(peer), plain: next })
      }
      for (const { table, plain } of all) same(table, plain)
    }),
    { seed, numRuns: 60 }
  )
})

function same(table: Table, plain: ReadonlyMap<string, Peer>): void {
  assert.equal(table.length, plain.size)
  for (let id = 0; id <= 60; id++) assert.equal(table.get(`n${id}`), plain.get(`n${id}`) ?? null)
  const placed = Array.from({ length: table.length }, (_, place) => table.at(place))
  assert.deepEqual(new Set(placed), new Set(plain.values()))
  for (const status of statuses)
    assert.equal(table.counts[status], placed.filter((one) => one.status === status).length)
  let fresh = Table.empty
  for (const peer of plain.values()) fresh = fresh.set(peer)
  assert.equal(table.digests(), fresh.digests())
}

test("digests say in which parts tables differ, and the dead don't count", () => {
  let table = Table.empty
  for (let n = 0; n < 300; n++) table = table.set(peerOf(`n${n}`, 1, "alive"))
  const other = table.set(peerOf("n7", 2, "alive")).set(peerOf("n8", 1, "suspect"))
  assert.deepEqual(new Set(table.differing(other.digests())), new Set([partOf("n7"), partOf("n8")]))
  assert.deepEqual(table.set(peerOf("gone", 3, "dead")).differing(table.digests()), [])
})

test("a vector is as an array", () => {
  const step = fc.oneof(fc.constant("push"), fc.constant("push"), fc.constant("pop"), fc.nat(2000))
  fc.assert(
    fc.property(fc.nat(1100), fc.array(step, { maxLength: 60 }), (length, steps) => {
      const plain = Array.from({ length }, (_, n) => n)
      let vector = Vector.of(plain)
      for (const [n, one] of steps.entries()) {
        if (one === "push") {
          vector = vector.push(n)
          plain.push(n)
        } else if (plain.length > 0 && one === "pop") {
          vector = vector.pop()
          plain.pop()
        } else if (plain.length > 0) {
          vector = vector.set(Number(one) % plain.length || 0, -n)
          plain[Number(one) % plain.length || 0] = -n
        }
      }
      assert.deepEqual(
        Array.from({ length: vector.length }, (_, n) => vector.at(n)),
        plain
      )
      assert.throws(() => vector.at(plain.length))
    }),
    { seed, numRuns: 100 }
  )
})

test("each round probes everybody once, in another order", () => {
  for (const size of [1, 2, 3, 5, 64, 65, 1000]) {
    const of = (key: number) => Array.from({ length: size }, (_, n) => permuted(n, size, key))
    assert.deepEqual(
      of(7).toSorted((a, b) => a - b),
      Array.from({ length: size }, (_, n) => n)
    )
    if (size > 8) assert.notDeepEqual(of(7), of(8))
  }
})

const update = (id: string, incarnation = 1): PeerUpdate => ({
  id,
  status: "suspect",
  incarnation,
  by: "n0",
  address: "",
  meta: ""
})

test("what was sent least is sent first, of it the newest, as often as the limit says; what is overtaken is not", () => {
  let queue = Queue.empty.add(update("a"), 10).add(update("b"), 10)
  const take = (bytesMax: number, limit: number, isCurrent: (one: PeerUpdate) => boolean = () => true) => {
    const taken = queue.take(bytesMax, limit, isCurrent)
    queue = taken.queue
    return taken.updates.map(({ id }) => id).join("")
  }
  const one = updateBytes(update("a"))
  assert.equal(take(one, 2), "b")
  assert.equal(take(2 * one, 2), "ab")
  queue = queue.add(update("c"), 10)
  assert.equal(
    take(10 * one, 2, ({ id }) => id !== "a"),
    "c"
  )
  assert.equal(queue.length, 1)
  assert.equal(take(10 * one, 2), "c")
  assert.equal(queue.length, 0)
  for (let n = 0; n < 30; n++) queue = queue.add(update(`n${n}`), 20)
  assert.equal(queue.length, 20)
})

test("deadlines come in order", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(1000)), (times) => {
      let deadlines = Deadlines.empty
      for (const time of times) deadlines = deadlines.add(time, `n${time}`)
      const seen: Array<number> = []
      for (; deadlines.length > 0; deadlines = deadlines.rest()) seen.push(deadlines.nextMs)
      assert.deepEqual(
        seen,
        times.toSorted((a, b) => a - b)
      )
      assert.equal(deadlines.nextMs, Number.POSITIVE_INFINITY)
    }),
    { seed }
  )
})

test("a suspicion is as long as Lifeguard's formula says", () => {
  const suspicion = { startMs: 0, leastMs: 1000, mostMs: 6000, wanted: 3, by: ["a"], deadlineMs: 0 }
  assert.deepEqual(
    [0, 1, 2, 3, 9].map((count) => suspicionMs(suspicion, count)),
    [6000, 3500, 2037, 1000, 1000]
  )
  assert.equal(suspicionMs({ ...suspicion, wanted: 0 }, 0), 1000)
})

const datagrams: ReadonlyArray<SwimDatagram> = [
  { from: "n1", head: { type: "ping", sequence: 4_294_967_295, target: "n2" }, updates: [] },
  {
    from: "n1",
    head: { type: "pingRequest", sequence: 1, target: "n2", address: "[::1]:7946" },
    updates: []
  },
  {
    from: "n1",
    head: { type: "ack", sequence: 1 },
    updates: [update("n3"), { ...update("n4"), status: "left" }]
  },
  { from: "n1", head: { type: "nack", sequence: 1 }, updates: [] },
  { from: "n1", head: { type: "gossip" }, updates: [{ ...update("n5"), status: "dead" }] },
  { from: "n1", head: { type: "compare", answer: true, digests: Table.empty.digests() }, updates: [] },
  {
    from: "n1",
    head: { type: "entries" },
    updates: [{ ...update("n6"), status: "alive", address: "127.0.0.1:1", meta: '{"a":"\\"' }]
  }
]

test("datagrams are read as they were written, and take as many bytes as was reckoned", () => {
  for (const datagram of datagrams) {
    const text = encodeDatagram(datagram)
    assert.deepEqual(decodeDatagram(text), datagram)
    const reckoned = datagram.updates.reduce(
      (sum, one) => sum + updateBytes(one),
      headBytes("n1", datagram.head)
    )
    assert.ok(Buffer.byteLength(text) <= reckoned, text)
    assert.ok(reckoned <= Buffer.byteLength(text) + 1, text)
    assert.ok(text.length <= lanSettings.datagramBytesMax)
  }
})

test("what is no datagram is refused with a reason, whatever it is", () => {
  const texts = datagrams.map(encodeDatagram)
  for (const bad of ["", "{}", "[1]", '[2,"n1",["g"],[]]', '[1,"N1",["g"],[]]', '[1,"n1",["x"],[]]'])
    assert.throws(() => decodeDatagram(bad), { name: "BadDatagram" }, bad)
  fc.assert(
    fc.property(fc.constantFrom(...texts), fc.nat(), fc.string({ maxLength: 3 }), (text, at, put) => {
      const place = at % text.length
      const changed = text.slice(0, place) + put + text.slice(place + 1)
      try {
        assert.equal(encodeDatagram(decodeDatagram(changed)).startsWith("[1,"), true)
      } catch (error) {
        assert.equal((error as Error).name, "BadDatagram", changed)
      }
    }),
    { seed, numRuns: 500 }
  )
})

/** States of a member that meets forty others, of whom most do not answer. */
function* statesOf(): Generator<{
  readonly state: ChartState
  readonly input: Message
  readonly timeMs: number
}> {
  let state = initialState(swimActor)
  const chance = (n: number) => (n * 0.618) % 1
  const inputs: Array<readonly [number, Message]> = [
    [0, { type: "swim.begin", id: "n0", address: "n0:1", meta: "", settings: lanSettings, chance: 0.5 }],
    [1, { type: "swim.join", seeds: ["n1:1"], chance: 0.5 }]
  ]
  for (let n = 1; n <= 40; n++) {
    const entry = { ...update(`n${n}`), status: "alive" as const, by: `n${n}`, address: `n${n}:1` }
    const datagram = { from: `n${n}`, head: { type: "entries" }, updates: [entry] }
    inputs.push([2 + n, { type: "swim.receive", address: `n${n}:1`, datagram, chance: chance(n) }])
  }
  for (let n = 0; n < 800; n++) inputs.push([50 + n * 50, { type: "swim.tick", chance: chance(n) }])
  for (const [timeMs, input] of inputs) {
    yield { state, input, timeMs }
    const stamp = { self: "swim/n0", timeMs }
    for (const fact of decideOf(swimActor, state, input, stamp))
      state = evolve(swimActor, state, { ...fact, stamp }).state
  }
}

test("what a member decides changes nothing: from the same state it decides the same again, later too", () => {
  const all = [...statesOf()].map((one) => ({
    ...one,
    said: JSON.stringify(decideOf(swimActor, one.state, one.input, { self: "swim/n0", timeMs: one.timeMs }))
  }))
  const last = all.at(-1)?.state ?? initialState(swimActor)
  assert.equal(last.value, "member")
  assert.ok((last.context as SwimContext).table.counts.suspect >= 2)
  for (const { state, input, timeMs, said } of all.toReversed())
    assert.equal(JSON.stringify(decideOf(swimActor, state, input, { self: "swim/n0", timeMs })), said)
})

test("a life that a seed draws keeps every promise", () => {
  assert.equal(run(3).violation, null)
})
