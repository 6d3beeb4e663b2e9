/** What every event store must do, whatever it keeps its facts on. Each world runs it: see the callers. */
import assert from "node:assert/strict"
import { describe, test } from "node:test"
import { Effect, Exit, Fiber, Stream } from "effect"
import type { Layer } from "effect"
import type { Draft, Recorded } from "../../src/events/envelope.ts"
import { canonicalText, genesisHash } from "../../src/events/envelope.ts"
import { Digest } from "../../src/kernel/ports/digest.ts"
import { EventStore, RevisionConflict, StoreFailure } from "../../src/kernel/ports/event-store.ts"

export type Store = EventStore["Service"]

/** One place where a store can lie. Building the layer again opens what lies there. */
export interface StorePlace {
  readonly layer: Layer.Layer<EventStore | Digest, unknown>
  readonly remove: () => void
}

export const draft = (id: string, data: Record<string, unknown> = { type: "vm.started", id }): Draft => ({
  id,
  type: "novacron.vm.started",
  version: 1,
  timeMs: 1_760_000_000_000,
  correlation: "correlation-1",
  causation: "command-1",
  principal: { kind: "operator", name: "alice" },
  node: "node-1",
  answers: null,
  data
})

export const drafts = (prefix: string, count: number): ReadonlyArray<Draft> =>
  Array.from({ length: count }, (_, index) => draft(`${prefix}#${index}`))

/** Open the store at `place`, use it, close it. */
export const within = <A, E>(
  place: Pick<StorePlace, "layer">,
  use: (store: Store) => Effect.Effect<A, E, Digest>
): Promise<A> => Effect.runPromise(Effect.flatMap(EventStore, use).pipe(Effect.provide(place.layer)))

const ids = (facts: ReadonlyArray<Recorded>) => facts.map(({ id }) => id)

export function eventStoreConformance(world: string, makePlace: () => StorePlace): void {
  const behaves = (
    behaviour: string,
    use: (store: Store, place: StorePlace) => Effect.Effect<unknown, unknown, Digest>
  ) =>
    test(behaviour, async () => {
      const place = makePlace()
      try {
        await within(place, (store) => use(store, place))
      } finally {
        place.remove()
      }
    })
  describe(`event store in ${world}: appending`, () => {
    appending(behaves)
    repeating(behaves)
    refusing(behaves)
    refusingUnstorable(behaves)
  })
  describe(`event store in ${world}: reading`, () => reading(behaves))
  describe(`event store in ${world}: subscribing`, () => subscribing(behaves))
  describe(`event store in ${world}: snapshots`, () => snapshots(behaves))
  describe(`event store in ${world}: marks`, () => marks(behaves, makePlace))
  describe(`event store in ${world}: opening again`, () => {
    test("everything is there, and the chain goes on", async () => {
      const place = makePlace()
      try {
        const before = await within(place, (store) =>
          store.append([
            { stream: "vm/a", expectedRevision: -1, facts: drafts("a", 3) },
            { stream: "vm/b", expectedRevision: -1, facts: drafts("b", 2) }
          ])
        )
        await within(place, (store) =>
          Effect.gen(function* () {
            assert.deepEqual(yield* store.readAll(), before)
            const more = yield* store.append([{ stream: "vm/b", expectedRevision: 1, facts: drafts("c", 1) }])
            assert.equal(more[0]?.position, 6)
            assert.equal(more[0]?.revision, 2)
            assert.equal(more[0]?.previousHash, before.at(-1)?.hash)
            assert.deepEqual(yield* store.verify, yield* store.head)
          })
        )
      } finally {
        place.remove()
      }
    })
  })
}

type Behaves = (
  behaviour: string,
  use: (store: Store, place: StorePlace) => Effect.Effect<unknown, unknown, Digest>
) => void

