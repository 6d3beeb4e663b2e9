/**
 * The EventStore port in memory: the boring reference that the live one is compared with, and the store of a
 * simulated node. What is stored lies on a `MemoryDisk`, which outlives the store as a disk outlives a process.
 */
import { Effect, Layer, Option, Schema, Stream } from "effect"
import type { Scope } from "effect"
import { canonicalText, genesisHash } from "../../src/events/envelope.ts"
import type { Draft, Recorded } from "../../src/events/envelope.ts"
import { Stream as StreamName } from "../../src/events/fields.ts"
import { Digest } from "../../src/kernel/ports/digest.ts"
import {
  EventStore,
  RevisionConflict,
  StoreDamaged,
  StoreFailure
} from "../../src/kernel/ports/event-store.ts"
import type { Head, ReadOptions, Snapshot, StreamAppend } from "../../src/kernel/ports/event-store.ts"

export type StoredFact = Omit<Recorded, "data"> & { readonly dataText: string }

export type Operation =
  | "append"
  | "readStream"
  | "readAll"
  | "streams"
  | "head"
  | "subscribe"
  | "saveSnapshots"
  | "loadSnapshot"
  | "verify"

export interface MemoryDisk {
  /** For error messages. */
  readonly path: string
  /** Position n lies at n - 1. A test that plays a bad disk may change what lies here. */
  readonly facts: Array<StoredFact>
  /** By stream and version. */
  readonly snapshots: Map<string, Snapshot>
  /** Asked before each operation: the reason why the disk refuses it now, or null. */
  fault: (operation: Operation) => string | null
}

export const memoryDisk = (path = "memory"): MemoryDisk => ({
  path,
  facts: [],
  snapshots: new Map(),
  fault: () => null
})

const limitDefault = 1000
const subscriptionChunkFacts = 256
const isStreamName = Schema.is(StreamName)
const storable = (text: string): boolean => text.isWellFormed() && !text.includes("\0")

const toRecorded = ({ dataText, ...fact }: StoredFact): Recorded => ({
  ...fact,
  principal: { ...fact.principal },
  data: JSON.parse(dataText) as Record<string, unknown>
})

const refuse = (reason: string): StoreFailure => new StoreFailure({ operation: "append", reason })

/** Why SQLite could not give this draft back as it is, or null. */
function unstorable(draft: Draft): string | null {
  const texts = [draft.id, draft.type, draft.correlation, draft.causation, draft.principal.kind]
  texts.push(draft.principal.name, draft.node, draft.answers ?? "")
  const text = texts.find((each) => !storable(each))
  if (text !== undefined) return `${JSON.stringify(text)} must be well-formed Unicode without NUL`
  const integer = [draft.version, draft.timeMs].find((each) => !Number.isSafeInteger(each))
  return integer === undefined ? null : `${integer} must be a safe integer`
}

interface StoredStream {
  readonly facts: Array<StoredFact>
  readonly byId: Map<string, StoredFact>
}

class Memory {
  readonly #disk: MemoryDisk
  readonly #sha256: (text: string) => string
  /** The facts of each stream, in order; what `append` may take back is at the end. */
  readonly #streams = new Map<string, StoredStream>()
  #waiting = new Set<() => void>()
  #closed = false

  constructor(disk: MemoryDisk, sha256: (text: string) => string) {
    this.#disk = disk
    this.#sha256 = sha256
    for (const fact of disk.facts) this.#keep(fact)
  }

  close(): void {
    this.#closed = true
    this.#wakeAll()
  }

