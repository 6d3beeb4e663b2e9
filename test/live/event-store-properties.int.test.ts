/** Random drafts and random operations: the text that is hashed, and both stores side by side. */
import assert from "node:assert/strict"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { test } from "node:test"
import { Effect, Exit, Layer } from "effect"
import * as fc from "fast-check"
import * as SimulatedDigest from "../../simulations/world/digest.ts"
import * as Simulated from "../../simulations/world/event-store.ts"
import { chainText } from "../../src/events/envelope.ts"
import type { Draft } from "../../src/events/envelope.ts"
import { Digest } from "../../src/kernel/ports/digest.ts"
import type { EventStore, StoreFailure } from "../../src/kernel/ports/event-store.ts"
import * as LiveDigest from "../../src/live/digest.ts"
import { decode, idOf, record, storableText } from "../../src/live/event-store/rows.ts"
import type { Row } from "../../src/live/event-store/rows.ts"
import { layer } from "../../src/live/event-store.ts"
import { within } from "../conformance/event-store.ts"
import type { Store } from "../conformance/event-store.ts"

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31))
console.log(`seed ${seed}`)

const text = fc.oneof(
  fc.string({ maxLength: 12 }),
  fc.string({ unit: "grapheme", maxLength: 12 }),
  fc.constantFrom("", '"', "\\", "\u2028", "\u007f", "\t")
)
const storable = text.filter((each) => each.isWellFormed() && !each.includes("\0"))

const draftWith = (id: fc.Arbitrary<string>): fc.Arbitrary<Draft> =>
  fc.record({
    id,
    type: storable,
    version: fc.integer({ min: 1, max: 9 }),
    timeMs: fc.maxSafeInteger(),
    correlation: storable,
    causation: storable,
    principal: fc.record({
      kind: fc.constantFrom("operator", "node", "actor", "system"),
      name: storable
    }),
    node: storable,
    answers: fc.option(storable),
    data: fc.dictionary(fc.string({ maxLength: 6 }), fc.jsonValue({ maxDepth: 3 }), { maxKeys: 4 })
  })

const stream = fc.constantFrom("vm/a", "vm/b", "host/c", "host/c-1")
const wrongRevision = fc.integer({ min: -2, max: 2 })

type Operation =
  | {
      readonly kind: "append"
      readonly parts: ReadonlyArray<{ stream: string; off: number; facts: ReadonlyArray<Draft> }>
    }
  | {
      readonly kind: "read"
      readonly stream: string | null
      readonly from: number | undefined
      readonly direction: "forwards" | "backwards"
      readonly limit: number
    }
  | { readonly kind: "streams"; readonly prefix: string }
  | {
      readonly kind: "save"
      readonly stream: string
      readonly revision: number
      readonly version: number
      readonly state: string
    }
  | { readonly kind: "load"; readonly stream: string; readonly version: number }
  | { readonly kind: "verify" }

const version = fc.constantFrom(1, 2)
// Few ids, so that repetitions, whole and partial, are common.
const id = fc.oneof({ weight: 2, arbitrary: fc.integer({ min: 0, max: 12 }).map((n) => `i${n}`) }, fc.uuid())
const operation: fc.Arbitrary<Operation> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("append" as const),
      parts: fc.array(
        fc.record({
          stream,
          off: fc.oneof({ weight: 6, arbitrary: fc.constant(0) }, wrongRevision),
          facts: fc.array(draftWith(id), { maxLength: 4 })
        }),
        { maxLength: 4 }
      )
    })
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("read" as const),
      stream: fc.option(stream),
      from: fc.option(fc.integer({ min: -2, max: 30 }), { nil: undefined }),
      direction: fc.constantFrom("forwards" as const, "backwards" as const),
      limit: fc.integer({ min: 0, max: 20 })
    })
  },
  fc.record({
    kind: fc.constant("streams" as const),
    prefix: fc.constantFrom("", "vm/", "host/c", "x", "host/c-")
  }),
  fc.record({
    kind: fc.constant("save" as const),
    stream,
    revision: fc.integer({ min: 0, max: 9 }),
    version,
    state: fc.json({ maxDepth: 2 }).filter((state) => state.isWellFormed())
  }),
  fc.record({ kind: fc.constant("load" as const), stream, version }),
  fc.record({ kind: fc.constant("verify" as const) })
)

/** What the operation gives: its value, or its typed error as data. */
function perform(store: Store, step: Operation): Effect.Effect<unknown, unknown> {
  switch (step.kind) {
    case "append":
      return Effect.gen(function* () {
        const staged = new Map<string, number>()
        const batch = []
        for (const { stream: name, off, facts } of step.parts) {
          const [last] = yield* store.readStream(name, { direction: "backwards", limit: 1 })
          const revision = staged.get(name) ?? last?.revision ?? -1
          batch.push({ stream: name, expectedRevision: revision + off, facts })
          staged.set(name, revision + facts.length)
        }
        return yield* store.append(batch)
      })
    case "read": {
      const { direction, limit } = step
      const options = step.from === undefined ? { direction, limit } : { direction, limit, from: step.from }
      return step.stream === null ? store.readAll(options) : store.readStream(step.stream, options)
    }
    case "streams":
      return store.streams(step.prefix)
    case "save": {
      const { stream: name, revision, version: of, state } = step
      return store.saveSnapshots([{ stream: name, revision, position: revision, version: of, state }])
    }
    case "load":
      return store.loadSnapshot(step.stream, step.version)
    case "verify":
      return store.verify
  }
}

