/** The command line: all commands in one tree, run with exit codes. Nothing of the server is loaded to show help. */
import { readFileSync } from "node:fs"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Cause, Console, Effect, Exit, Layer } from "effect"
import { CliConfig, CliError, Command, GlobalFlag } from "effect/cli"
import { ca } from "./ca.ts"
import { makeCompletion } from "./completion.ts"
import { cluster } from "./cluster.ts"
import { config } from "./config.ts"
import { doctor } from "./doctor.ts"
import { CliFailure, exitCodes } from "./exit.ts"
import { globalFlags } from "./global.ts"
import { host } from "./host.ts"
import { rebalance } from "./rebalance.ts"
import { audit, history, replay, why } from "./journal.ts"
import { migrate, migration } from "./migrate.ts"
import { Surroundings } from "./output.ts"
import { simulate } from "./simulate.ts"
import { vm } from "./vm.ts"

/** Commands that run in this process and not at a node's API; the composition root makes them. */
export interface OwnCommands {
  readonly up?: Command.Command.Any
  readonly lab?: Command.Command.Any
  readonly "watch-lease"?: Command.Command.Any
}

export const makeCli = (own: OwnCommands = {}): ReturnType<typeof treeOf> => treeOf(own)

const treeOf = (own: OwnCommands) => {
  const given = [own.up, own.lab, own["watch-lease"]].filter((command) => command !== undefined)
  const completion = makeCompletion(() => treeOf(own) as Command.Command.Any)
  const commands = [
    vm,
    host,
    rebalance,
    cluster,
    migrate,
    migration,
    why,
    history,
    replay,
    audit,
    ca,
    config,
    simulate,
    doctor,
    completion
  ]
  return Command.make("novacron").pipe(
    Command.withDescription("Runs virtual machines on many hosts and moves them, live, between them"),
    Command.withSubcommands([...(given as unknown as typeof commands), ...commands]),
    Command.withGlobalFlags(globalFlags)
  )
}

export const version = (): string => {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8")
  return (JSON.parse(text) as { version: string }).version
}

/** The parser's help and errors go to the console; given surroundings take it over. */
const layerOf = (surroundings: Surroundings) => {
  const text = (values: ReadonlyArray<unknown>) => `${values.map(String).join(" ")}\n`
  const own: Console.Console = {
    ...globalThis.console,
    log: (...values) => surroundings.out(text(values)),
    error: (...values) => surroundings.err(text(values))
  }
  return Layer.merge(Layer.succeed(Surroundings, surroundings), Layer.succeed(Console.Console, own))
}

/**
 * Run one command line, without the program's own name, and give its exit code. Errors of the user are told on
 * stderr, as JSON with `--json`; a programmer's error is told with its trace.
 */
export async function runCli(
  argv: ReadonlyArray<string>,
  own: OwnCommands = {},
  surroundings?: Surroundings
): Promise<number> {
  const services = Layer.mergeAll(
    NodeServices.layer,
    CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Version] }),
    surroundings === undefined ? Layer.empty : layerOf(surroundings)
  )
  const program = Command.runWith(makeCli(own), { version: version() })(argv).pipe(Effect.provide(services))
  const controller = new AbortController()
  const stop = () => controller.abort()
  // The reader of a pipe may leave first, as head does; that is no error.
  const onPipe = (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(exitCodes.success)
    throw error
  }
  if (surroundings === undefined) process.stdout.on("error", onPipe)
  process.once("SIGINT", stop)
  process.once("SIGTERM", stop)
  try {
    const exit = await Effect.runPromiseExit(program as Effect.Effect<void, unknown>, {
      signal: controller.signal
    })
    return Exit.isSuccess(exit) ? exitCodes.success : told(exit.cause, argv, surroundings)
  } finally {
    process.off("SIGINT", stop)
    process.off("SIGTERM", stop)
  }
}

function told(cause: Cause.Cause<unknown>, argv: ReadonlyArray<string>, given?: Surroundings): number {
  const err = given?.err ?? ((text: string) => process.stderr.write(text))
  // As a shell counts an end by SIGINT.
  if (Cause.hasInterruptsOnly(cause)) return 130
  const error = Cause.squash(cause)
  if (CliError.isCliError(error)) {
    // Shown already by the parser, with the command's help.
    return error._tag === "ShowHelp" && argv.length === 0 ? exitCodes.success : exitCodes.usage
  }
  if (!(error instanceof CliFailure)) {
    err(`error in the program itself: ${Cause.pretty(cause)}\n`)
    return exitCodes.failure
  }
  const { exit, reason, hint, details } = error
  if (argv.includes("--json")) {
    const code = exitCodes[exit]
    err(
      `${JSON.stringify({ error: exit, code, reason, ...(hint ? { hint } : {}), ...(details ? { details } : {}) })}\n`
    )
  } else err(`novacron: ${reason}${hint === undefined ? "" : `\n  ${hint}`}\n`)
  return exitCodes[exit]
}
