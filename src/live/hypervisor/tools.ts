/** Runs QEMU's programs with argument lists; never a shell. */
import { execFile } from "node:child_process"
import { Effect, Schema } from "effect"

export class ToolError extends Schema.TaggedError<ToolError>()("ToolError", {
  program: Schema.String,
  args: Schema.Array(Schema.String),
  reason: Schema.String
}) {}

const OUTPUT_BYTES_MAX = 16 * 1024 * 1024

/** Its standard output. A program that runs longer than `timeoutMs` is killed. */
export const runTool = (
  program: string,
  args: ReadonlyArray<string>,
  timeoutMs: number
): Effect.Effect<string, ToolError> =>
  Effect.callback((resume) => {
    const child = execFile(
      program,
      [...args],
      { timeout: timeoutMs, killSignal: "SIGKILL", maxBuffer: OUTPUT_BYTES_MAX },
      (error, stdout, stderr) => {
        if (error === null) return resume(Effect.succeed(stdout))
        const why = error.killed === true ? `killed after ${timeoutMs} ms` : stderr.trim() || error.message
        resume(Effect.fail(new ToolError({ program, args: [...args], reason: why.slice(0, 1024) })))
      }
    )
    return Effect.sync(() => child.kill("SIGKILL"))
  })
