/**
 * The kernel's door in a group of nodes: inputs are proposed in batches, a group orders them, and every node runs the turns of
 * what was ordered, in that order, with the leader's time. So all have the same journal, fact for fact and hash for hash.
 *
 * Persist, then send, here too: an input is durable when a majority has it in its log, before any turn is taken; the journal
 * follows the log, and the mark that says how far is saved with its facts.
 */
import { Clock, Effect, Latch, Random } from "effect"
import type { Entry } from "../events/raft.ts"
import { kindOf, refusal, settle, stageBatch, unknownKind } from "./batch.ts"
import type { RequestsTaker, Staged, Waiting } from "./batch.ts"
import { Installer } from "./installer.ts"
import { Mailbox } from "./mailbox.ts"
import type { Considered } from "./mailbox.ts"
import { decidedOf, loadMark, markSnapshot } from "./ordered.ts"
import type { Decided, InstallTarget, Mark } from "./ordered.ts"
import { Consensus, Unavailable } from "./ports/consensus.ts"
import type { SnapshotPlace } from "./ports/consensus.ts"
import { EventStore, StoreFailure } from "./ports/event-store.ts"
import type { Head } from "./ports/event-store.ts"
import type { CommandRefused, UnknownKind } from "./refusals.ts"
import { patienceDefaultMs, Proposals, sweepEveryMs } from "./proposals.ts"
import type { OrderedOptions, Parts } from "./proposals.ts"
import { load } from "./replay.ts"
import { takeTurn } from "./turn.ts"
import type { ActorState, Input } from "./turn.ts"

export interface OrderedMailbox {
  readonly mailbox: Mailbox["Service"]
  /** Ends when what can be read here is not older than the moment of asking. */
  readonly fresh: Effect.Effect<void, Unavailable>
}

/** Entries whose facts are appended in one transaction. */
const together_max = 64
const compactEveryDefault = 5_000

interface Install {
  readonly what: "install"
  readonly from: string
  readonly place: SnapshotPlace
  readonly done: (problem: string | null) => void
}

type Work =
  | { readonly what: "decided"; readonly entry: Decided }
  | { readonly what: "leads"; readonly isLeading: boolean; readonly term: number }
  | Install

/** What is decided, applied one after the other. */
class Applying {
  readonly #parts: Parts
  readonly #proposals: Proposals
  readonly #installer: Installer
  readonly #work = Latch.makeUnsafe(false)
  #queue: Array<Work> = []
  /** Members that offer their journal, each by its name. */
  readonly #heard = new Set<string>()
  #readers: Array<{ readonly index: number; readonly resume: () => void }> = []
  /** Everything up to here was applied, and made a journal that ends so. */
  #place: { readonly index: number; readonly term: number; readonly head: Head }
  #installing: Mark["installing"]
  #lastMs: number
  #compacted: number
  onRequests: RequestsTaker = () => {}

  constructor(parts: Parts, proposals: Proposals) {
    const { store, order, options, mark, head, lastMs } = parts
    this.#parts = parts
    this.#proposals = proposals
    this.#installer = new Installer(store, order, options.kinds, options.residents)
    this.#place = { index: mark.index, term: mark.term, head }
    this.#installing = mark.installing
    this.#lastMs = lastMs
    this.#compacted = mark.index
  }

  take(work: Work): void {
    this.#queue.push(work)
    this.#work.openUnsafe()
  }

  /** Who has a journal to fetch is remembered until one is whole: whoever began to give it may be gone by then. */
  offers(from: string): void {
    this.#heard.add(from)
  }

  offered(install: Install): void {
    this.offers(install.from)
    this.take(install)
  }

  /** All of them before any is applied: whoever opens the latch runs what waits behind it. */
  decided(entries: ReadonlyArray<Entry>): void {
    for (const entry of entries) this.#queue.push({ what: "decided", entry: decidedOf(entry) })
    this.#work.openUnsafe()
  }

