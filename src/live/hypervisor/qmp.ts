/** A client of one QEMU's machine protocol socket. QEMU talks to one client at a time. */
import net from "node:net"
import { Deferred, Effect, PubSub, Schema } from "effect"
import type { Scope } from "effect"
import { QmpReader } from "./qmp-reader.ts"
import type { QmpMessage } from "./qmp-reader.ts"

export class QmpError extends Schema.TaggedError<QmpError>()("QmpError", {
  socket: Schema.String,
  command: Schema.String,
  code: Schema.Literals(["refused", "timeout", "closed", "malformed"]),
  reason: Schema.String
}) {}

export type QmpEvent = Extract<QmpMessage, { type: "event" }>
export type QmpArguments = Readonly<Record<string, unknown>>

export interface Qmp {
  readonly version: string
  /** `refused` is QEMU's own answer; after `closed` or `malformed` the connection is of no more use. */
  readonly execute: (
    command: string,
    args?: QmpArguments,
    timeoutMs?: number
  ) => Effect.Effect<unknown, QmpError>
  /** From now on; a subscriber that lags loses the oldest of 256. */
  readonly events: Effect.Effect<PubSub.Subscription<QmpEvent>, never, Scope.Scope>
  readonly isClosed: () => boolean
  /** Waits for the end of the connection; gives the reason. */
  readonly closed: Effect.Effect<string>
}

const COMMAND_TIMEOUT_MS = 10_000
const GREETING_TIMEOUT_MS = 5_000
const OUTSTANDING_MAX = 64
const EVENTS_KEPT = 256

type Answer = (effect: Effect.Effect<unknown, QmpError>) => void

class Connection {
  readonly path: string
  readonly #socket: net.Socket
  readonly #reader = new QmpReader()
  readonly #outstanding = new Map<number, { readonly command: string; readonly answer: Answer }>()
  readonly #events: PubSub.PubSub<QmpEvent>
  readonly closed = Deferred.makeUnsafe<string>()
  readonly greeting = Deferred.makeUnsafe<string, QmpError>()
  #nextId = 1
  #closedReason: string | null = null

  constructor(path: string, events: PubSub.PubSub<QmpEvent>) {
    this.path = path
    this.#events = events
    this.#socket = net.createConnection({ path })
    this.#socket.on("data", (chunk) => {
      for (const message of this.#reader.push(chunk)) this.#handle(message)
    })
    this.#socket.on("error", (error) => this.end("closed", error.message))
    this.#socket.on("close", () => this.end("closed", "QEMU closed the connection"))
  }

  get isClosed(): boolean {
    return this.#closedReason !== null
  }

  error(command: string, code: QmpError["code"], reason: string): QmpError {
    return new QmpError({ socket: this.path, command, code, reason })
  }

  #handle(message: QmpMessage): void {
    if (message.type === "greeting") {
      Deferred.doneUnsafe(this.greeting, Effect.succeed(message.version))
    } else if (message.type === "event") {
      // Sliding never waits; the unsafe form would drop the newest instead of the oldest.
      Effect.runSync(PubSub.publish(this.#events, message))
    } else if (message.type === "malformed") {
      this.end("malformed", message.reason)
    } else {
      const waiting = this.#outstanding.get(message.id)
      // An answer that came after its time-out has nobody waiting for it.
      if (waiting === undefined) return
      this.#outstanding.delete(message.id)
      waiting.answer(
        message.type === "return"
          ? Effect.succeed(message.value)
          : Effect.fail(this.error(waiting.command, "refused", message.reason))
      )
    }
  }

  end(code: "closed" | "malformed", reason: string): void {
    if (this.#closedReason !== null) return
    this.#closedReason = reason
    this.#socket.destroy()
    Deferred.doneUnsafe(this.greeting, Effect.fail(this.error("connect", code, reason)))
    for (const { command, answer } of this.#outstanding.values()) {
      answer(Effect.fail(this.error(command, code, reason)))
    }
    this.#outstanding.clear()
    Deferred.doneUnsafe(this.closed, Effect.succeed(reason))
  }

  execute(command: string, args: QmpArguments = {}, timeoutMs = COMMAND_TIMEOUT_MS) {
    return Effect.callback<unknown, QmpError>((resume) => {
      if (this.#closedReason !== null) {
        resume(Effect.fail(this.error(command, "closed", this.#closedReason)))
        return
      }
      if (this.#outstanding.size >= OUTSTANDING_MAX) {
        resume(Effect.fail(this.error(command, "timeout", `${OUTSTANDING_MAX} commands are unanswered`)))
        return
      }
      const id = this.#nextId++
      this.#outstanding.set(id, { command, answer: resume })
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`)
      return Effect.sync(() => this.#outstanding.delete(id))
    }).pipe(
      Effect.timeoutOrElse({
        duration: timeoutMs,
        orElse: () => Effect.fail(this.error(command, "timeout", `no answer within ${timeoutMs} ms`))
      })
    )
  }
}

/** Connect and negotiate; the connection ends with the scope, QEMU goes on. */
export const connectQmp = Effect.fn("connectQmp")(function* (
  path: string
): Effect.fn.Return<Qmp, QmpError, Scope.Scope> {
  const events = yield* PubSub.sliding<QmpEvent>(EVENTS_KEPT)
  const connection = yield* Effect.acquireRelease(
    Effect.sync(() => new Connection(path, events)),
    (made) => Effect.sync(() => made.end("closed", "closed by us"))
  )
  const version = yield* Deferred.await(connection.greeting).pipe(
    Effect.timeoutOrElse({
      duration: GREETING_TIMEOUT_MS,
      orElse: () =>
        Effect.fail(connection.error("connect", "timeout", "no greeting; is another client connected?"))
    })
  )
  yield* connection.execute("qmp_capabilities")
  return {
    version,
    execute: (command, args, timeoutMs) => connection.execute(command, args, timeoutMs),
    events: PubSub.subscribe(events),
    isClosed: () => connection.isClosed,
    closed: Deferred.await(connection.closed)
  }
})
