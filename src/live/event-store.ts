/**
 * The EventStore port on one SQLite file, by `node:sqlite`: write-ahead log, one writer, every commit synced.
 *
 * Beside `path` lie `path-wal` and `path-shm` (SQLite's), `path.lock` (the writer's lock) and `path.head` (the
 * acknowledged head). SQLite works synchronously, but for the sync of a commit, which `event-store/log-sync.ts` does
 * beside the event loop, and the copying of the log into the file, which a thread does: an append is answered, and seen by
 * readers, when it is on the disk. Callers commit in groups.
 * See `event-store/integrity.ts` for what is guaranteed by what.
 */
import { existsSync, mkdirSync, realpathSync } from "node:fs"
import type { DatabaseSync } from "node:sqlite"
import { basename, dirname, join, resolve } from "node:path"
import { Effect, Layer, Option, Stream } from "effect"
import type { Scope } from "effect"
import type { Recorded } from "../events/envelope.ts"
import { genesisHash } from "../events/envelope.ts"
import { Digest } from "../kernel/ports/digest.ts"
import { EventStore, RevisionConflict, StoreDamaged, StoreFailure } from "../kernel/ports/event-store.ts"
import type { Head, Snapshot, StreamAppend } from "../kernel/ports/event-store.ts"
import { Appender } from "./event-store/appender.ts"
import { Checkpointer } from "./event-store/checkpointer.ts"
import { failureOf, isDamage, isSystemError, StoreLocked } from "./event-store/errors.ts"
import { StoreUnsupported } from "./event-store/errors.ts"
import { openHeadFile } from "./event-store/head-file.ts"
import type { HeadFile } from "./event-store/head-file.ts"
import {
  ChainWalk,
  checkAcknowledged,
  checkPages,
  checkSnapshots,
  checkTail
} from "./event-store/integrity.ts"
import { snapshotText } from "./event-store/integrity.ts"
import type { IntegritySource } from "./event-store/integrity.ts"
import { takeWriterLock } from "./event-store/lock.ts"
import type { WriterLock } from "./event-store/lock.ts"
import { LogSync } from "./event-store/log-sync.ts"
import { Reader } from "./event-store/reader.ts"
import { checkHeader, factsIn, openFile, upgrade } from "./event-store/schema.ts"
import { IndexWalk, openIndex } from "./event-store/stream-index.ts"
import type { StreamIndex } from "./event-store/stream-index.ts"
import { Waiters } from "./event-store/waiters.ts"

export interface SqliteOptions {
  /** The file; it and its folder are made when missing. */
  readonly path: string
  /**
   * `full` (the default) answers an append when it is synced. `normal` may lose the last commits in a power failure, which the
   * next opening may report as damage: they were acknowledged. `behind` is for a journal whose facts another log has too: an
   * append is answered before it is synced, a power failure may take the last ones, and only what `sync` has seen is acknowledged.
   */
  readonly durability?: "full" | "normal" | "behind"
  /** How long to wait for another program that has the file in use, 5000 unless told. */
  readonly busyTimeoutMs?: number
  /** Appends fail when the file would become larger; as large as the disk unless told. */
  readonly sizeBytesMax?: number
  /** How many of the last facts are verified at opening, 1000 unless told. */
  readonly tailFacts?: number
  /** Files up to this size have all their pages checked at opening, 64 MiB unless told. */
  readonly quickCheckBytesMax?: number
  /** The index of streams is written when there are this many facts that it lacks, 8192 unless told. */
  readonly indexAfterFacts?: number
}

export type OpenError = StoreLocked | StoreUnsupported | StoreDamaged | StoreFailure

/** A subscriber that lags reads this many at a time; nothing is queued for it. */
const subscriptionChunkFacts = 256

interface Opened {
  readonly source: IntegritySource
  readonly index: StreamIndex
  readonly busyTimeoutMs: number
  readonly lock: WriterLock
  readonly headFile: HeadFile
  readonly head: Head
  readonly durability: "full" | "normal" | "behind"
  /** Null with durability `normal`. */
  readonly log: LogSync | null
}

/** Symbolic links are resolved: two names of one file must meet at one lock. */
function realPath(path: string): string {
  const absolute = resolve(path)
  // Not recursively: node never returns from that where a file system refuses without a reason, as /proc does.
  if (!existsSync(dirname(absolute))) mkdirSync(dirname(absolute), { mode: 0o700 })
  try {
    return realpathSync(absolute)
  } catch (error) {
    if (!isSystemError(error) || error.code !== "ENOENT") throw error
    return join(realpathSync(dirname(absolute)), basename(absolute))
  }
}

