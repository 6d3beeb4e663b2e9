/**
 * `npm run bench -- [--size smoke|normal] [--only part,part] [--json]`: each figure beside its yardstick, measured in the
 * same run, so that a slow machine slows both. A result's hash says that the work was the same. Nothing is drawn at
 * random, so there is no seed. Exit code 2 for wrong options.
 */
import { cpus } from "node:os"
import { parseArgs } from "node:util"
import { benchActors } from "./actors.ts"
import { benchAppend, benchRead } from "./event-store.ts"
import { benchHttp } from "./http.ts"
import { benchKernel, turnsPerSecond } from "./kernel.ts"
import { benchMigrations } from "./migration.ts"
import { benchStartUp } from "./start-up.ts"

export interface Figure {
  readonly name: string
  readonly value: number
  readonly unit: string
  /** What it is compared with, in the same unit; null where there is no yardstick. */
  readonly yardstick: { readonly name: string; readonly value: number } | null
  /** Hash of what was done; null where nothing is kept. */
  readonly result: string | null
  readonly more?: string
}

export type Size = "smoke" | "normal"
type Part = (size: Size) => Promise<ReadonlyArray<Figure>>

const figure = (
  [name, value, unit]: readonly [string, number, string],
  yardstick: readonly [string, number] | null = null,
  result: string | null = null,
  more?: string
): Figure => ({
  ...{ name, value, unit, result },
  yardstick: yardstick && { name: yardstick[0], value: yardstick[1] },
  ...(more === undefined ? {} : { more })
})

const store: Part = async (size) => {
  const facts = size === "smoke" ? 2000 : 40_000
  const figures: Array<Figure> = []
  for (const batch of [1, 64]) {
    const one = await benchAppend(batch === 1 ? facts / 20 : facts, batch, 3)
    figures.push(
      figure(
        [`event store, append by ${batch}`, one.storePerSecond, "facts/s"],
        ["node:sqlite", one.rawPerSecond]
      )
    )
  }
  const read = await benchRead(facts)
  return [
    ...figures,
    figure(["event store, read all", read.readPerSecond, "facts/s"], null, read.result),
    figure(["event store, verify", read.verifyPerSecond, "facts/s"])
  ]
}

const kernel: Part = async (size) => {
  const runs: ReadonlyArray<readonly [count: number, inFlight: number]> =
    size === "smoke"
      ? [
          [100, 1],
          [1280, 64]
        ]
      : [
          ...[200, 2000, 20_000].map((count) => [count, 1] as const),
          ...[2048, 20_480, 204_800].map((count) => [count, 64] as const)
        ]
  const figures: Array<Figure> = []
  for (const [count, inFlight] of runs) {
    const one = await benchKernel(count, inFlight)
    figures.push(
      figure(
        [`kernel's door, ${inFlight} in flight, ${count} commands`, one.commandsPerSecond, "commands/s"],
        ["node:sqlite, the same rows and batches", one.rawRowsPerSecond],
        one.resultHash
      ),
      figure([`replay, ${count} facts`, one.replayedPerSecond, "facts/s"], null, one.resultHash)
    )
  }
  const turns = turnsPerSecond(size === "smoke" ? 2000 : 40_000)
  return [...figures, figure(["turns of a host actor", turns, "turns/s"])]
}

const ms = (value: number) => value.toFixed(2)

const http: Part = async (size) => {
  const runs: ReadonlyArray<readonly [connections: number, requests: number]> =
    size === "smoke"
      ? [
          [1, 100],
          [64, 640]
        ]
      : [
          ...[400, 4000, 40_000].map((requests) => [1, requests] as const),
          ...[3200, 32_000, 320_000].map((requests) => [64, requests] as const)
        ]
  const figures: Array<Figure> = []
  for (const journal of ["memory", "SQLite"] as const) {
    for (const [connections, requests] of runs) {
      const { command, echo } = await benchHttp(journal, connections, requests, size === "smoke" ? 1 : 3)
      figures.push(
        figure(
          [`HTTP, ${journal}, ${connections} in flight, ${requests}`, command.perSecond, "commands/s"],
          ["node:http echo", echo.perSecond],
          null,
          `p50 ${ms(command.p50Ms)}, p99 ${ms(command.p99Ms)} ms; echo p50 ${ms(echo.p50Ms)}, p99 ${ms(echo.p99Ms)} ms`
        )
      )
    }
  }
  return figures
}

