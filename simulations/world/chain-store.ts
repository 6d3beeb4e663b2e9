/**
 * An EventStore for more facts than are worth keeping in memory: it places each fact in its stream and in the hash chain as
 * every store does, hands it to whoever follows, and then keeps of it what it is told to. What a kernel reads back that never
 * restarts is how far each stream has come; snapshots are counted and not kept.
 */
import { Effect, Stream } from "effect"
import { canonicalText, genesisHash } from "../../src/events/envelope.ts"
import type { Draft, Recorded } from "../../src/events/envelope.ts"
import { EventStore, RevisionConflict } from "../../src/kernel/ports/event-store.ts"
import type { ReadOptions, StreamAppend } from "../../src/kernel/ports/event-store.ts"

export interface ChainOptions {
  readonly sha256: (text: string) => string
  /** Told of every fact once, in order, before its append returns; with the length of its data as JSON. */
  readonly follow: (fact: Recorded, dataLength: number) => void
  /** Whether this fact is kept, for who reads its stream or all facts. */
  readonly isKept: (fact: Recorded) => boolean
}

export class ChainStore {
  readonly #options: ChainOptions
  readonly #revisions = new Map<string, number>()
  readonly #kept = new Map<string, Array<Recorded>>()
  #last: Recorded | null = null
  #hash = genesisHash
  #position = 0
  snapshots = 0
  /** Of the facts' data, as JSON. */
  dataBytes = 0
  readonly service: EventStore["Service"]

  constructor(options: ChainOptions) {
    this.#options = options
    const head = Effect.sync(() => ({ position: this.#position, hash: this.#hash }))
    this.service = EventStore.of({
      append: (batch, mark) =>
        Effect.suspend(() => {
          if (mark !== undefined) this.snapshots++
          return this.#append(batch)
        }),
      // Of those that are kept, as everything that is read.
      holds: (facts) =>
        Effect.sync(() =>
          facts.map(({ stream, id }) => this.#kept.get(stream)?.some((fact) => fact.id === id) ?? false)
        ),
      sync: Effect.void,
      readStream: (stream, read = {}) => Effect.sync(() => this.readStream(stream, read)),
      readAll: ({ direction, limit } = {}) =>
        Effect.sync(() => (direction === "backwards" && limit === 1 && this.#last ? [this.#last] : [])),
      streams: () => Effect.succeed([]),
      head,
      subscribe: () => Stream.never,
      saveSnapshots: (snapshots) =>
        Effect.sync(() => {
          this.snapshots += snapshots.length
        }),
      loadSnapshot: () => Effect.succeed(null),
      verify: head
    })
  }

  get position(): number {
    return this.#position
  }

  get hash(): string {
    return this.#hash
  }

  get streams(): number {
    return this.#revisions.size
  }

  /** Those that were kept. */
  readStream(stream: string, { from = 0, limit = 1000 }: ReadOptions): ReadonlyArray<Recorded> {
    const facts = this.#kept.get(stream) ?? []
    return facts.filter(({ revision }) => revision >= from).slice(0, limit)
  }

  forget(stream: string): void {
    this.#kept.delete(stream)
  }

  #append(batch: ReadonlyArray<StreamAppend>): ReturnType<EventStore["Service"]["append"]> {
    for (const { stream, expectedRevision } of batch) {
      const actual = this.#revisions.get(stream) ?? -1
      if (actual !== expectedRevision)
        return Effect.fail(new RevisionConflict({ stream, expected: expectedRevision, actual }))
    }
    const recorded: Array<Recorded> = []
    for (const { stream, facts } of batch)
      for (const draft of facts) recorded.push(this.#place(stream, draft))
    return Effect.succeed(recorded)
  }

  #place(stream: string, draft: Draft): Recorded {
    const revision = (this.#revisions.get(stream) ?? -1) + 1
    const dataText = JSON.stringify(draft.data)
    const position = ++this.#position
    const placed = { position, stream, revision, ...draft }
    const previousHash = this.#hash
    const hash = this.#options.sha256(canonicalText(placed, dataText, previousHash))
    const fact: Recorded = { ...placed, previousHash, hash }
    this.#hash = hash
    this.#last = fact
    this.#revisions.set(stream, revision)
    this.dataBytes += dataText.length
    if (this.#options.isKept(fact)) {
      const kept = this.#kept.get(stream)
      if (kept === undefined) this.#kept.set(stream, [fact])
      else kept.push(fact)
    }
    this.#options.follow(fact, dataText.length)
    return fact
  }
}