function openLocked(
  path: string,
  options: SqliteOptions,
  sha256: (text: string) => string,
  lock: WriterLock
) {
  const state = checkHeader(path)
  if (state instanceof StoreUnsupported) return state
  const durability = options.durability ?? "full"
  const headFile = openHeadFile(`${path}.head`, sha256)
  let database: DatabaseSync | undefined
  const refuse = <E>(error: E): E => {
    if (database?.isOpen) database.close()
    headFile.close()
    return error
  }
  try {
    const { acknowledged } = headFile
    if (acknowledged === "damaged")
      return refuse(
        new StoreDamaged({ path: headFile.path, position: 0, reason: "the head file is unreadable" })
      )
    // Before SQLite sees it: it would delete the log beside an empty file.
    if (state === "new" && acknowledged !== null && acknowledged.position > 0)
      return refuse(new StoreDamaged({ path, position: 1, reason: "the file is empty" }))
    const settings = {
      path,
      busyTimeoutMs: options.busyTimeoutMs ?? 5000,
      sizeBytesMax: options.sizeBytesMax ?? Number.MAX_SAFE_INTEGER
    }
    const opened = openFile(settings, state)
    if (opened instanceof StoreUnsupported || opened instanceof StoreDamaged) return refuse(opened)
    database = opened
    const found: IntegritySource = { path, database, facts: factsIn(database), sha256 }
    const limits = {
      tailFacts: options.tailFacts ?? 1000,
      quickCheckBytesMax: options.quickCheckBytesMax ?? 64 * 1024 * 1024
    }
    const head = checkTail(found, acknowledged, limits)
    if (head instanceof StoreDamaged) return refuse(head)
    upgrade(database)
    const source = { ...found, facts: factsIn(database) }
    const index = openIndex(source, head.position, options.indexAfterFacts ?? 8192)
    if (index instanceof StoreDamaged) return refuse(index)
    return {
      source,
      index,
      busyTimeoutMs: settings.busyTimeoutMs,
      lock,
      headFile,
      head,
      durability,
      log: durability === "normal" ? null : new LogSync(`${path}-wal`)
    }
  } catch (error) {
    return refuse(openError(path, error))
  }
}

const openError = (path: string, error: unknown): StoreDamaged | StoreFailure =>
  isDamage(error)
    ? new StoreDamaged({ path, position: 0, reason: (error as Error).message })
    : failureOf("open", path, error)

function open(options: SqliteOptions, sha256: (text: string) => string): Opened | OpenError {
  let path = options.path
  try {
    path = realPath(options.path)
    const lock = takeWriterLock(path, process.pid)
    if (lock instanceof StoreLocked || lock instanceof StoreFailure) return lock
    let kept = false
    try {
      const opened = openLocked(path, options, sha256, lock)
      kept = "source" in opened
      return opened
    } finally {
      if (!kept) lock.release()
    }
  } catch (error) {
    return openError(path, error)
  }
}

type Appended = ReadonlyArray<Recorded> | RevisionConflict

class Store {
  readonly #opened: Opened
  readonly #path: string
  readonly #reader: Reader
  readonly #appender: Appender
  readonly #checkpointer: Checkpointer
  readonly #waiters = new Waiters()
  /** The last fact that is on the disk; those behind it are committed, and nobody's to see yet. */
  #head: Head
  /** The facts of the last append: who follows the store reads them from here and not from the disk again. */
  #latest: ReadonlyArray<Recorded> = []
  #closed = false

  constructor(opened: Opened, warn: (reason: string) => void) {
    const { index, source } = opened
    const { database, path, sha256 } = source
    this.#opened = opened
    this.#path = path
    this.#reader = new Reader(source, index)
    this.#appender = new Appender(database, index, sha256, opened.head)
    this.#checkpointer = new Checkpointer({ path, busyTimeoutMs: opened.busyTimeoutMs }, warn)
    this.#head = opened.head
    this.#writeHead(opened.head)
  }

  async close(): Promise<void> {
    this.#opened.log?.close()
    this.#closed = true
    this.#waiters.wakeAll()
    await this.#checkpointer.close()
    this.#opened.index.close()
    this.#opened.source.database.close()
    this.#opened.headFile.close()
    this.#opened.lock.release()
  }

