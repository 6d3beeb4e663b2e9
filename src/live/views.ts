/** What the projections answer: to the actors, by the Views port, and to people, by `Queries`. */
import { Context, Effect, Layer, Schedule } from "effect"
import type { Recorded } from "../events/envelope.ts"
import { EventStore } from "../kernel/ports/event-store.ts"
import type { StoreFailure } from "../kernel/ports/event-store.ts"
import { Views } from "../kernel/ports/views.ts"
import { causeOf, entryOf, matches } from "../projections/audit.ts"
import type { AuditEntry, AuditFilter } from "../projections/audit.ts"
import { hostsFor } from "../projections/candidates.ts"
import { inventory } from "../projections/inventory.ts"
import { loadsOf } from "../projections/loads.ts"
import type { HostRow, VmRow } from "../projections/inventory.ts"
import { migrations } from "../projections/migrations.ts"
import type { MigrationResult, MigrationRow } from "../projections/migrations.ts"
import { decisionsOf, placement } from "../projections/placement.ts"
import type { DecisionRow } from "../projections/placement.ts"
import type { AnyProjection } from "../projections/projection.ts"
import { Reads } from "./api/reads.ts"
import { Metrics } from "./metrics.ts"
import { Projector } from "./projector.ts"

/** All projections of a node. */
export const allProjections: ReadonlyArray<AnyProjection> = [
  inventory,
  placement,
  migrations
] as ReadonlyArray<AnyProjection>

export interface MigrationFilter {
  readonly vm?: string
  /** `active`: not ended yet. */
  readonly state?: "active" | MigrationResult
}

/** A decision with the facts of its stream: each attempt's candidates, filters and scores. */
export interface Decision extends DecisionRow {
  readonly facts: ReadonlyArray<Recorded>
}

export interface AuditQuery extends AuditFilter {
  /** Begin at this position and go back from there; the latest unless told. */
  readonly from?: number
  /** At most this many, 1 to 1000; 100 unless told. */
  readonly limit?: number
}

export interface AuditPage {
  /** The latest first. */
  readonly entries: ReadonlyArray<AuditEntry>
  /** Where the next page begins (`from`); null when there is nothing older. */
  readonly next: number | null
}

export interface HistoryPaging {
  /** First revision of the page, in the direction of reading. */
  readonly from?: number
  readonly direction?: "forwards" | "backwards"
  /** 1 to 1000; 100 unless told. */
  readonly limit?: number
}

export class Queries extends Context.Service<
  Queries,
  {
    /** In the order of their names, as the other lists of machines and hosts. */
    readonly vms: () => ReadonlyArray<VmRow>
    readonly vm: (name: string) => VmRow | null
    readonly hosts: () => ReadonlyArray<HostRow>
    readonly host: (name: string) => HostRow | null
    /** The latest first. */
    readonly migrations: (filter?: MigrationFilter) => ReadonlyArray<MigrationRow>
    readonly migration: (migration: string) => MigrationRow | null
    /** The latest first; the latest 8 with all their facts. */
    readonly decisions: (vm: string) => Effect.Effect<ReadonlyArray<Decision>, StoreFailure>
    readonly history: (
      stream: string,
      paging?: HistoryPaging
    ) => Effect.Effect<ReadonlyArray<Recorded>, StoreFailure>
    /** Looks at no more than 20 000 facts a time: a page may be short, or empty, and still have a next one. */
    readonly audit: (query?: AuditQuery) => Effect.Effect<AuditPage, StoreFailure>
    /** The fact at a position and what caused it, step by step, the root last; at most 64 steps. */
    readonly causes: (position: number) => Effect.Effect<ReadonlyArray<AuditEntry>, StoreFailure>
  }
>()("novacron/live/Queries") {}

const pageDefault = 100
const page_max = 1000
const scanned_max = 20_000
const decisionsInFull_max = 8
const causes_max = 64

const limitOf = (limit: number | undefined): number =>
  Math.min(page_max, Math.max(1, Math.trunc(limit ?? pageDefault)))

