/** From a request to an actor's command, and from the kernel's answer to a response: the path every mutation takes. */
import { randomUUID } from "node:crypto"
import { Cause, Effect, Exit } from "effect"
import type { Context } from "effect"
import { HttpServerResponse } from "effect/http"
import type { Message, Principal } from "../../events/envelope.ts"
import type { Caller } from "../../kernel/batch.ts"
import type { Accepted, SubmitError } from "../../kernel/refusals.ts"
import type { Command, Kernel } from "../../kernel/kernel.ts"
import type { DryRun, Operation } from "./bodies.ts"
import { makePreview } from "./preview.ts"
import type { PreviewPorts } from "./preview.ts"
import {
  Conflict,
  KeyReused,
  NotFound,
  Overloaded,
  Refused,
  StoreUnavailable,
  Unavailable
} from "./problems.ts"
import type { Operations } from "./operations.ts"

/** A command as somebody says it. */
export interface Said {
  readonly stream: string
  readonly message: Message
  readonly principal: Principal
  readonly key: string | undefined
}

export interface Asked extends Said {
  readonly query: { readonly wait?: number; readonly dryRun?: "true" | "false" }
}

export type CommandProblem =
  NotFound | Refused | KeyReused | Conflict | Overloaded | StoreUnavailable | Unavailable

/** Told once what became of a command. */
export type Answered = (exit: Exit.Exit<Operation, CommandProblem>) => void

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
  "host.confirmOff",
  "rebalancer.start",
  "rebalancer.stop",
  "cluster.remove",
  "cluster.lead",
  "keyring.rotate",
  "authority.makeToken",
  "authority.revoke",
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
  const reusedKey = ({ id, stream, message }: Command): KeyReused | null => {
    if (operations.isOf(id, stream, message) !== false) return null
    const known = operations.get(id)
    const before = operations.commandOf(id) ?? ""
    const detail = `${id} is the key of another ${before} on ${known?.stream}; use a new key for a new command`
    return new KeyReused({ operation: id, stream: known?.stream ?? "", command: before, detail })
  }

  const commandOf = ({ stream, message, principal, key }: Said): Command => {
    const id = key ?? randomUUID()
    return { stream, message, id, correlation: id, principal }
  }

  const operationOf = (
    exit: Exit.Exit<Accepted, SubmitError>,
    command: Command
  ): Exit.Exit<Operation, CommandProblem> => {
    if (Exit.isFailure(exit)) return Exit.failCause(Cause.map(exit.cause, problemOf))
    const accepted = exit.value
    const operation = operations.begin(accepted.facts) ?? operations.get(command.id)
    if (operation === undefined) return Exit.succeed(unknownOperation(accepted, command))
    const problem = accepted.duplicate ? reusedKey(command) : null
    return problem === null ? Exit.succeed(operation) : Exit.fail(problem)
  }

  const take = (command: Command, answered: Answered, caller: Caller): void => {
    const problem = reusedKey(command)
    if (problem !== null) return answered(Exit.fail(problem))
    kernel.offer(command, (exit) => answered(operationOf(exit, command)), caller)
  }

  /** `submit` for who has no fiber that could wait, nor wishes beside the command. `answered` must not throw. */
  const offer = (said: Said, answered: Answered, caller: Caller): void =>
    take(commandOf(said), answered, caller)

  const submit = Effect.fnUntraced(function* ({ query, ...said }: Asked) {
    const command = commandOf(said)
    if (query.dryRun === "true") {
      const problem = reusedKey(command)
      return problem === null ? yield* dryRun(command) : yield* problem
    }
    const taken = Effect.callback<Operation, CommandProblem>((resume) => {
      const caller = { isGone: false }
      take(command, resume, caller)
      return Effect.sync(() => {
        caller.isGone = true
      })
    })
    const operation = yield* taken
    if (query.wait === undefined) return respond(operation)
    return respond((yield* operations.wait(command.id, query.wait)) ?? operation)
  })
  return { submit, offer }
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

/** Status and headers of the answer that is this operation. */
export const statusOf = (operation: Operation): number => (operation.state === "running" ? 202 : 200)
export const locationOf = (operation: Operation): string => `/v1/operations/${operation.id}`

const respond = (operation: Operation) =>
  HttpServerResponse.text(JSON.stringify(operation), {
    status: statusOf(operation),
    contentType: "application/json",
    headers: { location: locationOf(operation) }
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
    case "Unavailable": {
      const { node, mayHappen, reason: detail } = error
      return new Unavailable({ node, mayHappen, retryAfterSeconds: 1, detail })
    }
    case "RevisionConflict":
      return new Conflict({ detail: `${error.stream} changed again and again` })
  }
}
