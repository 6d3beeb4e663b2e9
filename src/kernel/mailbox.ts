/**
 * The kernel's door. Inputs of all actors stand in one bounded line; a single fiber takes what has gathered, runs
 * the turns in order and appends their facts in one durable write (group commit). Only then are callers answered
 * and requests handed on: persist, then send.
 */
import { Clock, Context, Effect, Latch, Schema } from "effect"
import type { Recorded } from "../events/envelope.ts"
import type { ActorKind } from "./actor.ts"
import { EventStore } from "./ports/event-store.ts"
import type { RevisionConflict, StoreFailure, StreamAppend } from "./ports/event-store.ts"
import { load } from "./replay.ts"
import { emptyActor, takeTurn } from "./turn.ts"
import type { ActorState, Input, Outstanding, Turn } from "./turn.ts"

/** The actor is not in a state for this command. `allowed` and `unmet` are read from its chart. */
export class CommandRefused extends Schema.TaggedError<CommandRefused>()("CommandRefused", {
  stream: Schema.String,
  command: Schema.String,
  state: Schema.String,
  allowed: Schema.Array(Schema.String),
  unmet: Schema.Array(Schema.String)
}) {
  override get message(): string {
    const why =
      this.unmet.length > 0
        ? `the condition ${this.unmet.join(" or ")} does not hold`
        : `allowed now: ${this.allowed.join(", ") || "nothing"}`
    return `${this.stream} is ${this.state}: ${this.command} is refused; ${why}`
  }
}

/** The line is full; nothing of the command was kept, and the same command may be sent again. */
export class Overloaded extends Schema.TaggedError<Overloaded>()("Overloaded", {
  waiting: Schema.Int,
  waiting_max: Schema.Int
}) {}

/** No actor of this kind. */
export class UnknownKind extends Schema.TaggedError<UnknownKind>()("UnknownKind", {
  stream: Schema.String,
  allowed: Schema.Array(Schema.String)
}) {}

export interface Accepted {
  readonly stream: string
  readonly revision: number
  readonly position: number
  readonly facts: ReadonlyArray<Recorded>
  /** The same command had been accepted before; nothing was recorded this time. */
  readonly duplicate: boolean
}

export type SubmitError = CommandRefused | Overloaded | UnknownKind | StoreFailure | RevisionConflict

export interface Considered {
  readonly turn: Turn
  readonly actor: ActorState
}

export class Mailbox extends Context.Service<
  Mailbox,
  {
    readonly submit: (input: Input) => Effect.Effect<Accepted, SubmitError>
    /** What `submit` would do now, through the same code, with nothing kept: the dry run. */
    readonly consider: (
      input: Input
    ) => Effect.Effect<Considered, CommandRefused | UnknownKind | StoreFailure>
    readonly state: (stream: string) => Effect.Effect<ActorState, UnknownKind | StoreFailure>
    /** Requests of committed turns, in order; set once, before the first submit. */
    readonly onRequests: (take: (stream: string, asked: ReadonlyArray<Outstanding>) => void) => void
    /** The actors now in memory. */
    readonly resident: () => ReadonlyMap<string, ActorState>
  }
>()("novacron/kernel/Mailbox") {}

export interface MailboxOptions {
  readonly kinds: ReadonlyArray<ActorKind>
  readonly node: string
  readonly waiting_max?: number
  readonly batch_max?: number
  /** Actors recovered at start; the mailbox owns the map from then on. */
  readonly residents?: Map<string, ActorState>
}

const conflictRetries_max = 5

interface Waiting {
  readonly input: Input
  readonly resume: (answer: Effect.Effect<Accepted, SubmitError>) => void
}

