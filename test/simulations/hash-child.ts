/** Runs seeds of a scenario, one after the other, in a process of its own, and says by the channel what the hash of each was. */
import { scenarioOf } from "../../simulations/scenarios.ts"

export type Hashes = ReadonlyArray<readonly [seed: number, hash: string]>

const [name = "", ...seeds] = process.argv.slice(2)
const scenario = scenarioOf(name)
if (scenario === null) throw new Error(`there is no scenario ${name}`)
const hashes: Hashes = seeds.map(Number).map((seed) => [seed, scenario.run(seed).hash])
process.send?.(hashes)
process.disconnect?.()
