/** From a request to an actor's command, and from the kernel's answer to a response: the path every mutation takes. */
import { randomUUID } from "node:crypto"
import { Effect } from "effect"
import type { Context } from "effect"
import { HttpServerResponse } from "effect/http"
import type { Message, Principal } from "../../events/envelope.ts"
import type { Accepted, SubmitError } from "../../kernel/refusals.ts"
import type { Command, Kernel } from "../../kernel/kernel.ts"
import type { DryRun, Operation } from "./bodies.ts"
import { makePreview } from "./preview.ts"
import type { PreviewPorts } from "./preview.ts"
import { Conflict, KeyReused, NotFound, Overloaded, Refused, StoreUnavailable } from "./problems.ts"
import type { Operations } from "./operations.ts"

export interface Asked {
  readonly stream: string
  readonly message: Message
  readonly principal: Principal
  readonly key: string | undefined
  readonly query: { readonly wait?: number; readonly dryRun?: "true" | "false" }
}

export type CommandProblem = NotFound | Refused | KeyReused | Conflict | Overloaded | StoreUnavailable

export const overloaded = (detail: string, retryAfterSeconds = 1) =>
  new Overloaded({ detail, retryAfterSeconds })

/** The state of a thing that is not there, not yet or no more, and the command that makes it. */
const nothing: Readonly<Record<string, { readonly state: string; readonly maker: string }>> = {
  vm: { state: "absent", maker: "vm.create" },
  host: { state: "unknown", maker: "host.register" },
  migration: { state: "idle", maker: "migration.request" }
}

/** What people may ask; the others are said by actors and nodes, and no use in an answer to people. */
const operatorCommands: ReadonlySet<string> = new Set([
  ...["create", "start", "stop", "pause", "resume", "reboot", "delete", "snapshot", "restore"].map(
    (c) => `vm.${c}`
  ),
  "host.drain",
  "host.activate",
  "vm.openConsole",
  "migration.request",
  "migration.cancel"
])

export const makeCommands = (
  kernel: Context.Service.Shape<typeof Kernel>,
  operations: Operations,
  ports: PreviewPorts
) => {
  const preview = makePreview(kernel, ports)

  const dryRun = Effect.fnUntraced(function* (command: Command) {
    const considered = yield* kernel.consider(command).pipe(Effect.mapError((error) => problemOf(error)))
    return HttpServerResponse.jsonUnsafe((yield* preview(command, considered)) satisfies DryRun)
  })

  /** A key belongs to one command, with everything that it asks for. */
  const ofThisCommand = Effect.fnUntraced(function* ({ id, stream, message }: Command) {
    if (operations.isOf(id, stream, message) !== false) return
    const known = operations.get(id)
    const before = operations.commandOf(id) ?? ""
    const detail = `${id} is the key of another ${before} on ${known?.stream}; use a new key for a new command`
    return yield* new KeyReused({ operation: id, stream: known?.stream ?? "", command: before, detail })
  })

  const answer = Effect.fnUntraced(function* (
    accepted: Accepted,
    command: Command,
    waitMs: number | undefined
  ) {
    let operation = operations.begin(accepted.facts) ?? operations.get(command.id)
    if (operation === undefined) operation = unknownOperation(accepted, command)
    else if (accepted.duplicate) {
      yield* ofThisCommand(command)
    }
    if (waitMs !== undefined) operation = (yield* operations.wait(command.id, waitMs)) ?? operation
    return respond(operation)
  })

  const submit = Effect.fnUntraced(function* (asked: Asked) {
    const id = asked.key ?? randomUUID()
    const { stream, message, principal } = asked
    const command: Command = { stream, message, id, correlation: id, principal }
    if (asked.key !== undefined) {
      yield* ofThisCommand(command)
    }
    if (asked.query.dryRun === "true") return yield* dryRun(command)
    const accepted = yield* kernel.submit(command).pipe(Effect.mapError((error) => problemOf(error)))
    return yield* answer(accepted, command, asked.query.wait)
  })
  return { submit }
}

/** The command was accepted so long ago that its operation is no longer kept. */
const unknownOperation = (accepted: Accepted, command: Command): Operation => ({
  id: command.id,
  stream: command.stream,
  began: command.message.type,
  state: "succeeded",
  reason: null,
  position: accepted.position,
  lastPosition: accepted.position,
  startedMs: 0,
  updatedMs: 0
})

const respond = (operation: Operation) =>
  HttpServerResponse.text(JSON.stringify(operation), {
    status: operation.state === "running" ? 202 : 200,
    contentType: "application/json",
    headers: { location: `/v1/operations/${operation.id}` }
  })

export function problemOf(error: SubmitError): CommandProblem {
  switch (error._tag) {
    case "CommandRefused": {
      const { stream, command, state, unmet } = error
      const [kind = "", name = ""] = stream.split("/")
      if (state === nothing[kind]?.state && command !== nothing[kind].maker) {
        return new NotFound({ resource: stream, detail: `there is no ${kind} ${name}` })
      }
      const allowed = error.allowed.filter((one) => operatorCommands.has(one))
      const why =
        unmet.length > 0
          ? `the condition ${unmet.join(" or ")} does not hold`
          : `allowed now: ${allowed.join(", ") || "nothing"}`
      const detail = `${stream} is ${state}: ${command} is refused; ${why}`
      return new Refused({ stream, command, state, allowed, unmet, detail })
    }
    case "UnknownKind":
      return new NotFound({
        resource: error.stream,
        detail: `no such kind; known are ${error.allowed.join(", ")}`
      })
    case "Overloaded":
      return overloaded(`${error.waiting} commands are waiting, at most ${error.waiting_max} may`)
    case "StoreFailure":
      return new StoreUnavailable({ detail: `${error.operation}: ${error.reason}` })
    case "RevisionConflict":
      return new Conflict({ detail: `${error.stream} changed again and again` })
  }
}
