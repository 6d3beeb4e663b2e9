/** `novacron vm …` */
import { readFileSync } from "node:fs"
import { Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import type { VmSpec } from "../events/vm.ts"
import { VmSpec as VmSpecSchema } from "../events/vm.ts"
import type { ApiCalls } from "../live/api/client.ts"
import { console } from "./console.ts"
import { allPages, withApi } from "./connection.ts"
import { failure } from "./exit.ts"
import { mutate, mutationFlags, vmArgument } from "./mutate.ts"
import type { Mutation } from "./mutate.ts"
import { output } from "./output.ts"

const vmColumns = [
  { head: "NAME", of: (row: Row) => row["name"] as string },
  { head: "STATE", of: (row: Row) => row["state"] as string },
  { head: "HOST", of: (row: Row) => row["host"] as string | null },
  { head: "CPUS", of: (row: Row) => specOf(row).cpus },
  { head: "MEMORY MIB", of: (row: Row) => specOf(row).memoryMib },
  { head: "MIGRATION", of: (row: Row) => row["migration"] as string | null }
]
type Row = Readonly<Record<string, unknown>>
const specOf = (row: Row) => (row["spec"] ?? {}) as Partial<VmSpec>

const list = Command.make(
  "list",
  {},
  Effect.fnUntraced(function* () {
    const to = yield* output
    const vms = yield* withApi((calls) =>
      allPages(
        (query) => calls.vms.list({ query }),
        ({ name }) => name
      )
    )
    to.either(vms, () => {
      if (vms.length === 0 && !to.isPlain) to.note("there are no machines; novacron vm create makes one")
      else to.table(vms, vmColumns)
    })
  })
).pipe(Command.withDescription("List the machines"), Command.withAlias("ls"))

const show = Command.make(
  "show",
  { vm: vmArgument },
  Effect.fnUntraced(function* ({ vm }) {
    const to = yield* output
    const row = yield* withApi((calls) => calls.vms.show({ params: { name: vm }, query: {} }))
    to.either(row, () => showRow(to, row))
  })
).pipe(Command.withDescription("Show everything about a machine"))

/** Key and value a line, inner values as JSON. */
export const showRow = (to: { readonly table: any }, row: Row): void => {
  const cells = Object.entries(row).map(([key, value]) => ({
    key,
    value: typeof value === "object" && value !== null ? JSON.stringify(value) : String(value)
  }))
  to.table(cells, [
    { head: "KEY", of: (cell: { key: string }) => cell.key },
    { head: "VALUE", of: (cell: { value: string }) => cell.value }
  ])
}

const optionalText = (name: string, metavar: string, about: string) =>
  Flag.String(name).pipe(Flag.withDescription(about), Flag.withMetavar(metavar), Flag.optional)
const optionalInt = (name: string, about: string) =>
  Flag.Int(name).pipe(Flag.withDescription(about), Flag.withMetavar("N"), Flag.optional)

const specFlags = {
  spec: Flag.String("spec").pipe(
    Flag.withDescription("YAML or JSON file with the specification, - for standard input; flags win over it"),
    Flag.withMetavar("FILE"),
    Flag.optional
  ),
  cpus: optionalInt("cpus", "Virtual processors"),
  memory: optionalInt("memory", "Memory in MiB"),
  machine: Flag.Literals("machine", ["pc", "q35"]).pipe(Flag.withDescription("Machine type"), Flag.optional),
  image: optionalText("image", "NAME", "Base image of the first disk, from the host's image folder"),
  disk: optionalInt("disk", "Size of the first disk in MiB"),
  kernel: optionalText("kernel", "NAME", "Kernel to boot directly, from the host's image folder"),
  initrd: optionalText("initrd", "NAME", "Initial RAM disk for it"),
  append: optionalText("append", "TEXT", "Command line for it"),
  onCrash: Flag.Literals("on-crash", ["restart", "stop"]).pipe(
    Flag.withDescription("What to do when the guest is found dead"),
    Flag.optional
  )
}
type SpecFlags = { readonly [K in keyof typeof specFlags]: Option.Option<string | number> }

/** The specification as it is sent: the file's, with what the flags say over it. */
const specOfFlags = Effect.fnUntraced(function* (flags: SpecFlags) {
  const base = Option.isSome(flags.spec) ? yield* specFile(String(flags.spec.value)) : {}
  const spec: Record<string, unknown> = { ...base }
  const put = (key: string, value: Option.Option<string | number>) => {
    if (Option.isSome(value)) spec[key] = value.value
  }
  put("cpus", flags.cpus)
  put("memoryMib", flags.memory)
  put("machine", flags.machine)
  put("onCrash", flags.onCrash)
  if (Option.isSome(flags.disk) || Option.isSome(flags.image)) {
    const image = Option.isSome(flags.image) ? { image: flags.image.value } : {}
    spec["disks"] = [{ name: "root", sizeMib: Option.getOrElse(flags.disk, () => 8192), ...image }]
  }
  if (Option.isSome(flags.kernel)) {
    const initrd = Option.isSome(flags.initrd) ? { initrd: flags.initrd.value } : {}
    spec["boot"] = {
      kernel: flags.kernel.value,
      ...initrd,
      commandLine: Option.getOrElse(flags.append, () => "")
    }
  } else if (Option.isSome(flags.initrd) || Option.isSome(flags.append)) {
    return yield* failure("usage", "--initrd and --append are for a kernel", "give --kernel too")
  }
  const { Schema } = yield* Effect.promise(() => import("effect"))
  const { describeIssue, issuesOf, strict } = yield* Effect.promise(() => import("../live/config/issues.ts"))
  const decoded = Schema.decodeUnknownResult(VmSpecSchema, strict)(spec)
  if (decoded._tag === "Success") return decoded.success
  const issues = issuesOf(decoded.failure.issue)
  return yield* failure(
    "usage",
    `the specification is not valid:\n${issues.map((i) => `  ${describeIssue(i)}`).join("\n")}`,
    undefined,
    { issues }
  )
})

const specFile = Effect.fnUntraced(function* (path: string) {
  const { parse } = yield* Effect.promise(() => import("yaml"))
  const value = yield* Effect.try({
    try: () => parse(readFileSync(path === "-" ? 0 : path, "utf8"), { maxAliasCount: 16 }) as unknown,
    catch: (cause) => failure("usage", `the specification ${path} can't be read: ${(cause as Error).message}`)
  })
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value
  return yield* failure("usage", `the specification ${path} is no map of keys`)
})

const create = Command.make(
  "create",
  {
    vm: vmArgument,
    ...specFlags,
    host: optionalText("host", "NAME", "Place it on this host and no other"),
    start: Flag.Boolean("start").pipe(
      Flag.withDescription("Start it as soon as it is made"),
      Flag.withoutNegation,
      Flag.withDefault(false)
    ),
    ...mutationFlags
  },
  Effect.fnUntraced(function* ({ vm, host, start, dryRun, wait, waitTimeout, ...flags }) {
    const spec = yield* specOfFlags(flags)
    const payload = { name: vm, spec, start, ...(Option.isSome(host) ? { host: host.value } : {}) }
    yield* mutate({ dryRun, wait, waitTimeout }, `create vm ${vm}`, (calls, request) =>
      calls.vms.create({ ...request, payload })
    )
  })
).pipe(
  Command.withDescription("Make a machine"),
  Command.withExamples([
    {
      command: "novacron vm create web-1 --image debian-12 --disk 8192 --start --wait",
      description: "From an image"
    },
    { command: "novacron vm create web-1 --spec web.yaml --dry-run", description: "Where would it go?" }
  ])
)

type Verb = "start" | "pause" | "resume" | "reboot"

const verb = (name: Verb, about: string) =>
  Command.make(
    name,
    { vm: vmArgument, ...mutationFlags },
    Effect.fnUntraced(function* ({ vm, ...flags }) {
      yield* mutate(flags, `${name} vm ${vm}`, (calls: ApiCalls, request) =>
        calls.vms[name]({ ...request, params: { name: vm } })
      )
    })
  ).pipe(Command.withDescription(about))

const stop = Command.make(
  "stop",
  {
    vm: vmArgument,
    force: Flag.Boolean("force").pipe(
      Flag.withDescription("End it at once, as by pulling the plug"),
      Flag.withoutNegation,
      Flag.withDefault(false)
    ),
    ...mutationFlags
  },
  Effect.fnUntraced(function* ({ vm, force, ...flags }) {
    yield* mutate(flags, `stop vm ${vm}`, (calls, { query, headers }) =>
      calls.vms.stop({
        headers,
        query: { ...query, ...(force ? { force: "true" } : {}) },
        params: { name: vm }
      })
    )
  })
).pipe(Command.withDescription("Ask the guest to power off"))

const remove = Command.make(
  "delete",
  {
    vm: vmArgument,
    yes: Flag.Boolean("yes").pipe(
      Flag.withAlias("y"),
      Flag.withDescription("Don't ask"),
      Flag.withoutNegation,
      Flag.withDefault(false)
    ),
    ...mutationFlags
  },
  Effect.fnUntraced(function* ({ vm, yes, ...flags }) {
    if (!yes && !flags.dryRun) {
      const to = yield* output
      const sure = yield* to.confirm(`Delete vm ${vm} with its disks and snapshots?`)
      if (sure === null) {
        return yield* failure(
          "usage",
          "deleting a machine has to be confirmed",
          "give --yes where nobody can be asked"
        )
      }
      if (!sure) return yield* failure("failure", `vm ${vm} is kept`)
    }
    yield* mutate(flags, `delete vm ${vm}`, (calls, request) =>
      calls.vms.delete({ ...request, params: { name: vm } })
    )
  })
).pipe(Command.withDescription("Remove a stopped machine with its disks"))

const clone = Command.make(
  "clone",
  {
    vm: vmArgument,
    copy: Argument.String("copy").pipe(Argument.withDescription("Name of the new machine")),
    snapshot: optionalText("snapshot", "NAME", "Copy this snapshot instead of the disks as they are"),
    start: Flag.Boolean("start").pipe(
      Flag.withDescription("Start the copy as soon as it is made"),
      Flag.withoutNegation,
      Flag.withDefault(false)
    ),
    ...mutationFlags
  },
  Effect.fnUntraced(function* ({ vm, copy, snapshot, start, ...flags }) {
    const payload = { name: copy, start, ...(Option.isSome(snapshot) ? { snapshot: snapshot.value } : {}) }
    yield* mutate(flags, `clone vm ${vm} to ${copy}`, (calls, request) =>
      calls.vms.clone({ ...request, params: { name: vm }, payload })
    )
  })
).pipe(Command.withDescription("Copy a stopped machine, or a snapshot of it"))

const withSnapshot = (
  name: string,
  about: string,
  call: (vm: string, snapshot: string) => Mutation<unknown>
) =>
  Command.make(
    name,
    {
      vm: vmArgument,
      snapshot: Argument.String("snapshot").pipe(Argument.withDescription("Name of the snapshot")),
      ...mutationFlags
    },
    Effect.fnUntraced(function* ({ vm, snapshot, ...flags }) {
      yield* mutate(flags, `${name} vm ${vm}, ${snapshot}`, call(vm, snapshot))
    })
  ).pipe(Command.withDescription(about))

export const vm = Command.make("vm").pipe(
  Command.withDescription("Make, run and remove machines"),
  Command.withSubcommands([
    list,
    show,
    create,
    verb("start", "Start a stopped machine"),
    stop,
    verb("pause", "Hold a running machine"),
    verb("resume", "Let a paused machine run"),
    verb("reboot", "Reboot a running machine"),
    remove,
    clone,
    console,
    withSnapshot(
      "snapshot",
      "Take a snapshot of the disks",
      (name, snapshot) => (calls, request) =>
        calls.vms.snapshot({ ...request, params: { name }, payload: { snapshot } })
    ),
    withSnapshot(
      "restore",
      "Put a stopped machine's disks back to a snapshot",
      (name, snapshot) => (calls, request) =>
        calls.vms.restore({ ...request, params: { name }, payload: { snapshot } })
    )
  ])
)
