/**
 * What was offered at this node and is to be ordered by the group: proposed in batches, proposed again where it lost its place,
 * and told when nobody knows in time what became of it.
 */
import { Cause, Effect, Exit, Latch } from "effect"
import type { Clock } from "effect"
import type { Answered, Caller, Waiting } from "./batch.ts"
import type { MailboxOptions } from "./mailbox.ts"
import { batchText, inputText } from "./ordered.ts"
import type { Decided, Mark } from "./ordered.ts"
import { Unavailable } from "./ports/consensus.ts"
import type { Consensus, Proposed } from "./ports/consensus.ts"
import type { EventStore, Head, StoreFailure } from "./ports/event-store.ts"
import { CommandRefused, Overloaded } from "./refusals.ts"
import type { Accepted, SubmitError } from "./refusals.ts"
import type { Residents } from "./residents.ts"
import type { Input } from "./turn.ts"

export interface OrderedOptions extends MailboxOptions {
  readonly residents: Residents
  /** Who waits is told after so long that it is not known what became of the command; 10 s unless told. */
  readonly patienceMs?: number
  /** Entries that are applied before the log is told again what it may forget; 5,000 unless told. */
  readonly compactEvery?: number
  /** Told when this node begins to lead, with everything applied that was decided before, and when it ends. */
  readonly leads: (isLeading: boolean) => void
}

export const patienceDefaultMs = 10_000
export const sweepEveryMs = 100
const waitingDefault_max = 10_000
/** Inputs of one proposal, and so many characters of them; one that is longer goes alone. */
const batchInputs_max = 256
const batchChars_max = 256 * 1024
/** Proposals of this node that are not decided yet. */
const underWay_max = 8
/** A proposal that was declined is tried again after a pause, for as long as its callers have patience. */
const declinedPauseMs = 20
interface Offered extends Waiting {
  readonly sinceMs: number
  /** In which this node performed when it was offered. */
  readonly term: number
  readonly caller: Caller
  /** The batch of its last proposal of which nobody knows whether it is decided, or will be; 0 where there is none. */
  openIn: number
  /** It lost its place, and had or has to be proposed again. */
  wasLost: boolean
  /** What became of the same command where another node, or another call, had it placed meanwhile. */
  known: Exit.Exit<Accepted, SubmitError> | null
}

/** Who has no way to leave. */
const stays: Caller = { isGone: false }

interface UnderWay {
  readonly offered: ReadonlyArray<Offered>
  /** In which it was proposed. */
  term: number
}

export interface Parts {
  readonly store: EventStore["Service"]
  readonly order: Consensus["Service"]
  readonly clock: Clock.Clock
  readonly options: OrderedOptions
  /** Drawn for this process. */
  readonly life: string
  readonly mark: Mark
  readonly head: Head
  readonly lastMs: number
}

export class Proposals {
  readonly due = Latch.makeUnsafe(false)
  readonly #parts: Parts
  #offered: Array<Offered> = []
  readonly #underWay = new Map<number, UnderWay>()
  #batches = 0
  #pausedMs = 0
  /** In which the kernel here performs; -1 while it does not. */
  #performsIn = -1
  /** Until then some that lost their place may wait. */
  #lostUntilMs = 0
  #declined = "no leader is known"
  /** Why nothing is taken any more; null while it is. */
  #stopped: StoreFailure | null = null

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /** Of the clock that nobody sets: patience is not over, and a pause not longer, because the time of day was changed. */
  get #nowMs(): number {
    return Number(this.#parts.clock.monotonicTimeNanosUnsafe() / 1_000_000n)
  }

  get waiting(): number {
    let waiting = this.#offered.length
    for (const { offered } of this.#underWay.values()) waiting += offered.length
    return waiting
  }

  offer(input: Input, answered: Answered, caller: Caller = stays): void {
    if (this.#stopped !== null) return answered(Exit.fail(this.#stopped))
    const waiting_max = this.#parts.options.waiting_max ?? waitingDefault_max
    // Answers to our own requests are never turned away: the requests that bring them are bounded.
    const { waiting } = this
    if (waiting >= waiting_max && input.answers === null)
      return answered(Exit.fail(new Overloaded({ waiting, waiting_max })))
    const sinceMs = this.#nowMs
    const term = this.#performsIn
    this.#offered.push({
      input,
      answered,
      caller,
      sinceMs,
      term,
      openIn: 0,
      wasLost: false,
      known: null
    })
    this.#look()
  }

  /** The kernel begins to perform, in this term; or, with -1, it ends. */
  performs(term: number): void {
    this.#performsIn = term
  }

