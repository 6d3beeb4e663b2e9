/** Runs seeds of a scenario against one mutant, in a process of its own, and says by the channel which seed found it. */
import { clusterMutants } from "./cluster-mutants.ts"
import { fencingMutants } from "./fencing-mutants.ts"
import { fleetMutants } from "./fleet-mutants.ts"
import { mutants } from "./mutants.ts"
import { plant } from "./plant.ts"
import { swimMutants } from "./swim-mutants.ts"

export interface Found {
  readonly seed: number | null
  readonly promised: string | null
  readonly message: string
  readonly unapplied: ReadonlyArray<string>
}

const catalogues = {
  cluster: clusterMutants,
  fencing: fencingMutants,
  raft: mutants,
  swim: swimMutants,
  fleet: fleetMutants
} as const
export type Scenario = keyof typeof catalogues

const [scenario = "raft", name = "", first = "1", seeds = "0"] = process.argv.slice(2)
const mutant = catalogues[scenario as Scenario].find((one) => one.name === name)
if (mutant === undefined) throw new Error(`no mutant ${name} of ${scenario}`)
const unapplied = plant(mutant)

// Only now, with the edits in it.
const { run } = (await import(`../../simulations/${scenario}/run.ts`)) as {
  readonly run: (seed: number) => {
    readonly violation: { readonly promised: string; readonly message: string } | null
  }
}
let found: Found = { seed: null, promised: null, message: "", unapplied: [...unapplied] }
/** First the one that is known to find it, then all. */
const order = [Number(first), ...Array.from({ length: Number(seeds) }, (_, index) => index + 1)]
for (const seed of unapplied.size === 0 ? order : []) {
  const { violation } = run(seed)
  if (violation === null) continue
  found = { ...found, seed, promised: violation.promised, message: violation.message.slice(0, 300) }
  break
}
process.send?.(found)
process.disconnect?.()
