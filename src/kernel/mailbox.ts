/**
 * The kernel's door. Inputs of all actors stand in one bounded line; a fiber takes what has gathered, runs
 * the turns in order (`batch.ts`) and appends their facts in one durable write (group commit). Only then are callers
 * answered and requests handed on: persist, then send.
 *
 * While one batch is written another fiber decides the next, of other actors: a turn is only taken on a state that is durable.
 */
import { Clock, Context, Effect, Exit, Latch, Scheduler } from "effect"
import type { ActorKind } from "./actor.ts"
import { failBatch, kindOf, refusal, settle, stageBatch, unknownKind } from "./batch.ts"
import type { Answered, Caller, Kinds, RequestsTaker, Waiting } from "./batch.ts"
import { EventStore } from "./ports/event-store.ts"
import type { StoreFailure } from "./ports/event-store.ts"
import { Overloaded } from "./refusals.ts"
import type { Accepted, CommandRefused, SubmitError, UnknownKind } from "./refusals.ts"
import { load } from "./replay.ts"
import { Residents } from "./residents.ts"
import { takeTurn } from "./turn.ts"
import type { ActorState, Input, Outstanding, Turn } from "./turn.ts"

export interface Considered {
  readonly turn: Turn
  readonly actor: ActorState
}

export class Mailbox extends Context.Service<
  Mailbox,
  {
    readonly submit: (input: Input) => Effect.Effect<Accepted, SubmitError>
    /** `submit` for who has no fiber that could wait. */
    readonly offer: (input: Input, answered: Answered, caller?: Caller) => void
    /** What `submit` would do now, through the same code, with nothing kept: the dry run. */
    readonly consider: (
      input: Input
    ) => Effect.Effect<Considered, CommandRefused | UnknownKind | StoreFailure>
    readonly state: (stream: string) => Effect.Effect<ActorState, UnknownKind | StoreFailure>
    /** Requests of committed turns, in order; set once, before the first submit. */
    readonly onRequests: (take: (stream: string, asked: ReadonlyArray<Outstanding>) => void) => void
    /** The actors now in memory. */
    readonly resident: () => ReadonlyMap<string, ActorState>
    /** Inputs that stand in line. */
    readonly waiting: () => number
  }
>()("novacron/kernel/Mailbox") {}

export interface MailboxOptions {
  readonly kinds: ReadonlyArray<ActorKind>
  readonly node: string
  readonly waiting_max?: number
  readonly batch_max?: number
  /** How a turn is taken: a node measures it. */
  readonly takeTurn?: typeof takeTurn
  /** Actors recovered at start; the mailbox owns the map from then on. */
  readonly residents?: Residents
}

const conflictRetries_max = 5
const waitingDefault_max = 10_000
const batchDefault_max = 256

/** One is written while the next is decided; more only make the batches smaller. */
const underWay_max = 2

/** Half of so many callers are worth a sync of their own. */
const crowd_min = 32

/** Of so many actors it is kept that they are not under way. */
const idle_max = 4096

type Store = EventStore["Service"]

class Line {
  readonly store: Store
  readonly options: MailboxOptions
  readonly kinds: Kinds
  readonly residents: Residents
  /** Open when `run` has something to do. */
  readonly due = Latch.makeUnsafe(false)
  waiting: Array<Waiting> = []
  /**
   * The number of the batch that has an actor's inputs under way, and 0 when there is none any more. Those stay, up to a number: a map that
   * shrinks and grows leaves its tables behind, which are collected with the whole heap only. Not the batch itself, which would go with them.
   */
  readonly busy = new Map<string, number>()
  /** Of the batch that was begun last. */
  lastBatch = 0
  /** All that waits is for actors under way. */
  isBlocked = false
  batchesUnderWay = 0
  /** Inputs in those. */
  inputsUnderWay = 0
  /** Inputs in the batch that was begun last. */
  lastBatchSize = 0
  /** As many inputs as were in line and under way when the last batch ended: so many callers there seem to be. */
  crowd = 0
  onRequests: RequestsTaker = () => {}
  lastMs = 0

  constructor(store: Store, options: MailboxOptions) {
    this.store = store
    this.options = options
    this.residents = options.residents ?? new Residents()
    this.kinds = options.kinds
  }

