/**
 * `npm run bench -- [options]`: each figure beside its yardstick, in rounds in which both take turns, so that a slow
 * machine slows both: median, least and most of all rounds. A result's hash says that the work was the same.
 *
 *   --only <part>        only this part; may be given more than once
 *   --size smoke|full    a few seconds, or what docs/benchmarks.md shows (unless told)
 *   --seed <number>      draws the work; 1 unless told
 *   --json               one JSON document instead of lines
 *
 * Exit code 2 when an option is wrong.
 */
import { availableParallelism, cpus } from "node:os"
import { parseArgs } from "node:util"
import { http } from "./http.ts"
import { actorsInMemory } from "./actors.ts"
import { fleetWeek } from "./fleet.ts"
import { cluster } from "./cluster.ts"
import { failover } from "./failover.ts"
import { eventStore } from "./event-store.ts"
import { kernelDoor, turns } from "./kernel.ts"
import type { Figure, Options, Size, Spread } from "./measure.ts"
import { migration } from "./migration.ts"
import { raft } from "./raft.ts"
import { replaying } from "./replay.ts"
import { simulation } from "./simulation.ts"
import { startUp } from "./start-up.ts"
import { swim } from "./swim.ts"

export const parts = {
  store: eventStore,
  kernel: kernelDoor,
  turns,
  replay: replaying,
  raft,
  simulation,
  http,
  cluster,
  failover,
  actors: actorsInMemory,
  "start-up": startUp,
  swim,
  fleet: fleetWeek,
  migration
} as const

export type Part = keyof typeof parts

const allParts = Object.keys(parts) as ReadonlyArray<Part>
const isPart = (name: string): name is Part => Object.hasOwn(parts, name)

export interface Asked extends Options {
  readonly only: ReadonlyArray<Part>
  readonly json: boolean
}

/** Throws with what is allowed. */
export function readArguments(args: ReadonlyArray<string>): Asked {
  const { values } = parseArgs({
    args: [...args],
    options: {
      only: { type: "string", multiple: true, default: [...allParts] },
      size: { type: "string", default: "full" },
      seed: { type: "string", default: "1" },
      json: { type: "boolean", default: false }
    }
  })
  const only = values.only.map((name) => {
    if (!isPart(name)) throw new Error(`--only ${name}: allowed are ${allParts.join(", ")}`)
    return name
  })
  const { size, seed } = values
  if (size !== "smoke" && size !== "full") throw new Error(`--size ${size}: allowed are smoke, full`)
  if (!/^\d{1,9}$/.test(seed))
    throw new Error(`--seed ${seed}: allowed is a whole number from 0 to 999999999`)
  return { only, size: size satisfies Size, seed: Number(seed), json: values.json }
}

const machine = () => ({
  date: new Date().toISOString().slice(0, 10),
  cores: availableParallelism(),
  cpu: cpus()[0]?.model.trim() ?? "unknown",
  node: process.versions.node,
  sqlite: process.versions.sqlite ?? "unknown"
})

function number(value: number): string {
  const digits = value >= 100 ? 0 : value >= 1 ? 1 : 3
  return value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits })
}

const range = ({ median, min, max }: Spread, scale = 1) =>
  `${number(median * scale)} (${number(min * scale)}–${number(max * scale)})`

export function line(part: string, { name, unit, value, yardstick, note, result }: Figure): string {
  const compared = yardstick === null ? "" : `; ${range(yardstick.share, 100)} % of ${yardstick.name}`
  return `${`${part}: ${name}`.padEnd(52)} ${range(value)} ${unit}${compared}${note === "" ? "" : `; ${note}`}  [${result}]`
}

async function main(): Promise<void> {
  let asked: Asked
  try {
    asked = readArguments(process.argv.slice(2))
  } catch (error) {
    console.error((error as Error).message)
    process.exitCode = 2
    return
  }
  const { date, cores, cpu, node, sqlite } = machine()
  const all: Array<Figure & { readonly part: Part }> = []
  if (!asked.json) {
    console.log(
      `${date}, ${cores} cores, ${cpu}, Node ${node}, SQLite ${sqlite}; size ${asked.size}, seed ${asked.seed}`
    )
    console.log("median of the rounds (least–most); [hash of the result]\n")
  }
  for (const part of asked.only)
    for await (const figure of parts[part](asked)) {
      all.push({ part, ...figure })
      if (!asked.json) console.log(line(part, figure))
    }
  if (asked.json) {
    const { size, seed } = asked
    console.log(JSON.stringify({ ...machine(), size, seed, figures: all }, null, 2))
  }
}

if (import.meta.main) await main()
