/**
 * A week of a large fleet in the simulated world (`simulations/scale/`): the production kernel, actors and projections. Each
 * size in a process of its own: `node fleet.ts <hosts> <days> <seed>` prints one line of JSON.
 */
import { execFile } from "node:child_process"
import { hash } from "node:crypto"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { scaleOf } from "../../simulations/scale/options.ts"
import { run } from "../../simulations/scale/run.ts"
import type { Utilisation } from "../../simulations/scale/run.ts"
import { figure } from "./measure.ts"
import type { Figure, Options } from "./measure.ts"

interface Measured {
  readonly seconds: number
  readonly cpuSeconds: number
  readonly peakMib: number
  readonly events: number
  readonly counts: Readonly<Record<string, number>>
  readonly packed: Utilisation
  readonly atTheEnd: Utilisation
  readonly decisionMs: { readonly p50: number; readonly p99: number; readonly max: number }
  readonly whyMs: number
  readonly bytesPerDecision: number
  readonly bytesPerFact: number
  readonly result: string
}

function measure(hosts: number, days: number, seed: number): Measured {
  const beganMs = performance.now()
  const began = process.cpuUsage()
  const instruments = {
    sha256: (text: string) => hash("sha256", text),
    nowMs: () => performance.now(),
    hour: () => {}
  }
  const verdict = run(seed, scaleOf(hosts, days), instruments)
  if (verdict.violation !== null) throw verdict.violation
  const seconds = (performance.now() - beganMs) / 1000
  const { user, system } = process.cpuUsage(began)
  const sorted = verdict.decisionMs.toSorted((a, b) => a - b)
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0
  const { events, counts, packed, atTheEnd, whyMs, bytesPerDecision, bytesPerFact } = verdict
  return {
    seconds,
    cpuSeconds: (user + system) / 1e6,
    peakMib: process.resourceUsage().maxRSS / 1024,
    decisionMs: { p50: at(0.5), p99: at(0.99), max: at(1) },
    ...{ events, counts, packed, atTheEnd, whyMs, bytesPerDecision, bytesPerFact },
    result: verdict.hash.slice(0, 16)
  }
}

const sizes = {
  smoke: { hosts: [120], days: 1 },
  full: { hosts: [100, 1000, 10_000], days: 7 }
}

const inChild = async (hosts: number, days: number, seed: number): Promise<Measured> => {
  const args = ["--max-old-space-size=7500", fileURLToPath(import.meta.url)]
  const work = [hosts, days, seed].map(String)
  const { stdout } = await promisify(execFile)(process.execPath, [...args, ...work])
  return JSON.parse(stdout) as Measured
}

const percent = (share: number) => `${(share * 100).toFixed(1)} %`

function* figuresOf(what: string, hosts: number, one: Measured): Generator<Figure> {
  const { counts, seconds, cpuSeconds, result, decisionMs } = one
  const of = (name: string, unit: string, value: number, note = "") =>
    figure(`${what}: ${name}`, unit, [{ value, result }], { note })
  const count = (name: string) => counts[name] ?? 0
  yield of(
    "time",
    "s",
    seconds,
    `${cpuSeconds.toFixed(0)} s of a processor, ${((cpuSeconds * 1000) / hosts).toFixed(0)} ms for each host; ${count("arrivals")} arrivals, ${count("departures")} departures, ` +
      `${count("hostsUpgraded")} hosts upgraded, ${count("migrationsCompleted")} migrations, ` +
      `${count("hostFailures")} hosts, ${count("rackFailures")} racks and ${count("siteFailures")} site failed`
  )
  yield of("facts", "per second", count("facts") / cpuSeconds, `${count("facts")}, of a processor's time`)
  yield of("events", "per second", one.events / cpuSeconds, `${one.events}, of a processor's time`)
  yield of(
    "placement decisions",
    "per second",
    count("decisions") / cpuSeconds,
    `${count("decisions")}, with all that follows from them; ${one.bytesPerDecision.toFixed(0)} bytes each`
  )
  yield of(
    "ms per decision",
    "ms, median",
    decisionMs.p50,
    `p99 ${decisionMs.p99.toFixed(2)}, most ${decisionMs.max.toFixed(1)}; why: at most ${one.whyMs.toFixed(1)} ms`
  )
  yield of("memory", "MiB, most", one.peakMib, `${count("actors")} actors`)
  yield of(
    "memory promised of the hosts in use",
    "%",
    one.packed.ofUsedHosts * 100,
    `packed, ${one.packed.usedHosts} hosts; after the upgrade ${percent(one.atTheEnd.ofUsedHosts)} of ${one.atTheEnd.usedHosts}`
  )
}

export async function* fleetWeek({ size, seed }: Options): AsyncGenerator<Figure> {
  const { hosts, days } = sizes[size]
  for (const count of hosts) {
    const measured = await inChild(count, days, seed)
    yield* figuresOf(`${count} hosts, ${count * 10} machines, ${days} days`, count, measured)
  }
}

if (import.meta.main) {
  const [hosts = 0, days = 7, seed = 1] = process.argv.slice(2).map(Number)
  console.log(JSON.stringify(measure(hosts, days, seed)))
}