  #look(): void {
    if (this.#offered.length > 0 && this.#underWay.size < underWay_max) this.due.openUnsafe()
    else this.due.closeUnsafe()
  }

  /** Never ends. */
  readonly run = Effect.fnUntraced(function* (this: Proposals) {
    for (;;) {
      yield* this.due.await
      const pauseMs = this.#pausedMs - this.#nowMs
      if (pauseMs > 0) yield* Effect.sleep(pauseMs)
      // One turn of the scheduler lets the others who are about to offer join this batch.
      yield* Effect.yieldNow
      if (this.#offered.length > 0 && this.#underWay.size < underWay_max) this.#propose()
      this.#look()
    }
  })

  /**
   * What actors say and are answered is placed by the node that performs for them, while it leads, or not at all. Then all of it stands
   * before the next leader's first entry, and so before what that one says in its place, under the same keys. One that came
   * after it could be accepted when the same had been refused already.
   * The next leader may be this node again, in a later term.
   */
  #onlyWhoLeads(): void {
    if (!this.#offered.some(isSaidByActors)) return
    const { role, term } = this.#parts.order.status()
    const isPast = (one: Offered) => isSaidByActors(one) && (role !== "leader" || one.term !== term)
    const said = this.#offered.filter(isPast)
    if (said.length === 0) return
    this.#offered = this.#offered.filter((one) => !isPast(one))
    this.#fail(said, false, "only who leads speaks for actors")
  }

  #propose(): void {
    const { node } = this.#parts.options
    this.#forgetGone()
    this.#onlyWhoLeads()
    if (this.#offered.length === 0) return
    const texts: Array<string> = []
    let chars = 0
    for (const { input } of this.#offered) {
      const text = inputText(input)
      chars += text.length
      if (texts.length > 0 && (texts.length >= batchInputs_max || chars > batchChars_max)) break
      texts.push(text)
    }
    if (texts.length === 0) return
    const underWay: UnderWay = { offered: this.#offered.splice(0, texts.length), term: 0 }
    const number = ++this.#batches
    this.#underWay.set(number, underWay)
    const text = batchText({ node, life: this.#parts.life, number }, texts)
    underWay.term = this.#parts.order.propose(text, (proposed) => this.#proposed(number, proposed))
  }

  #proposed(number: number, proposed: Proposed): void {
    const underWay = this.#underWay.get(number)
    if (underWay === undefined || proposed.outcome === "placed") return
    this.#underWay.delete(number)
    if (proposed.outcome === "declined" && proposed.isFinal) {
      this.#fail(underWay.offered, false, proposed.reason)
      return this.#look()
    }
    // Who waits is answered by the proposal of now: an earlier one can't be decided after it.
    this.#again(underWay.offered, proposed.reason, proposed.outcome === "unknown" ? number : null)
    this.#look()
  }

  /** `openIn` is their batch where it may have been decided all the same, or may be yet. */
  #again(offered: ReadonlyArray<Offered>, reason: string, openIn: number | null): void {
    const now = this.#nowMs
    this.#declined = reason
    this.#pausedMs = now + declinedPauseMs
    this.#lostUntilMs = now + this.#patienceMs + sweepEveryMs
    for (const one of offered) {
      one.wasLost = true
      one.openIn = openIn ?? one.openIn
      // That an earlier try was refused is not the last word while this one may be accepted: the next one tells.
      if (openIn !== null && one.known !== null && isRefused(one.known)) one.known = null
      if (one.known !== null) one.answered(one.known)
    }
    this.#offered.unshift(...offered.filter(({ known }) => known === null))
  }

  get #patienceMs(): number {
    return this.#parts.options.patienceMs ?? patienceDefaultMs
  }

  /**
   * A client that leaves takes with it what is not placed: it may ask another node, and be refused there, and then nothing of
   * it must happen later. Answers to our own requests are placed whoever waits.
   */
  #forgetGone(): void {
    const isGone = ({ caller, input }: Offered) => caller.isGone && input.answers === null
    const gone = this.#offered.filter(isGone)
    if (gone.length === 0) return
    this.#offered = this.#offered.filter((one) => !isGone(one))
    this.#fail(gone, false, "who asked is gone")
  }