const actors: Part = async (size) => {
  const figures: Array<Figure> = []
  for (const count of size === "smoke" ? [500] : [1000, 10_000, 100_000]) {
    const one = await benchActors(count)
    figures.push(
      figure([`${count} machines in memory`, one.bytesEach, "bytes each"], null, String(one.result)),
      figure([`${count} machines recovered, every fact`, one.replaySeconds * 1000, "ms"]),
      figure([`${count} machines recovered, checkpoint`, one.checkpointSeconds * 1000, "ms"])
    )
  }
  return figures
}

const startUp: Part = async (size) => {
  const figures: Array<Figure> = []
  for (const facts of size === "smoke" ? [0] : [0, 10_000, 100_000]) {
    const one = await benchStartUp(facts, size === "smoke" ? 1 : 5)
    figures.push(
      figure(
        [`start-up to ready, ${facts} facts`, one.secondsToReady * 1000, "ms"],
        ["a bare node", one.bareNodeSeconds * 1000]
      )
    )
  }
  return figures
}

const migration: Part = async (size) => {
  const workloads = (size === "smoke" ? [128] : [128, 512, 1024]).flatMap((memoryMib) =>
    (size === "smoke" ? [true] : [false, true]).map((disk) => ({ memoryMib, disk, dirtyMibPerSecond: 4 }))
  )
  const results = await benchMigrations(workloads, size === "smoke" ? 1 : 5)
  return results.flatMap(({ memoryMib, disk, plain, novacron }) => {
    const what = `migration, ${memoryMib} MiB, ${disk ? "16 MiB disk" : "no disk"}`
    return (["totalMs", "downtimeMs", "gapMs"] as const).map((of) =>
      figure(
        [`${what}, ${of.replace("Ms", "").replace("gap", "guest's gap")}`, novacron[of], "ms"],
        ["plain QEMU", plain[of]]
      )
    )
  })
}

const parts = { store, kernel, http, actors, "start-up": startUp, migration } as const
export type PartName = keyof typeof parts
const partNames = Object.keys(parts) as ReadonlyArray<PartName>

/** The figures of these parts, in a fixed order. */
export async function bench(size: Size, only: ReadonlyArray<PartName>): Promise<ReadonlyArray<Figure>> {
  const figures: Array<Figure> = []
  for (const name of partNames) if (only.includes(name)) figures.push(...(await parts[name](size)))
  return figures
}

const machine = () => ({
  date: new Date().toISOString().slice(0, 10),
  node: process.version,
  sqlite: process.versions["sqlite"] ?? "",
  cpus: `${cpus().length} × ${cpus()[0]?.model ?? "unknown CPU"}`
})

function print(figures: ReadonlyArray<Figure>): void {
  console.log(Object.values(machine()).join(", "))
  for (const { name, value, unit, yardstick, result, more } of figures) {
    const share = yardstick ? `  ${((value / yardstick.value) * 100).toFixed(0)} % of ${yardstick.name}` : ""
    const notes = [result, more].filter(Boolean).join("  ")
    console.log(
      `${name.padEnd(48)} ${Math.round(value).toString().padStart(9)} ${unit.padEnd(11)}${share}  ${notes}`
    )
  }
}

class WrongOption extends Error {}

function readOptions(): { size: Size; only: ReadonlyArray<PartName>; json: boolean } {
  const { values } = parseArgs({
    options: { size: { type: "string" }, only: { type: "string" }, json: { type: "boolean" } }
  })
  const { size = "normal", only = partNames.join(","), json = false } = values
  if (size !== "smoke" && size !== "normal")
    throw new WrongOption(`--size ${size}: allowed are smoke and normal`)
  const isPart = (name: string): name is PartName => Object.hasOwn(parts, name)
  const wanted = only.split(",")
  const odd = wanted.find((name) => !isPart(name))
  if (odd !== undefined) throw new WrongOption(`--only ${odd}: allowed are ${partNames.join(", ")}`)
  return { size, only: wanted.filter(isPart), json }
}

if (import.meta.main) {
  try {
    const { size, only, json } = readOptions()
    const figures = await bench(size, only)
    if (json) console.log(JSON.stringify({ ...machine(), size, figures }, null, 2))
    else print(figures)
  } catch (error) {
    const code = (error as { code?: unknown }).code
    const isWrong =
      error instanceof WrongOption || (typeof code === "string" && code.startsWith("ERR_PARSE_ARGS"))
    if (!isWrong) throw error
    console.error((error as Error).message)
    process.exitCode = 2
  }
}
