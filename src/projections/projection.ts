/**
 * What a projection is: a pure fold of recorded facts into a state, which a projector feeds, stores and serves.
 *
 * A state is owned by one projector. `apply` may change the owner's state in place (its tables and lists), so one
 * fact costs the same however many rows there are; the rows themselves are never changed, only replaced, so a row
 * that was handed out stays what it was. Equal facts give equal states, wherever the fold began.
 */
import type { Message, Recorded } from "../events/envelope.ts"
import { withoutPrefix, withPrefix } from "../events/envelope.ts"
import type { Table } from "./table.ts"

export interface Projection<State> {
  readonly name: string
  /** Raised when the state of an older one can't be gone on from; such a state is rebuilt from the first fact. */
  readonly version: number
  /** Older versions whose state may be served, and gone on from, while this one is rebuilt beside it. */
  readonly continues: ReadonlyArray<number>
  initial(): State
  /** Facts of types it does not know change nothing. */
  apply(state: State, fact: Recorded): State
  /** The tables that are stored, by a name that stays. */
  tables(state: State): Readonly<Record<string, Table<unknown>>>
}

/** Written as methods, so that a projector may hold projections of all kinds of states in one list. */
export type AnyProjection = Projection<unknown>

/** The data of the fact of type `T` in the union `F`. */
export type DataOf<F extends { readonly type: string }, T extends F["type"]> = Omit<
  Extract<F, { readonly type: T }>,
  "type"
>

type Handlers<State, F extends { readonly type: string }> = {
  readonly [T in F["type"]]?: (state: State, data: DataOf<F, T>, fact: Recorded) => void
}

/** An `apply` from one function per fact type; facts were decoded when they were recorded. */
export function foldOf<State, F extends Message>(
  handlers: Handlers<State, F>
): (state: State, fact: Recorded) => State {
  type Handler = (state: State, data: Recorded["data"], fact: Recorded) => void
  const byType = new Map<string, Handler>()
  for (const [type, handler] of Object.entries(handlers)) byType.set(withPrefix(type), handler as Handler)
  return (state, fact) => {
    byType.get(fact.type)?.(state, fact.data, fact)
    return state
  }
}

/** `web-1` of `vm/web-1`. */
export const nameOf = (stream: string): string => stream.slice(stream.indexOf("/") + 1)

/** The fact that last changed a row. */
export interface Change {
  /** Without the product's prefix: `vm.started`. */
  readonly type: string
  readonly position: number
  /** Revision in the row's own stream. */
  readonly revision: number
  /** Milliseconds since the Unix epoch. */
  readonly timeMs: number
  readonly by: Recorded["principal"]
  readonly correlation: string
}

export const changeOf = (fact: Recorded): Change => ({
  type: withoutPrefix(fact.type),
  position: fact.position,
  revision: fact.revision,
  timeMs: fact.timeMs,
  by: fact.principal,
  correlation: fact.correlation
})