  /** Those that lost their place, and are the same command as this one: a key that is used for another is told so by its turn. */
  #copiesOf(
    { id, stream, message, answers }: Input,
    offered: ReadonlyArray<Offered>
  ): ReadonlyArray<Offered> {
    if (answers !== null) return none
    const isSame = ({ input }: Offered) =>
      input.id === id &&
      input.stream === stream &&
      input.answers === null &&
      JSON.stringify(input.message) === JSON.stringify(message)
    return offered.filter((one) => one.wasLost && isSame(one))
  }

  /**
   * The same command was placed by another node, or for another call, while here it waited to be placed again: it is answered by
   * that, and not placed behind it. Where one is under way again, a refusal is not the last word; nor where a proposal of it is
   * open that may be decided later: a leader takes the batches of a node in order, so no earlier than `batch`, which is 0 for
   * another node's.
   */
  #withCopies(input: Input, answered: Answered, batch: number): Answered {
    const waiting = this.#copiesOf(input, this.#offered)
    if (waiting.length > 0) this.#offered = this.#offered.filter((one) => !waiting.includes(one))
    const underWay = [...this.#underWay.values()].flatMap(({ offered }) => this.#copiesOf(input, offered))
    if (waiting.length === 0 && underWay.length === 0) return answered
    return (exit) => {
      const tells = ({ openIn }: Offered) => openIn <= batch || !isRefused(exit)
      for (const one of underWay) if (tells(one)) one.known = exit
      const open = waiting.filter((one) => !tells(one))
      for (const one of waiting) if (tells(one)) one.answered(exit)
      this.#offered.unshift(...open)
      this.#look()
      const isOpen = (underWay.length > 0 && isRefused(exit)) || open.length > 0
      answered(isOpen ? Exit.fail(this.#openError()) : exit)
    }
  }

  #openError(): Unavailable {
    const reason = "it was refused, but an earlier try of it is still under way"
    return new Unavailable({ node: this.#parts.options.node, mayHappen: true, reason })
  }

  #fail(offered: ReadonlyArray<Offered>, isUnderWay: boolean, why: string): void {
    const { node } = this.#parts.options
    const reason = why.slice(0, 500)
    for (const { answered, openIn } of offered)
      answered(Exit.fail(new Unavailable({ node, mayHappen: isUnderWay || openIn > 0, reason })))
  }

  /** Who has waited for too long is told so. */
  sweep(): void {
    const now = this.#nowMs
    const isOver = ({ sinceMs }: Offered) => now - sinceMs >= this.#patienceMs
    const over = this.#offered.filter(isOver)
    if (over.length > 0) {
      this.#offered = this.#offered.filter((one) => !isOver(one))
      this.#fail(over, false, this.#declined)
    }
    for (const [number, { offered }] of this.#underWay) {
      if (!offered.every(isOver)) continue
      this.#underWay.delete(number)
      this.#fail(offered, true, "nobody has said in time that it was decided")
    }
    this.#look()
  }

  /** Who waits for the inputs of this entry. */
  waitingFor({ batch }: Decided): ReadonlyArray<Waiting> {
    if (batch === null) return []
    const { options, life } = this.#parts
    const isOwn = batch.node === options.node && batch.life === life
    const own = isOwn ? this.#underWay.get(batch.number)?.offered : undefined
    if (own !== undefined) {
      this.#underWay.delete(batch.number)
      this.#look()
    }
    const waiting = batch.inputs.map((input, at) => ({ input, answered: own?.[at]?.answered ?? nobody }))
    if (this.#nowMs > this.#lostUntilMs) return waiting
    const number = isOwn ? batch.number : 0
    return waiting.map(({ input, answered }) => ({
      input,
      answered: this.#withCopies(input, answered, number)
    }))
  }

  /**
   * What was decided last and applied is of this term: what was proposed in an earlier one, and not decided before, never will
   * be, unless it was among entries that were passed over, whose facts came with a snapshot.
   */
  reached(term: number, isSeen: boolean): void {
    if (this.#underWay.size === 0) return
    for (const [number, underWay] of this.#underWay) {
      if (underWay.term >= term && isSeen) continue
      this.#underWay.delete(number)
      this.#again(
        underWay.offered,
        "the leader that it was proposed to leads no more",
        isSeen ? null : number
      )
    }
    this.#look()
  }

  /** The journal can't be written any more. */
  stop(failure: StoreFailure): void {
    this.#stopped = failure
    const all = [...this.#offered, ...[...this.#underWay.values()].flatMap(({ offered }) => offered)]
    this.#offered = []
    this.#underWay.clear()
    for (const { answered } of all) answered(Exit.fail(failure))
  }
}

const isSaidByActors = ({ input: { answers, principal } }: Offered): boolean =>
  answers !== null || principal.kind === "actor"

const nobody: Answered = () => {}
const none: ReadonlyArray<Offered> = []

const isRefused = (exit: Exit.Exit<Accepted, SubmitError>): boolean =>
  Exit.isFailure(exit) && Cause.squash(exit.cause) instanceof CommandRefused
