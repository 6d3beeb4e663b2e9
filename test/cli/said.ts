/** A command of the CLI in this process, as a script runs it: no terminal, nothing in the environment. What it said, and its exit code. */
import { runCli } from "../../src/cli/main.ts"

export async function saidBy(...argv: ReadonlyArray<string>) {
  const said = { out: "", err: "" }
  const code = await runCli(
    argv,
    {},
    {
      out: (text) => (said.out += text),
      err: (text) => (said.err += text),
      isOutTerminal: false,
      isErrTerminal: false,
      environment: {},
      ask: null
    }
  )
  return { code, ...said }
}
