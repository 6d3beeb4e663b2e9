/** What the API asks of the views; `views.ts` and `metrics.ts` serve it. */
import { Context } from "effect"
import type { Effect } from "effect"

type Row = Readonly<Record<string, unknown>>

export class Reads extends Context.Service<
  Reads,
  {
    readonly vms: Effect.Effect<ReadonlyArray<Row & { name: string; state: string }>>
    readonly vm: (name: string) => Effect.Effect<(Row & { name: string; state: string }) | null>
    readonly hosts: Effect.Effect<ReadonlyArray<Row & { name: string; state: string }>>
    readonly host: (name: string) => Effect.Effect<(Row & { name: string; state: string }) | null>
    readonly migrations: (filter: {
      readonly vm?: string
      readonly state?: "active" | "completed" | "cancelled" | "failed"
    }) => Effect.Effect<ReadonlyArray<Row & { id: string; vm: string; state: string }>>
    readonly migration: (
      id: string
    ) => Effect.Effect<(Row & { id: string; vm: string; state: string }) | null>
    /** Placement decisions about a machine, the latest first. */
    readonly decisions: (vm: string) => Effect.Effect<ReadonlyArray<Row & { decision: string }>>
    readonly audit: (query: {
      readonly from?: number
      readonly limit?: number
      readonly principal?: string
      readonly stream?: string
    }) => Effect.Effect<{
      readonly rows: ReadonlyArray<Row & { position: number }>
      /** Where the next page begins; null when there is nothing older. */
      readonly next: number | null
    }>
    /** Prometheus text. */
    readonly metrics: Effect.Effect<string>
  }
>()("novacron/live/api/Reads") {}