const byName = <Row extends { readonly name: string }>(rows: Iterable<Row>): ReadonlyArray<Row> =>
  [...rows].sort((a, b) => (a.name < b.name ? -1 : 1))

/** Entries from `from` downwards, until the page is full or enough facts were looked at. */
const auditPage = Effect.fn("Queries.audit")(function* (
  store: EventStore["Service"],
  query: AuditQuery
): Effect.fn.Return<AuditPage, StoreFailure> {
  const limit = limitOf(query.limit)
  const found: Array<AuditEntry> = []
  let from = query.from
  let left = scanned_max
  // Where every fact is wanted the first look is enough.
  for (let size = limit; left > 0 && from !== 0; size = page_max) {
    const facts: ReadonlyArray<Recorded> = yield* store.readAll({
      direction: "backwards",
      limit: Math.min(size, left),
      ...(from === undefined ? {} : { from })
    })
    for (const fact of facts) {
      from = fact.position - 1
      left -= 1
      const entry = entryOf(fact)
      if (matches(entry, query)) found.push(entry)
      if (found.length === limit) return { entries: found, next: from > 0 ? from : null }
    }
    if (facts.length === 0) break
    yield* Effect.yieldNow
  }
  return { entries: found, next: from !== undefined && from > 0 && left === 0 ? from : null }
})

/** A stream has its own index in the store, so all of it is in reach at once. */
const auditOfStream = Effect.fnUntraced(function* (
  store: EventStore["Service"],
  stream: string,
  query: AuditQuery
): Effect.fn.Return<AuditPage, StoreFailure> {
  const limit = limitOf(query.limit)
  const found: Array<AuditEntry> = []
  let revision: number | null = null
  for (let scanned = 0; scanned < scanned_max;) {
    const facts: ReadonlyArray<Recorded> = yield* store.readStream(stream, {
      direction: "backwards",
      limit: page_max,
      ...(revision === null ? {} : { from: revision })
    })
    for (const fact of facts) {
      // Passed over and not counted: a page that ended here would begin later than it was asked to.
      if (query.from !== undefined && fact.position > query.from) continue
      scanned += 1
      if (found.length === limit) return { entries: found, next: fact.position }
      const entry = entryOf(fact)
      if (matches(entry, query)) found.push(entry)
    }
    const last = facts.at(-1)
    if (last === undefined || last.revision === 0) return { entries: found, next: null }
    revision = last.revision - 1
    if (scanned >= scanned_max) return { entries: found, next: last.position - 1 }
    yield* Effect.yieldNow
  }
  return { entries: found, next: null }
})

const causesOf = Effect.fn("Queries.causes")(function* (
  store: EventStore["Service"],
  position: number
): Effect.fn.Return<ReadonlyArray<AuditEntry>, StoreFailure> {
  const chain: Array<AuditEntry> = []
  let facts = yield* store.readAll({ from: position, limit: 1 })
  while (chain.length < causes_max) {
    const [fact] = facts
    if (fact === undefined || (chain.length === 0 && fact.position !== position)) break
    chain.push(entryOf(fact))
    const cause = causeOf(fact.causation)
    if (cause === null) break
    facts = yield* store.readStream(cause.stream, { from: cause.revision, limit: 1 })
  }
  return chain
})

