/** `novacron config …` */
import { accessSync, constants, existsSync, statSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { configFile, loadedConfig } from "./connection.ts"
import { failure } from "./exit.ts"
import { dryRunFlag, sayDryRun } from "./mutate.ts"
import { output, Surroundings } from "./output.ts"

/** Throws what writing the file would throw, as far as that can be known without doing it. */
function mayWrite(file: string): void {
  if (!existsSync(file)) return accessSync(join(dirname(file), "."), constants.W_OK)
  if (statSync(file).isDirectory()) throw Object.assign(new Error("it is a folder"), { code: "EISDIR" })
  accessSync(file, constants.W_OK)
}

const generate = Command.make(
  "generate",
  {
    file: Argument.String("file").pipe(
      Argument.withDescription("Where to write it; standard output unless told"),
      Argument.optional
    ),
    force: Flag.Boolean("force").pipe(
      Flag.withDescription("Write over a file that is there"),
      Flag.withoutNegation,
      Flag.withDefault(false)
    ),
    dryRun: dryRunFlag
  },
  Effect.fnUntraced(function* ({ file, force, dryRun }) {
    const to = yield* output
    const { out } = yield* Surroundings
    const { commentedYaml } = yield* Effect.promise(() => import("../live/config/render.ts"))
    if (Option.isNone(file) || file.value === "-") return out(commentedYaml())
    if (existsSync(file.value) && !force) {
      return yield* failure("refused", `${file.value} is there already`, "--force writes over it")
    }
    yield* Effect.try({
      try: () =>
        dryRun ? mayWrite(file.value) : writeFileSync(file.value, commentedYaml(), { mode: 0o600 }),
      catch: (cause) =>
        failure("failure", `${file.value} can't be written: ${(cause as NodeJS.ErrnoException).code}`)
    })
    if (dryRun) return sayDryRun(to, `write ${file.value}`, { file: file.value })
    to.note(`written to ${file.value}`)
  })
).pipe(Command.withDescription("Write a commented configuration with every default"))

const validate = Command.make(
  "validate",
  {
    file: Argument.String("file").pipe(
      Argument.withDescription("The file to check; the one that would be used unless told"),
      Argument.optional
    )
  },
  Effect.fnUntraced(function* ({ file }) {
    const to = yield* output
    const { environment } = yield* Surroundings
    const path = Option.isSome(file) ? file.value : yield* configFile
    const { loadConfig } = yield* Effect.promise(() => import("../live/config.ts"))
    yield* loadConfig(path, environment).pipe(
      Effect.mapError((error) =>
        failure("usage", error.message, undefined, { file: error.file, issues: error.issues })
      )
    )
    to.either({ file: path, valid: true }, () =>
      to.line(`${to.paint("valid", "green")}: ${path ?? "the defaults"}`)
    )
  })
).pipe(Command.withDescription("Check a configuration; every error is shown"))

const show = Command.make(
  "show",
  {},
  Effect.fnUntraced(function* () {
    const to = yield* output
    const { settings, file, resolved } = yield* loadedConfig
    to.either({ file, settings, resolved }, () => {
      to.table(settings, [
        { head: "KEY", of: (row) => row.path },
        {
          head: "VALUE",
          of: (row) => (typeof row.value === "object" ? JSON.stringify(row.value) : String(row.value))
        },
        { head: "FROM", of: (row) => row.variable ?? (row.source === "file" ? (file ?? "file") : row.source) }
      ])
      if (!to.isPlain) to.note(`data in ${resolved.dataDir}, node ${resolved.nodeId}`)
    })
  })
).pipe(Command.withDescription("Show every value and where it came from"))

export const config = Command.make("config").pipe(
  Command.withDescription("Make, check and show the configuration"),
  Command.withSubcommands([generate, validate, show])
)
