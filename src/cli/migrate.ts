/** `novacron migrate` and `novacron migration …` */
import { Effect, Option, Stream } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import type { Operation } from "../live/api/bodies.ts"
import type { ApiCalls } from "../live/api/client.ts"
import { allPages, withApi } from "./connection.ts"
import { failure } from "./exit.ts"
import { duration, mutate, mutationFlags, vmArgument } from "./mutate.ts"
import { output } from "./output.ts"
import { showRow } from "./vm.ts"

type Row = Readonly<Record<string, unknown>>

const units: Readonly<Record<string, number>> = {
  "": 1,
  k: 1e3,
  m: 1e6,
  g: 1e9,
  ki: 1024,
  mi: 1024 ** 2,
  gi: 1024 ** 3
}

/** Bytes a second from `100M`, `1Gi`, `12500000` or, in bits, `100Mbit`; null when it is none of them. */
export function parseBandwidth(text: string): number | null {
  const parts = /^(\d{1,12}(?:\.\d{1,3})?)(k|m|g|ki|mi|gi)?(b|bit)?$/i.exec(text)
  if (parts === null) return null
  const amount = Number(parts[1]) * (units[(parts[2] ?? "").toLowerCase()] ?? 1)
  const bytes = Math.round(parts[3]?.toLowerCase() === "bit" ? amount / 8 : amount)
  return Number.isSafeInteger(bytes) ? bytes : null
}

export function formatBytes(bytes: number): string {
  let value = bytes
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1024) return `${unit === "B" ? value : value.toFixed(1)} ${unit}`
    value /= 1024
  }
  return `${value.toFixed(1)} TiB`
}

const numberOf = (row: Row, key: string) => (typeof row[key] === "number" ? row[key] : 0)

/** `pre-copy 42 % of 512.0 MiB, 98.0 MiB/s, 3s to 5s left` */
export function progressText(row: Row): string {
  const phase = String(row["phase"] ?? row["state"])
  const total = numberOf(row, "totalBytes")
  if (total === 0) return phase
  const left = row["remainingMs"] as { low: number; high: number } | null | undefined
  const rate = numberOf(row, "rateBytesPerSecond")
  const parts = [`${phase} ${Math.floor(numberOf(row, "percent"))} % of ${formatBytes(total)}`]
  if (rate > 0) parts.push(`${formatBytes(rate)}/s`)
  if (left) parts.push(`${Math.ceil(left.low / 1000)}s to ${Math.ceil(left.high / 1000)}s left`)
  return parts.join(", ")
}

const policyFlags = {
  postCopy: Flag.Boolean("post-copy").pipe(
    Flag.withDescription("Allow post-copy as the last step when pre-copy does not converge"),
    Flag.withoutNegation,
    Flag.withDefault(false)
  ),
  throttle: Flag.Boolean("throttle").pipe(
    Flag.withDescription("Slow the guest down when pre-copy does not converge; --no-throttle never does"),
    Flag.withDefault(true)
  ),
  downtimeBudget: duration("downtime-budget", "How long the guest may stand still", "300ms"),
  timeout: duration("timeout", "Give up, and stay where it is, after so long", "1h"),
  bandwidth: Flag.String("bandwidth").pipe(
    Flag.withDescription("At most so many bytes a second: 100M, 1Gi, or bits: 100Mbit; 0 for no limit"),
    Flag.withMetavar("RATE"),
    Flag.withDefault("0"),
    Flag.filterMap(
      (text) => Option.fromNullishOr(parseBandwidth(text)),
      () => "a rate: 100M, 1Gi, 100Mbit, 0"
    )
  )
}

const progressOf = (calls: ApiCalls, operation: Operation) =>
  calls.migrations.show({ params: { id: operation.stream.slice("migration/".length) }, query: {} }).pipe(
    Effect.map((row) => progressText(row)),
    Effect.orElseSucceed(() => "")
  )

export const migrate = Command.make(
  "migrate",
  {
    vm: vmArgument,
    to: Flag.String("to").pipe(
      Flag.withDescription("Host to move it to; the placement chooses unless told"),
      Flag.withMetavar("HOST"),
      Flag.optional
    ),
    check: Flag.Boolean("check").pipe(
      Flag.withDescription("Only check whether it can be moved; what is in the way makes the exit code 3"),
      Flag.withoutNegation,
      Flag.withDefault(false)
    ),
    reason: Flag.String("reason").pipe(
      Flag.withDescription("Why, for the journal"),
      Flag.withMetavar("TEXT"),
      Flag.withDefault("")
    ),
    ...policyFlags,
    ...mutationFlags
  },
  Effect.fnUntraced(function* ({ vm, to, check, reason, wait, waitTimeout, dryRun, ...flags }) {
    const payload = {
      ...(Option.isSome(to) ? { to: to.value } : {}),
      policy: {
        downtimeBudgetMs: flags.downtimeBudget,
        bandwidthBytesPerSecond: flags.bandwidth,
        postCopy: flags.postCopy,
        throttle: flags.throttle,
        timeoutMs: flags.timeout
      },
      reason
    }
    const what = `migrate vm ${vm}${Option.isSome(to) ? ` to ${to.value}` : ""}`
    const result = yield* mutate(
      { dryRun: dryRun || check, wait, waitTimeout },
      what,
      (calls, request) => calls.vms.migrate({ ...request, params: { name: vm }, payload }),
      progressOf
    )
    if (check && "dryRun" in result && result.blockers !== null && result.blockers.length > 0) {
      return yield* failure("refused", `vm ${vm} can't be moved: ${result.blockers.join("; ")}`, undefined, {
        blockers: result.blockers
      })
    }
  })
).pipe(
  Command.withDescription("Move a running machine to another host"),
  Command.withExamples([
    { command: "novacron migrate web-1 --check", description: "Can it be moved, and where to?" },
    {
      command: "novacron migrate web-1 --to b --downtime-budget 100ms --wait",
      description: "Move it and wait"
    }
  ])
)