const makeQueries = Effect.gen(function* () {
  const projector = yield* Projector
  const store = yield* EventStore
  const { state } = projector
  const decisionInFull = (row: DecisionRow, index: number) =>
    index >= decisionsInFull_max
      ? Effect.succeed({ ...row, facts: [] })
      : Effect.map(store.readStream(`placement/${row.decision}`, { limit: pageDefault }), (facts) => ({
          ...row,
          facts
        }))
  return Queries.of({
    vms: () => byName(state(inventory).vms.values()),
    vm: (name) => state(inventory).vms.get(name) ?? null,
    hosts: () => byName(state(inventory).hosts.values()),
    host: (name) => state(inventory).hosts.get(name) ?? null,
    migrations: (filter = {}) =>
      [...state(migrations).migrations.values()]
        .filter((row) => filter.vm === undefined || row.vm === filter.vm)
        .filter((row) => filter.state === undefined || (row.result ?? "active") === filter.state)
        .reverse(),
    migration: (migration) => state(migrations).migrations.get(migration) ?? null,
    decisions: (vm) => Effect.forEach(decisionsOf(state(placement), vm), decisionInFull),
    history: (stream, { from, direction, limit } = {}) =>
      store.readStream(stream, {
        limit: limitOf(limit),
        ...(from === undefined ? {} : { from }),
        ...(direction === undefined ? {} : { direction })
      }),
    audit: (query = {}) =>
      query.stream === undefined ? auditPage(store, query) : auditOfStream(store, query.stream, query),
    causes: (position) => causesOf(store, position)
  })
})

export const queriesLayer: Layer.Layer<Queries, never, Projector | EventStore> = Layer.effect(
  Queries,
  makeQueries
)

export interface ViewsOptions {
  /** How long to wait for a position before saying so in the log; 5000 ms unless told. */
  readonly patienceMs?: number
}

/** An actor is told nothing rather than something older than its own question, so this waits up to 60 times. */
const patience_max = 60

const allHosts = { port: "view", op: "hosts" } as const

/** The Views port over the inventory. Dies when the inventory does not come as far as was asked. */
export const viewsLayer = (options: ViewsOptions = {}): Layer.Layer<Views, never, Projector> =>
  Layer.effect(
    Views,
    Effect.map(Projector, (projector) => {
      const timeoutMs = options.patienceMs ?? 5000
      const wait = (position: number) =>
        projector.caughtUp(position, { projections: [inventory.name], timeoutMs }).pipe(
          Effect.tapError((error) => Effect.logWarning(error.message)),
          Effect.retry({ schedule: Schedule.recurs(patience_max) }),
          Effect.orDie
        )
      return Views.of({
        hosts: (position, asked = allHosts) =>
          Effect.map(wait(position), () => ({
            ...hostsFor(projector.state(inventory), asked),
            position: projector.position(inventory.name)
          })),
        loads: (position, { most }) =>
          Effect.map(wait(position), () => ({
            ...loadsOf(projector.state(inventory), most),
            position: projector.position(inventory.name)
          }))
      })
    })
  )

const migrationRead = (row: MigrationRow) => ({ ...row, id: row.migration, state: row.result ?? "active" })
const orNull = <Row, Out>(row: Row | null, read: (row: Row) => Out): Out | null =>
  row === null ? null : read(row)

/** What the HTTP API reads. Its errors are the store's, which the API does not name: they die there. */
export const readsLayer: Layer.Layer<Reads, never, Queries | Metrics> = Layer.effect(
  Reads,
  Effect.gen(function* () {
    const queries = yield* Queries
    const metrics = yield* Metrics
    return Reads.of({
      vms: Effect.sync(() => queries.vms().map((row) => ({ ...row }))),
      vm: (name) => Effect.sync(() => orNull(queries.vm(name), (row) => ({ ...row }))),
      hosts: Effect.sync(() => queries.hosts().map((row) => ({ ...row }))),
      host: (name) => Effect.sync(() => orNull(queries.host(name), (row) => ({ ...row }))),
      migrations: (filter) => Effect.sync(() => queries.migrations(filter).map(migrationRead)),
      migration: (id) => Effect.sync(() => orNull(queries.migration(id), migrationRead)),
      decisions: (vm) =>
        queries.decisions(vm).pipe(
          Effect.map((decisions) => decisions.map((decision) => ({ ...decision }))),
          Effect.orDie
        ),
      audit: ({ principal, ...query }) =>
        queries.audit({ ...query, ...(principal === undefined ? {} : { who: principal }) }).pipe(
          Effect.map(({ entries, next }) => ({ rows: entries.map((entry) => ({ ...entry })), next })),
          Effect.orDie
        ),
      metrics: Effect.promise(() => metrics.render())
    })
  })
)