function appending(behaves: Behaves): void {
  behaves("an empty store has the genesis hash at position 0", (store) =>
    Effect.gen(function* () {
      assert.deepEqual(yield* store.head, { position: 0, hash: genesisHash })
      assert.deepEqual(yield* store.verify, { position: 0, hash: genesisHash })
      assert.deepEqual(yield* store.readAll(), [])
      assert.deepEqual(yield* store.append([]), [])
      assert.deepEqual(yield* store.append([{ stream: "vm/a", expectedRevision: 7, facts: [] }]), [])
      assert.deepEqual(yield* store.streams(""), [])
    })
  )
  behaves("facts get positions, revisions and a hash chain over their canonical text", (store) =>
    Effect.gen(function* () {
      const { sha256 } = yield* Digest
      const difficult = {
        ...draft("a#2", {
          text: 'quote " backslash \\ \u2028 \u0000 \ud800 é 🦀',
          nested: { list: [1, null] }
        }),
        correlation: 'c "é" \\ \n \u007f',
        answers: "vm/a@0#0"
      }
      const facts = yield* store.append([
        { stream: "vm/a", expectedRevision: -1, facts: [draft("a#0"), draft("a#1")] },
        { stream: "host/b", expectedRevision: -1, facts: [draft("b#0")] },
        { stream: "vm/a", expectedRevision: 1, facts: [difficult] }
      ])
      assert.deepEqual(
        facts.map(({ position, stream, revision }) => [position, stream, revision]),
        [
          [1, "vm/a", 0],
          [2, "vm/a", 1],
          [3, "host/b", 0],
          [4, "vm/a", 2]
        ]
      )
      let previousHash = genesisHash
      for (const fact of facts) {
        assert.equal(fact.previousHash, previousHash)
        assert.equal(fact.hash, sha256(canonicalText(fact, JSON.stringify(fact.data), previousHash)))
        previousHash = fact.hash
      }
      assert.deepEqual(yield* store.readAll(), facts)
      assert.deepEqual(yield* store.head, { position: 4, hash: previousHash })
      assert.deepEqual(yield* store.verify, { position: 4, hash: previousHash })
    })
  )
}

function repeating(behaves: Behaves): void {
  behaves("what append returns is what a read returns, also where JSON is narrower", (store) =>
    Effect.gen(function* () {
      const data = { gone: undefined, zero: -0, none: Number.NaN, ["__proto__"]: { own: true } }
      const facts = yield* store.append([{ stream: "vm/a", expectedRevision: -1, facts: [draft("x", data)] }])
      assert.deepEqual(facts, yield* store.readAll())
      assert.deepEqual(Object.keys(facts[0]?.data ?? {}).sort(), ["__proto__", "none", "zero"])
    })
  )
  behaves("a repeated append stores nothing and returns the stored facts", (store) =>
    Effect.gen(function* () {
      const first = yield* store.append([{ stream: "vm/a", expectedRevision: -1, facts: drafts("a", 3) }])
      for (const expectedRevision of [-1, 0, 2, 9]) {
        const again = yield* store.append([{ stream: "vm/a", expectedRevision, facts: drafts("a", 3) }])
        assert.deepEqual(again, first)
      }
      const mixed = yield* store.append([
        { stream: "vm/b", expectedRevision: -1, facts: [draft("a#0")] },
        { stream: "vm/a", expectedRevision: -1, facts: [draft("a#1")] },
        { stream: "vm/b", expectedRevision: -1, facts: [draft("a#0")] }
      ])
      assert.deepEqual(
        mixed.map(({ stream, position }) => [stream, position]),
        [
          ["vm/b", 4],
          ["vm/a", 2],
          ["vm/b", 4]
        ]
      )
      assert.equal((yield* store.head).position, 4)
    })
  )
}

/** Append `facts` behind two good ones of another stream; the batch must fail as a whole. */
const refused = (store: Store, stream: string, expectedRevision: number, facts: ReadonlyArray<Draft>) =>
  Effect.flip(
    store.append([
      { stream: "vm/new", expectedRevision: -1, facts: drafts("new", 2) },
      { stream, expectedRevision, facts }
    ])
  )