const play = (
  place: { readonly layer: Layer.Layer<EventStore | Digest, unknown> },
  steps: ReadonlyArray<Operation>
) =>
  within(place, (store) =>
    Effect.gen(function* () {
      const results: Array<unknown> = []
      for (const step of steps) {
        const exit = yield* Effect.exit(perform(store, step))
        results.push(Exit.isSuccess(exit) ? exit.value : failureIn(exit))
        results.push(yield* store.head)
      }
      results.push(yield* store.verify, yield* store.readAll())
      return results
    })
  )

/** A failure's reason is each store's own wording; its tag and the revisions of a conflict are not. */
function failureIn(exit: Exit.Failure<unknown, unknown>): unknown {
  return exit.cause.reasons.map((reason) => {
    assert.equal(reason._tag, "Fail", String(reason))
    const { _tag, stream: name, expected, actual } = (reason as { error: Record<string, unknown> }).error
    return { _tag, name, expected, actual }
  })
}

const texts = [
  "id",
  "type",
  "correlation",
  "causation",
  "node",
  "answers",
  "principal.kind",
  "principal.name"
]

const withText = (draft: Draft, field: string, value: string): Draft =>
  field.startsWith("principal.")
    ? { ...draft, principal: { ...draft.principal, [field.slice("principal.".length)]: value } }
    : { ...draft, [field]: value }

test("the text of a fact is stored as it is hashed, and one that SQLite would change is refused by name", () => {
  const place = fc.record({ position: fc.nat(), stream, revision: fc.nat() })
  const field = fc.option(fc.constantFrom(...texts))
  const around = fc.tuple(storable, fc.constantFrom("\0", "\ud800", "\udfff"), storable)
  const digit = fc.constantFrom("0", "f")
  const asRow = new DatabaseSync(":memory:").prepare("select ?, 1, ?, ?, ?")
  asRow.setReturnArrays(true)
  const property = fc.property(
    place,
    draftWith(storable),
    field,
    around,
    digit,
    (at, right, wrong, bad, of) => {
      const draft = wrong === null ? right : withText(right, wrong, bad.join(""))
      const dataText = JSON.stringify(draft.data)
      if (wrong !== null) {
        const refused = ({ reason }: StoreFailure) => reason.startsWith(`${wrong} "`)
        return assert.throws(() => storableText(draft, dataText), refused)
      }
      const { position, revision } = at
      const previousHash = of.repeat(64)
      const text = storableText(draft, dataText)
      const { id, type, version, timeMs, correlation, causation, principal, node, answers } = draft
      const said = [id, type, version, timeMs, correlation, causation, principal.kind, principal.name]
      const all = [previousHash, position, at.stream, revision, ...said, node, answers, dataText]
      assert.equal(chainText(previousHash, position, at.stream, revision, text), JSON.stringify(all))
      const row = asRow.get(position, revision, text, "hash") as unknown as Row
      const expected = record(position, at.stream, revision, draft, dataText, previousHash)
      assert.deepEqual(decode(row, at.stream, previousHash), { ...expected, hash: "hash" })
      assert.equal(idOf(text), id)
    }
  )
  fc.assert(property, { seed, numRuns: 2000 })
})

test("SHA-256 is the same in both worlds", async () => {
  const digest = (of: Layer.Layer<Digest>) =>
    Effect.runPromise(Effect.provide(Effect.flatMap(Digest, Effect.succeed), of))
  const live = await digest(LiveDigest.layer)
  const simulated = await digest(SimulatedDigest.layer)
  // FIPS 180-4, example of one block.
  const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
  assert.equal(live.sha256("abc"), abc)
  const property = fc.property(fc.string({ unit: "binary", maxLength: 300 }), (each) => {
    assert.equal(live.sha256(each), simulated.sha256(each))
  })
  fc.assert(property, { seed, numRuns: 300 })
})

test("random operations give the same results, errors and hashes in both worlds", async () => {
  const folder = mkdtempSync(join(tmpdir(), "novacron-differential-"))
  let run = 0
  try {
    const property = fc.asyncProperty(
      fc.array(operation, { minLength: 1, maxLength: 25 }),
      fc.array(operation, { maxLength: 8 }),
      fc.constantFrom(1, 3, 10, 8192),
      async (before, after, indexAfterFacts) => {
        const path = join(folder, `${run++}.db`)
        const store = layer({ path, durability: "normal", indexAfterFacts })
        const live = { layer: Layer.provideMerge(Layer.fresh(store), LiveDigest.layer) }
        const disk = Simulated.memoryDisk()
        const simulated = {
          layer: Layer.provideMerge(Layer.fresh(Simulated.layer(disk)), SimulatedDigest.layer)
        }
        // Twice, so that what is found when the store is opened again is compared too.
        for (const steps of [before, after])
          assert.deepEqual(await play(live, steps), await play(simulated, steps))
      }
    )
    await fc.assert(property, { seed, numRuns: 120 })
  } finally {
    rmSync(folder, { recursive: true })
  }
})
