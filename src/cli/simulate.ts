/** `novacron simulate`: runs the production actors in a simulated world, seed by seed, and says what broke. */
import { availableParallelism } from "node:os"
import { extname } from "node:path"
import { Worker } from "node:worker_threads"
import { Effect } from "effect"
import { Command, Flag, Argument } from "effect/cli"
import type { Said, Scenario } from "../../simulations/main.ts"
import { failure } from "./exit.ts"
import { output } from "./output.ts"

interface Wanted {
  readonly scenario: Scenario
  readonly seed: number
  /** So many, or until the time is over. */
  readonly seeds: number
  readonly endMs: number
  readonly workers: number
  /** Told of each as it ends; true ends it all. */
  readonly take: (said: Said) => boolean
}

const threadFile = () =>
  new URL(`../../simulations/main${extname(new URL(import.meta.url).pathname)}`, import.meta.url)

/** Gives every thread its next seed when it has done one. Ends when all are done, or on the first failure of a thread. */
function runSeeds(
  { scenario, seed, seeds, endMs, workers, take }: Wanted,
  signal: AbortSignal
): Promise<void> {
  let next = seed
  let running = 0
  const threads: Array<Worker> = []
  const end = () => Promise.all(threads.map((thread) => thread.terminate()))
  return new Promise<void>((resolve, reject) => {
    signal.addEventListener("abort", () => reject(new Error("interrupted")))
    let isOver = false
    const give = (thread: Worker) => {
      isOver ||= next >= seed + seeds || performance.now() >= endMs
      if (isOver) {
        if (running === 0) resolve()
        return
      }
      running++
      thread.postMessage(next++)
    }
    for (let count = 0; count < Math.min(workers, seeds); count++) {
      const thread = new Worker(threadFile(), { workerData: scenario })
      threads.push(thread)
      thread.on("error", reject)
      thread.on("message", (said: Said) => {
        running--
        const isEnough = take(said)
        isOver ||= isEnough
        give(thread)
      })
    }
    for (const thread of threads) give(thread)
  }).finally(end)
}

class Tally {
  readonly beganMs = performance.now()
  readonly violations: Array<Said> = []
  readonly counts: Record<string, number> = {}
  readonly coverage = new Set<string>()
  seeds = 0
  events = 0
  simulatedMs = 0

  take(said: Said): void {
    this.seeds++
    this.events += said.events
    this.simulatedMs += said.simulatedMs
    for (const [name, count] of Object.entries(said.counts))
      this.counts[name] = (this.counts[name] ?? 0) + count
    for (const one of said.coverage) this.coverage.add(one)
    if (said.violation !== null) this.violations.push(said)
  }

  summary() {
    const seconds = (performance.now() - this.beganMs) / 1000
    return {
      seeds: this.seeds,
      seconds,
      seedsPerHour: Math.round((this.seeds / seconds) * 3600),
      eventsPerSecond: Math.round(this.events / seconds),
      simulatedSecondsPerSecond: Math.round(this.simulatedMs / 1000 / seconds),
      counts: this.counts,
      coverage: [...this.coverage].sort()
    }
  }
}

const replayOf = (scenario: Scenario, seed: number) => `novacron simulate ${scenario} --seed ${seed}`

const simulated = Effect.fnUntraced(function* (flags: {
  readonly scenario: Scenario
  readonly seed: number
  readonly seeds: number
  readonly hours: number
  readonly workers: number
}) {
  const out = yield* output
  for (const [name, value, least, most] of [
    ["--seed", flags.seed, 0, 0xffffffff],
    ["--seeds", flags.seeds, 1, 0x100000000 - flags.seed],
    ["--workers", flags.workers, 1, 256],
    ["--hours", flags.hours, 0, 8760]
  ] as const)
    if (!(value >= least && value <= most))
      return yield* failure("usage", `${name} is ${value}: allowed is from ${least} to ${most}`)
  const tally = new Tally()
  const last: Array<Said> = []
  const { scenario } = flags
  const wanted = {
    scenario,
    seed: flags.seed,
    seeds: flags.hours > 0 ? 0x100000000 - flags.seed : flags.seeds,
    endMs: flags.hours > 0 ? performance.now() + flags.hours * 3_600_000 : Number.POSITIVE_INFINITY,
    workers: flags.workers,
    take: (said: Said) => {
      tally.take(said)
      last[0] = said
      out.progress(`${tally.seeds} seeds, ${tally.violations.length} broken`)
      if (said.violation !== null)
        out.note(`seed ${said.seed}: ${said.violation.message}\n  ${replayOf(scenario, said.seed)}`)
      return tally.violations.length >= violations_max
    }
  }
  yield* Effect.tryPromise({
    try: (signal) => runSeeds(wanted, signal),
    catch: (error) => failure("failure", `the simulation stopped: ${String(error)}`)
  })
  out.progress(null)
  const summary = tally.summary()
  const [only] = flags.seeds === 1 && flags.hours === 0 ? last : []
  out.either(
    { ...summary, violations: tally.violations, ...(only === undefined ? {} : { run: only }) },
    () => {
      if (only !== undefined) out.line(`options: ${JSON.stringify(only.options)}\njournal: ${only.hash}`)
      const { seconds, counts, coverage } = summary
      out.line(`${summary.seeds} seeds in ${seconds.toFixed(1)} s: ${summary.seedsPerHour} an hour`)
      out.line(
        `${summary.simulatedSecondsPerSecond} simulated seconds and ${summary.eventsPerSecond} events a second`
      )
      out.table(Object.entries(counts), [
        { head: "what", of: ([name]) => name },
        { head: "how often", of: ([, count]) => count }
      ])
      out.line(`${coverage.length} pairs of a role and an input were seen`)
      out.line(
        tally.violations.length === 0
          ? "every promise was kept"
          : `${tally.violations.length} seeds broke a promise`
      )
    }
  )
  if (tally.violations.length === 0) return
  const seeds = tally.violations.map(({ seed }) => seed)
  return yield* failure(
    "failure",
    `a promise was broken by seed ${seeds.join(", ")}`,
    replayOf(scenario, seeds[0] ?? 0)
  )
})

/** After so many it is known to be broken. */
const violations_max = 10

export const simulate = Command.make(
  "simulate",
  {
    scenario: Argument.Literals("scenario", ["raft", "swim", "fleet"]).pipe(
      Argument.withDescription(
        "raft: a group that agrees, with crashes, partitions and changes of its members; swim: members that find out who is there; fleet: the kernel and its hosts, with operators and faults"
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
    )
  },
  simulated
).pipe(
  Command.withDescription("Run the production actors in a simulated world, with faults drawn from seeds")
)
