/**
 * Seeds in, verdicts out: a thread that runs one seed after the other. The command `novacron simulate` starts as many as
 * it is told, and gives them seeds by messages.
 */
import { parentPort, workerData } from "node:worker_threads"
import { run as runFleet } from "./fleet/run.ts"
import type { Verdict as FleetVerdict } from "./fleet/run.ts"
import { run as runRaft } from "./raft/run.ts"
import type { Verdict as RaftVerdict } from "./raft/run.ts"
import { run as runSwim } from "./swim/run.ts"
import type { Verdict as SwimVerdict } from "./swim/run.ts"

export const scenarios = { raft: runRaft, swim: runSwim, fleet: runFleet } as const
export type Scenario = keyof typeof scenarios
type Verdict = RaftVerdict | SwimVerdict | FleetVerdict

/** A verdict as it goes between threads. */
export type Said = Omit<Verdict, "violation"> & {
  readonly violation: { readonly promised: string; readonly message: string } | null
}

function said(scenario: Scenario, seed: number): Said {
  const { violation, ...rest } = scenarios[scenario](seed)
  return {
    ...rest,
    violation: violation === null ? null : { promised: violation.promised, message: violation.message }
  }
}

/** A thread is of one scenario; Raft unless told. */
const scenario = (workerData as Scenario | null) ?? "raft"

parentPort?.on("message", (seed: number) => parentPort?.postMessage(said(scenario, seed)))
