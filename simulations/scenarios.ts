/** What can be simulated, by name. */
import { cluster } from "./cluster/scenario.ts"
import { run as runFencing } from "./fencing/run.ts"
import { run as runFleet } from "./fleet/run.ts"
import { raft } from "./raft/scenario.ts"
import { scale } from "./scale/scenario.ts"
import { run as runSwim } from "./swim/run.ts"
import { makeRandom } from "./world/random.ts"
import type { Scenario } from "./verdict.ts"

/** Each is one life of something from a seed. */
const lives: ReadonlyArray<Scenario> = [
  raft,
  { name: "swim", run: runSwim },
  { name: "fleet", run: runFleet },
  { name: "fencing", run: runFencing },
  cluster
]

const lifeOf = (seed: number): Scenario =>
  lives[
    makeRandom(seed)
      .split("swarm")
      .int(0, lives.length - 1)
  ] as Scenario

export const scenarios: ReadonlyArray<Scenario> = [
  ...lives,
  scale,
  {
    name: "swarm",
    run: (seed) => lifeOf(seed).run(seed)
  }
]

export const scenarioOf = (name: string): Scenario | null =>
  scenarios.find((scenario) => scenario.name === name) ?? null

/** Those whose runs can be written down, and made smaller. */
export const scripted = lives.filter(({ script }) => script !== undefined).map(({ name }) => name)

/** The one whose run a seed of this one is. */
export const resolve = (name: string, seed: number): Scenario | null =>
  name === "swarm" ? lifeOf(seed) : scenarioOf(name)
