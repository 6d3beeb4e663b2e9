/** What a migration tells, kept for those who ask for it again. */
import { Effect, Exit, Option, Queue, Stream } from "effect"
import type { Progress } from "../../events/requests.ts"
import type { HypervisorError, MigrationReport } from "../../kernel/ports/hypervisor.ts"

export type Migrated = Extract<MigrationReport, { type: "hypervisor.migrated" }>
type Failure = HypervisorError

const QUEUED_MAX = 1_024

/** A migration that this driver runs or has run; subscribers get what they missed from here. */
export interface Outgoing {
  readonly migration: string
  progress: Progress | null
  handedOver: boolean
  postCopy: boolean
  cancelRequested: boolean
  outcome: Exit.Exit<Migrated, Failure> | null
  readonly listeners: Set<(report: MigrationReport) => void>
  readonly ends: Set<(outcome: Exit.Exit<Migrated, Failure>) => void>
}

export const newOutgoing = (migration: string): Outgoing => ({
  migration,
  progress: null,
  handedOver: false,
  postCopy: false,
  cancelRequested: false,
  outcome: null,
  listeners: new Set(),
  ends: new Set()
})

export const tell = (outgoing: Outgoing, report: MigrationReport): void => {
  for (const listener of outgoing.listeners) listener(report)
}

export const handedOver = ({ postCopy }: Outgoing): MigrationReport => ({
  type: "hypervisor.handedOver",
  ...(postCopy ? { postCopy } : {})
})

/** Everything from now on, after what stands already. */
export const reports = (outgoing: Outgoing): Stream.Stream<MigrationReport, Failure> =>
  Stream.callback<MigrationReport, Failure>(
    (queue) => {
      const listener = (report: MigrationReport) => {
        // A reader that lags may miss progress, never the hand-over and the end.
        const room = Queue.sizeUnsafe(queue) < QUEUED_MAX / 2
        if (room || report.type !== "hypervisor.progressed") Queue.offerUnsafe(queue, report)
      }
      const end = (outcome: Exit.Exit<Migrated, Failure>) => {
        if (Exit.isSuccess(outcome)) {
          Queue.offerUnsafe(queue, outcome.value)
          Queue.endUnsafe(queue)
        } else {
          Queue.failCauseUnsafe(queue, outcome.cause)
        }
      }
      return Effect.acquireRelease(
        Effect.sync(() => {
          if (outgoing.progress !== null) {
            listener({ type: "hypervisor.progressed", progress: outgoing.progress })
          }
          if (outgoing.handedOver) listener(handedOver(outgoing))
          if (outgoing.outcome !== null) return end(outgoing.outcome)
          outgoing.listeners.add(listener)
          outgoing.ends.add(end)
        }),
        () =>
          Effect.sync(() => {
            outgoing.listeners.delete(listener)
            outgoing.ends.delete(end)
          })
      )
    },
    { bufferSize: QUEUED_MAX, strategy: "dropping" }
  )

/** Wait for the end of a migration that runs in this driver. */
export const outcomeOf = (outgoing: Outgoing): Effect.Effect<Option.Option<Migrated>> =>
  Effect.callback<Option.Option<Migrated>>((resume) => {
    const end = (outcome: Exit.Exit<Migrated, Failure>) =>
      resume(Effect.succeed(Exit.isSuccess(outcome) ? Option.some(outcome.value) : Option.none()))
    if (outgoing.outcome !== null) return end(outgoing.outcome)
    outgoing.ends.add(end)
    return Effect.sync(() => outgoing.ends.delete(end))
  })

/** Say how it ended, once. */
export const settle = (outgoing: Outgoing, outcome: Exit.Exit<Migrated, Failure>): void => {
  if (outgoing.outcome !== null) return
  outgoing.outcome = outcome
  for (const end of outgoing.ends) end(outcome)
}
