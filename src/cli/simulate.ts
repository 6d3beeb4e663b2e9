/** `novacron simulate`: runs the production actors in a simulated world, seed by seed, and says what broke. */
import { existsSync } from "node:fs"
import { readFile, writeFile } from "node:fs/promises"
import { availableParallelism } from "node:os"
import { Effect, Option } from "effect"
import { Command, Flag, Argument } from "effect/cli"
import type { Said } from "../../simulations/main.ts"
import { abouts } from "../../simulations/abouts.ts"
import { classOf } from "../../simulations/verdict.ts"
import { coverageText, seenByKind } from "./coverage.ts"
import { failure } from "./exit.ts"
import { output } from "./output.ts"
import type { Output } from "./output.ts"
import { performed, runSeeds } from "./simulating.ts"

interface Flags {
  readonly scenario: string
  readonly seed: number
  readonly seeds: number
  readonly hours: number
  readonly workers: number
  readonly hosts: Option.Option<number>
  readonly shrink: boolean
  readonly historyPorcupine: Option.Option<string>
  readonly historyKnossos: Option.Option<string>
}

class Tally {
  readonly #flags: Flags
  readonly beganMs = performance.now()
  readonly violations: Array<object> = []
  readonly seedsBroken: Array<number> = []
  readonly #counts: Record<string, number> = {}
  readonly #injected = new Set<string>()
  readonly #coverage = new Set<string>()
  readonly #figures: Record<string, { readonly least: number; readonly most: number }> = {}
  seeds = 0
  #events = 0
  #simulatedMs = 0

  constructor(flags: Flags) {
    this.#flags = flags
  }

