/**
 * Metrics for Prometheus. Counters begin at the start of the process and count what happens from then on: facts
 * that were recorded before are folded into the views again, but not counted again. Gauges of what there is are
 * read from the views when they are asked for. Every label has a bounded set of values.
 */
import { Cause, Context, Effect, Exit, Layer } from "effect"
import type { Scope } from "effect"
import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from "prom-client"
import type { Recorded } from "../events/envelope.ts"
import { withoutPrefix } from "../events/envelope.ts"
import { Kernel } from "../kernel/kernel.ts"
import { EventStore } from "../kernel/ports/event-store.ts"
import type { Accepted, SubmitError } from "../kernel/refusals.ts"
import { takeTurn } from "../kernel/turn.ts"
import { inventory } from "../projections/inventory.ts"
import { migrations } from "../projections/migrations.ts"
import { nameOf } from "../projections/projection.ts"
import type { Projector } from "./projector.ts"

/** A label keeps this many values; whatever comes after them is counted as `other`. */
export const labelValues_max = 200

/** Lets the first values of a label through and holds the number of series. */
class BoundedLabel {
  readonly #seen = new Set<string>()

  of(value: string): string {
    if (this.#seen.has(value)) return value
    if (this.#seen.size >= labelValues_max || value.length > 128) return "other"
    this.#seen.add(value)
    return value
  }
}

/** One cell for each combination of up to three labels. */
class Cells<Cell> {
  readonly #cells = new Map<string, Map<string, Map<string, Cell>>>()
  readonly #make: () => Cell

  constructor(make: () => Cell) {
    this.#make = make
  }

  at(first: string, second = "", third = ""): Cell {
    let seconds = this.#cells.get(first)
    if (seconds === undefined) this.#cells.set(first, (seconds = new Map()))
    let thirds = seconds.get(second)
    if (thirds === undefined) seconds.set(second, (thirds = new Map()))
    let cell = thirds.get(third)
    if (cell === undefined) thirds.set(third, (cell = this.#make()))
    return cell
  }

  *all(): Generator<readonly [ReadonlyArray<string>, Cell]> {
    for (const [first, seconds] of this.#cells)
      for (const [second, thirds] of seconds)
        for (const [third, cell] of thirds) yield [[first, second, third], cell]
  }
}

// What every request counts with. prom-client makes a text of the labels each time; here that is done when somebody reads.

class Tally {
  readonly #cells = new Cells(() => ({ count: 0 }))

  constructor(name: string, help: string, labelNames: ReadonlyArray<string>, registers: Array<Registry>) {
    const collect = () => {
      for (const [labels, cell] of this.#cells.all()) {
        if (cell.count > 0) counter.labels(...labels.slice(0, labelNames.length)).inc(cell.count)
        cell.count = 0
      }
    }
    const counter = new Counter({ name, help, labelNames, registers, collect })
  }

  /** Values of as many labels as it has. */
  inc(first: string, second?: string, third?: string): void {
    this.#cells.at(first, second, third).count++
  }
}

/** A histogram, by what prom-client asks of a metric. */
class Distribution {
  readonly name: string
  readonly help: string
  readonly type = "histogram"
  readonly aggregator = "sum"
  readonly #labelNames: ReadonlyArray<string>
  readonly #bounds: ReadonlyArray<number>
  /** How many were in each bucket, and above the last bound; and their sum. */
  readonly #cells: Cells<{ readonly counts: Array<number>; sum: number }>

  constructor(
    name: string,
    help: string,
    bounds: ReadonlyArray<number>,
    labelNames: ReadonlyArray<string>,
    registers: ReadonlyArray<Registry>
  ) {
    this.name = name
    this.help = help
    this.#bounds = bounds
    this.#labelNames = labelNames
    this.#cells = new Cells(() => ({ counts: Array.from({ length: bounds.length + 1 }, () => 0), sum: 0 }))
    // Without labels there is one series, which is there from the beginning.
    if (labelNames.length === 0) this.#cells.at("")
    for (const registry of registers) registry.registerMetric(this as unknown as Histogram)
  }

  /** With the values of as many labels as it has. */
  observe(value: number, first = "", second = ""): void {
    const cell = this.#cells.at(first, second)
    let bucket = 0
    while (bucket < this.#bounds.length && value > (this.#bounds[bucket] as number)) bucket++
    cell.counts[bucket] = (cell.counts[bucket] as number) + 1
    cell.sum += value
  }

  get(): Promise<object> {
    const { name, help, type, aggregator } = this
    const values: Array<object> = []
    for (const [given, { counts, sum }] of this.#cells.all()) {
      const labels = Object.fromEntries(this.#labelNames.map((label, place) => [label, given[place]]))
      let count = 0
      for (const [bucket, inBucket] of counts.entries()) {
        count += inBucket
        const le = this.#bounds[bucket] ?? "+Inf"
        values.push({ metricName: `${name}_bucket`, labels: { le, ...labels }, value: count })
      }
      values.push({ metricName: `${name}_sum`, labels, value: sum })
      values.push({ metricName: `${name}_count`, labels, value: count })
    }
    return Promise.resolve({ name, help, type, aggregator, values })
  }
}

const phaseBuckets = [0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30]
const turnBuckets = [0.00001, 0.00005, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5]
const diskBuckets = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5]
const requestBuckets = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
const migrationBuckets = [1, 2, 5, 10, 20, 45, 90, 180, 300, 600, 1800, 3600]
const downtimeBuckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10]

const modes = ["datacenter", "internet", "hybrid"] as const
export type NetworkMode = (typeof modes)[number]
const componentStates = ["pending", "starting", "running", "degraded", "failed", "stopped"] as const
export type ComponentState = (typeof componentStates)[number]
export type CommandOutcome = "accepted" | "duplicate" | "refused" | "overloaded" | "unknown" | "failed"

function instruments(registers: Array<Registry>) {
  const counter = <L extends string>(name: string, help: string, labelNames: Array<L> = []) =>
    new Counter({ name, help, labelNames, registers })
  const gauge = <L extends string>(name: string, help: string, labelNames: Array<L> = []) =>
    new Gauge({ name, help, labelNames, registers })
  const tally = (name: string, help: string, labelNames: Array<string>) =>
    new Tally(name, help, labelNames, registers)
  const distribution = (name: string, help: string, bounds: Array<number>, labels: Array<string> = []) =>
    new Distribution(name, help, bounds, labels, registers)
  const histogram = <L extends string>(
    name: string,
    help: string,
    buckets: Array<number>,
    labels: Array<L> = []
  ) => new Histogram({ name, help, buckets, labelNames: labels, registers })
  return {
    phase: histogram("phase_duration_seconds", "Time of a start-up phase", phaseBuckets, ["phase"]),
    componentInit: histogram("component_init_duration_seconds", "Time to start a component", phaseBuckets, [
      "component"
    ]),
    boot: gauge("total_boot_time_seconds", "Time of the last start-up"),
    componentStatus: gauge("component_status", "1 for the state the component is in", ["component", "state"]),
    initErrors: counter("initialization_errors_total", "Failed attempts to start a component", [
      "component",
      "phase"
    ]),
    mode: gauge("dwcp_mode", "1 for the network mode that is in use", ["mode"]),
    facts: tally("novacron_facts_total", "Facts appended since the start, by type", ["type"]),
    commands: tally("novacron_commands_total", "Commands, by type and outcome", ["type", "outcome"]),
    turn: distribution(
      "novacron_turn_duration_seconds",
      "Time to decide one input, of one in 16",
      turnBuckets
    ),
    append: distribution("novacron_append_duration_seconds", "Time of one durable append", diskBuckets),
    mailboxWaiting: gauge("novacron_mailbox_waiting", "Inputs that stand in line"),
    outstanding: gauge("novacron_outstanding_requests", "Requests that are not answered yet"),
    lag: gauge("novacron_projection_lag_facts", "Facts in the store that a view has not seen", [
      "projection"
    ]),
    vms: gauge("novacron_vms", "Machines by state", ["state"]),
    hosts: gauge("novacron_hosts", "Hosts by state", ["state"]),
    migrations: counter("novacron_migrations_total", "Migrations that ended since the start", ["result"]),
    migrationDuration: histogram(
      "novacron_migration_duration_seconds",
      "From the request to the end",
      migrationBuckets,
      ["result"]
    ),
    migrationDowntime: histogram(
      "novacron_migration_downtime_seconds",
      "How long the guest stood still, as the hypervisor tells it",
      downtimeBuckets
    ),
    migrationBytes: counter("novacron_migration_bytes_total", "Bytes that completed migrations moved"),
    httpRequests: tally("novacron_http_requests_total", "HTTP requests by route template", [
      "method",
      "route",
      "status"
    ]),
    httpDuration: distribution("novacron_http_request_duration_seconds", "Time to answer", requestBuckets, [
      "method",
      "route"
    ])
  }
}

/** What gauges ask when they are read. */
export interface GaugeSources {
  readonly mailboxWaiting?: () => number
  readonly outstandingRequests?: () => number
}

export class Metrics extends Context.Service<
  Metrics,
  {
    readonly registry: Registry
    readonly phase: (phase: string, seconds: number) => void
    readonly componentStarted: (component: string, seconds: number) => void
    readonly componentStatus: (component: string, state: ComponentState) => void
    readonly initializationError: (component: string, phase: string) => void
    readonly bootTime: (seconds: number) => void
    readonly mode: (mode: NetworkMode) => void
    readonly command: (type: string, outcome: CommandOutcome) => void
    readonly turn: (seconds: number) => void
    readonly append: (seconds: number) => void
    /** `route` is the template (`/vms/{name}`), never the path. */
    readonly httpRequest: (method: string, route: string, status: number, seconds: number) => void
    /** Feed what the facts tell, and read the gauges from the views, until the scope closes. */
    readonly observe: (
      projector: Projector["Service"],
      sources?: GaugeSources
    ) => Effect.Effect<void, never, Scope.Scope>
    /** The text that Prometheus reads. */
    readonly render: () => Promise<string>
    readonly contentType: string
  }
>()("novacron/live/Metrics") {
  static readonly layer = Layer.sync(Metrics, () => makeMetrics())
}

type Instruments = ReturnType<typeof instruments>

function countBy<L extends string>(gauge: Gauge<L>, label: L, values: Iterable<string>): void {
  const counts = new Map<string, number>()
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1)
  gauge.reset()
  for (const [value, count] of counts) gauge.set({ [label]: value } as Record<L, string>, count)
}

/** Count one appended fact; the views have seen it already. */
function countFact(kit: Instruments, types: BoundedLabel, projector: Projector["Service"], fact: Recorded) {
  const type = withoutPrefix(fact.type)
  kit.facts.inc(types.of(type))
  if (type === "migration.measured") {
    const { downtimeMs, transferredBytes } = fact.data
    if (typeof downtimeMs === "number") kit.migrationDowntime.observe(downtimeMs / 1000)
    if (typeof transferredBytes === "number") kit.migrationBytes.inc(transferredBytes)
    return
  }
  const result = /^migration\.(completed|cancelled|failed)$/.exec(type)?.[1]
  if (result === undefined) return
  kit.migrations.inc({ result })
  const row = projector.state(migrations).migrations.get(nameOf(fact.stream))
  if (row !== undefined)
    kit.migrationDuration.observe({ result }, Math.max(0, fact.timeMs - row.startedMs) / 1000)
}

const readViews = Effect.fnUntraced(function* (kit: Instruments, projector: Projector["Service"]) {
  const { vms, hosts } = projector.state(inventory)
  countBy(
    kit.vms,
    "state",
    [...vms.values()].map((vm) => vm.state)
  )
  countBy(
    kit.hosts,
    "state",
    [...hosts.values()].map((host) => host.state)
  )
  for (const { projection, lagFacts } of yield* projector.status) kit.lag.set({ projection }, lagFacts)
})

export function makeMetrics(): Metrics["Service"] {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const kit = instruments([registry])
  const types = new BoundedLabel()
  const commands = new BoundedLabel()
  const routes = new BoundedLabel()
  const components = new BoundedLabel()
  const phases = new BoundedLabel()
  const read = new Set<() => Promise<void>>()
  return Metrics.of({
    registry,
    phase: (phase, seconds) => kit.phase.observe({ phase: phases.of(phase) }, seconds),
    componentStarted: (component, seconds) =>
      kit.componentInit.observe({ component: components.of(component) }, seconds),
    componentStatus: (component, state) => {
      const label = components.of(component)
      for (const one of componentStates)
        kit.componentStatus.set({ component: label, state: one }, one === state ? 1 : 0)
    },
    initializationError: (component, phase) =>
      kit.initErrors.inc({ component: components.of(component), phase: phases.of(phase) }),
    bootTime: (seconds) => kit.boot.set(seconds),
    mode: (mode) => {
      for (const one of modes) kit.mode.set({ mode: one }, one === mode ? 1 : 0)
    },
    command: (type, outcome) => kit.commands.inc(commands.of(type), outcome),
    turn: (seconds) => kit.turn.observe(seconds),
    append: (seconds) => kit.append.observe(seconds),
    httpRequest: (method, route, status, seconds) => {
      const [of, at] = [methodOf(method), routes.of(route)]
      kit.httpRequests.inc(of, at, String(Math.trunc(status)))
      kit.httpDuration.observe(seconds, of, at)
    },
    observe: (projector, sources = {}) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          const stop = projector.onAppended((facts) => {
            for (const fact of facts) countFact(kit, types, projector, fact)
          })
          const readAll = async () => {
            if (sources.mailboxWaiting) kit.mailboxWaiting.set(sources.mailboxWaiting())
            if (sources.outstandingRequests) kit.outstanding.set(sources.outstandingRequests())
            await Effect.runPromise(Effect.ignore(readViews(kit, projector)))
          }
          read.add(readAll)
          return () => {
            stop()
            read.delete(readAll)
          }
        }),
        (release) => Effect.sync(release)
      ),
    render: async () => {
      for (const readAll of read) await readAll()
      return registry.metrics()
    },
    contentType: registry.contentType
  })
}

const methods: ReadonlySet<string> = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
const methodOf = (method: string): string => (methods.has(method) ? method : "other")

const outcomes: Readonly<Record<string, CommandOutcome>> = {
  CommandRefused: "refused",
  Overloaded: "overloaded",
  UnknownKind: "unknown"
}

/** The same kernel, with what became of each command counted. */
export const measureCommands = (
  kernel: Kernel["Service"],
  metrics: Metrics["Service"]
): Kernel["Service"] => {
  const count = (type: string, exit: Exit.Exit<Accepted, SubmitError>): void => {
    if (Exit.isSuccess(exit)) return metrics.command(type, exit.value.duplicate ? "duplicate" : "accepted")
    const error = Cause.squash(exit.cause) as { readonly _tag?: string } | null
    metrics.command(type, outcomes[error?._tag ?? ""] ?? "failed")
  }
  return Kernel.of({
    ...kernel,
    submit: (command) =>
      Effect.onExit(kernel.submit(command), (exit) => Effect.sync(() => count(command.message.type, exit))),
    offer: (command, answered, caller) => {
      const counted: typeof answered = (exit) => {
        count(command.message.type, exit)
        answered(exit)
      }
      kernel.offer(command, counted, caller)
    }
  })
}

/** A turn takes microseconds, and so does to observe it: one in so many is enough for a distribution. */
const turnsPerSample = 16

/** Takes turns as the kernel does, and observes the time of some. */
export const measuredTurns = (metrics: Metrics["Service"]): typeof takeTurn => {
  let turns = 0
  return (kind, actor, input, timeMs, node) => {
    if (turns++ % turnsPerSample !== 0) return takeTurn(kind, actor, input, timeMs, node)
    const startedMs = performance.now()
    try {
      return takeTurn(kind, actor, input, timeMs, node)
    } finally {
      metrics.turn((performance.now() - startedMs) / 1000)
    }
  }
}

/** The same store, with the time of each append observed. */
export const measureAppends = (
  store: EventStore["Service"],
  metrics: Metrics["Service"]
): EventStore["Service"] =>
  EventStore.of({
    ...store,
    append: (batch, mark) =>
      Effect.suspend(() => {
        const startedMs = performance.now()
        return Effect.onExit(store.append(batch, mark), () =>
          Effect.sync(() => metrics.append((performance.now() - startedMs) / 1000))
        )
      })
  })