function refusing(behaves: Behaves): void {
  behaves("a wrong revision is a conflict that says both, and nothing of the batch is kept", (store) =>
    Effect.gen(function* () {
      yield* store.append([{ stream: "vm/a", expectedRevision: -1, facts: drafts("a", 3) }])
      const head = yield* store.head
      for (const [stream, expected, actual] of [
        ["vm/a", 1, 2],
        ["vm/a", -1, 2],
        ["vm/a", 3, 2],
        ["vm/unknown", 0, -1]
      ] as const) {
        const error = yield* refused(store, stream, expected, drafts("other", 2))
        assert.deepEqual(error, new RevisionConflict({ stream, expected, actual }))
        assert.deepEqual(yield* store.head, head)
        assert.deepEqual(yield* store.streams(""), ["vm/a"])
      }
      yield* store.append([{ stream: "vm/new", expectedRevision: -1, facts: drafts("new", 1) }])
      yield* store.append([{ stream: "vm/a", expectedRevision: 2, facts: drafts("other", 1) }])
      assert.deepEqual(yield* store.verify, yield* store.head)
    })
  )
  behaves("a batch of which only some facts are stored is a conflict", (store) =>
    Effect.gen(function* () {
      yield* store.append([{ stream: "vm/a", expectedRevision: -1, facts: drafts("a", 2) }])
      for (const facts of [
        [draft("a#1"), draft("n")],
        [draft("n"), draft("a#1")],
        [draft("n"), draft("m"), draft("a#0")]
      ])
        for (const expected of [-1, 1]) {
          const error = yield* refused(store, "vm/a", expected, facts)
          assert.deepEqual(error, new RevisionConflict({ stream: "vm/a", expected, actual: 1 }))
        }
      assert.equal((yield* store.head).position, 2)
      assert.deepEqual(yield* store.readStream("vm/new"), [])
    })
  )
}

function refusingUnstorable(behaves: Behaves): void {
  behaves("what can't be stored as it is, is refused and nothing is kept", (store) =>
    Effect.gen(function* () {
      const bad: ReadonlyArray<readonly [string, ReadonlyArray<Draft>]> = [
        ["no-kind", drafts("a", 1)],
        ["vm/UPPER", drafts("a", 1)],
        ["vm/a", [draft("x"), draft("x")]],
        ["vm/a", [draft("x"), draft("lone \ud800")]],
        ["vm/a", [{ ...draft("x"), node: "nul \0" }]],
        ["vm/a", [{ ...draft("x"), timeMs: 0.5 }]],
        ["vm/a", [{ ...draft("x"), version: 2 ** 60 }]]
      ]
      for (const [stream, facts] of bad) {
        const error = yield* refused(store, stream, -1, facts)
        assert.ok(error instanceof StoreFailure, String(error))
        assert.equal((yield* store.head).position, 0)
        assert.deepEqual(yield* store.streams(""), [])
      }
      const cyclic: Record<string, unknown> = {}
      cyclic["self"] = cyclic
      const exit = yield* Effect.exit(refused(store, "vm/a", -1, [draft("x"), draft("y", cyclic)]))
      assert.ok(Exit.isFailure(exit), "a programmer's error is a defect")
      assert.equal((yield* store.head).position, 0)
      yield* store.append([{ stream: "vm/new", expectedRevision: -1, facts: drafts("new", 2) }])
      assert.equal((yield* store.verify).position, 2)
    })
  )
}

