/**
 * Every decision about where a machine goes, by machine, the latest last. Rows hold what was asked and how it
 * ended; the candidates with all their scores stay in the journal, in the stream `placement/<decision>`.
 */
import type { PlacementFact } from "../events/placement.ts"
import { foldOf, nameOf } from "./projection.ts"
import type { Projection } from "./projection.ts"
import { Table } from "./table.ts"

/** One choice within a decision: there is another when the chosen host had given its room away meanwhile. */
export interface DecisionAttempt {
  readonly attempt: number
  readonly position: number
  readonly policy: string
  readonly considered: number
  readonly excluded: number
  readonly chosen: string | null
  readonly reason: string
}

export interface DecisionRow {
  readonly decision: string
  readonly vm: string
  readonly purpose: "create" | "migrate" | "recover"
  readonly from: string | null
  readonly pinned: string | null
  readonly replyTo: string
  readonly attempts: ReadonlyArray<DecisionAttempt>
  readonly outcome: "pending" | "settled" | "no-host" | "failed" | "withdrawn"
  readonly host: string | null
  readonly reason: string
  readonly requestedMs: number
  readonly position: number
  readonly changedMs: number
}

export interface Placement {
  readonly decisions: Table<DecisionRow>
  /** Decisions of a machine, oldest first. */
  readonly byVm: Table<ReadonlyArray<string>>
}

/** Older decisions are in the journal only. */
export const decisionsPerVm_max = 16
export const decisions_max = 100_000

function forget({ decisions, byVm }: Placement, row: DecisionRow): void {
  decisions.delete(row.decision)
  const left = (byVm.get(row.vm) ?? []).filter((decision) => decision !== row.decision)
  if (left.length === 0) byVm.delete(row.vm)
  else byVm.set(row.vm, left)
}

function keepWithinLimits(state: Placement, vm: string): void {
  const [oldestOfVm] = state.byVm.get(vm) ?? []
  const row = oldestOfVm === undefined ? undefined : state.decisions.get(oldestOfVm)
  if (row !== undefined && (state.byVm.get(vm)?.length ?? 0) > decisionsPerVm_max) forget(state, row)
  if (state.decisions.size <= decisions_max) return
  const [oldest] = state.decisions.values()
  if (oldest !== undefined) forget(state, oldest)
}

type Handler<D> = (row: DecisionRow, data: D, position: number) => Partial<DecisionRow>

const change =
  <D>(handler: Handler<D>) =>
  ({ decisions }: Placement, data: D, fact: { stream: string; position: number; timeMs: number }) =>
    decisions.update(nameOf(fact.stream), (row) => ({
      ...row,
      ...handler(row, data, fact.position),
      changedMs: fact.timeMs
    }))

type Decided = Omit<Extract<PlacementFact, { type: "placement.decided" | "placement.noHost" }>, "type">

const attemptOf = (data: Decided, position: number): DecisionAttempt => ({
  attempt: data.attempt,
  position,
  policy: data.policy,
  considered: data.others?.looked ?? data.candidates.length,
  excluded:
    data.candidates.filter((candidate) => candidate.excluded.length > 0).length +
    (data.others?.out ?? []).reduce((sum, { hosts }) => sum + hosts, 0),
  chosen: data.chosen,
  reason: data.reason
})

const fold = foldOf<Placement, PlacementFact>({
  "placement.requested": (state, data, fact) => {
    // The same question again in one stream is the same decision.
    if (state.decisions.get(data.decision) !== undefined) return
    state.decisions.set(data.decision, {
      decision: data.decision,
      vm: data.vm,
      purpose: data.purpose,
      from: data.from ?? null,
      pinned: data.pinned ?? null,
      replyTo: data.replyTo,
      attempts: [],
      outcome: "pending",
      host: null,
      reason: "",
      requestedMs: fact.timeMs,
      position: fact.position,
      changedMs: fact.timeMs
    })
    state.byVm.set(data.vm, [...(state.byVm.get(data.vm) ?? []), data.decision])
    keepWithinLimits(state, data.vm)
  },
  "placement.decided": change((row, data, position) => ({
    attempts: [...row.attempts, attemptOf(data, position)],
    host: data.chosen,
    reason: data.reason
  })),
  "placement.noHost": change((row, data, position) => ({
    attempts: [...row.attempts, attemptOf(data, position)],
    outcome: "no-host",
    host: null,
    reason: data.reason
  })),
  "placement.contested": change((_, { reason }) => ({ host: null, reason })),
  "placement.settled": change((_, { host }) => ({ outcome: "settled", host })),
  "placement.failed": change((_, { reason }) => ({ outcome: "failed", host: null, reason })),
  "placement.withdrawn": change((_, { reason }) => ({ outcome: "withdrawn", reason }))
})

export const placement: Projection<Placement> = {
  name: "placement",
  version: 1,
  continues: [],
  initial: () => ({ decisions: new Table(), byVm: new Table() }),
  apply: fold,
  tables: ({ decisions, byVm }) => ({ decisions, byVm })
}

/** The decisions about a machine, the latest first. */
export const decisionsOf = ({ decisions, byVm }: Placement, vm: string): ReadonlyArray<DecisionRow> =>
  (byVm.get(vm) ?? []).flatMap((decision) => decisions.get(decision) ?? []).reverse()