  /** Null while the journal is at no index, or nothing was decided yet. */
  snapshot(): SnapshotPlace | null {
    const { index, term, head } = this.#place
    if (this.#installing !== null || index === 0) return null
    return { index, term, state: JSON.stringify({ index, term, position: head.position, hash: head.hash }) }
  }

  get lastMs(): number {
    return this.#lastMs
  }

  /** Ends only when the journal can't follow. */
  readonly run = Effect.fnUntraced(function* (this: Applying) {
    if (this.#installing !== null) yield* this.#finish(this.#installing)
    for (;;) {
      yield* this.#work.await
      // What is decided is told to the others, and the disk is given its work, before it is applied here.
      yield* Effect.yieldNow
      const [work] = this.#queue
      if (work === undefined) this.#work.closeUnsafe()
      else if (work.what === "decided") yield* this.#decided(this.#together())
      else {
        this.#queue.shift()
        if (work.what === "install") yield* this.#install(work)
        else {
          this.#proposals.performs(work.isLeading ? work.term : -1)
          this.#parts.options.leads(work.isLeading)
        }
      }
    }
  })

  /**
   * The next entries that are applied in one transaction. They are of different actors, so that it is as if one came after the
   * other, however many each node takes together.
   */
  #together(): ReadonlyArray<Decided> {
    const streams = new Set<string>()
    const entries: Array<Decided> = []
    let taken = 0
    for (const work of this.#queue) {
      if (work.what !== "decided" || entries.length >= together_max) break
      const own = work.entry.batch?.inputs ?? []
      if (own.some(({ stream }) => streams.has(stream))) break
      for (const { stream } of own) streams.add(stream)
      taken++
      // After a restart the log hands over again what the journal has.
      if (work.entry.index > this.#place.index) entries.push(work.entry)
    }
    this.#queue.splice(0, taken)
    return entries
  }

  readonly #decided = Effect.fnUntraced(function* (this: Applying, entries: ReadonlyArray<Decided>) {
    const last = entries.at(-1)
    if (last === undefined) return
    const { store, options } = this.#parts
    const waiting = entries.map((entry) => this.#proposals.waitingFor(entry))
    const repeated = yield* this.#repeated(entries)
    for (const { input } of waiting.flat()) yield* this.#load(input.stream)
    const staged = entries.map((entry, at) => this.#stage(entry, waiting[at] ?? [], repeated))
    const appends = staged.flatMap((one) => [...one.appends.values()])
    const { index, term } = last
    let recorded: Effect.Success<ReturnType<typeof store.append>> = []
    if (appends.length > 0) {
      const mark = markSnapshot({ index, term, installing: null })
      recorded = yield* this.#orStop(store.append(appends, mark))
    }
    const newest = recorded.at(-1)
    const head = newest === undefined ? this.#place.head : { position: newest.position, hash: newest.hash }
    this.#place = { index, term, head }
    let from = 0
    for (const one of staged) {
      let count = 0
      for (const { facts } of one.appends.values()) count += facts.length
      settle(one, recorded.slice(from, from + count), options.residents, this.onRequests)
      from += count
    }
    // Names that were only asked for, and refused, must not fill the memory.
    for (const { input } of waiting.flat())
      if (options.residents.get(input.stream)?.revision === -1) options.residents.delete(input.stream)
    this.#reached(true)
    if (index - this.#compacted >= (options.compactEvery ?? compactEveryDefault)) yield* this.#compact()
  })

  /** Those whose facts are in the journal already, longer ago than their actors remember. */
  readonly #repeated = Effect.fnUntraced(function* (this: Applying, entries: ReadonlyArray<Decided>) {
    // Progress repeats under one key, and its ids say which it is.
    const inputs = entries
      .flatMap(({ batch }) => batch?.inputs ?? [])
      .filter(({ answers }) => answers === null || answers.final)
    const looked = inputs.map(({ stream, id }) => ({ stream, id: `${id}#0` }))
    const held = yield* this.#orStop(this.#parts.store.holds(looked))
    return new Set(inputs.filter((_, at) => held[at]))
  })

  #stage({ timeMs, batch }: Decided, waiting: ReadonlyArray<Waiting>, repeated: ReadonlySet<Input>): Staged {
    const { kinds, residents, takeTurn: take = takeTurn } = this.#parts.options
    // Time never goes back in the journal, whatever the leaders' clocks do. What recorded nothing leaves no time behind: a node that
    // begins with the journal alone has to come to the same.
    const stampMs = Math.max(this.#lastMs, timeMs)
    const staged = stageBatch(waiting, residents, kinds, stampMs, batch?.node ?? "", take, repeated)
    if (staged.appends.size > 0) this.#lastMs = stampMs
    return staged
  }

  readonly #load = Effect.fnUntraced(function* (this: Applying, stream: string) {
    const { kinds, residents } = this.#parts.options
    const kind = residents.has(stream) ? undefined : kindOf(kinds, stream)
    if (kind) residents.set(stream, yield* this.#orStop(load(this.#parts.store, kind, stream)))
  })

