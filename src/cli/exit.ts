/** How a command ends: the documented exit codes, and the failure that carries one. */
import { Schema } from "effect"

export const exitCodes = {
  success: 0,
  failure: 1,
  usage: 2,
  refused: 3,
  notFound: 4,
  unreachable: 5,
  unauthorised: 6,
  timedOut: 7,
  notStarted: 8,
  damaged: 9,
  closed: 10
} as const

export type ExitName = keyof typeof exitCodes

export const exitMeanings: Readonly<Record<ExitName, string>> = {
  success: "done, or nothing was to be done",
  failure: "it failed",
  usage: "wrong arguments, flags or configuration",
  refused: "refused in the present state, or something is in the way of a migration",
  notFound: "there is no such machine, host, migration or operation",
  unreachable: "the node can't be reached",
  unauthorised: "the token is missing or wrong",
  timedOut: "it has not ended within --wait-timeout; it goes on",
  notStarted: "the node did not start; what it had started is stopped again",
  damaged: "the journal is damaged or is not one of this version; starting again does not help",
  closed: "the console was closed by the other side: the machine stopped, or somebody took it over"
}

/** The expected end of a command that did not do it. `hint` says what to do next. */
export class CliFailure extends Schema.TaggedError<CliFailure>()("CliFailure", {
  exit: Schema.Literals(Object.keys(exitCodes) as [ExitName, ...Array<ExitName>]),
  reason: Schema.String,
  hint: Schema.optionalKey(Schema.String),
  /** The problem or the result as data, for `--json`. */
  details: Schema.optionalKey(Schema.Unknown)
}) {
  override get message(): string {
    return this.reason
  }
}

export const failure = (exit: ExitName, reason: string, hint?: string, details?: unknown): CliFailure =>
  new CliFailure({
    exit,
    reason,
    ...(hint === undefined ? {} : { hint }),
    ...(details === undefined ? {} : { details })
  })