  offer(input: Input, answered: Answered): void {
    const waiting_max = this.options.waiting_max ?? waitingDefault_max
    // Answers to our own requests are never turned away: the requests that bring them are bounded.
    if (this.waiting.length >= waiting_max && input.answers === null)
      return answered(Exit.fail(new Overloaded({ waiting: this.waiting.length, waiting_max })))
    this.waiting.push({ input, answered })
    if (!this.isBusy(input.stream)) this.isBlocked = false
    this.look()
  }

  private isBusy(stream: string): boolean {
    return (this.busy.get(stream) ?? 0) !== 0
  }

  /** The actor as it is now, from memory or from the store. */
  state(stream: string): Effect.Effect<ActorState, UnknownKind | StoreFailure> {
    return Effect.suspend((): Effect.Effect<ActorState, UnknownKind | StoreFailure> => {
      const known = this.residents.get(stream)
      if (known) return Effect.succeed(known)
      const kind = kindOf(this.kinds, stream)
      return kind ? load(this.store, kind, stream) : Effect.fail(unknownKind(this.kinds, stream))
    })
  }

  /** Time never goes back in the journal, whatever the clock does. */
  readonly now: Effect.Effect<number> = Effect.map(Clock.currentTimeMillis, (timeMs) => {
    this.lastMs = Math.max(this.lastMs, Math.floor(timeMs))
    return this.lastMs
  })

  consider(input: Input): Effect.Effect<Considered, CommandRefused | UnknownKind | StoreFailure> {
    return Effect.gen({ self: this }, function* () {
      const kind = kindOf(this.kinds, input.stream)
      if (!kind) return yield* unknownKind(this.kinds, input.stream)
      const actor = yield* this.state(input.stream)
      const turn = takeTurn(kind, actor, input, yield* this.now, this.options.node)
      if (turn.outcome === "refuse") return yield* refusal(input, turn)
      return { turn, actor }
    })
  }

  /** Never ends. As many run as batches may be under way. */
  run(): Effect.Effect<never> {
    return Effect.gen({ self: this }, function* () {
      for (;;) {
        yield* this.due.await
        // One turn of the scheduler lets the others who are about to submit join this batch.
        yield* Effect.yieldNow
        const batch = this.isDue() ? this.nextBatch() : []
        this.look()
        if (batch.length === 0) continue
        this.end(batch, yield* Effect.exit(this.runBatch(batch)))
      }
    })
  }

  /** Takes the next inputs out of the line: those whose actors are not under way, in order. */
  private nextBatch(): ReadonlyArray<Waiting> {
    const batch_max = this.options.batch_max ?? batchDefault_max
    const share = Math.min(batch_max, this.half() ?? batch_max)
    const number = ++this.lastBatch
    const batch: Array<Waiting> = []
    const others: Array<Waiting> = []
    for (const one of this.waiting) {
      const { stream } = one.input
      const by = this.busy.get(stream) ?? 0
      // Inputs of an actor that is in this batch can't go beside it: they come along.
      const isTaken = by === 0 ? batch.length < share : by === number && batch.length < batch_max
      if (isTaken) {
        batch.push(one)
        this.busy.set(stream, number)
      } else others.push(one)
    }
    this.waiting = others
    // What is left is of actors under way, or too much: then there is a next batch at once.
    this.isBlocked = batch.length < share
    if (batch.length > 0) {
      this.batchesUnderWay++
      this.inputsUnderWay += batch.length
      this.lastBatchSize = batch.length
    }
    return batch
  }

  private end(batch: ReadonlyArray<Waiting>, exit: Exit.Exit<void, StoreFailure>): void {
    // Who is back already, within his answer, counts twice: nothing of him is left to do beside a sync, and he is best served by one for all.
    this.crowd = this.waiting.length + this.inputsUnderWay
    this.batchesUnderWay--
    this.inputsUnderWay -= batch.length
    tellFailed(batch, exit)
    for (const { input } of batch) {
      if (this.busy.size > idle_max) this.busy.delete(input.stream)
      else this.busy.set(input.stream, 0)
      // Names that were only asked for, and refused, must not fill the memory.
      if (this.residents.get(input.stream)?.revision === -1) this.residents.delete(input.stream)
    }
    this.isBlocked = false
    this.look()
  }