/** Starts the line's fiber in the surrounding scope. */
export const makeMailbox = Effect.fn("Mailbox.make")(function* (options: MailboxOptions) {
  const store = yield* EventStore
  const kinds = new Map(options.kinds.map((kind) => [kind.kind, kind]))
  const waiting_max = options.waiting_max ?? 10_000
  const batch_max = options.batch_max ?? 256
  const residents = options.residents ?? new Map<string, ActorState>()
  const gathered = Latch.makeUnsafe(false)
  let waiting: Array<Waiting> = []
  let onRequests: (stream: string, asked: ReadonlyArray<Outstanding>) => void = () => {}
  let lastMs = 0

  const kindOf = (stream: string): ActorKind | undefined => kinds.get(stream.slice(0, stream.indexOf("/")))
  const unknown = (stream: string) => new UnknownKind({ stream, allowed: [...kinds.keys()] })

  const resident = Effect.fnUntraced(function* (stream: string) {
    const known = residents.get(stream)
    if (known) return known
    const kind = kindOf(stream)
    if (!kind) return yield* unknown(stream)
    return yield* load(store, kind, stream)
  })

  /** Run the turns of a batch on staged states, append once, then commit. Conflicts decide again, bounded. */
  const runBatch = Effect.fnUntraced(function* (batch: ReadonlyArray<Waiting>): Effect.fn.Return<void> {
    for (const one of batch) {
      // Loaded before the turns, so that these run without a pause between them.
      if (!residents.has(one.input.stream) && kindOf(one.input.stream)) {
        residents.set(one.input.stream, yield* resident(one.input.stream).pipe(Effect.orDie))
      }
    }
    for (let attempt = 1; ; attempt++) {
      lastMs = Math.max(lastMs, yield* Clock.currentTimeMillis)
      const staged = stage(batch, residents, kindOf, unknown, lastMs, options.node)
      if (staged.appends.size === 0) return staged.settle([], residents, onRequests)
      const result = yield* Effect.result(store.append([...staged.appends.values()]))
      if (result._tag === "Success") return staged.settle(result.success, residents, onRequests)
      const error = result.failure
      if (error._tag === "RevisionConflict" && attempt < conflictRetries_max) {
        // One by one, so that an input the store already holds does not hold up the others.
        if (batch.length > 1) {
          residents.delete(error.stream)
          for (const one of batch) yield* runBatch([one])
          return
        }
        const kind = kindOf(error.stream)
        if (kind) residents.set(error.stream, yield* load(store, kind, error.stream).pipe(Effect.orDie))
        continue
      }
      return staged.fail(error)
    }
  })

  const line = Effect.gen(function* () {
    for (;;) {
      yield* gathered.await
      // One turn of the scheduler lets the others who are about to submit join this batch.
      yield* Effect.yieldNow
      const batch = waiting.slice(0, batch_max)
      waiting = waiting.slice(batch_max)
      if (waiting.length === 0) gathered.closeUnsafe()
      const died = yield* runBatch(batch).pipe(Effect.exit)
      if (died._tag === "Failure") for (const one of batch) one.resume(Effect.failCause(died.cause))
    }
  })
  yield* Effect.forkScoped(line)

  return Mailbox.of({
    submit: (input) =>
      Effect.callback((resume) => {
        // Answers to our own requests are never turned away: the requests that bring them are bounded.
        if (waiting.length >= waiting_max && input.answers === null) {
          resume(Effect.fail(new Overloaded({ waiting: waiting.length, waiting_max })))
          return
        }
        waiting.push({ input, resume })
        gathered.openUnsafe()
      }),
    consider: Effect.fn("Mailbox.consider")(function* (input) {
      const kind = kindOf(input.stream)
      if (!kind) return yield* unknown(input.stream)
      const actor = yield* resident(input.stream)
      const now = Math.max(lastMs, yield* Clock.currentTimeMillis)
      const turn = takeTurn(kind, actor, input, now, options.node)
      if (turn.outcome === "refuse") return yield* refused(input, turn)
      return { turn, actor }
    }),
    state: resident,
    onRequests: (take) => {
      onRequests = take
    },
    resident: () => residents
  })
})

