/** What all commands that change something share: dry run, waiting with progress, and what is printed. */
import { randomUUID } from "node:crypto"
import { Clock, Effect, Option } from "effect"
import { Argument, Flag } from "effect/cli"
import type { ApiCalls } from "../live/api/client.ts"
import type { DryRun, Operation } from "../live/api/bodies.ts"
import { formatDuration, parseDuration } from "../live/config/duration.ts"
import { withApi } from "./connection.ts"
import { othersOf } from "./decision.ts"
import { failure } from "./exit.ts"
import { output } from "./output.ts"
import type { Output } from "./output.ts"

/** A duration flag; milliseconds inside. */
export const duration = (name: string, about: string, standard: string) =>
  Flag.String(name).pipe(
    Flag.withDescription(`${about}, ${standard} unless told`),
    Flag.withMetavar("DURATION"),
    Flag.withDefault(standard),
    Flag.filterMap(
      (text) => Option.fromNullishOr(parseDuration(text)),
      () => "a duration: 500ms, 30s, 5m, 2h"
    )
  )

export const vmArgument = Argument.String("vm").pipe(Argument.withDescription("Name of the machine"))

export const dryRunFlag = Flag.Boolean("dry-run").pipe(
  Flag.withAlias("n"),
  Flag.withDescription("Say what would be done, through the same code, and do nothing"),
  Flag.withoutNegation,
  Flag.withDefault(false)
)

/** What a command that only writes files here says instead of writing them. */
export const sayDryRun = (to: Output, what: string, data: Readonly<Record<string, unknown>>): void =>
  to.either({ dryRun: true, ...data }, () =>
    to.line(`${to.paint("dry run", "yellow")}: ${what}; nothing is changed`)
  )

export const mutationFlags = {
  dryRun: dryRunFlag,
  wait: Flag.Boolean("wait").pipe(
    Flag.withAlias("w"),
    Flag.withDescription("Wait until it has succeeded or failed"),
    Flag.withoutNegation,
    Flag.withDefault(false)
  ),
  waitTimeout: duration("wait-timeout", "How long --wait waits", "5m")
}

export interface MutationFlags {
  readonly dryRun: boolean
  readonly wait: boolean
  readonly waitTimeout: number
}

export interface Request {
  readonly query: { readonly dryRun?: "true" }
  readonly headers: { readonly "idempotency-key": string }
}

export type Mutation<E> = (calls: ApiCalls, request: Request) => Effect.Effect<Operation | DryRun, E>

/** Send the command. With `dryRun` its preview is the result, else its operation, ended when `wait` is set. */
export const mutate = Effect.fnUntraced(function* <E>(
  flags: MutationFlags,
  what: string,
  call: Mutation<E>,
  progressOf?: (calls: ApiCalls, operation: Operation) => Effect.Effect<string>
) {
  const to = yield* output
  const request: Request = {
    query: flags.dryRun ? { dryRun: "true" } : {},
    headers: { "idempotency-key": randomUUID() }
  }
  const result = yield* withApi((calls) =>
    Effect.flatMap(call(calls, request), (first) =>
      "dryRun" in first || !flags.wait
        ? Effect.succeed(first)
        : settle(calls, to, first, flags.waitTimeout, what, progressOf)
    )
  )
  if ("dryRun" in result) {
    to.either(result, () => showDryRun(to, result, what))
    return result
  }
  yield* conclude(to, result, what, flags)
  return result
})

/** What an operation's state means for the person and for the exit code. */
const conclude = Effect.fnUntraced(function* (
  to: Output,
  operation: Operation,
  what: string,
  flags: MutationFlags
) {
  if (operation.state === "failed") {
    const hint = `novacron history ${operation.stream} shows what happened`
    return yield* failure(
      "failure",
      `${what} failed: ${operation.reason ?? "no reason is known"}`,
      hint,
      operation
    )
  }
  if (operation.state === "running" && flags.wait) {
    const hint = `it goes on; novacron history ${operation.stream} shows how it stands`
    const reason = `${what} has not ended within ${formatDuration(flags.waitTimeout)}`
    return yield* failure("timedOut", reason, hint, operation)
  }
  to.either(operation, () => {
    if (to.isPlain) return to.line([operation.id, operation.stream, operation.state].join("\t"))
    const done = operation.state === "succeeded"
    to.line(
      done
        ? `${to.paint("done", "green")}: ${what}`
        : `accepted: ${what}; --wait would wait for it, novacron history ${operation.stream} shows how it goes`
    )
  })
})

const settle = Effect.fnUntraced(function* (
  calls: ApiCalls,
  to: Output,
  first: Operation,
  timeoutMs: number,
  what: string,
  progressOf: ((calls: ApiCalls, operation: Operation) => Effect.Effect<string>) | undefined
) {
  const startMs = yield* Clock.currentTimeMillis
  let operation = first
  while (operation.state === "running") {
    const tookMs = (yield* Clock.currentTimeMillis) - startMs
    if (tookMs >= timeoutMs) break
    const detail = progressOf ? yield* progressOf(calls, operation) : ""
    to.progress(`${what}${detail === "" ? "" : `: ${detail}`} (${Math.floor(tookMs / 1000)} s)`)
    const wait = Math.max(1, Math.min(1000, timeoutMs - tookMs))
    operation = yield* calls.journal.operation({ params: { id: operation.id }, query: { wait } })
  }
  to.progress(null)
  return operation
})

const askedText = (asked: Readonly<Record<string, unknown>>): string => {
  const command = asked["command"] as { type?: string } | undefined
  if (asked["port"] === "actor") return `${String(asked["to"])} to ${String(command?.type)}`
  if (asked["port"] === "hypervisor") return `host ${String(asked["host"])} to ${String(asked["op"])}`
  return `${String(asked["port"])} ${String(asked["op"] ?? "")}`.trim()
}

function showDryRun(to: Output, dry: DryRun, what: string): void {
  to.line(`${to.paint("dry run", "yellow")}: ${what}; nothing is changed`)
  to.line(`  state    ${dry.stateBefore} -> ${dry.stateAfter}`)
  for (const fact of dry.wouldRecord) to.line(`  records  ${fact.type}`)
  for (const asked of dry.wouldAsk) to.line(`  asks     ${askedText(asked)}`)
  if (dry.placement !== null) {
    to.line(`  place    ${dry.placement.chosen ?? "nowhere"}: ${dry.placement.reason}`)
    for (const candidate of dry.placement.candidates) {
      const out = candidate.excluded.map((one) => `${one.filter}: ${one.reason}`).join("; ")
      to.line(`           ${candidate.host}: ${out === "" ? `score ${candidate.total}` : `out, ${out}`}`)
    }
    for (const line of othersOf(dry.placement.others)) to.line(`           ${line}`)
  }
  for (const blocker of dry.blockers ?? []) to.line(`  ${to.paint("blocked", "red")}  ${blocker}`)
}
