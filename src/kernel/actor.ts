/**
 * The actor contract: what a chart must be for the kernel to run it. See DESIGN in ARCHITECTURE.md.
 *
 * - Commands and reports only record facts: `on: { "vm.start": { actions: record(...) } }`.
 * - Facts only evolve and request: a target, `assign`, and the action `request` with plain data, one or a list.
 *
 * The chart lint (`test/tidy.test.ts`) holds every chart to it.
 */
import { assign, emit } from "xstate"
import type { AnyStateMachine } from "xstate"
import type { Message } from "../events/envelope.ts"

export interface ActorKind {
  /** First part of the stream's name, `vm` in `vm/web-1`. */
  readonly kind: string
  readonly chart: AnyStateMachine
  /** The types of the facts this kind records, for the lint and for decoding. */
  readonly facts: ReadonlyArray<string>
  readonly commands: ReadonlyArray<string>
  readonly reports: ReadonlyArray<string>
  /** Those of the facts that are not kept: what an actor forgets with its process (ADR 8). Replicas only. */
  readonly volatile?: ReadonlyArray<string>
  /** Raised when a snapshot of an older chart can't be resumed; such snapshots are ignored and replayed. */
  readonly snapshotVersion: number
}

/** What decides sees beside the message: who it is and when it is, both stamped by the mailbox. */
export interface Stamp {
  readonly self: string
  readonly timeMs: number
}

/** An input as the chart gets it: the message, and `stamp` under a key no message uses. */
export type Stamped<M extends Message> = M & { readonly stamp: Stamp }

/** The one of a union of messages that has this type. */
export type Of<M extends { readonly type: string }, T extends M["type"]> = Extract<M, { readonly type: T }>

/**
 * The action of a command or report: record this fact. Given the chart's own types once, so that each use is
 * checked: `const record = recorder<Context, Event, Fact>()`, then `record("vm.start", ({ event }) => fact)`.
 */
export const recorder =
  <Context, Event extends Message, Fact extends Message>() =>
  <T extends Event["type"]>(_type: T, decide: (args: { context: Context; event: Of<Event, T> }) => Fact) =>
    emit(decide as never) as never

/** Several facts that were decided together, in the place of one. */
export const listType = "kernel.facts"

/** As `recorder`, for inputs that record as many facts as it takes. */
export const listRecorder =
  <Context, Event extends Message, Fact extends Message>() =>
  (decide: (args: { context: Context; event: Event }) => ReadonlyArray<Fact>) =>
    emit(((args: never) => ({ type: listType, facts: decide(args) })) as never) as never

const wholes = new WeakSet<object>()

/** An `assign` whose function gives all of the context and not a part of it, so that nothing has to be merged. */
export const wholeAssign =
  <Context, Event extends Message>() =>
  (next: (args: { context: Context; event: Event }) => Context) => {
    wholes.add(next)
    return assign(next as never) as never
  }

export const isWhole = (assigner: object): boolean => wholes.has(assigner)
