/** The command line against a node in this process, with what it prints kept. */
import { runCli } from "../../src/cli/main.ts"
import { openWorld, token } from "../live/api-world.ts"
import type { World } from "../live/api-world.ts"

export interface Said {
  readonly code: number
  readonly out: string
  readonly err: string
}

export interface CliWorld {
  readonly world: World
  readonly cli: (...argv: ReadonlyArray<string>) => Promise<Said>
  readonly cliWith: (environment: Record<string, string>, ...argv: ReadonlyArray<string>) => Promise<Said>
}

export async function openCliWorld(): Promise<CliWorld> {
  const world = await openWorld()
  const cliWith: CliWorld["cliWith"] = async (environment, ...argv) => {
    let out = ""
    let err = ""
    const code = await runCli(
      argv,
      {},
      {
        out: (text) => {
          out += text
        },
        err: (text) => {
          err += text
        },
        isOutTerminal: false,
        isErrTerminal: false,
        ask: null,
        environment
      }
    )
    return { code, out, err }
  }
  const environment = { NOVACRON_URL: world.url, NOVACRON_TOKEN: token, HOME: "/nonexistent" }
  return { world, cliWith, cli: (...argv) => cliWith(environment, ...argv) }
}