  /** A node whose journal does not take what was decided is no replica any more: it says so, and ends. */
  #orStop<A>(work: Effect.Effect<A, { readonly message: string }>): Effect.Effect<A> {
    return work.pipe(
      Effect.catch((error) =>
        Effect.suspend(() => {
          const reason = `the journal can't follow what was decided: ${error.message}`
          const failure = new StoreFailure({ operation: "append", reason })
          this.#proposals.stop(failure)
          this.#parts.order.halt(reason)
          return Effect.die(failure)
        })
      )
    )
  }

  #reached(isSeen: boolean): void {
    const { index, term } = this.#place
    this.#proposals.reached(term, isSeen)
    if (this.#readers.length === 0) return
    const ready = this.#readers.filter((one) => one.index <= index)
    this.#readers = this.#readers.filter((one) => one.index > index)
    for (const { resume } of ready) resume()
  }

  /** What is in the journal, and on the disk there, the log need not have. */
  readonly #compact = Effect.fnUntraced(function* (this: Applying) {
    const { store, order } = this.#parts
    const { index, term } = this.#place
    yield* this.#orStop(store.append([], markSnapshot({ index, term, installing: null })))
    yield* this.#orStop(store.sync)
    this.#compacted = index
    order.applied(index)
  })

  readonly #install = Effect.fnUntraced(function* (this: Applying, { from, place, done }: Install) {
    const { index, term } = this.#place
    if (place.index <= index) return done(null)
    const before = { index, term, installing: null }
    const installed = yield* Effect.result(this.#installer.install(from, place, before))
    if (installed._tag === "Success") {
      yield* this.#installed(installed.success)
      return done(null)
    }
    const { message } = installed.failure
    yield* Effect.logWarning(`what ${from} has was not taken over: ${message}`)
    // A part of it may be there: then only the whole of it will do.
    const mark = yield* this.#orStop(loadMark(this.#parts.store))
    if (mark.installing === null) return done(message)
    yield* this.#finish(mark.installing)
    done(null)
  })

  readonly #finish = Effect.fnUntraced(function* (this: Applying, target: InstallTarget) {
    yield* this.#installed(yield* this.#installer.finish(target, () => [...this.#heard]))
  })

  readonly #installed = Effect.fnUntraced(function* (this: Applying, { index, term }: Mark) {
    this.#installing = null
    this.#heard.clear()
    this.#place = { index, term, head: yield* this.#orStop(this.#parts.store.head) }
    this.#lastMs = Math.max(this.#lastMs, this.#installer.lastMs)
    this.#compacted = index
    this.#reached(false)
  })

  /** One that was removed after it asked, and one that fetches a journal, may be behind for ever: within the patience of a caller. */
  readonly fresh = Effect.fnUntraced(function* (this: Applying): Effect.fn.Return<void, Unavailable> {
    const index = yield* this.#parts.order.readIndex
    if (index <= this.#place.index) return
    const { node, patienceMs = patienceDefaultMs } = this.#parts.options
    const orElse = () => {
      const reason = `it has applied ${this.#place.index}, and ${index} is needed, for ${patienceMs} ms`
      return Effect.fail(new Unavailable({ node, mayHappen: false, reason }))
    }
    yield* this.#reaches(index).pipe(Effect.timeoutOrElse({ duration: patienceMs, orElse }))
  })

  #reaches(index: number): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      const reader = { index, resume: () => resume(Effect.void) }
      this.#readers.push(reader)
      return Effect.sync(() => {
        this.#readers = this.#readers.filter((one) => one !== reader)
      })
    })
  }
}

