/** docs/reference/cli.md, read off the tree of commands. */
import { Completions } from "effect/cli"
import type { Command } from "effect/cli"
import { exitCodes, exitMeanings } from "./exit.ts"
import type { ExitName } from "./exit.ts"
import { describedFlags } from "./global.ts"
import { makeCli } from "./main.ts"

type Descriptor = Completions.CommandDescriptor

const globalNames: ReadonlySet<string> = new Set(describedFlags.map((flag) => flag.name))
/** Aliases of other commands, which the tree has as commands. */
const aliases: ReadonlySet<string> = new Set(["ls"])
/** They belong to the parser and stand at every command. */
const builtIn: ReadonlySet<string> = new Set(["help", "version", "wizard", "completions", "log-level"])

const cell = (text: string) => text.replaceAll("|", "\\|")

function flagRow(flag: Completions.FlagDescriptor): string {
  const names = [`--${flag.name}`, ...flag.aliases.map((one) => (one.length === 1 ? `-${one}` : `--${one}`))]
  const { type } = flag
  const value =
    type._tag === "Choice"
      ? type.values.join(" \\| ")
      : type._tag === "Boolean"
        ? ""
        : type._tag.toLowerCase()
  return `| ${names.map((name) => `\`${name}\``).join(", ")} | ${value} | ${cell(flag.description ?? "")} |`
}

const flagTable = (flags: ReadonlyArray<Completions.FlagDescriptor>): ReadonlyArray<string> =>
  flags.length === 0 ? [] : ["", "| flag | value | what it does |", "|---|---|---|", ...flags.map(flagRow)]

function section(command: Descriptor, path: ReadonlyArray<string>): ReadonlyArray<string> {
  const own = command.flags.filter(({ name }) => !globalNames.has(name) && !builtIn.has(name))
  const positions = command.arguments.map(({ name, required }) => (required ? `<${name}>` : `[${name}]`))
  const line = [...path, ...positions].join(" ")
  const lines = [`## ${path.join(" ")}`, "", `${command.description ?? ""}.`]
  if (command.subcommands.length === 0) {
    lines.push("", "```", line, "```")
    for (const one of command.arguments) lines.push("", `\`${one.name}\`: ${one.description ?? ""}.`)
    lines.push(...flagTable(own))
  }
  lines.push("")
  const inner = command.subcommands.filter(({ name }) => !aliases.has(name))
  return [...lines, ...inner.flatMap((one) => section(one, [...path, one.name]))]
}

export function cliReference(): string {
  const tree = Completions.fromCommand(makeCli() as Command.Command.Any)
  const shared = describedFlags.map(
    ({ name, value, about }) => `| \`--${name}\` | ${value} | ${cell(about)} |`
  )
  const codes = Object.entries(exitCodes).map(
    ([name, code]) => `| ${code} | ${exitMeanings[name as ExitName]} |`
  )
  const lines = [
    "# Commands",
    "",
    "`novacron up` runs a node and `novacron lab` a small cluster to try things on; their flags are in `--help`.",
    "All other commands ask a running node through its API, but for `config`, `doctor`, `completion` and, with",
    "`--data-dir`, `replay` and `audit verify`.",
    "",
    "Results go to standard output, everything else to standard error. `--json` is for programs, `--plain` for",
    "`cut` and `awk`; progress is shown on a terminal only. Every command that changes something takes `--dry-run`.",
    "",
    "## Flags of every command",
    "",
    "| flag | value | what it does |",
    "|---|---|---|",
    ...shared,
    "",
    "`NOVACRON_TOKEN` gives the token itself. `NO_COLOR` and `TERM=dumb` turn colours off.",
    "",
    "## Exit codes",
    "",
    "| code | meaning |",
    "|---|---|",
    ...codes,
    "| 130 | interrupted |",
    "",
    ...tree.subcommands.flatMap((command) => section(command, ["novacron", command.name]))
  ]
  return `${lines.join("\n").trimEnd()}\n`
}
