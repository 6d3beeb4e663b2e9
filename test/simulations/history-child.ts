/**
 * Seeds of the simulated group with one of its mutants planted, in a process of its own: says by the channel what the clients
 * did. The checker that looks ahead at reads is blind here, or the life would end before a client is answered wrongly.
 */
import type { Call } from "../../simulations/checkers/linearizability.ts"
import { mutants } from "./mutants.ts"
import { plant } from "./plant.ts"

export interface Lived {
  readonly seed: number
  readonly promised: string | null
  readonly history: ReadonlyMap<string, ReadonlyArray<Call>>
}

export interface Told {
  readonly unapplied: ReadonlyArray<string>
  readonly lives: ReadonlyArray<Lived>
}

const [name = "", ...seeds] = process.argv.slice(2)
const mutant = mutants.find((one) => one.name === name)
if (mutant === undefined) throw new Error(`no mutant ${name}`)
const blindness = {
  file: "simulations/checkers/reads.ts",
  find: "if (index < decided)",
  put: "if (index < 0)"
}
const unapplied = plant({ ...mutant, edits: [...mutant.edits, blindness] })

// Only now, with the edits in it.
const { run } = await import("../../simulations/raft/run.ts")
const lives = seeds.map((seed): Lived => {
  const { violation, history } = run(Number(seed))
  return { seed: Number(seed), promised: violation?.promised ?? null, history }
})
process.send?.({ unapplied: [...unapplied], lives } satisfies Told)
process.disconnect?.()
