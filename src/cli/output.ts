/** What people and scripts read: tables, lines or JSON on stdout; everything else on stderr. */
import type { Readable, Writable } from "node:stream"
import { Context, Effect } from "effect"
import { Json, NoColor, NoInput, Plain } from "./global.ts"

/** The input may be a terminal, which can be told to hand every key on as it is. */
export interface Streams {
  readonly input: Readable & {
    readonly isTTY?: boolean | undefined
    readonly setRawMode?: ((raw: boolean) => unknown) | undefined
  }
  readonly output: Writable
}

/** The process's streams and environment as the commands see them; tests give their own. */
export interface Surroundings {
  readonly out: (text: string) => void
  readonly err: (text: string) => void
  readonly isOutTerminal: boolean
  readonly isErrTerminal: boolean
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Octets in and out, for a console; asked for only then. Left out where there are none. */
  readonly streams?: () => Streams
  /** One line from the person at the terminal; null when there is none. */
  readonly ask: ((question: string) => Promise<string>) | null
}

export const Surroundings = Context.Reference<Surroundings>("novacron/cli/Surroundings", {
  defaultValue: () => ({
    out: (text) => process.stdout.write(text),
    err: (text) => process.stderr.write(text),
    isOutTerminal: process.stdout.isTTY,
    isErrTerminal: process.stderr.isTTY,
    environment: process.env,
    streams: () => ({ input: process.stdin, output: process.stdout }),
    ask: process.stdin.isTTY && process.stderr.isTTY ? askAtTerminal : null
  })
})

async function askAtTerminal(question: string): Promise<string> {
  const { createInterface } = await import("node:readline/promises")
  const lines = createInterface({ input: process.stdin, output: process.stderr })
  try {
    return await lines.question(question)
  } finally {
    lines.close()
  }
}

export type Cell = string | number | null | undefined

export interface Column<Row> {
  readonly head: string
  readonly of: (row: Row) => Cell
}

export interface Output {
  readonly isJson: boolean
  readonly isPlain: boolean
  readonly line: (text: string) => void
  readonly note: (text: string) => void
  /** `data` as JSON, or whatever `show` prints. */
  readonly either: (data: unknown, show: () => void) => void
  readonly table: <Row>(rows: ReadonlyArray<Row>, columns: ReadonlyArray<Column<Row>>) => void
  /** One line that is written over, on a terminal only; null clears it. */
  readonly progress: (text: string | null) => void
  readonly paint: (text: string, colour: Colour) => string
  /** Whether to go on; null when nobody can be asked. */
  readonly confirm: (question: string) => Effect.Effect<boolean | null>
}

const colours = { red: 31, green: 32, yellow: 33, grey: 90, bold: 1 } as const
export type Colour = keyof typeof colours

const text = (cell: Cell) => (cell === null || cell === undefined || cell === "" ? "-" : String(cell))

// Names and reasons come from outside: what would move the cursor or end the line is shown and not sent.
// eslint-disable-next-line no-control-regex
const controls = /[\u0000-\u001f\u007f-\u009f]/g
const harmless = (value: string) =>
  value.replace(controls, (one) => `\\x${one.charCodeAt(0).toString(16).padStart(2, "0")}`)

function aligned(lines: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<string> {
  const widths = (lines[0] ?? []).map((_, at) => Math.max(...lines.map((line) => line[at]?.length ?? 0)))
  return lines.map((line) =>
    line
      .map((cell, at) => cell.padEnd(widths[at] ?? 0))
      .join("  ")
      .trimEnd()
  )
}

export const output = Effect.gen(function* () {
  const around = yield* Surroundings
  const isJson = yield* Json
  const isPlain = yield* Plain
  const noColor = (yield* NoColor) || (around.environment["NO_COLOR"] ?? "") !== ""
  const noInput = yield* NoInput
  const isDumb = around.environment["TERM"] === "dumb"
  const hasColour = around.isOutTerminal && !noColor && !isDumb && !isPlain
  const line = (value: string) => around.out(`${value}\n`)
  const made: Output = {
    isJson,
    isPlain,
    line,
    note: (value) => around.err(`${value}\n`),
    either: (data, show) => (isJson ? line(JSON.stringify(data, null, 2)) : show()),
    table: (rows, columns) => {
      const cells = rows.map((row) => columns.map((column) => harmless(text(column.of(row)))))
      if (isPlain) {
        for (const row of cells) line(row.join("\t"))
        return
      }
      const [head = "", ...body] = aligned([columns.map((column) => column.head), ...cells])
      line(made.paint(head, "bold"))
      for (const row of body) line(row)
    },
    progress: (value) => {
      if (!around.isErrTerminal || isJson || isPlain || isDumb) return
      around.err(value === null ? "\r\u001b[K" : `\r\u001b[K${harmless(value)}`)
    },
    paint: (value, colour) => (hasColour ? `\u001b[${colours[colour]}m${value}\u001b[0m` : value),
    confirm: (question) => {
      const { ask } = around
      if (noInput || ask === null) return Effect.succeed(null)
      const answered = Effect.promise(() => ask(`${question} [y/N] `))
      return Effect.map(answered, (answer) => /^y(es)?$/i.test(answer.trim()))
    }
  }
  return made
})
