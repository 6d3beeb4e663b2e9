/** The group that agrees, as a scenario: how its runs are drawn, written down and made simpler. */
import { scriptOf } from "../script.ts"
import type { Scenario } from "../verdict.ts"
import { Fault } from "./fault.ts"
import { drawnOptions } from "./options.ts"
import type { RunOptions } from "./options.ts"
import { run, runPlan } from "./run.ts"

/** Each leaves something out, or makes it less. */
const changes: ReadonlyArray<(options: RunOptions) => RunOptions> = [
  (it) => ({ ...it, members: it.voters }),
  (it) => ({ ...it, members: it.members - 1, voters: Math.min(it.voters, it.members - 1) }),
  (it) => ({ ...it, members: it.members - 1, voters: it.voters - 1 }),
  (it) => ({ ...it, network: { ...it.network, loss: 0 } }),
  (it) => ({ ...it, network: { ...it.network, duplication: 0 } }),
  (it) => ({ ...it, disk: { ...it.disk, stalls: 0 } }),
  (it) => ({ ...it, disk: { ...it.disk, hasRecords: false } }),
  (it) => ({ ...it, driftPercent: 0 }),
  (it) => ({ ...it, endsTold: 0 }),
  (it) => ({ ...it, clients: { ...it.clients, abandoned: 0 } }),
  (it) => ({ ...it, clients: { ...it.clients, swaps: 0 } }),
  (it) => ({ ...it, clients: { ...it.clients, clients: 1 } }),
  (it) => ({ ...it, clients: { ...it.clients, clients: Math.ceil(it.clients.clients / 2) } }),
  (it) => ({ ...it, clients: { ...it.clients, keys: 1 } }),
  (it) => ({ ...it, safetyMs: Math.ceil(it.safetyMs / 2) }),
  (it) => ({ ...it, snapshotEvery: 1000 })
]

export const raft: Scenario = {
  name: "raft",
  run,
  script: scriptOf({ draw: drawnOptions, runPlan, fault: Fault, changes })
}
