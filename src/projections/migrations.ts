/** One row per migration: where from, where to, how far, and the one state it ended in. */
import type { Recorded } from "../events/envelope.ts"
import type { MigrationFact } from "../events/migration.ts"
import type { MigrationPolicy, Progress } from "../events/requests.ts"
import { changeOf, foldOf, nameOf } from "./projection.ts"
import type { Change, Projection } from "./projection.ts"
import { Table } from "./table.ts"

export type MigrationPhase =
  | "locking"
  | "placing"
  | "checking"
  | "preparing"
  | Progress["phase"]
  | "resuming"
  | "finishing"
  | "cancelling"
  | "settling"
  | "rolling-back"
  | "ended"

export type MigrationResult = "completed" | "cancelled" | "failed"

export interface MigrationRow {
  readonly migration: string
  readonly vm: string
  readonly from: string | null
  readonly to: string | null
  readonly policy: MigrationPolicy
  /** The placement that chose the destination; null when it was named. */
  readonly decision: string | null
  readonly phase: MigrationPhase
  /** 0 to 100, never going back; 100 only when it is completed. */
  readonly percent: number
  readonly transferredBytes: number
  readonly remainingBytes: number
  readonly totalBytes: number
  readonly rateBytesPerSecond: number
  readonly dirtyBytesPerSecond: number
  readonly iteration: number
  readonly throttlePercent: number
  /** How much longer, as a range; null while nothing is known and after the end. */
  readonly remainingMs: { readonly low: number; readonly high: number } | null
  /** The source stood still for good at this time: from here there is no way back. */
  readonly handedOverMs: number | null
  readonly startedMs: number
  readonly endedMs: number | null
  readonly result: MigrationResult | null
  /** Why it was asked for. */
  readonly why: string
  /** Why it is being or was cancelled, or failed. */
  readonly reason: string | null
  /** What could not be put in order at either host and needs a look. */
  readonly troubles: ReadonlyArray<string>
  /** As the hypervisor told them; null until it has. */
  readonly totalMs: number | null
  readonly downtimeMs: number | null
  readonly change: Change
}

export interface Migrations {
  readonly migrations: Table<MigrationRow>
}

/** The oldest that have ended are forgotten beyond this many; the journal has them. */
export const migrations_max = 10_000

const clear: Partial<MigrationRow> = {
  rateBytesPerSecond: 0,
  dirtyBytesPerSecond: 0,
  remainingMs: null,
  phase: "ended"
}

const change =
  <D>(handler: (row: MigrationRow, data: D, fact: Recorded) => Partial<MigrationRow>) =>
  ({ migrations }: Migrations, data: D, fact: Recorded) =>
    migrations.update(nameOf(fact.stream), (row) => ({
      ...row,
      ...handler(row, data, fact),
      change: changeOf(fact)
    }))

const ends = (result: MigrationResult) =>
  change((row, data: { readonly reason?: string }, { timeMs }) => ({
    ...clear,
    result,
    endedMs: timeMs,
    reason: data.reason ?? row.reason
  }))

function keepWithinLimit(migrations: Table<MigrationRow>): void {
  if (migrations.size <= migrations_max) return
  for (const row of migrations.values()) {
    if (row.result === null) continue
    migrations.delete(row.migration)
    return
  }
}

function progressed(row: MigrationRow, { progress }: { readonly progress: Progress }): Partial<MigrationRow> {
  const { phase, percent, ...numbers } = progress
  return {
    ...numbers,
    // What arrives late, or after a fresh start at the source, must not turn the bar back.
    percent: Math.max(row.percent, Math.min(percent, 99.9)),
    transferredBytes: Math.max(row.transferredBytes, progress.transferredBytes),
    // After the hand-over, when it is not by post-copy, progress comes late.
    ...(row.reason === null && (row.handedOverMs === null || phase === "post-copy") ? { phase } : {})
  }
}

const left = (where: string) => (row: MigrationRow, data: { readonly leftover: string }) => ({
  troubles: data.leftover === "" ? row.troubles : [...row.troubles, `left at the ${where}: ${data.leftover}`]
})

const fold = foldOf<Migrations, MigrationFact>({
  "migration.requested": ({ migrations }, data, fact) => {
    migrations.set(nameOf(fact.stream), {
      migration: nameOf(fact.stream),
      vm: data.vm,
      from: null,
      to: data.to ?? null,
      policy: data.policy,
      decision: null,
      phase: "locking",
      percent: 0,
      transferredBytes: 0,
      remainingBytes: 0,
      totalBytes: 0,
      rateBytesPerSecond: 0,
      dirtyBytesPerSecond: 0,
      iteration: 0,
      throttlePercent: 0,
      remainingMs: null,
      handedOverMs: null,
      startedMs: fact.timeMs,
      endedMs: null,
      result: null,
      why: data.reason,
      reason: null,
      troubles: [],
      totalMs: null,
      downtimeMs: null,
      change: changeOf(fact)
    })
    keepWithinLimit(migrations)
  },
  "migration.begun": change((_, { from }) => ({ from, phase: "placing" })),
  "migration.placed": change((_, { to, decision }) => ({ to, decision, phase: "checking" })),
  "migration.checked": change(() => ({ phase: "preparing" })),
  "migration.prepared": change(() => ({ phase: "connecting" })),
  "migration.progressed": change(progressed),
  "migration.handedOver": change((_, _data, { timeMs }) => ({ phase: "resuming", handedOverMs: timeMs })),
  "migration.resumed": change(() => ({ phase: "finishing" })),
  "migration.measured": change((_, { totalMs, downtimeMs, transferredBytes }) => ({
    totalMs,
    downtimeMs,
    transferredBytes
  })),
  "migration.notMeasured": change(() => ({})),
  "migration.destinationLost": change((_, { reason }) => ({ reason })),
  "migration.arrivalDoubted": change(() => ({ phase: "settling", remainingMs: null })),
  "migration.arrivalConfirmed": change(() => ({ phase: "finishing" })),
  "migration.guestLost": change((_, { reason }) => ({ phase: "finishing", reason })),
  "migration.ownerChanged": change(() => ({})),
  "migration.sourceClearing": change(() => ({})),
  "migration.sourceCleared": change(left("source")),
  "migration.cancelRequested": change((_, { reason }) => ({ phase: "cancelling", reason })),
  "migration.rollingBack": change((_, { reason }) => ({ phase: "rolling-back", reason, remainingMs: null })),
  "migration.givenUp": change((_, { reason }) => ({ phase: "rolling-back", reason, remainingMs: null })),
  "migration.transferStopped": change(() => ({})),
  "migration.destinationCleared": change(left("destination")),
  "migration.sourceKept": change((row, { trouble }) => ({
    troubles: trouble === "" ? row.troubles : [...row.troubles, `the source: ${trouble}`]
  })),
  "migration.completed": ({ migrations }, data, fact) => {
    ends("completed")({ migrations }, data, fact)
    migrations.update(nameOf(fact.stream), (row) => ({ ...row, percent: 100, remainingBytes: 0 }))
  },
  "migration.cancelled": ends("cancelled"),
  "migration.failed": ends("failed")
})

export const migrations: Projection<Migrations> = {
  name: "migrations",
  version: 1,
  continues: [],
  initial: () => ({ migrations: new Table() }),
  apply: fold,
  tables: (state) => ({ migrations: state.migrations })
}
