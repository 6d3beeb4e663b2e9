/** `novacron vm console`: the guest's serial console at this terminal, or through pipes. */
import { randomUUID } from "node:crypto"
import { Effect, Fiber } from "effect"
import { Command, Flag } from "effect/cli"
import type { ConsoleConnection } from "../live/console/client.ts"
import type { ConsoleItem } from "../live/console/inbox.ts"
import type { ConsoleNotice } from "../live/console/protocol.ts"
import type { Target } from "../live/api/roaming.ts"
import { connect, failureOf, withApi } from "./connection.ts"
import { failure } from "./exit.ts"
import type { CliFailure } from "./exit.ts"
import { dryRunFlag, duration, mutate, vmArgument } from "./mutate.ts"
import { output, Surroundings } from "./output.ts"
import type { Output, Streams } from "./output.ts"

/** Ctrl-], as with telnet and virsh. */
const escape = 0x1d

interface Flags {
  readonly vm: string
  readonly readOnly: boolean
  readonly linger: number
}

/** Hand every key on, until the scope closes; however the process ends, the terminal is as it was. */
const rawTerminal = ({ input }: Streams) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const restore = () => input.setRawMode?.(false)
      const hangUp = () => {
        restore()
        process.exit(129)
      }
      if (input.isTTY !== true) return () => {}
      input.setRawMode?.(true)
      process.on("exit", restore)
      process.on("SIGHUP", hangUp)
      return () => {
        restore()
        process.off("exit", restore)
        process.off("SIGHUP", hangUp)
      }
    }),
    (restore) => Effect.sync(restore)
  )

const written = (streams: Streams, octets: Uint8Array | string): Promise<void> =>
  new Promise((resolve, reject) => {
    streams.output.write(octets, (error) => (error ? reject(error) : resolve()))
  })

type End = "escape" | "input ended" | Extract<ConsoleNotice, { type: "closed" }>

/** Send what is typed until the escape key, or the end of the input. What is typed ahead waits in the input. */
const typing = (connection: ConsoleConnection, { input }: Streams, flags: Flags) =>
  Effect.gen(function* () {
    const chunks = input[Symbol.asyncIterator]()
    for (;;) {
      // A terminal that is gone has no more to say.
      const next = yield* Effect.promise(() => chunks.next().catch(() => ({ done: true, value: null })))
      if (next.done === true) break
      const octets = Buffer.from(next.value as Buffer | string)
      const at = input.isTTY === true ? octets.indexOf(escape) : -1
      const typed = at < 0 ? octets : octets.subarray(0, at)
      if (!flags.readOnly && typed.length > 0) yield* connection.send(typed)
      if (at >= 0) return "escape" as const
    }
    yield* Effect.sleep(flags.linger)
    return "input ended" as const
  })

const noteOf = (flags: Flags, isTerminal: boolean) => {
  let before: string | null = null
  return (notice: Exclude<ConsoleNotice, { type: "closed" }>): string => {
    if (notice.type === "skipped") return `${notice.bytes} bytes were left out: they were read too slowly`
    const { host, simulated } = notice
    const first = before === null
    const again = before === host ? `connected again on ${host}` : `moved to ${host}`
    before = host
    if (!first) return again
    const what = simulated ? "the simulated console" : "the console"
    const how = `${flags.readOnly ? "watching" : "connected to"} ${what} of ${flags.vm} on ${host}`
    return isTerminal ? `${how}; Ctrl-] ends it` : how
  }
}

/** Show what comes, until the server says that it was the last. */
const showing = (connection: ConsoleConnection, streams: Streams, to: Output, flags: Flags) =>
  Effect.gen(function* () {
    const isTerminal = streams.input.isTTY === true
    const note = noteOf(flags, isTerminal)
    let closed: End | null = null
    const take = async (item: ConsoleItem) => {
      if (item instanceof Uint8Array) return written(streams, item)
      if (item.type === "closed") closed = item
      // In raw mode a line feed alone does not go back to the left.
      else to.note(`${isTerminal ? "\r" : ""}novacron: ${note(item)}${isTerminal ? "\r" : ""}`)
    }
    yield* connection.receive(take)
    return closed ?? ("input ended" as const)
  })

/** At the node that took the command: the session is there. */
const session = Effect.fnUntraced(function* (flags: Flags, id: string, streams: Streams, at: Target) {
  const to = yield* output
  const { socket: _, ...named } = (yield* connect).options
  const options = { ...named, ...at }
  const shown = at.socket ?? at.url
  const { attachConsole } = yield* Effect.promise(() => import("../live/console/client.ts"))
  const isTerminal = streams.input.isTTY === true
  const end = yield* Effect.gen(function* () {
    const connection = yield* attachConsole(options, flags.vm, id)
    yield* rawTerminal(streams)
    const shows = showing(connection, streams, to, flags)
    // Watching through pipes there is nothing to be read, and no end but the console's own.
    if (flags.readOnly && !isTerminal) return yield* shows
    const types = yield* Effect.forkChild(typing(connection, streams, flags))
    return yield* Effect.raceFirst(shows, Fiber.join(types))
  }).pipe(
    Effect.scoped,
    Effect.mapError((error) => failureOf(error, shown)),
    Effect.ensuring(Effect.sync(() => streams.input.destroy()))
  )
  if (isTerminal) to.note("")
  const problem = problemOf(end, flags.vm)
  if (problem !== null) return yield* problem
})

function problemOf(end: End, vm: string): CliFailure | null {
  if (typeof end === "string") return null
  const { cause, reason } = end
  if (cause === "ended") return failure("closed", `the console of ${vm} has ended: ${reason}`)
  if (cause === "taken") return failure("closed", reason, "novacron vm console --force takes it back")
  return failure("unreachable", `the console of ${vm} is lost: ${reason}`)
}

const on = (name: string, alias: string, about: string) =>
  Flag.Boolean(name).pipe(
    Flag.withAlias(alias),
    Flag.withDescription(about),
    Flag.withoutNegation,
    Flag.withDefault(false)
  )

export const console = Command.make(
  "console",
  {
    vm: vmArgument,
    readOnly: on("read-only", "r", "Only watch: any number may, beside the one who types"),
    force: on("force", "f", "Take the console over from who types at it"),
    linger: duration("linger", "How long to go on after the end of an input that is no terminal", "1s"),
    dryRun: dryRunFlag
  },
  Effect.fnUntraced(function* ({ vm, readOnly, force, linger, dryRun }) {
    const payload = { readOnly, force }
    if (dryRun) {
      yield* mutate({ dryRun, wait: false, waitTimeout: 0 }, `open the console of ${vm}`, (calls, request) =>
        calls.vms.console({ ...request, params: { name: vm }, payload })
      )
      return
    }
    const { streams } = yield* Surroundings
    if (streams === undefined) return yield* failure("usage", "a console needs an input and an output")
    const id = randomUUID()
    const at = yield* withApi((calls, client) =>
      Effect.map(
        calls.vms.console({
          params: { name: vm },
          query: {},
          headers: { "idempotency-key": id },
          payload
        }),
        () => client.target()
      )
    )
    yield* session({ vm, readOnly, linger }, id, streams(), at)
  })
).pipe(
  Command.withDescription("See and type at the guest's serial console; Ctrl-] ends it"),
  Command.withExamples([
    { command: "novacron vm console web-1", description: "At the terminal, until Ctrl-]" },
    { command: "novacron vm console web-1 --read-only | tee boot.log", description: "Watch, and keep it" },
    { command: "echo uptime | novacron vm console web-1 --linger 2s", description: "From a script" }
  ])
)
