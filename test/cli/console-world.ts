/** The console command in this process, with an input and an output that a test holds in its hands. */
import assert from "node:assert/strict"
import { PassThrough } from "node:stream"
import { setTimeout as sleep } from "node:timers/promises"
import { runCli } from "../../src/cli/main.ts"

export interface Typed {
  readonly type: (text: string) => void
  /** The end of the input. */
  readonly end: () => void
  readonly text: () => string
  readonly notes: () => string
  /** What the terminal was told, in order; empty without one. */
  readonly raw: ReadonlyArray<boolean>
  readonly code: Promise<number>
}

export const waitFor = async (what: string, holds: () => boolean | Promise<boolean>): Promise<void> => {
  for (let tries = 0; tries < 3000; tries++) {
    if (await holds()) return
    await sleep(20)
  }
  assert.fail(`not within a minute: ${what}`)
}

/** `environment` names the node and its token. */
export function openConsole(
  environment: Readonly<Record<string, string>>,
  argv: ReadonlyArray<string>,
  isTerminal = false
): Typed {
  const raw: Array<boolean> = []
  const terminal = { isTTY: true, setRawMode: (on: boolean) => raw.push(on) }
  const input = Object.assign(new PassThrough(), isTerminal ? terminal : {})
  const output = new PassThrough()
  const said = { out: "", err: "" }
  output.on("data", (chunk: Buffer) => (said.out += chunk.toString("latin1")))
  const code = runCli(
    ["vm", "console", ...argv],
    {},
    {
      out: (text) => void (said.out += text),
      err: (text) => void (said.err += text),
      isOutTerminal: isTerminal,
      isErrTerminal: isTerminal,
      ask: null,
      environment: { HOME: "/nonexistent", ...environment },
      streams: () => ({ input, output })
    }
  )
  return {
    type: (text) => void input.write(text),
    end: () => void input.end(),
    text: () => said.out,
    notes: () => said.err,
    raw,
    code
  }
}
