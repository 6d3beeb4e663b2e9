/** The event store: streams of facts in one total order, with a hash chain, and snapshots beside them. */
import { Context, Schema } from "effect"
import type { Effect, Stream } from "effect"
import type { Draft, Recorded } from "../../events/envelope.ts"

/** Facts for one stream. `expectedRevision` is the revision of its last fact, -1 for a new stream. */
export interface StreamAppend {
  readonly stream: string
  readonly expectedRevision: number
  readonly facts: ReadonlyArray<Draft>
}

export interface Snapshot {
  readonly stream: string
  readonly revision: number
  readonly position: number
  readonly version: number
  /** JSON text; byte-identical for equal histories. */
  readonly state: string
}

export interface ReadOptions {
  /** First revision (of a stream) or position (of all) to return, in the direction of reading. */
  readonly from?: number
  readonly direction?: "forwards" | "backwards"
  /** At most this many; 1000 unless told. */
  readonly limit?: number
}

export interface Head {
  readonly position: number
  readonly hash: string
}

/** The stream's last revision is not the expected one: someone else appended. Load again and decide again. */
export class RevisionConflict extends Schema.TaggedError<RevisionConflict>()("RevisionConflict", {
  stream: Schema.String,
  expected: Schema.Int,
  actual: Schema.Int
}) {
  override get message(): string {
    return `${this.stream} is at revision ${this.actual}, not at ${this.expected}`
  }
}

/** The store can't do its work: disk full, file locked, file damaged. Nothing of the call was kept. */
export class StoreFailure extends Schema.TaggedError<StoreFailure>()("StoreFailure", {
  operation: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `the event store could not ${this.operation}: ${this.reason}`
  }
}

/** What is stored is not what was written: `position` is the first fact that does not verify. */
export class StoreDamaged extends Schema.TaggedError<StoreDamaged>()("StoreDamaged", {
  path: Schema.String,
  position: Schema.Int,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.path} is damaged at position ${this.position}: ${this.reason}`
  }
}

export class EventStore extends Context.Service<
  EventStore,
  {
    /**
     * Append to one or more streams, all or nothing, durable when it returns. A fact whose id is already stored
     * in that stream is not stored again: when every fact of a `StreamAppend` is already there, its stored form
     * is returned; when only some are, that is a `RevisionConflict`. One fact comes back for each that was given, in order.
     * `mark` is saved with the facts, both or neither. A store that was opened to be behind another log answers before
     * anything is durable, and keeps a beginning of what it was given; `sync` says up to where.
     */
    readonly append: (
      batch: ReadonlyArray<StreamAppend>,
      mark?: Snapshot
    ) => Effect.Effect<ReadonlyArray<Recorded>, RevisionConflict | StoreFailure>
    /** For each of these whether its stream has a fact with this id. */
    readonly holds: (
      facts: ReadonlyArray<{ readonly stream: string; readonly id: string }>
    ) => Effect.Effect<ReadonlyArray<boolean>, StoreFailure>
    /** Ends when everything that was appended before is durable. */
    readonly sync: Effect.Effect<void, StoreFailure>
    readonly readStream: (
      stream: string,
      options?: ReadOptions
    ) => Effect.Effect<ReadonlyArray<Recorded>, StoreFailure>
    readonly readAll: (options?: ReadOptions) => Effect.Effect<ReadonlyArray<Recorded>, StoreFailure>
    /** Stream names with this prefix (`vm/`), in name order. */
    readonly streams: (prefix: string) => Effect.Effect<ReadonlyArray<string>, StoreFailure>
    readonly head: Effect.Effect<Head, StoreFailure>
    /** Everything after `position`, then what is appended from now on, in order, without gaps; never ends. */
    readonly subscribe: (position: number) => Stream.Stream<Recorded, StoreFailure>
    readonly saveSnapshots: (snapshots: ReadonlyArray<Snapshot>) => Effect.Effect<void, StoreFailure>
    /** The latest snapshot of the stream with this version. */
    readonly loadSnapshot: (stream: string, version: number) => Effect.Effect<Snapshot | null, StoreFailure>
    /** Recompute the hash chain of the whole store. */
    readonly verify: Effect.Effect<Head, StoreDamaged | StoreFailure>
  }
>()("novacron/kernel/ports/EventStore") {}