const refused = (input: Input, turn: Extract<Turn, { outcome: "refuse" }>) =>
  new CommandRefused({
    stream: input.stream,
    command: input.message.type,
    state: turn.state,
    allowed: turn.allowed,
    unmet: turn.unmet
  })

interface Staged {
  readonly appends: ReadonlyMap<string, StreamAppend>
  readonly settle: (
    recorded: ReadonlyArray<Recorded>,
    residents: Map<string, ActorState>,
    onRequests: (stream: string, asked: ReadonlyArray<Outstanding>) => void
  ) => void
  readonly fail: (error: SubmitError) => void
}

/** All turns of a batch, on copies: nothing is visible until `settle`. */
function stage(
  batch: ReadonlyArray<Waiting>,
  residents: ReadonlyMap<string, ActorState>,
  kindOf: (stream: string) => ActorKind | undefined,
  unknown: (stream: string) => UnknownKind,
  timeMs: number,
  node: string
): Staged {
  const states = new Map<string, ActorState>()
  const appends = new Map<string, { stream: string; expectedRevision: number; facts: Array<never> }>()
  const turns: Array<{ one: Waiting; turn: Turn | null; error: unknown }> = []
  for (const one of batch) {
    const { stream } = one.input
    const kind = kindOf(stream)
    if (!kind) {
      turns.push({ one, turn: null, error: unknown(stream) })
      continue
    }
    const actor = states.get(stream) ?? residents.get(stream) ?? emptyActor(kind, stream)
    try {
      const turn = takeTurn(kind, actor, one.input, timeMs, node)
      turns.push({ one, turn, error: null })
      if (turn.outcome !== "record") continue
      states.set(stream, turn.next)
      const append = appends.get(stream) ?? { stream, expectedRevision: actor.revision, facts: [] }
      append.facts.push(...(turn.drafts as ReadonlyArray<never>))
      appends.set(stream, append)
    } catch (defect) {
      // One actor's bug must not take the others' turns with it; the caller sees the defect.
      turns.push({ one, turn: null, error: defect })
    }
  }
  const answerRest = () => {
    for (const { one, turn, error } of turns) {
      if (turn === null) one.resume(error instanceof UnknownKind ? Effect.fail(error) : Effect.die(error))
      else if (turn.outcome === "refuse") one.resume(Effect.fail(refused(one.input, turn)))
    }
  }
  return {
    appends,
    fail: (error) => {
      answerRest()
      for (const { one, turn } of turns) {
        if (turn !== null && turn.outcome !== "refuse") one.resume(Effect.fail(error))
      }
    },
    settle: (recorded, live, onRequests) => {
      const places = new Map<string, Recorded>()
      for (const fact of recorded) places.set(`${fact.stream} ${fact.id}`, fact)
      for (const [stream, state] of states) {
        const last = appends.get(stream)?.facts.at(-1) as { id: string } | undefined
        const place = last && places.get(`${stream} ${last.id}`)
        if (place && place.revision === state.revision)
          live.set(stream, { ...state, position: place.position })
        // The store had these facts already, older than the actor remembers: its own state stands.
        else live.delete(stream)
      }
      for (const { one, turn } of turns) {
        if (turn === null || turn.outcome === "refuse") continue
        const { stream } = one.input
        const facts =
          turn.outcome === "record" ? turn.drafts.map((draft) => places.get(`${stream} ${draft.id}`)!) : []
        const state = live.get(stream)
        one.resume(
          Effect.succeed({
            stream,
            revision: facts.at(-1)?.revision ?? state?.revision ?? -1,
            position: facts.at(-1)?.position ?? state?.position ?? 0,
            facts,
            duplicate: turn.outcome === "duplicate" || state === undefined
          })
        )
      }
      answerRest()
      for (const { one, turn } of turns) {
        if (turn?.outcome === "record" && turn.requests.length > 0)
          onRequests(one.input.stream, turn.requests)
      }
    }
  }
}
