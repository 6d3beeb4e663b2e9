/** A cluster as a scenario: how its runs are drawn, written down and made simpler. */
import { scriptOf } from "../script.ts"
import type { Scenario } from "../verdict.ts"
import { Fault } from "./fault.ts"
import { drawOptions } from "./options.ts"
import type { RunOptions } from "./options.ts"
import { run, runPlan } from "./run.ts"

const never = Number.POSITIVE_INFINITY

/** Each leaves something out, or makes it less. */
const changes: ReadonlyArray<(options: RunOptions) => RunOptions> = [
  (it) => ({ ...it, spares: 0 }),
  (it) => ({ ...it, voters: it.voters - 1 }),
  (it) => ({ ...it, hosts: 1 }),
  (it) => ({ ...it, wires: { ...it.wires, crossings: 0 } }),
  (it) => ({ ...it, wires: { ...it.wires, duplication: 0 } }),
  (it) => ({ ...it, disk: { ...it.disk, stalls: 0 } }),
  (it) => ({ ...it, driftPercent: 0 }),
  (it) => ({ ...it, wallSpreadMs: 0 }),
  (it) => ({ ...it, line: { ...it.line, answersLost: 0 } }),
  (it) => ({ ...it, reads: { ...it.reads, readers: 0 } }),
  (it) => ({ ...it, stewards: { admitEveryMs: never, removeEveryMs: never, leadEveryMs: never } }),
  (it) => ({ ...it, operators: { ...it.operators, operators: 1 } }),
  (it) => ({ ...it, operators: { ...it.operators, machines: 1 } }),
  (it) => ({ ...it, operators: { ...it.operators, repeats: 0 } }),
  (it) => ({ ...it, safetyMs: Math.ceil(it.safetyMs / 2) }),
  (it) => ({ ...it, compactEvery: 5000 })
]

export const cluster: Scenario = {
  name: "cluster",
  run,
  script: scriptOf({ draw: drawOptions, runPlan, fault: Fault, changes })
}
