/** Runs QEMU's programs with argument lists; never a shell. */
import { execFile } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { existsSync } from "node:fs"
import { Effect, Schema } from "effect"

export class ToolError extends Schema.TaggedError<ToolError>()("ToolError", {
  program: Schema.String,
  args: Schema.Array(Schema.String),
  reason: Schema.String
}) {}

const OUTPUT_BYTES_MAX = 16 * 1024 * 1024
const SETPRIV = "/usr/bin/setpriv"
/** What setpriv says of a program that is not there; the program is named anyway. */
const ofSetpriv = /^setpriv: failed to execute [^:]*: /

/**
 * A command that the kernel ends with us (PR_SET_PDEATHSIG, prctl(2)), also when we are killed: else a probe goes on for
 * good, and a copy goes on writing a file that the next agent makes anew. Where setpriv of util-linux is missing the
 * command is run as it is.
 */
export const boundToUs = (
  program: string,
  args: ReadonlyArray<string>
): readonly [program: string, args: Array<string>] =>
  existsSync(SETPRIV) ? [SETPRIV, ["--pdeathsig", "KILL", "--", program, ...args]] : [program, [...args]]

/** A child that was never started has no pid; to Node its kill is one of this process's whole group (kill(2), pid 0). */
export const end = (child: ChildProcess): void => {
  if (child.pid !== undefined) child.kill("SIGKILL")
}

/** Its standard output, after it was given `input`. A program that runs longer than `timeoutMs` is killed. */
export const runTool = (
  program: string,
  args: ReadonlyArray<string>,
  timeoutMs: number,
  input?: string
): Effect.Effect<string, ToolError> =>
  Effect.callback((resume) => {
    const child = execFile(
      ...boundToUs(program, args),
      { timeout: timeoutMs, killSignal: "SIGKILL", maxBuffer: OUTPUT_BYTES_MAX },
      (error, stdout, stderr) => {
        if (error === null) return resume(Effect.succeed(stdout))
        const why =
          error.killed === true
            ? `killed after ${timeoutMs} ms`
            : stderr.trim().replace(ofSetpriv, "") || error.message
        resume(Effect.fail(new ToolError({ program, args: [...args], reason: why.slice(0, 1024) })))
      }
    )
    // A program that does not read it closes it: that is not what it failed by.
    child.stdin?.on("error", () => undefined)
    if (input !== undefined) child.stdin?.end(input)
    return Effect.sync(() => end(child))
  })
