/** The turns of one batch, on copies of the states: nothing of them is visible before `settle`. */
import { Exit } from "effect"
import type { Draft, Recorded } from "../events/envelope.ts"
import type { ActorKind } from "./actor.ts"
import type { StreamAppend } from "./ports/event-store.ts"
import { CommandRefused, UnknownKind } from "./refusals.ts"
import type { Accepted, SubmitError } from "./refusals.ts"
import type { Residents } from "./residents.ts"
import { emptyActor } from "./turn.ts"
import type { takeTurn, ActorState, Input, Outstanding, Turn } from "./turn.ts"

export type Kinds = ReadonlyArray<ActorKind>
export type RequestsTaker = (stream: string, asked: ReadonlyArray<Outstanding>) => void

/** Told once what became of an input. Called between two turns of others, so it must not throw. */
export type Answered = (exit: Exit.Exit<Accepted, SubmitError>) => void

/** Who waits for an answer: when it is gone, what was not placed yet need not be. */
export interface Caller {
  readonly isGone: boolean
}

export interface Waiting {
  readonly input: Input
  readonly answered: Answered
}

/** They are few, and a look for each makes no text, as to cut the name of the kind out of the stream's would. */
export function kindOf(kinds: Kinds, stream: string): ActorKind | undefined {
  for (const kind of kinds) if (stream[kind.kind.length] === "/" && stream.startsWith(kind.kind)) return kind
  return undefined
}

export const unknownKind = (kinds: Kinds, stream: string) =>
  new UnknownKind({ stream, allowed: kinds.map(({ kind }) => kind) })

export const refusal = (input: Input, turn: Extract<Turn, { outcome: "refuse" }>) =>
  new CommandRefused({
    stream: input.stream,
    command: input.message.type,
    state: turn.state,
    allowed: turn.allowed,
    unmet: turn.unmet
  })

interface Append extends StreamAppend {
  readonly facts: Array<Draft>
  /** Where the first of them stands in what the store gives back, which has them all, in order. */
  firstRecorded: number
}

type Taken =
  | {
      readonly one: Waiting
      readonly turn: Turn
      /** Where the facts of a turn that records stand: in the append of its stream, from this place on. */
      readonly append: Append | null
      readonly from: number
    }
  /** No turn was taken: the answer is known, or a chart threw. */
  | { readonly one: Waiting; readonly turn: null; readonly answer: Exit.Exit<never, UnknownKind> }

export interface Staged {
  readonly states: ReadonlyMap<string, ActorState>
  readonly appends: ReadonlyMap<string, Append>
  readonly taken: ReadonlyArray<Taken>
}

const noInputs: ReadonlySet<Input> = new Set()
const repetition: Turn = { outcome: "duplicate" }

/**
 * Take the turns in order; each sees what the earlier ones of the batch made of its actor. Those in `repeated` are known to have
 * been recorded before, longer ago than their actors remember.
 */
export function stageBatch(
  batch: ReadonlyArray<Waiting>,
  residents: Pick<ReadonlyMap<string, ActorState>, "get">,
  kinds: Kinds,
  timeMs: number,
  node: string,
  take: typeof takeTurn,
  repeated: ReadonlySet<Input> = noInputs
): Staged {
  const states = new Map<string, ActorState>()
  const appends = new Map<string, Append>()
  const taken: Array<Taken> = []
  for (const one of batch) {
    const { stream } = one.input
    const kind = kindOf(kinds, stream)
    if (!kind) {
      taken.push({ one, turn: null, answer: Exit.fail(unknownKind(kinds, stream)) })
      continue
    }
    const actor = states.get(stream) ?? residents.get(stream) ?? emptyActor(kind, stream)
    try {
      const turn = repeated.has(one.input) ? repetition : take(kind, actor, one.input, timeMs, node)
      if (turn.outcome !== "record") {
        taken.push({ one, turn, append: null, from: 0 })
        continue
      }
      states.set(stream, turn.next)
      const before = appends.get(stream)
      const from = before === undefined ? 0 : before.facts.length
      const append = before ?? {
        stream,
        expectedRevision: actor.revision,
        facts: [...turn.drafts],
        firstRecorded: 0
      }
      if (before === undefined) appends.set(stream, append)
      else before.facts.push(...turn.drafts)
      taken.push({ one, turn, append, from })
    } catch (defect) {
      // One actor's bug must not take the others' turns with it; its caller sees the defect.
      taken.push({ one, turn: null, answer: Exit.die(defect) })
    }
  }
  return { states, appends, taken }
}

function answerRefused({ taken }: Staged): void {
  for (const entry of taken) {
    if (entry.turn === null) entry.one.answered(entry.answer)
    else if (entry.turn.outcome === "refuse") {
      entry.one.answered(Exit.fail(refusal(entry.one.input, entry.turn)))
    }
  }
}

/** Nothing was kept: whoever would have recorded something is told why not. */
export function failBatch(staged: Staged, error: SubmitError): void {
  answerRefused(staged)
  for (const { one, turn } of staged.taken) {
    if (turn !== null && turn.outcome !== "refuse") one.answered(Exit.fail(error))
  }
}

/** The facts are durable: the states become visible, callers are answered, and requests handed on. */
export function settle(
  staged: Staged,
  recorded: ReadonlyArray<Recorded>,
  residents: Residents,
  onRequests: RequestsTaker
): void {
  const given = [...staged.appends.values()].reduce((facts, append) => facts + append.facts.length, 0)
  if (given !== recorded.length)
    throw new Error(`the store gave ${recorded.length} facts back for the ${given} that it was given`)
  let reached = 0
  for (const [stream, append] of staged.appends) {
    append.firstRecorded = reached
    reached += append.facts.length
    const state = staged.states.get(stream)
    const last = recorded[reached - 1]
    if (state !== undefined && last?.revision === state.revision)
      residents.set(stream, at(state, last.position))
    // The store had these facts already, older than the actor remembers: its own state stands, and is loaded again.
    else residents.forget(stream)
  }
  answerRefused(staged)
  for (const entry of staged.taken) {
    if (entry.turn === null || entry.turn.outcome === "refuse") continue
    entry.one.answered(Exit.succeed(acceptedOf(entry, residents, recorded)))
  }
  for (const { one, turn } of staged.taken) {
    const { stream } = one.input
    if (turn?.outcome === "record" && turn.requests.length > 0 && residents.has(stream)) {
      onRequests(stream, turn.requests)
    }
  }
}

/** The state, of which it is known now where its last fact is. */
const at = ({ stream, revision, chart, outstanding, recent }: ActorState, position: number): ActorState => ({
  stream,
  revision,
  position,
  chart,
  outstanding,
  recent
})

function acceptedOf(
  { one, turn, append, from }: Extract<Taken, { turn: Turn }>,
  residents: ReadonlyMap<string, ActorState>,
  recorded: ReadonlyArray<Recorded>
): Accepted {
  const { stream } = one.input
  const first = (append?.firstRecorded ?? 0) + from
  const facts = turn.outcome === "record" ? recorded.slice(first, first + turn.drafts.length) : []
  const last = facts[facts.length - 1]
  const state = residents.get(stream)
  return {
    stream,
    revision: last?.revision ?? state?.revision ?? -1,
    position: last?.position ?? state?.position ?? 0,
    facts,
    duplicate: turn.outcome === "duplicate" || (turn.outcome === "record" && state === undefined)
  }
}