  #wakeAll(): void {
    const woken = this.#waiting
    this.#waiting = new Set()
    for (const wake of woken) wake()
  }

  #keep(fact: StoredFact): void {
    let stream = this.#streams.get(fact.stream)
    if (stream === undefined) this.#streams.set(fact.stream, (stream = { facts: [], byId: new Map() }))
    stream.facts.push(fact)
    stream.byId.set(fact.id, fact)
  }

  get head(): Head {
    const last = this.#disk.facts.at(-1)
    return { position: last?.position ?? 0, hash: last?.hash ?? genesisHash }
  }

  attempt<A>(operation: Operation, work: () => A): Effect.Effect<A, StoreFailure> {
    return Effect.suspend(() => {
      const reason = this.#closed ? `${this.#disk.path} is closed` : this.#disk.fault(operation)
      return reason === null ? Effect.succeed(work()) : Effect.fail(new StoreFailure({ operation, reason }))
    })
  }

  append(
    batch: ReadonlyArray<StreamAppend>,
    mark: Snapshot | undefined
  ): ReadonlyArray<Recorded> | RevisionConflict | StoreFailure {
    const before = this.#disk.facts.length
    let kept = false
    try {
      const recorded: Array<StoredFact> = []
      for (const append of batch) {
        const result = this.#appendToStream(append)
        if (!Array.isArray(result)) return result
        recorded.push(...result)
      }
      const returned = recorded.map(toRecorded)
      const refused = mark === undefined ? null : this.saveSnapshots([mark])
      if (refused !== null) return refused
      kept = true
      if (this.#disk.facts.length > before) this.#wakeAll()
      return returned
    } finally {
      if (!kept) this.#takeBack(before)
    }
  }

  holds({ stream, id }: { readonly stream: string; readonly id: string }): boolean {
    return this.#streams.get(stream)?.byId.has(id) ?? false
  }

  #takeBack(length: number): void {
    for (const fact of this.#disk.facts.splice(length)) {
      const stream = this.#streams.get(fact.stream)
      stream?.facts.pop()
      stream?.byId.delete(fact.id)
      if (stream?.facts.length === 0) this.#streams.delete(fact.stream)
    }
  }

  #appendToStream(append: StreamAppend): Array<StoredFact> | RevisionConflict | StoreFailure {
    const { stream, expectedRevision, facts } = append
    if (facts.length === 0) return []
    if (!isStreamName(stream)) return refuse(`stream ${JSON.stringify(stream)} is not kind/name`)
    const there = this.#streams.get(stream)
    const stored = facts.map(({ id }) => there?.byId.get(id))
    const found = stored.filter((fact) => fact !== undefined)
    if (found.length === facts.length) return found
    const ids = facts.map((draft) => draft.id)
    const repeated = ids.find((id, index) => ids.indexOf(id) < index)
    if (repeated !== undefined) return refuse(`${stream}: id ${repeated} is twice in one append`)
    const actual = (there?.facts.length ?? 0) - 1
    if (found.length > 0 || actual !== expectedRevision)
      return new RevisionConflict({ stream, expected: expectedRevision, actual })
    const added: Array<StoredFact> = []
    for (const draft of facts) {
      const reason = unstorable(draft)
      if (reason !== null) return refuse(reason)
      added.push(this.#place(stream, draft))
    }
    return added
  }

  #place(stream: string, draft: Draft): StoredFact {
    const { position, hash: previousHash } = this.head
    const { data, principal, ...rest } = draft
    const dataText = JSON.stringify(data)
    const { kind, name } = principal
    const placed = {
      position: position + 1,
      stream,
      revision: this.#streams.get(stream)?.facts.length ?? 0,
      ...rest,
      principal: { kind, name }
    }
    const hash = this.#sha256(canonicalText(placed, dataText, previousHash))
    const fact = { ...placed, previousHash, hash, dataText }
    this.#disk.facts.push(fact)
    this.#keep(fact)
    return fact
  }

  readAll(options: ReadOptions): ReadonlyArray<Recorded> {
    return read(this.#disk.facts, 1, options)
  }

  readStream(stream: string, options: ReadOptions): ReadonlyArray<Recorded> {
    return read(this.#streams.get(stream)?.facts ?? [], 0, options)
  }

  streams(prefix: string): ReadonlyArray<string> {
    return [...this.#streams.keys()].filter((name) => name.startsWith(prefix)).sort()
  }

  subscribe(position: number): Stream.Stream<Recorded, StoreFailure> {
    type Step = readonly [ReadonlyArray<Recorded>, Option.Option<number>]
    const next = (last: number): Effect.Effect<Step, StoreFailure> =>
      Effect.flatMap(
        this.attempt("subscribe", () => this.readAll({ from: last + 1, limit: subscriptionChunkFacts })),
        (facts) => {
          const reached = facts.at(-1)?.position
          if (reached === undefined) return Effect.flatMap(this.#after(last), () => next(last))
          return Effect.succeed([facts, Option.some(reached)] as const)
        }
      )
    return Stream.paginate(position, next)
  }

  #after(position: number): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      const wake = () => resume(Effect.void)
      if (this.#closed || this.head.position > position) wake()
      else this.#waiting.add(wake)
      return Effect.sync(() => {
        this.#waiting.delete(wake)
      })
    })
  }

  saveSnapshots(snapshots: ReadonlyArray<Snapshot>): StoreFailure | null {
    const bad = snapshots.find(({ state }) => !storable(state))
    if (bad !== undefined) {
      const reason = `the state of ${bad.stream} must be well-formed Unicode without NUL`
      return new StoreFailure({ operation: "saveSnapshots", reason })
    }
    for (const { stream, revision, position, version, state } of snapshots) {
      const key = `${version} ${stream}`
      const stored = this.#disk.snapshots.get(key)
      if (stored === undefined || stored.revision <= revision)
        this.#disk.snapshots.set(key, { stream, revision, position, version, state })
    }
    return null
  }

  loadSnapshot(stream: string, version: number): Snapshot | null {
    return this.#disk.snapshots.get(`${version} ${stream}`) ?? null
  }

  verify(): Head | StoreDamaged {
    let previousHash = genesisHash
    for (const [index, fact] of this.#disk.facts.entries()) {
      const damaged = (reason: string) =>
        new StoreDamaged({ path: this.#disk.path, position: index + 1, reason })
      if (fact.position !== index + 1) return damaged("the fact is missing")
      if (fact.previousHash !== previousHash) return damaged("its previous hash is not the hash before it")
      if (this.#sha256(canonicalText(fact, fact.dataText, previousHash)) !== fact.hash)
        return damaged("its content does not match its hash")
      previousHash = fact.hash
    }
    return this.head
  }
}

/** `facts[i]` has the number `first + i`; `from` counts in these numbers. */
function read(
  facts: ReadonlyArray<StoredFact>,
  first: number,
  { from, direction, limit = limitDefault }: ReadOptions
): ReadonlyArray<Recorded> {
  const backwards = direction === "backwards"
  const start = from ?? (backwards ? Number.MAX_SAFE_INTEGER : 0)
  if (!Number.isSafeInteger(start) || !Number.isSafeInteger(limit) || limit < 0)
    throw new RangeError(`from ${start} and limit ${limit} must be whole numbers, limit not negative`)
  const begin = Math.max(0, start - first)
  const end = Math.max(0, Math.min(facts.length, start - first + 1))
  const selected = backwards
    ? facts.slice(Math.max(0, end - limit), end).reverse()
    : facts.slice(begin, begin + limit)
  return selected.map(toRecorded)
}

function service(memory: Memory): EventStore["Service"] {
  return EventStore.of({
    append: (batch, mark) =>
      Effect.flatMap(
        memory.attempt("append", () => memory.append(batch, mark)),
        (result) =>
          result instanceof RevisionConflict || result instanceof StoreFailure
            ? Effect.fail(result)
            : Effect.succeed(result)
      ),
    holds: (facts) => memory.attempt("append", () => facts.map((fact) => memory.holds(fact))),
    sync: memory.attempt("append", () => undefined),
    readStream: (stream, options = {}) =>
      memory.attempt("readStream", () => memory.readStream(stream, options)),
    readAll: (options = {}) => memory.attempt("readAll", () => memory.readAll(options)),
    streams: (prefix) => memory.attempt("streams", () => memory.streams(prefix)),
    head: memory.attempt("head", () => memory.head),
    subscribe: (position) => memory.subscribe(position),
    saveSnapshots: (snapshots) =>
      Effect.flatMap(
        memory.attempt("saveSnapshots", () => memory.saveSnapshots(snapshots)),
        (problem) => (problem === null ? Effect.void : Effect.fail(problem))
      ),
    loadSnapshot: (stream, version) =>
      memory.attempt("loadSnapshot", () => memory.loadSnapshot(stream, version)),
    verify: Effect.flatMap(
      memory.attempt("verify", () => memory.verify()),
      (result) => (result instanceof StoreDamaged ? Effect.fail(result) : Effect.succeed(result))
    )
  })
}

/** A store on `disk` for as long as the scope lives; afterwards its calls fail and its subscriptions end. */
export const openEventStore = (
  disk: MemoryDisk
): Effect.Effect<EventStore["Service"], never, Digest | Scope.Scope> =>
  Effect.flatMap(Digest, ({ sha256 }) =>
    Effect.acquireRelease(
      Effect.sync(() => new Memory(disk, sha256)),
      (memory) => Effect.sync(() => memory.close())
    )
  ).pipe(Effect.map(service))

/** `openEventStore` as a layer, on a new disk unless given one. */
export const layer = (disk: MemoryDisk = memoryDisk()): Layer.Layer<EventStore, never, Digest> =>
  Layer.effect(EventStore, openEventStore(disk))
