/** The composition root: `up` and `lab` run here, every other command is a client of the API. */
import { NodeRuntime } from "@effect/platform-node"
import { Effect, Logger, References } from "effect"
import { loadConfig } from "./live/config.ts"
import { up } from "./cli/up.ts"

const file = process.argv[process.argv.indexOf("--config") + 1] ?? null
const levels = { debug: "Debug", info: "Info", warn: "Warn", error: "Error" } as const
const program = Effect.gen(function* () {
  const loaded = yield* loadConfig(process.argv.includes("--config") ? file : null, process.env)
  yield* up(loaded, "0.1.0").pipe(
    Effect.provideService(References.MinimumLogLevel, levels[loaded.config.system.log_level])
  )
  return yield* Effect.never
}).pipe(Effect.scoped, Effect.provide(Logger.layer([Logger.withConsoleError(Logger.formatJson)])))
NodeRuntime.runMain(program as Effect.Effect<never, unknown>)
