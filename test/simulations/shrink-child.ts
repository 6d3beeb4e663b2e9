/** Makes the run in which a mutant is found smaller, in a process of its own, and says by the channel what is left. */
import type { Script } from "../../simulations/verdict.ts"
import { mutants } from "./mutants.ts"
import { plant } from "./plant.ts"

export interface Smaller {
  readonly faults: number
  readonly faultsLeft: number
  readonly promised: string | undefined
  readonly promisedLeft: string | undefined
  readonly text: string
  /** Written down, read, and run again it is the same, and made smaller again it is the same too. */
  readonly isSame: boolean
  readonly isRepeated: boolean
}

const [name = ""] = process.argv.slice(2)
const mutant = mutants.find((one) => one.name === name)
if (mutant === undefined) throw new Error(`no mutant ${name}`)
const seed = mutant.seed ?? 0
plant(mutant)
const { raft } = await import("../../simulations/raft/scenario.ts")
const { shrink } = await import("../../simulations/shrink.ts")
const { parseScenario, scenarioText } = await import("../../simulations/scenario-file.ts")
const script = raft.script as Script
const before = script.plan(seed)
/** Enough for the larger parts. */
const runs = 40
const shrunk = shrink(script, seed, runs)
if (shrunk !== null) {
  const { plan, verdict } = shrunk
  const promised = verdict.violation?.promised ?? null
  const { hash } = verdict
  const text = scenarioText({ purpose: "the least", scenario: raft, plan, broken: promised, journal: hash })
  const again = script.run(parseScenario(text).plan)
  const smaller: Smaller = {
    faults: before.plan.faults.length,
    faultsLeft: plan.faults.length,
    promised: before.verdict.violation?.promised,
    promisedLeft: again.violation?.promised,
    text,
    isSame: again.hash === hash,
    isRepeated: shrink(script, seed, runs)?.verdict.hash === hash
  }
  process.send?.(smaller)
}
process.disconnect?.()