  /** Run a synchronous piece of work; SQLite's errors become failures, a programmer's error a defect. */
  #attempt<A>(operation: string, work: () => A): Effect.Effect<A, StoreFailure> {
    return Effect.suspend(() => {
      if (this.#closed) return Effect.fail(new StoreFailure({ operation, reason: `${this.#path} is closed` }))
      try {
        return Effect.succeed(work())
      } catch (error) {
        return Effect.fail(failureOf(operation, this.#path, error))
      }
    })
  }

  #writeHead(head: Head): void {
    try {
      this.#opened.headFile.write(head)
    } catch (error) {
      // The facts are committed; an older acknowledged head only makes the next opening check less.
      if (!isSystemError(error)) throw error
    }
  }

  /** These facts, the last up to `head`, are on the disk. */
  #publish(head: Head, recorded: ReadonlyArray<Recorded>): void {
    const appended = head.position - this.#head.position
    if (appended <= 0) return
    // Repeated facts come back with their old positions, and others may have come between; then the disk is read.
    this.#latest = recorded.length === appended ? recorded : []
    this.#head = head
    if (this.#opened.durability !== "behind") this.#writeHead(head)
    this.#waiters.wakeAll()
  }

  /** In one transaction. A conflict is an answer here: it must not undo what others wait for. */
  #commit(batch: ReadonlyArray<StreamAppend>, mark: Snapshot | undefined): Appended {
    try {
      return this.#appender.append(batch, mark === undefined ? null : () => this.#reader.writeSnapshot(mark))
    } catch (error) {
      if (error instanceof RevisionConflict) return error
      throw error
    }
  }

