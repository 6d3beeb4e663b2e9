/**
 * SWIM in simulated time: when a crash is noticed and known, beside what was published, what it costs, and who is accused
 * wrongly while members stand still. None of it is the time of this machine: the same seed gives the same figures.
 */
import { lanSettings, plainSettings } from "../../src/events/swim.ts"
import { aTenth, measureDetection, measurePauses } from "../../simulations/swim/measure.ts"
import type { Detection, DetectionRun, PauseRun } from "../../simulations/swim/measure.ts"
import { hashOf, spread } from "./measure.ts"
import type { Figure, Options } from "./measure.ts"

interface Group {
  readonly members: number
  /** Each a group of its own. */
  readonly runs: number
  readonly crashes: number
}

const groups: Readonly<Record<Options["size"], ReadonlyArray<Group>>> = {
  smoke: [
    { members: 5, runs: 10, crashes: 1 },
    { members: 50, runs: 1, crashes: 5 }
  ],
  full: [
    { members: 5, runs: 200, crashes: 1 },
    { members: 50, runs: 40, crashes: 5 },
    { members: 500, runs: 5, crashes: 20 },
    { members: 5000, runs: 1, crashes: 20 }
  ]
}

/** Das, Gupta and Motivala (2002), 3.2: of a group in which all probe at random, in periods. */
const expectedPeriods = Math.E / (Math.E - 1)

const mean = (values: ReadonlyArray<number>) => values.reduce((sum, one) => sum + one, 0) / values.length
const p99 = (values: ReadonlyArray<number>) =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * 0.99))] ??
  Number.NaN
const told = (values: ReadonlyArray<number>, digits = 2) =>
  `mean ${mean(values).toFixed(digits)}, p99 ${p99(values).toFixed(digits)} of ${values.length}`

function beside(
  values: ReadonlyArray<number>,
  name: string,
  bound: number
): NonNullable<Figure["yardstick"]> {
  return { name, value: spread([bound]), share: spread(values.map((one) => one / bound)) }
}

function* detection({ members, runs, crashes }: Group, seed: number): Generator<Figure> {
  const all: Array<DetectionRun> = []
  // Far enough apart that one is known before the next one crashes.
  const work = { crashes, everyMs: 5 * lanSettings.periodMs, waits: true }
  for (let run = 0; run < runs; run++)
    all.push(measureDetection(seed * 1000 + run, members, lanSettings, work))
  const detections = all.flatMap((one) => one.detections)
  const of = (field: keyof Detection) => detections.map((one) => one[field])
  const falseSuspicions = all.reduce((sum, one) => sum + one.falseSuspicions, 0)
  const falseDeaths = all.reduce((sum, one) => sum + one.falseDeaths, 0)
  const result = hashOf(detections.map((one) => JSON.stringify(one)))
  const wrong = `${falseSuspicions} suspected and ${falseDeaths} taken for dead wrongly`
  yield {
    name: `${members}: a crash is suspected by the first`,
    unit: "periods",
    value: spread(of("suspected")),
    yardstick: beside(of("suspected"), "e/(e-1)", expectedPeriods),
    note: `${told(of("suspected"))}; ${wrong}`,
    result
  }
  const windowMs = lanSettings.retransmit * Math.ceil(Math.log10(members + 1)) * lanSettings.gossipEveryMs
  yield {
    name: `${members}: then all know of it`,
    unit: "ms",
    value: spread(of("spreadMs")),
    yardstick: beside(of("spreadMs"), "λ·log(n+1) gossip intervals", windowMs),
    note: told(of("spreadMs"), 0),
    result
  }
  yield {
    name: `${members}: all take it for dead`,
    unit: "periods",
    value: spread(of("dead")),
    yardstick: null,
    note: told(of("dead")),
    result
  }
  const datagrams = all.map((one) => one.datagramsPerSecond)
  yield {
    name: `${members}: datagrams of a member while all is quiet`,
    unit: "/s",
    value: spread(datagrams),
    yardstick: beside(datagrams, "a ping and its answer", 2),
    note: "",
    result
  }
}

const pauses: Readonly<
  Record<Options["size"], { readonly members: number; readonly runs: number; readonly durationMs: number }>
> = {
  smoke: {
    members: 40,
    runs: 1,
    durationMs: 60_000
  },
  full: {
    members: 100,
    runs: 5,
    durationMs: 180_000
  }
}

const sumOf = (runs: ReadonlyArray<PauseRun>, field: keyof PauseRun) =>
  runs.reduce((sum, one) => sum + one[field], 0)

/** The same members stand still at the same times, whatever the settings. */
function* standingStill({ size, seed }: Options): Generator<Figure> {
  const { members, runs, durationMs } = pauses[size]
  for (const stops of ["messages", "process"] as const) {
    const measured = (settings: typeof lanSettings) =>
      Array.from({ length: runs }, (_, run) =>
        measurePauses(seed * 1000 + run, members, settings, { ...aTenth, durationMs, stops })
      )
    const plain = measured(plainSettings)
    const guarded = measured(lanSettings)
    const paper = measured({ ...lanSettings, lifeguard: { ...lanSettings.lifeguard, stalls: false } })
    const said = (name: string, of: ReadonlyArray<PauseRun>) =>
      `${name} ${sumOf(of, "falseDeaths")} (${sumOf(of, "falseDeathsAtHealthy")} at healthy members), of who stood still ${sumOf(of, "pausedDeaths")}`
    const shares = plain.map(
      ({ falseDeaths }, run) => (falseDeaths + 1) / ((guarded[run]?.falseDeaths ?? 0) + 1)
    )
    yield {
      name: `${members}, 10 % with their ${stops} stopped 1-10 s: false deaths + 1, plain by Lifeguard + 1`,
      unit: "times",
      value: spread(shares),
      yardstick: null,
      note: [said("plain", plain), said("Lifeguard", guarded), said("as published", paper)].join("; "),
      result: hashOf([plain, guarded, paper].map((one) => JSON.stringify(one)))
    }
  }
}

export async function* swim(options: Options): AsyncGenerator<Figure> {
  for (const group of groups[options.size]) yield* detection(group, options.seed)
  yield* standingStill(options)
}
