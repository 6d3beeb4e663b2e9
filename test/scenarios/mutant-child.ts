/** Runs all scenarios against one mutant, in a process of its own, and says by the channel which of them noticed. */
import { globSync, readFileSync } from "node:fs"
import { basename, join } from "node:path"
import { mutants } from "../simulations/mutants.ts"
import { plant } from "../simulations/plant.ts"

export interface Noticed {
  readonly scenarios: ReadonlyArray<string>
  readonly unapplied: ReadonlyArray<string>
}

const [name = ""] = process.argv.slice(2)
const mutant = mutants.find((one) => one.name === name)
if (mutant === undefined) throw new Error(`no mutant ${name}`)
const unapplied = plant(mutant)
const { runScenario } = await import("./raft-script.ts")

function isNoticed(source: string): boolean {
  try {
    return runScenario(source).text !== source
  } catch {
    return true
  }
}

const files = globSync(join(import.meta.dirname, "raft", "*.txt"))
const scenarios = files.filter((file) => isNoticed(readFileSync(file, "utf8")))
const noticed: Noticed = {
  scenarios: scenarios.map((file) => basename(file, ".txt")),
  unapplied: [...unapplied]
}
process.send?.(noticed)
process.disconnect?.()
