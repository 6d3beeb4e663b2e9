/**
 * Seeds in, verdicts out: a thread that runs one seed after the other. The command `novacron simulate` starts as many as
 * it is told, and gives them seeds by messages.
 */
import { parentPort } from "node:worker_threads"
import { run } from "./raft/run.ts"
import type { Verdict } from "./raft/run.ts"

/** A verdict as it goes between threads. */
export type Said = Omit<Verdict, "violation"> & {
  readonly violation: { readonly promised: string; readonly message: string } | null
}

function said(seed: number): Said {
  const { violation, ...rest } = run(seed)
  return {
    ...rest,
    violation: violation === null ? null : { promised: violation.promised, message: violation.message }
  }
}

parentPort?.on("message", (seed: number) => parentPort?.postMessage(said(seed)))
