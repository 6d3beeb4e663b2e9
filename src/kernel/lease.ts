/**
 * A host's leave to run machines that may be restarted elsewhere. It asks for it, and counts from the moment in which it asked;
 * whoever answers counts from when it answered, which is later: so the host's end of it is never after the kernel's, whatever the
 * clocks show and however long the answer took. When it runs out a watcher beside the node ends those machines; this side starts
 * none while it has run out, and nothing that was asked for before it ran out (docs/adr/0016-fencing.md; Gray and Cheriton, SOSP 1989).
 */
import { Effect } from "effect"
import type { Kernel } from "./kernel.ts"

/** Whether a machine may be made to run: taken when it is asked for, and looked at when it is done. */
export type MayRun = () => () => boolean

/** Where nothing is ever ended by a lease. */
export const always: MayRun = () => () => true

/** The lease as its host holds it, by a clock that also counts while the machine sleeps, and never goes back. */
export class HeldLease {
  readonly #nowMs: () => number
  #untilMs: number | null
  /** Counts the times that it had run out. */
  #lapses = 0

  /** `untilMs`: as the process before this one left it; null where none is needed. */
  constructor(nowMs: () => number, untilMs: number | null) {
    this.#nowMs = nowMs
    this.#untilMs = untilMs
  }

  get untilMs(): number | null {
    return this.#untilMs
  }

  get nowMs(): number {
    return this.#nowMs()
  }

  /** Given for `lengthMs` from when it was asked for. */
  renewed(askedMs: number, lengthMs: number): void {
    if (this.#untilMs !== null && this.#nowMs() >= this.#untilMs) this.#lapses++
    this.#untilMs = Math.max(this.#untilMs ?? 0, askedMs + lengthMs)
  }

  /** A host that asks for shorter ones holds none that is longer. */
  shortened(lengthMs: number): void {
    if (this.#untilMs !== null) this.#untilMs = Math.min(this.#untilMs, this.#nowMs() + lengthMs)
  }

  /** None is needed any more: the kernel knows that this host can't be fenced by waiting. */
  dropped(): void {
    this.#untilMs = null
  }

  readonly mayRun: MayRun = () => {
    const lapses = this.#lapses
    return () => this.#untilMs === null || (lapses === this.#lapses && this.#nowMs() < this.#untilMs)
  }
}

export type LeaseAnswer =
  { readonly isGiven: true; readonly lengthMs: number } | { readonly isGiven: false; readonly reason: string }

/** What is read here of a host's actor. */
interface Leased {
  readonly facts?: { readonly lease?: { readonly lengthMs: number } } | null
}

const holding: ReadonlyArray<unknown> = ["up", "draining"]

/**
 * At a node with a kernel: the lease of a host that takes part, as its registration says. `leads` is false where this node hears no
 * majority; nobody but the one that performs gives any.
 */
export function giveLease(kernel: Kernel["Service"], leads: boolean, host: string): LeaseAnswer {
  const not = (reason: string): LeaseAnswer => ({ isGiven: false, reason })
  if (!kernel.isPerforming() || !leads) return not("this node does not lead")
  const actor = kernel.resident().get(`host/${host}`)
  if (actor === undefined || !holding.includes(actor.chart.value))
    return not(`${host} is ${String(actor?.chart.value ?? "unknown")}: it has to register first`)
  const { facts } = actor.chart.context as Leased
  return facts?.lease === undefined
    ? not(`${host} has registered without a lease`)
    : { isGiven: true, lengthMs: facts.lease.lengthMs }
}

export interface LeaseKeeping {
  readonly lease: HeldLease
  /** How long a lease this host asks for; null while no watcher would end its machines. */
  readonly lengthMs: Effect.Effect<number | null>
  /** Ask whoever has a kernel. */
  readonly ask: Effect.Effect<LeaseAnswer, { readonly message: string }>
  /** Tell the watcher until when; whole or not at all. */
  readonly store: (untilMs: number | null) => Effect.Effect<void>
  /** Machines that the watcher has ended, and nobody was told of yet. */
  readonly ended: Effect.Effect<ReadonlyArray<string>>
  /** They have been told of. */
  readonly told: (vms: ReadonlyArray<string>) => Effect.Effect<void>
}

/**
 * Before this host says how long a lease it asks for: machines that ran without one do so for as long as the first lease holds, and
 * no lease of before is longer than what is said.
 */
export const beforeRegistering = ({ lease, store }: LeaseKeeping, lengthMs: number | null) =>
  Effect.suspend(() => {
    if (lengthMs === null) return Effect.void
    if (lease.untilMs === null) lease.renewed(lease.nowMs, lengthMs)
    else lease.shortened(lengthMs)
    return store(lease.untilMs)
  })

/** The kernel has recorded it, and may ask for machines to be started from now on: the lease is asked for at once. */
export const afterRegistering = (keeping: LeaseKeeping, lengthMs: number | null): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { lease, store } = keeping
    if (lengthMs !== null) return renew(keeping, lengthMs)
    if (lease.untilMs === null) return Effect.void
    lease.dropped()
    return store(null)
  })

const renew = Effect.fnUntraced(function* ({ lease, ask, store }: LeaseKeeping, lengthMs: number) {
  const askedMs = lease.nowMs
  const answer = yield* ask.pipe(
    Effect.timeout(lengthMs),
    Effect.catch(({ message }) => Effect.succeed<LeaseAnswer>({ isGiven: false, reason: message }))
  )
  if (!answer.isGiven) return
  lease.renewed(askedMs, Math.min(answer.lengthMs, lengthMs))
  yield* store(lease.untilMs)
})

/** A lease is asked for so many times while it holds. */
const asks = 5

/** Ask for it again and again; runs until interrupted. */
export const keepLease = Effect.fn("keepLease")(function* (keeping: LeaseKeeping) {
  for (;;) {
    const lengthMs = yield* keeping.lengthMs
    if (lengthMs !== null) yield* renew(keeping, lengthMs)
    yield* Effect.sleep(Math.ceil((lengthMs ?? idlePauseMs) / asks))
  }
})

const idlePauseMs = 5000