  /** What nobody waits for. */
  #tend(): void {
    this.#appender.tendIndex()
    this.#checkpointer.written(this.#appender.takeWrittenBytes())
  }

  /** Commits at once; ends when the commit is on the disk. What was committed stays so when nobody waits any more. */
  #append(
    batch: ReadonlyArray<StreamAppend>,
    mark: Snapshot | undefined
  ): Effect.Effect<ReadonlyArray<Recorded>, RevisionConflict | StoreFailure> {
    return Effect.callback((resume) => {
      const fail = (error: unknown) => {
        try {
          resume(Effect.fail(failureOf("append", this.#path, error)))
        } catch (defect) {
          resume(Effect.die(defect))
        }
      }
      try {
        if (this.#closed) throw new StoreFailure({ operation: "append", reason: `${this.#path} is closed` })
        const recorded = this.#commit(batch, mark)
        if (recorded instanceof RevisionConflict) return resume(Effect.fail(recorded))
        const { head } = this.#appender
        const synced = () => {
          this.#publish(head, recorded)
          resume(Effect.succeed(recorded))
        }
        const { durability, log } = this.#opened
        // Facts that are stored already may still wait for their sync, as the first who appended them does.
        const isKnown = mark === undefined && head.position === this.#head.position
        if (log === null || durability === "behind" || isKnown) {
          synced()
          return this.#tend()
        }
        log.request((error) => {
          if (error === null) return synced()
          this.#appender.breakOff(error)
          fail(error)
        })
        // While the disk is at the facts.
        this.#tend()
      } catch (error) {
        fail(error)
      }
    })
  }

  /** The head that is acknowledged then is the one of now. */
  readonly #sync: Effect.Effect<void, StoreFailure> = Effect.callback((resume) => {
    const { durability, log } = this.#opened
    const head = this.#appender.head
    const fail = (error: unknown) => resume(Effect.fail(failureOf("sync", this.#path, error)))
    if (this.#closed) return fail(new Error("it is closed"))
    if (log === null) return resume(Effect.void)
    try {
      log.request((error) => {
        if (error !== null) {
          this.#appender.breakOff(error)
          return fail(error)
        }
        if (durability === "behind") this.#writeHead(head)
        resume(Effect.void)
      })
    } catch (error) {
      fail(error)
    }
  })

  #saveSnapshots(snapshots: ReadonlyArray<Snapshot>): void {
    if (snapshots.length === 0) return
    this.#appender.transaction(() => {
      for (const snapshot of snapshots) this.#reader.writeSnapshot(snapshot)
    })
    this.#checkpointer.written(snapshots.reduce((bytes, { state }) => bytes + state.length, 0))
  }

  #loadSnapshot(stream: string, version: number): Effect.Effect<Snapshot | null, StoreFailure> {
    return Effect.flatMap(
      this.#attempt("loadSnapshot", () => this.#reader.readSnapshot(stream, version)),
      (found) => {
        if (found === null) return Effect.succeed(null)
        const { hash, ...snapshot } = found
        const { revision, position, state } = snapshot
        const { sha256 } = this.#opened.source
        if (sha256(snapshotText(stream, version, revision, position, state)) === hash)
          return Effect.succeed(snapshot)
        // Facts are the truth: without its snapshot the stream is replayed from the beginning.
        return Effect.as(Effect.logWarning(`${this.#path}: ignored a damaged snapshot of ${stream}`), null)
      }
    )
  }

  /** Synchronous up to the registration, so that no append can come between looking and waiting. */
  #after(position: number): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      if (this.#closed || this.#head.position > position) {
        resume(Effect.void)
        return Effect.void
      }
      return this.#waiters.add(() => resume(Effect.void))
    })
  }

  /** Up to a chunk of the facts after this position, which is before the head. */
  #following(position: number): ReadonlyArray<Recorded> {
    const skipped = position + 1 - (this.#latest[0]?.position ?? Number.POSITIVE_INFINITY)
    return skipped >= 0
      ? this.#latest.slice(skipped, skipped + subscriptionChunkFacts)
      : this.#reader.readAll({ from: position + 1, limit: subscriptionChunkFacts }, this.#head.position)
  }

  #subscribe(position: number): Stream.Stream<Recorded, StoreFailure> {
    const next = (
      last: number
    ): Effect.Effect<readonly [ReadonlyArray<Recorded>, Option.Option<number>], StoreFailure> =>
      Effect.flatMap(
        this.#attempt("subscribe", () => (this.#head.position <= last ? [] : this.#following(last))),
        (facts) => {
          const reached = facts.at(-1)?.position
          if (reached === undefined) return Effect.flatMap(this.#after(last), () => next(last))
          return Effect.succeed([facts, Option.some(reached)] as const)
        }
      )
    return Stream.paginate(position, next)
  }

  /** Step by step to the end; others run in between. */
  readonly #walk = Effect.fnUntraced(function* (this: Store, step: () => "more" | "done" | StoreDamaged) {
    for (;;) {
      const taken = yield* this.#attempt("verify", step)
      if (taken instanceof StoreDamaged) return yield* taken
      if (taken === "done") return
      yield* Effect.yieldNow
    }
  })

  /** In chunks of some milliseconds, up to the head at the beginning; others run in between. */
  readonly #verify = Effect.fnUntraced(function* (this: Store) {
    const { source, headFile } = this.#opened
    const head = this.#head
    const walk = new ChainWalk(source, { position: 0, hash: genesisHash })
    yield* this.#walk(() => walk.step(head.position))
    const index = new IndexWalk(source)
    yield* this.#walk(() => index.step())
    const reached = { position: walk.position, hash: walk.hash }
    const acknowledged = headFile.acknowledged === "damaged" ? null : headFile.acknowledged
    const problem = yield* this.#attempt(
      "verify",
      () =>
        checkAcknowledged(source, acknowledged, reached) ??
        checkAcknowledged(source, head, reached) ??
        checkPages(source, "full") ??
        checkSnapshots(source)
    )
    if (problem !== null) return yield* problem
    return reached
  })

  service(): EventStore["Service"] {
    return EventStore.of({
      append: (batch, mark) => this.#append(batch, mark),
      holds: (facts) =>
        this.#attempt("holds", () => facts.map(({ stream, id }) => this.#appender.holds(stream, id))),
      sync: this.#sync,
      readStream: (stream, options = {}) =>
        this.#attempt("readStream", () => this.#reader.readStream(stream, options, this.#head.position)),
      readAll: (options = {}) =>
        this.#attempt("readAll", () => this.#reader.readAll(options, this.#head.position)),
      streams: (prefix) => this.#attempt("streams", () => this.#reader.streams(prefix)),
      head: this.#attempt("head", () => this.#head),
      subscribe: (position) => this.#subscribe(position),
      saveSnapshots: (snapshots) => this.#attempt("saveSnapshots", () => this.#saveSnapshots(snapshots)),
      loadSnapshot: (stream, version) => this.#loadSnapshot(stream, version),
      verify: this.#verify()
    })
  }
}

/**
 * Open the store at `options.path` for as long as the scope lives. Fails with `StoreLocked` when another writer
 * has it, `StoreUnsupported` when the file is not ours or newer, `StoreDamaged` when what is stored is not what
 * was written, `StoreFailure` when the disk or the rights say no.
 */
export const openEventStore = (
  options: SqliteOptions
): Effect.Effect<EventStore["Service"], OpenError, Digest | Scope.Scope> =>
  Effect.acquireRelease(
    Effect.gen(function* () {
      const { sha256 } = yield* Digest
      const context = yield* Effect.context<never>()
      const opened = open(options, sha256)
      if (!("source" in opened)) return yield* Effect.fail(opened)
      const warn = (reason: string) => {
        const what = `${opened.source.path}: the log is copied by commits, as the thread for it failed: ${reason}`
        Effect.runForkWith(context)(Effect.logWarning(what))
      }
      return new Store(opened, warn)
    }),
    (store) => Effect.promise(() => store.close())
  ).pipe(Effect.map((store) => store.service()))

/** `openEventStore` as a layer. */
export const layer = (options: SqliteOptions): Layer.Layer<EventStore, OpenError, Digest> =>
  Layer.effect(EventStore, openEventStore(options))