  take(said: Said): void {
    const { seed, counts, injected, coverage, violation, hash } = said
    this.seeds++
    this.#events += said.events
    this.#simulatedMs += said.simulatedMs
    for (const [name, count] of Object.entries(counts)) this.#counts[name] = (this.#counts[name] ?? 0) + count
    for (const one of injected) this.#injected.add(one)
    for (const one of coverage) this.#coverage.add(one)
    for (const [name, value] of Object.entries(said.figures ?? {})) {
      const { least, most } = this.#figures[name] ?? { least: value, most: value }
      this.#figures[name] = { least: Math.min(least, value), most: Math.max(most, value) }
    }
    if (violation === null) return
    this.seedsBroken.push(seed)
    const replay = replayOf(this.#flags, seed)
    this.violations.push({ seed, class: classOf(violation.promised), ...violation, hash, replay })
  }

  summary() {
    const seconds = (performance.now() - this.beganMs) / 1000
    const isFault = ([name]: readonly [string, number]) => this.#injected.has(name)
    const counts = Object.entries(this.#counts)
    return {
      scenario: this.#flags.scenario,
      seeds: this.seeds,
      seconds,
      seedsPerHour: Math.round((this.seeds / seconds) * 3600),
      eventsPerSecond: Math.round(this.#events / seconds),
      simulatedSecondsPerSecond: Math.round(this.#simulatedMs / 1000 / seconds),
      faults: Object.fromEntries(counts.filter(isFault)),
      counts: Object.fromEntries(counts.filter((one) => !isFault(one))),
      figures: this.#figures,
      coverage: [...this.#coverage].sort()
    }
  }
}

const replayOf = ({ scenario, hosts }: Flags, seed: number) =>
  `novacron simulate ${scenario}${Option.isSome(hosts) ? ` --hosts ${hosts.value}` : ""} --seed ${seed}`

/** What a promise's class and name are, for people. */
const brokenBy = ({ violation }: Said): string =>
  violation === null ? "" : `${classOf(violation.promised)}: ${violation.message}`

const write = (path: Option.Option<string>, text: string | undefined) =>
  Option.isNone(path)
    ? Effect.void
    : Effect.tryPromise({
        try: () => {
          if (text === undefined)
            throw new Error("this scenario has no clients whose history could be written")
          return writeFile(path.value, text)
        },
        catch: (error) => failure("failure", `${path.value}: ${String(error)}`)
      })

const checked = Effect.fnUntraced(function* (flags: Flags) {
  const { scenarioOf, scripted } = yield* Effect.promise(() => import("../../simulations/scenarios.ts"))
  const scenario = scenarioOf(flags.scenario)
  if (scenario === null)
    return yield* failure(
      "usage",
      `there is no scenario and no file "${flags.scenario}"`,
      `scenarios: ${Object.keys(abouts).join(", ")}`
    )
  if (flags.shrink && scenario.name !== "swarm" && scenario.script === undefined)
    return yield* failure(
      "usage",
      `--shrink: ${scenario.name} can't be made smaller`,
      `those that can: ${scripted.join(", ")}, and seeds of swarm that are one of these`
    )
  for (const [name, value, least, most] of [
    ["--seed", flags.seed, 0, 0xffffffff],
    ["--seeds", flags.seeds, 1, 0x100000000 - flags.seed],
    ["--workers", flags.workers, 1, 256],
    ["--hours", flags.hours, 0, 8760]
  ] as const)
    if (!(value >= least && value <= most))
      return yield* failure("usage", `${name} is ${value}: allowed is from ${least} to ${most}`)
  const { hosts } = flags
  if (Option.isSome(hosts) && scenario.isLarge !== true)
    return yield* failure("usage", "--hosts is for the scenario scale: the others draw how many there are")
  if (Option.isSome(hosts) && !(hosts.value >= 100 && hosts.value <= 10_000))
    return yield* failure("usage", `--hosts is ${hosts.value}: allowed is from 100 to 10000`)
  const isOne = flags.seeds === 1 && flags.hours === 0
  const wantsOne = Option.isSome(flags.historyPorcupine) || Option.isSome(flags.historyKnossos)
  if (wantsOne && !isOne) return yield* failure("usage", "a history is written of one seed")
  return { isOne, wantsHistory: wantsOne }
})

/** A scenario's file, run again. */
const replayed = Effect.fnUntraced(function* (path: string) {
  const out = yield* output
  const text = yield* Effect.tryPromise({
    try: () => readFile(path, "utf8"),
    catch: (error) => failure("usage", `${path}: ${String(error)}`)
  })
  const answer = yield* performed({ task: "replay", text })
  if ("wrong" in answer) return yield* failure("failure", `${path}: ${answer.wrong}`)
  const { said } = answer
  out.either({ run: said }, () => {
    out.line(said.violation === null ? "every promise was kept" : `${brokenBy(said)}\njournal: ${said.hash}`)
  })
  if (said.violation !== null)
    return yield* failure("failure", "the run breaks the promise that its file tells of")
})

const shrunk = Effect.fnUntraced(function* (scenario: string, seed: number) {
  const out = yield* output
  const answer = yield* performed({ task: "shrink", scenario, seed })
  if ("wrong" in answer) return yield* failure("failure", answer.wrong)
  const path = `${scenario}-${seed}.scenario.txt`
  yield* write(Option.some(path), answer.text ?? "")
  out.note(`the least that breaks it, after ${answer.runs} runs: ${path}\n  novacron simulate ${path}`)
})

/** What came of the seeds, for people; of a single one also what it was. */
function show(out: Output, tally: Tally, only: Said | null): void {
  const { violations } = tally
  const summary = tally.summary()
  if (only !== null) out.line(`options: ${JSON.stringify(only.options)}\njournal: ${only.hash}`)
  out.line(`${summary.seeds} seeds in ${summary.seconds.toFixed(1)} s: ${summary.seedsPerHour} an hour`)
  out.line(
    `${summary.simulatedSecondsPerSecond} simulated seconds and ${summary.eventsPerSecond} events a second`
  )
  for (const [head, counts] of [["fault", summary.faults] as const, ["what", summary.counts] as const])
    out.table(Object.entries(counts), [
      { head, of: ([name]) => name },
      { head: "how often", of: ([, count]) => count }
    ])
  if (Object.keys(summary.figures).length > 0)
    out.table(Object.entries(summary.figures), [
      { head: "figure", of: ([name]) => name },
      { head: "least", of: ([, { least }]) => least },
      { head: "most", of: ([, { most }]) => most }
    ])
  const seen = seenByKind(summary.coverage)
  out.line(`seen of the charts: ${coverageText(seen)}`)
  if (seen.length > 1)
    out.table(seen, [
      { head: "actor", of: ({ kind }) => kind },
      { head: "states", of: ({ state }) => state },
      { head: "moves", of: ({ move }) => move },
      { head: "inputs", of: ({ input }) => input },
      { head: "facts", of: ({ fact }) => fact }
    ])
  out.line(violations.length === 0 ? "every promise was kept" : `${violations.length} seeds broke a promise`)
}

const simulated = Effect.fnUntraced(function* (flags: Flags) {
  const out = yield* output
  const { scenario } = flags
  if (existsSync(scenario)) return yield* replayed(scenario)
  const { isOne, wantsHistory } = yield* checked(flags)
  const tally = new Tally(flags)
  let last: Said | null = null as Said | null
  const wanted = {
    scenario,
    history: wantsHistory,
    seed: flags.seed,
    seeds: flags.hours > 0 ? 0x100000000 - flags.seed : flags.seeds,
    endMs: flags.hours > 0 ? performance.now() + flags.hours * 3_600_000 : Number.POSITIVE_INFINITY,
    workers: flags.workers,
    hosts: Option.getOrNull(flags.hosts),
    take: (said: Said) => {
      tally.take(said)
      last = said
      out.progress(`${tally.seeds} seeds, ${tally.violations.length} broken`)
      if (said.violation !== null)
        out.note(`seed ${said.seed}: ${brokenBy(said)}\n  ${replayOf(flags, said.seed)}`)
      return tally.violations.length >= violations_max
    }
  }
  yield* Effect.tryPromise({
    try: (signal) => runSeeds(wanted, signal),
    catch: (error) => failure("failure", `the simulation stopped: ${String(error)}`)
  })
  out.progress(null)
  const summary = tally.summary()
  const only = isOne ? last : null
  yield* write(flags.historyPorcupine, only?.history?.porcupine)
  yield* write(flags.historyKnossos, only?.history?.knossos)
  const { violations } = tally
  out.either({ ...summary, violations, ...(only === null ? {} : { run: { ...only, history: null } }) }, () =>
    show(out, tally, only)
  )
  const [first] = tally.seedsBroken
  if (first === undefined) return
  if (flags.shrink) yield* shrunk(scenario, first)
  const reason = `a promise was broken by seed ${tally.seedsBroken.join(", ")}`
  return yield* failure("failure", reason, replayOf(flags, first))
})

/** After so many it is known to be broken. */
const violations_max = 10

export const simulate = Command.make(
  "simulate",
  {
    scenario: Argument.String("scenario").pipe(
      Argument.withDescription(
        `${Object.entries(abouts)
          .map(([name, about]) => `${name}: ${about}`)
          .join("; ")}; or the file of a scenario`
      )
    ),
    seed: Flag.Int("seed").pipe(Flag.withDescription("The first seed"), Flag.withDefault(1)),
    seeds: Flag.Int("seeds").pipe(
      Flag.withDescription("How many seeds, one after the other"),
      Flag.withDefault(1)
    ),
    hours: Flag.Finite("hours").pipe(
      Flag.withDescription("As many seeds as can be run in this time, instead of --seeds"),
      Flag.withDefault(0)
    ),
    workers: Flag.Int("workers").pipe(
      Flag.withDescription("Threads; one for each processor unless told"),
      Flag.withDefault(availableParallelism())
    ),
    hosts: Flag.Int("hosts").pipe(
      Flag.withDescription(
        "How many hosts scale has, with ten machines each; drawn from the seed unless told"
      ),
      Flag.optional
    ),
    shrink: Flag.Boolean("shrink").pipe(
      Flag.withDescription(
        "Write the least that breaks the first promise that was broken as a scenario's file"
      ),
      Flag.withDefault(false)
    ),
    historyPorcupine: Flag.String("history-porcupine").pipe(
      Flag.withDescription("Write what the clients of one seed did to this file, for porcupine"),
      Flag.optional
    ),
    historyKnossos: Flag.String("history-knossos").pipe(
      Flag.withDescription("Write what the clients of one seed did to this file, for Jepsen's Knossos"),
      Flag.optional
    )
  },
  simulated
).pipe(
  Command.withDescription("Run the production actors in a simulated world, with faults drawn from seeds")
)