/** What the actors are now, as far as this node has applied. */
const readState = (
  { options, store }: Parts,
  stream: string
): Effect.Effect<ActorState, UnknownKind | StoreFailure> =>
  Effect.suspend((): Effect.Effect<ActorState, UnknownKind | StoreFailure> => {
    const known = options.residents.get(stream)
    if (known) return Effect.succeed(known)
    const kind = kindOf(options.kinds, stream)
    return kind ? load(store, kind, stream) : Effect.fail(unknownKind(options.kinds, stream))
  })

const consider = Effect.fnUntraced(function* (
  parts: Parts,
  lastMs: number,
  input: Input
): Effect.fn.Return<Considered, CommandRefused | UnknownKind | StoreFailure> {
  const { kinds, node } = parts.options
  const kind = kindOf(kinds, input.stream)
  if (!kind) return yield* unknownKind(kinds, input.stream)
  const actor = yield* readState(parts, input.stream)
  const nowMs = Math.max(lastMs, Math.floor(parts.clock.currentTimeMillisUnsafe()))
  const turn = takeTurn(kind, actor, input, nowMs, node)
  if (turn.outcome === "refuse") return yield* refusal(input, turn)
  return { turn, actor }
})

/** Starts its fibers in the surrounding scope; `Consensus` hands over what is decided from now on. */
export const makeOrderedMailbox = Effect.fn("OrderedMailbox.make")(function* (options: OrderedOptions) {
  const store = yield* EventStore
  const order = yield* Consensus
  const [latest] = yield* store.readAll({ direction: "backwards", limit: 1 })
  const parts: Parts = {
    store,
    order,
    clock: yield* Clock.Clock,
    options,
    life: (yield* Random.nextIntBetween(0, 2 ** 48)).toString(36),
    mark: yield* loadMark(store),
    head: yield* store.head,
    lastMs: latest?.timeMs ?? 0
  }
  const proposals = new Proposals(parts)
  const applying = new Applying(parts, proposals)
  yield* Effect.forkScoped(proposals.run())
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.delay(
        Effect.sync(() => proposals.sweep()),
        sweepEveryMs
      )
    )
  )
  yield* Effect.forkScoped(
    applying.run().pipe(
      Effect.tapDefect((defect) =>
        Effect.andThen(
          Effect.logFatal("nothing is applied any more", defect),
          Effect.sync(() => order.halt(`nothing is applied any more: ${String(defect)}`))
        )
      )
    )
  )
  order.follow({
    decided: (entries) => applying.decided(entries),
    snapshot: () => applying.snapshot(),
    install: (from, place, done) => applying.offered({ what: "install", from, place, done }),
    offers: (from) => applying.offers(from),
    leads: (isLeading) => applying.take({ what: "leads", isLeading, term: order.status().term })
  })
  const mailbox = Mailbox.of({
    submit: (input) =>
      Effect.callback((resume) => {
        const caller = { isGone: false }
        proposals.offer(input, resume, caller)
        return Effect.sync(() => {
          caller.isGone = true
        })
      }),
    offer: (input, answered, caller) => proposals.offer(input, answered, caller),
    consider: (input) => consider(parts, applying.lastMs, input),
    state: (stream) => readState(parts, stream),
    onRequests: (take) => {
      applying.onRequests = take
    },
    resident: () => options.residents,
    waiting: () => proposals.waiting
  })
  return { mailbox, fresh: applying.fresh() } satisfies OrderedMailbox
})
