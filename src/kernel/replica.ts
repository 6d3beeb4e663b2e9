/**
 * A member of a group that agrees by messages, as the kernel runs it: one input after the other, what has to be kept
 * separated from what need not, and what is asked held back until everything recorded before is on the disk.
 *
 * It differs from the mailbox in two ways. Its facts go to a store of its own, because they are not the same on all
 * members as the journal is; and the next input does not wait for the disk: what waits is what is asked.
 */
import type { Message } from "../events/envelope.ts"
import type { ActorKind } from "./actor.ts"
import { decide, evolve, initialState } from "./statechart.ts"
import type { ChartState, Event } from "./statechart.ts"

export interface Released<Request> {
  /** To be done at once. */
  readonly now: ReadonlyArray<Request>
  /** To be kept, in this order; `stored` is told when they are. */
  readonly facts: ReadonlyArray<Message>
}

interface Held<Request> {
  readonly after: number
  readonly request: Request
}

export class Replica<Request extends object> {
  readonly #kind: ActorKind
  readonly #self: string
  readonly #volatile: ReadonlySet<string>
  #state: ChartState
  #held: Array<Held<Request>> = []
  /** How many facts were recorded, and how many of them are on the disk. */
  #recorded = 0
  #stored = 0

  constructor(kind: ActorKind, self: string) {
    this.#kind = kind
    this.#self = self
    this.#volatile = new Set(kind.volatile)
    this.#state = initialState(kind)
  }

  get state(): ChartState {
    return this.#state
  }

  /** Of recorded facts, those that are not on the disk yet. */
  get pending(): number {
    return this.#recorded - this.#stored
  }

  /** Requests that wait for the disk. */
  get held(): number {
    return this.#held.length
  }

  /** Fold what was kept before the restart. What it asked then is not asked again. */
  restore(facts: Iterable<Message>): void {
    for (const fact of facts) this.#fold(fact)
  }

  take(input: Message, timeMs: number): Released<Request> {
    return this.takeAll([input], timeMs)
  }

  /** Several that have gathered, one after the other, so that what they record goes to the store in one piece. */
  takeAll(inputs: Iterable<Message>, timeMs: number): Released<Request> {
    const now: Array<Request> = []
    const facts: Array<Message> = []
    for (const input of inputs) this.#take(input, timeMs, now, facts)
    return { now, facts }
  }

  #take(input: Message, timeMs: number, now: Array<Request>, facts: Array<Message>): void {
    const stamp = { self: this.#self, timeMs }
    const later: Array<Request> = []
    for (const fact of decide(this.#kind, this.#state, input, stamp)) {
      if (!this.#volatile.has(fact.type)) {
        facts.push(fact)
        this.#recorded++
      }
      for (const request of this.#fold(fact)) (isEarly(request) ? now : later).push(request)
    }
    const isHeld = this.#recorded > this.#stored
    for (const request of later) {
      if (isHeld) this.#held.push({ after: this.#recorded, request })
      else now.push(request)
    }
  }

  /** So many more of the recorded facts are on the disk: what waited for them may be done. */
  stored(facts: number): ReadonlyArray<Request> {
    this.#stored += facts
    let free = 0
    while (free < this.#held.length && (this.#held[free]?.after ?? 0) <= this.#stored) free++
    return this.#held.splice(0, free).map(({ request }) => request)
  }

  /** A fact of a replica is not stamped: a restart folds it again, at another time, to the very same. */
  #fold(fact: Message): ReadonlyArray<Request> {
    const { state, requests } = evolve(this.#kind, this.#state, fact as Event)
    this.#state = state
    return requests as ReadonlyArray<unknown> as ReadonlyArray<Request>
  }
}

const isEarly = (request: { readonly early?: unknown }): boolean => request.early === true