  /**
   * Whether there is a batch to take. Each costs a commit, a sync and, where callers sleep, to wake them: beside another only one that is
   * as large is worth that, since the disk takes them one after the other anyway. A smaller one waits for more, or for that one's end.
   */
  private isDue(): boolean {
    if (this.waiting.length === 0 || this.isBlocked) return false
    return this.batchesUnderWay === 0 || this.waiting.length >= (this.half() ?? this.lastBatchSize)
  }

  /**
   * Of many callers one half is answered, read and decided while the other half's facts are on their way to the disk. When a batch
   * takes all that are there, a small and a large one take turns, and the large one's sync has nothing beside it. Null while there are few.
   */
  private half(): number | null {
    return this.crowd < crowd_min ? null : Math.ceil(this.crowd / 2)
  }

  /** Lets `run` go on when it has something to do. */
  private look(): void {
    if (this.isDue()) this.due.openUnsafe()
    else this.due.closeUnsafe()
  }

  // Two of these are made once and not for each batch. A generator function that is made anew gets, when it is called, a map
  // in the heap's old part, which holds all that the function sees until the whole heap is looked at: every request.

  /** Load what is not in memory, so that the turns run without a pause between them. */
  private readonly loadAll = Effect.fnUntraced(function* (this: Line, batch: ReadonlyArray<Waiting>) {
    for (const { input } of batch) {
      if (this.residents.has(input.stream)) continue
      const kind = kindOf(this.kinds, input.stream)
      if (!kind) continue
      this.residents.set(input.stream, yield* load(this.store, kind, input.stream))
    }
  })

  /**
   * Run the turns on staged states and append once. From the stamp to the call of `append` the other fiber must not run, or a
   * later time would stand before an earlier one in the journal.
   */
  private readonly decide = (batch: ReadonlyArray<Waiting>) =>
    Effect.flatMap(this.now, (timeMs) => {
      const { node, takeTurn: take = takeTurn } = this.options
      const staged = stageBatch(batch, this.residents, this.kinds, timeMs, node, take)
      const facts = [...staged.appends.values()]
      const appended = facts.length === 0 ? Effect.succeed([]) : this.store.append(facts)
      return Effect.map(Effect.result(appended), (result) => ({ staged, result }))
    }).pipe(Effect.provideService(Scheduler.PreventSchedulerYield, true))

  /** Decide, then settle. After a conflict they decide again, bounded. */
  private readonly runBatch: (batch: ReadonlyArray<Waiting>) => Effect.Effect<void, StoreFailure> =
    Effect.fnUntraced(function* (this: Line, batch: ReadonlyArray<Waiting>) {
      for (let attempt = 1; ; attempt++) {
        yield* this.loadAll(batch)
        const { staged, result } = yield* this.decide(batch)
        if (result._tag === "Success") return settle(staged, result.success, this.residents, this.onRequests)
        const error = result.failure
        if (error._tag !== "RevisionConflict" || attempt >= conflictRetries_max)
          return failBatch(staged, error)
        this.residents.forget(error.stream)
        // One by one, so that an input the store already holds does not hold up the others.
        if (batch.length > 1)
          return yield* Effect.forEach(batch, (one) => this.runAlone(one), { discard: true })
      }
    })

  private runAlone(one: Waiting): Effect.Effect<void> {
    return Effect.map(Effect.exit(this.runBatch([one])), (exit) => tellFailed([one], exit))
  }
}

/** Tells those whose batch ended without an answer. */
function tellFailed(batch: ReadonlyArray<Waiting>, exit: Exit.Exit<void, StoreFailure>): void {
  if (Exit.isFailure(exit)) for (const one of batch) one.answered(Exit.failCause(exit.cause))
}

/** Starts the line's fibers in the surrounding scope. */
export const makeMailbox = Effect.fn("Mailbox.make")(function* (options: MailboxOptions) {
  const store = yield* EventStore
  const line = new Line(store, options)
  // The clock may have been set back since the last run.
  const [latest] = yield* store.readAll({ direction: "backwards", limit: 1 })
  line.lastMs = latest?.timeMs ?? 0
  for (let n = 0; n < underWay_max; n++) yield* Effect.forkScoped(line.run())
  return Mailbox.of({
    submit: (input) => Effect.callback((resume) => line.offer(input, resume)),
    offer: (input, answered) => line.offer(input, answered),
    consider: (input) => line.consider(input),
    state: (stream) => line.state(stream),
    onRequests: (take) => {
      line.onRequests = take
    },
    resident: () => line.residents,
    waiting: () => line.waiting.length
  })
})
