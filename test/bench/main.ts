/**
 * `npm run bench [-- --size smoke|normal] [--json]`: each figure beside its yardstick, measured in the same run, so
 * that a slow machine slows both. A result's hash says that the work was the same.
 */
import { cpus } from "node:os"
import { benchAppend, benchRead } from "./event-store.ts"
import { benchKernel, turnsPerSecond } from "./kernel.ts"

export interface Figure {
  readonly name: string
  readonly value: number
  readonly unit: string
  /** What it is compared with, in the same unit; null where there is no yardstick. */
  readonly yardstick: { readonly name: string; readonly value: number } | null
  /** Hash of what was done; null where nothing is kept. */
  readonly result: string | null
}

export type Size = "smoke" | "normal"

const counts: Record<
  Size,
  { facts: number; singles: ReadonlyArray<number>; sixtyFours: ReadonlyArray<number> }
> = {
  smoke: { facts: 2000, singles: [100], sixtyFours: [1280] },
  normal: { facts: 40_000, singles: [200, 2000, 20_000], sixtyFours: [2048, 20_480, 204_800] }
}

/** All figures of one size, in a fixed order. */
export async function bench(size: Size): Promise<ReadonlyArray<Figure>> {
  const { facts, singles, sixtyFours } = counts[size]
  const figures: Array<Figure> = []
  for (const batch of [1, 64]) {
    const one = await benchAppend(batch === 1 ? Math.ceil(facts / 20) : facts, batch, 3)
    figures.push({
      name: `event store, append by ${batch}`,
      value: one.storePerSecond,
      unit: "facts/s",
      yardstick: { name: "node:sqlite, the same rows", value: one.rawPerSecond },
      result: null
    })
  }
  const read = await benchRead(facts)
  figures.push({
    name: "event store, read all",
    value: read.readPerSecond,
    unit: "facts/s",
    yardstick: null,
    result: read.result
  })
  figures.push({
    name: "event store, verify",
    value: read.verifyPerSecond,
    unit: "facts/s",
    yardstick: null,
    result: null
  })
  const runs = [
    ...singles.map((count) => [count, 1] as const),
    ...sixtyFours.map((count) => [count, 64] as const)
  ]
  for (const [count, inFlight] of runs) {
    const one = await benchKernel(count, inFlight)
    figures.push({
      name: `kernel's door, ${inFlight} in flight, ${count} commands`,
      value: one.commandsPerSecond,
      unit: "commands/s",
      yardstick: { name: "node:sqlite, the same rows and batches", value: one.rawRowsPerSecond },
      result: one.resultHash
    })
    figures.push({
      name: `replay, ${count} facts`,
      value: one.replayedPerSecond,
      unit: "facts/s",
      yardstick: null,
      result: one.resultHash
    })
  }
  figures.push({
    name: "turns of a host actor",
    value: turnsPerSecond(facts),
    unit: "turns/s",
    yardstick: null,
    result: null
  })
  return figures
}

function print(figures: ReadonlyArray<Figure>): void {
  console.log(`node ${process.version}, ${cpus().length} × ${cpus()[0]?.model ?? "unknown CPU"}`)
  for (const { name, value, unit, yardstick, result } of figures) {
    const share = yardstick ? `  ${((value / yardstick.value) * 100).toFixed(0)} % of ${yardstick.name}` : ""
    console.log(
      `${name.padEnd(48)} ${Math.round(value).toString().padStart(9)} ${unit.padEnd(11)}${share}  ${result ?? ""}`
    )
  }
}

if (import.meta.main) {
  const size: Size = process.argv.includes("smoke") ? "smoke" : "normal"
  const figures = await bench(size)
  if (process.argv.includes("--json"))
    console.log(JSON.stringify({ node: process.version, size, figures }, null, 2))
  else print(figures)
}