function reading(behaves: Behaves): void {
  const filled = (store: Store) =>
    store.append([
      { stream: "vm/a", expectedRevision: -1, facts: drafts("a", 3) },
      { stream: "vm/b", expectedRevision: -1, facts: drafts("b", 2) },
      { stream: "vm/a", expectedRevision: 2, facts: drafts("c", 2) }
    ])
  behaves("a stream is read from a revision, in both directions, up to a limit", (store) =>
    Effect.gen(function* () {
      yield* filled(store)
      const read = (options?: Parameters<Store["readStream"]>[1]) =>
        Effect.map(store.readStream("vm/a", options), ids)
      assert.deepEqual(yield* read(), ["a#0", "a#1", "a#2", "c#0", "c#1"])
      assert.deepEqual(yield* read({ from: 2 }), ["a#2", "c#0", "c#1"])
      assert.deepEqual(yield* read({ from: 1, limit: 2 }), ["a#1", "a#2"])
      assert.deepEqual(yield* read({ direction: "backwards", limit: 2 }), ["c#1", "c#0"])
      assert.deepEqual(yield* read({ direction: "backwards", from: 1 }), ["a#1", "a#0"])
      assert.deepEqual(yield* read({ direction: "backwards", from: -1 }), [])
      assert.deepEqual(yield* read({ from: 5 }), [])
      assert.deepEqual(yield* read({ limit: 0 }), [])
      assert.deepEqual(yield* store.readStream("vm/none"), [])
    })
  )
  behaves("all is read from a position, in both directions, up to a limit", (store) =>
    Effect.gen(function* () {
      yield* filled(store)
      const read = (options?: Parameters<Store["readAll"]>[0]) => Effect.map(store.readAll(options), ids)
      assert.deepEqual(yield* read(), ["a#0", "a#1", "a#2", "b#0", "b#1", "c#0", "c#1"])
      assert.deepEqual(yield* read({ from: 4, limit: 2 }), ["b#0", "b#1"])
      assert.deepEqual(yield* read({ from: 0, limit: 1 }), ["a#0"])
      assert.deepEqual(yield* read({ direction: "backwards", limit: 1 }), ["c#1"])
      assert.deepEqual(yield* read({ direction: "backwards", from: 2 }), ["a#1", "a#0"])
      assert.deepEqual(yield* read({ from: 8 }), [])
    })
  )
  behaves("a thousand facts are read unless told otherwise", (store) =>
    Effect.gen(function* () {
      yield* store.append([{ stream: "vm/a", expectedRevision: -1, facts: drafts("a", 1001) }])
      assert.equal((yield* store.readAll()).length, 1000)
      assert.equal((yield* store.readStream("vm/a", { direction: "backwards" })).length, 1000)
      assert.equal((yield* store.readAll({ limit: 2000 })).length, 1001)
    })
  )
  behaves("streams are found by prefix, in name order", (store) =>
    Effect.gen(function* () {
      for (const stream of ["vm/b", "host/x", "vm/a.1", "vm/a", "vmx/a", "vm/a-1"])
        yield* store.append([{ stream, expectedRevision: -1, facts: drafts("a", 1) }])
      assert.deepEqual(yield* store.streams("vm/"), ["vm/a", "vm/a-1", "vm/a.1", "vm/b"])
      assert.deepEqual(yield* store.streams("vm/a."), ["vm/a.1"])
      assert.deepEqual(yield* store.streams("zone/"), [])
      assert.equal((yield* store.streams("")).length, 6)
    })
  )
}

function subscribing(behaves: Behaves): void {
  behaves("a subscriber gets what is stored and then what comes, each fact once and in order", (store) =>
    Effect.gen(function* () {
      yield* store.append([{ stream: "vm/a", expectedRevision: -1, facts: drafts("a", 700) }])
      const all = yield* Effect.forkChild(Stream.runCollect(Stream.take(store.subscribe(0), 1000)))
      const late = yield* Effect.forkChild(Stream.runCollect(Stream.take(store.subscribe(990), 10)))
      for (let index = 0; index < 300; index++) {
        yield* store.append([{ stream: "vm/b", expectedRevision: index - 1, facts: [draft(`b#${index}`)] }])
        if (index % 7 === 0) yield* Effect.yieldNow
      }
      const facts = yield* Fiber.join(all)
      assert.deepEqual(facts, yield* store.readAll())
      assert.deepEqual(yield* Fiber.join(late), facts.slice(990))
    })
  )
  behaves("a slow subscriber holds nobody up and misses nothing", (store) =>
    Effect.gen(function* () {
      const slow = store.subscribe(0).pipe(
        Stream.mapEffect((fact) => Effect.as(Effect.yieldNow, fact.position)),
        Stream.take(600)
      )
      const fiber = yield* Effect.forkChild(Stream.runCollect(slow))
      yield* Effect.yieldNow
      for (let index = 0; index < 600; index++)
        yield* store.append([{ stream: "vm/a", expectedRevision: index - 1, facts: [draft(`a#${index}`)] }])
      const expected = Array.from({ length: 600 }, (_, index) => index + 1)
      assert.deepEqual(yield* Fiber.join(fiber), expected)
    })
  )
  behaves("an interrupted subscriber is forgotten, a failed append wakes nobody", (store) =>
    Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(Stream.runCollect(Stream.take(store.subscribe(0), 1)))
      yield* Effect.yieldNow
      yield* Effect.flip(store.append([{ stream: "vm/a", expectedRevision: 4, facts: drafts("a", 1) }]))
      yield* Effect.yieldNow
      assert.equal(fiber.pollUnsafe(), undefined)
      yield* Fiber.interrupt(fiber)
      yield* store.append([{ stream: "vm/a", expectedRevision: -1, facts: drafts("a", 1) }])
    })
  )
}

