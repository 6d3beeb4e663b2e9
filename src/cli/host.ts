/** `novacron host …` */
import { Effect } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { allPages, withApi } from "./connection.ts"
import { failure } from "./exit.ts"
import { mutate, mutationFlags } from "./mutate.ts"
import { output } from "./output.ts"
import { showRow } from "./vm.ts"

const hostArgument = Argument.String("host").pipe(Argument.withDescription("Name of the host"))

type Row = Readonly<Record<string, unknown>>
interface Room {
  readonly cpus?: number
  readonly memoryMib?: number
}
const share = (row: Row, key: keyof Room) => {
  const used = (row["used"] ?? {}) as Room
  const total = (row["total"] ?? {}) as Room
  return `${used[key] ?? 0}/${total[key] ?? "?"}`
}

const list = Command.make(
  "list",
  {},
  Effect.fnUntraced(function* () {
    const to = yield* output
    const hosts = yield* withApi((calls) =>
      allPages(
        (query) => calls.hosts.list({ query }),
        ({ name }) => name
      )
    )
    to.either(hosts, () => {
      if (hosts.length === 0 && !to.isPlain)
        return to.note("there are no hosts yet; a node registers when it is up")
      to.table(hosts as ReadonlyArray<Row>, [
        { head: "NAME", of: (row) => row["name"] as string },
        { head: "STATE", of: (row) => row["state"] as string },
        { head: "DRIVER", of: (row) => (row["facts"] as { driver?: string } | undefined)?.driver },
        { head: "CPUS USED", of: (row) => share(row, "cpus") },
        { head: "MEMORY MIB USED", of: (row) => share(row, "memoryMib") },
        { head: "VMS", of: (row) => (row["vms"] as ReadonlyArray<string> | undefined)?.length }
      ])
    })
  })
).pipe(Command.withDescription("List the hosts"), Command.withAlias("ls"))

const show = Command.make(
  "show",
  { host: hostArgument },
  Effect.fnUntraced(function* ({ host }) {
    const to = yield* output
    const row = yield* withApi((calls) => calls.hosts.show({ params: { name: host }, query: {} }))
    to.either(row, () => showRow(to, row))
  })
).pipe(Command.withDescription("Show everything about a host"))

const drain = Command.make(
  "drain",
  {
    host: hostArgument,
    reason: Flag.String("reason").pipe(
      Flag.withDescription("Why, for the journal"),
      Flag.withMetavar("TEXT"),
      Flag.withDefault("")
    ),
    ...mutationFlags
  },
  Effect.fnUntraced(function* ({ host, reason, ...flags }) {
    yield* mutate(flags, `drain host ${host}`, (calls, request) =>
      calls.hosts.drain({ ...request, params: { name: host }, payload: { reason } })
    )
  })
).pipe(Command.withDescription("Place nothing more on a host"))

const activate = Command.make(
  "activate",
  { host: hostArgument, ...mutationFlags },
  Effect.fnUntraced(function* ({ host, ...flags }) {
    yield* mutate(flags, `activate host ${host}`, (calls, request) =>
      calls.hosts.activate({ ...request, params: { name: host } })
    )
  })
).pipe(Command.withDescription("Place machines on a drained host again"))

const confirmOff = Command.make(
  "confirm-off",
  {
    host: hostArgument,
    reason: Flag.String("reason").pipe(
      Flag.withDescription("How that was seen, for the journal"),
      Flag.withMetavar("TEXT"),
      Flag.withDefault("")
    ),
    yes: Flag.Boolean("yes").pipe(
      Flag.withAlias("y"),
      Flag.withDescription("Don't ask"),
      Flag.withoutNegation,
      Flag.withDefault(false)
    ),
    ...mutationFlags
  },
  Effect.fnUntraced(function* ({ host, reason, yes, ...flags }) {
    if (!yes && !flags.dryRun) {
      const to = yield* output
      const sure = yield* to.confirm(
        `Is ${host} off, and does nothing run there? Else its machines will run twice.`
      )
      if (sure === null) {
        const hint = "give --yes where nobody can be asked"
        return yield* failure("usage", "that a host is off has to be confirmed", hint)
      }
      if (!sure) return yield* failure("failure", `nothing is said of ${host}`)
    }
    yield* mutate(flags, `take host ${host} for off`, (calls, request) =>
      calls.hosts.confirmOff({ ...request, params: { name: host }, payload: { reason } })
    )
  })
).pipe(Command.withDescription("Say that a lost host is off: its machines start elsewhere"))

export const host = Command.make("host").pipe(
  Command.withDescription("See, drain and fence hosts"),
  Command.withSubcommands([list, show, drain, activate, confirmOff])
)