const idArgument = Argument.String("migration").pipe(Argument.withDescription("Id of the migration"))

const list = Command.make(
  "list",
  {
    vm: Flag.String("vm").pipe(
      Flag.withDescription("Only this machine's"),
      Flag.withMetavar("NAME"),
      Flag.optional
    ),
    state: Flag.Literals("state", ["active", "completed", "cancelled", "failed"]).pipe(
      Flag.withDescription("Only those in this state"),
      Flag.optional
    )
  },
  Effect.fnUntraced(function* ({ vm, state }) {
    const to = yield* output
    const query = {
      ...(Option.isSome(vm) ? { vm: vm.value } : {}),
      ...(Option.isSome(state) ? { state: state.value } : {})
    }
    const rows = yield* withApi((calls) =>
      allPages(
        (paging) => calls.migrations.list({ query: { ...query, ...paging } }),
        ({ id }) => id
      )
    )
    to.either(rows, () => {
      if (rows.length === 0 && !to.isPlain) return to.note("there are no migrations")
      to.table(rows as ReadonlyArray<Row>, [
        { head: "MIGRATION", of: (row) => row["id"] as string },
        { head: "VM", of: (row) => row["vm"] as string },
        { head: "FROM", of: (row) => row["from"] as string | null },
        { head: "TO", of: (row) => row["to"] as string | null },
        { head: "STATE", of: (row) => row["state"] as string },
        { head: "PROGRESS", of: (row) => (row["state"] === "active" ? progressText(row) : "") }
      ])
    })
  })
).pipe(Command.withDescription("List migrations, the latest first"), Command.withAlias("ls"))

const show = Command.make(
  "show",
  { migration: idArgument },
  Effect.fnUntraced(function* ({ migration: id }) {
    const to = yield* output
    const row = yield* withApi((calls) => calls.migrations.show({ params: { id }, query: {} }))
    to.either(row, () => showRow(to, row))
  })
).pipe(Command.withDescription("Show everything about a migration"))

const cancel = Command.make(
  "cancel",
  {
    migration: idArgument,
    force: Flag.Boolean("force").pipe(
      Flag.withDescription(
        "Also when the machine runs at the destination by post-copy: what has not come of it is given up, and it starts again from its disks"
      ),
      Flag.withoutNegation,
      Flag.withDefault(false)
    ),
    reason: Flag.String("reason").pipe(
      Flag.withDescription("Why, for the journal"),
      Flag.withMetavar("TEXT"),
      Flag.withDefault("")
    ),
    ...mutationFlags
  },
  Effect.fnUntraced(function* ({ migration: id, force, reason, ...flags }) {
    yield* mutate(flags, `cancel migration ${id}`, ({ migrations }, { query, ...request }) =>
      migrations.cancel({
        ...request,
        params: { id },
        query: { ...query, ...(force ? { force: "true" } : {}) },
        payload: { reason }
      })
    )
  })
).pipe(Command.withDescription("Cancel a migration; the machine stays where it is"))

const ends: ReadonlySet<string> = new Set(
  ["completed", "cancelled", "failed"].map((end) => `novacron.migration.${end}`)
)

const watch = Command.make(
  "watch",
  { migration: idArgument },
  Effect.fnUntraced(function* ({ migration: id }) {
    const to = yield* output
    const last = yield* withApi((calls, client) =>
      Effect.gen(function* () {
        // Asked first: an unknown migration is an error and not an endless wait.
        yield* calls.migrations.show({ params: { id }, query: {} })
        return yield* client.events({ stream: `migration/${id}`, after: 0 }).pipe(
          Stream.tap((fact) =>
            Effect.sync(() => {
              if (to.isJson) return to.line(JSON.stringify(fact))
              if (fact.type.endsWith(".progressed")) {
                return to.progress(progressText(fact.data["progress"] as Row))
              }
              to.progress(null)
              const reason = fact.data["reason"]
              const more = typeof reason === "string" && reason !== "" ? `: ${reason}` : ""
              to.line(`${new Date(fact.timeMs).toISOString()}  ${fact.type.slice("novacron.".length)}${more}`)
            })
          ),
          Stream.takeUntil((fact) => ends.has(fact.type)),
          Stream.runLast
        )
      })
    )
    const type = Option.isSome(last) ? last.value.type : ""
    if (type !== "novacron.migration.completed") {
      return yield* failure("failure", `migration ${id} ended as ${type.slice(type.lastIndexOf(".") + 1)}`)
    }
  })
).pipe(Command.withDescription("Follow a migration to its end"))

export const migration = Command.make("migration").pipe(
  Command.withDescription("See, cancel and follow migrations"),
  Command.withSubcommands([list, show, cancel, watch])
)