function snapshots(behaves: Behaves): void {
  const snapshot = (stream: string, revision: number, version: number, state = `{"at":${revision}}`) => ({
    stream,
    revision,
    position: revision + 10,
    version,
    state
  })
  behaves("the latest snapshot of a stream and version is kept", (store) =>
    Effect.gen(function* () {
      assert.equal(yield* store.loadSnapshot("vm/a", 1), null)
      yield* store.saveSnapshots([snapshot("vm/a", 5, 1), snapshot("vm/a", 3, 2), snapshot("vm/b", 1, 1)])
      yield* store.saveSnapshots([
        snapshot("vm/a", 4, 1),
        snapshot("vm/a", 8, 2),
        snapshot("vm/b", 1, 1, "[]")
      ])
      yield* store.saveSnapshots([])
      assert.deepEqual(yield* store.loadSnapshot("vm/a", 1), snapshot("vm/a", 5, 1))
      assert.deepEqual(yield* store.loadSnapshot("vm/a", 2), snapshot("vm/a", 8, 2))
      assert.deepEqual(yield* store.loadSnapshot("vm/b", 1), snapshot("vm/b", 1, 1, "[]"))
      assert.equal(yield* store.loadSnapshot("vm/b", 2), null)
      assert.equal((yield* store.verify).position, 0)
    })
  )
  behaves("snapshots are saved all or not at all", (store) =>
    Effect.gen(function* () {
      const bad = [snapshot("vm/a", 5, 1), snapshot("vm/b", 5, 1, '"\ud800"')]
      assert.ok((yield* Effect.flip(store.saveSnapshots(bad))) instanceof StoreFailure)
      assert.equal(yield* store.loadSnapshot("vm/a", 1), null)
    })
  )
}

const marked = (revision: number) => ({
  stream: "kernel/applied",
  revision,
  position: 0,
  version: 1,
  state: JSON.stringify({ index: revision })
})

function marks(behaves: Behaves, makePlace: () => StorePlace): void {
  behaves("a mark is there with its facts, and not when they are refused", (store) =>
    Effect.gen(function* () {
      const first = [{ stream: "vm/a", expectedRevision: -1, facts: drafts("a", 2) }]
      yield* store.append(first, marked(7))
      assert.equal((yield* store.loadSnapshot("kernel/applied", 1))?.revision, 7)
      const conflict = [{ stream: "vm/a", expectedRevision: 5, facts: drafts("b", 1) }]
      assert.ok((yield* Effect.flip(store.append(conflict, marked(8)))) instanceof RevisionConflict)
      assert.equal((yield* store.loadSnapshot("kernel/applied", 1))?.revision, 7)
      const unstorable = { ...marked(9), state: "\0" }
      const second = [{ stream: "vm/a", expectedRevision: 1, facts: drafts("c", 1) }]
      assert.ok((yield* Effect.flip(store.append(second, unstorable))) instanceof StoreFailure)
      assert.equal((yield* store.head).position, 2, "nor the facts without their mark")
      yield* store.append([], marked(10))
      yield* store.sync
      assert.equal((yield* store.loadSnapshot("kernel/applied", 1))?.revision, 10)
    })
  )
  behaves("which ids a stream holds", (store) =>
    Effect.gen(function* () {
      yield* store.append([{ stream: "vm/a", expectedRevision: -1, facts: drafts("a", 2) }])
      const looked = [
        { stream: "vm/a", id: "a#1" },
        { stream: "vm/a", id: "a#2" },
        { stream: "vm/b", id: "a#1" }
      ]
      assert.deepEqual(yield* store.holds(looked), [true, false, false])
    })
  )
  test("they are there again", async () => {
    const place = makePlace()
    try {
      const append = [{ stream: "vm/a", expectedRevision: -1, facts: drafts("a", 1) }]
      await within(place, (store) => Effect.andThen(store.append(append, marked(3)), store.sync))
      await within(place, (store) =>
        Effect.gen(function* () {
          assert.deepEqual(yield* store.loadSnapshot("kernel/applied", 1), marked(3))
          assert.deepEqual(yield* store.holds([{ stream: "vm/a", id: "a#0" }]), [true])
        })
      )
    } finally {
      place.remove()
    }
  })
}
