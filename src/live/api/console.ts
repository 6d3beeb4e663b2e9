/** Opening a machine's console, which is a command and a fact, and the connection that follows it. */
import { randomUUID } from "node:crypto"
import { Clock, Effect, Option } from "effect"
import type { Context } from "effect"
import { HttpServerRequest, HttpServerResponse } from "effect/http"
import type { Socket } from "effect/socket"
import type { Kernel } from "../../kernel/kernel.ts"
import { describe } from "../../kernel/statechart.ts"
import type { ConsoleHub, Session } from "../console/hub.ts"
import { sessions_max } from "../console/hub.ts"
import {
  consoleFrameBytes_max,
  consolePieceBytes_max,
  consoleProtocol,
  pingEveryMs,
  silenceMs
} from "../console/protocol.ts"
import type { ConsoleNotice } from "../console/protocol.ts"
import { encodeFrame, encodeJson, FrameDecoder, FrameError, frameType } from "../link/frames.ts"
import type { Frame } from "../link/frames.ts"
import type { Asked, makeCommands } from "./commands.ts"
import { overloaded } from "./commands.ts"
import { Caller } from "./gate.ts"
import type { Operations } from "./operations.ts"
import { NotFound, Refused, UpgradeRequired } from "./problems.ts"

export interface ConsolePorts {
  readonly kernel: Context.Service.Shape<typeof Kernel>
  readonly operations: Operations
  readonly commands: ReturnType<typeof makeCommands>
  readonly hub: ConsoleHub
  readonly stopping: Effect.Effect<void>
}

export interface ConsoleAsked {
  readonly vm: string
  readonly readOnly: boolean
  readonly force: boolean
  readonly key: string | undefined
  readonly query: Asked["query"]
}

const shown = ({ who }: Session) => `${who.kind} ${who.name}`

export const makeConsole = (ports: ConsolePorts) => {
  const { hub, commands, operations } = ports

  const held = Effect.fnUntraced(function* (vm: string, by: Session) {
    const actor = yield* Effect.option(ports.kernel.state(`vm/${vm}`))
    const state = actor._tag === "Some" ? describe(actor.value.chart) : "unknown"
    const since = new Date(by.sinceMs).toISOString()
    const detail = `${shown(by)} types at the console of ${vm} since ${since}; force takes it over, readOnly watches`
    const stream = `vm/${vm}`
    return new Refused({ stream, command: "vm.openConsole", state, allowed: [], unmet: [], detail })
  })

  const open = Effect.fnUntraced(function* (asked: ConsoleAsked) {
    const { vm, force, query } = asked
    const who = yield* Caller
    const key = asked.key ?? randomUUID()
    const mode = asked.readOnly ? ("read" as const) : ("write" as const)
    const nowMs = yield* Clock.currentTimeMillis
    const isRepeated = operations.get(key) !== undefined
    const holder = mode === "write" && !isRepeated ? hub.writerOf(vm) : null
    if (holder !== null && !force) return yield* yield* held(vm, holder)
    if (hub.isFull && !isRepeated) {
      return yield* overloaded(`${sessions_max} consoles are open, which is the limit`, 30)
    }
    const isDry = query.dryRun === "true"
    const opening = { session: key, vm, who, mode }
    // Before anything is recorded: of two that ask at the same time the second is refused.
    const early = !isDry && !isRepeated && holder === null
    if (early) hub.admit(opening, nowMs)
    const taken = holder === null ? {} : { takenFrom: shown(holder).slice(0, 256) }
    const message = { type: "vm.openConsole", mode, ...taken }
    const answer = yield* commands
      .submit({ stream: `vm/${vm}`, message, principal: who, key, query })
      .pipe(Effect.onError(() => Effect.sync(() => early && hub.leave(key))))
    if (!isDry && !isRepeated && !early) hub.admit(opening, nowMs)
    return answer
  })

  const attach = Effect.fnUntraced(function* (vm: string, id: string) {
    const who = yield* Caller
    const request = yield* HttpServerRequest.HttpServerRequest
    if (request.headers["upgrade"]?.toLowerCase() !== consoleProtocol) {
      return yield* new UpgradeRequired({
        protocol: consoleProtocol,
        detail: `send connection: upgrade and upgrade: ${consoleProtocol}`
      })
    }
    const session = yield* hub.attach(id, vm, who)
    if (session === null) {
      const detail = `there is no session ${id} of this caller that waits for its connection: open another one`
      return yield* new NotFound({ resource: `console/${id}`, detail })
    }
    const socket = yield* request.upgrade.pipe(Effect.orDie)
    yield* serve(socket, session, ports).pipe(Effect.ignore)
    return HttpServerResponse.empty()
  }, Effect.scoped)

  return { open, attach }
}

const notice = (one: ConsoleNotice) => encodeJson(frameType.notice, 0, one)

const dataFrames = (octets: Uint8Array): ReadonlyArray<Buffer> => {
  const frames: Array<Buffer> = []
  for (let at = 0; at < octets.length; at += consolePieceBytes_max) {
    const piece = octets.subarray(at, at + consolePieceBytes_max)
    frames.push(encodeFrame(frameType.data, 0, Buffer.from(piece.buffer, piece.byteOffset, piece.length)))
  }
  return frames
}

/** Until either side ends it. The reader waits while the guest takes nothing, and so does who types. */
const serve = Effect.fnUntraced(function* (socket: Socket.Socket, session: Session, ports: ConsolePorts) {
  const reader = yield* socket.reader
  const writer = yield* socket.writer
  const outgoing = Effect.gen(function* () {
    for (;;) {
      for (const item of yield* session.inbox.take) {
        if (item instanceof Uint8Array) {
          for (const frame of dataFrames(item)) yield* writer.write(frame)
          continue
        }
        yield* writer.write(notice(item))
        if (item.type === "closed") return
      }
    }
  })
  const pings = Effect.gen(function* () {
    for (;;) {
      yield* Effect.sleep(pingEveryMs)
      yield* writer.write(encodeFrame(frameType.ping, 0))
    }
  })
  const closes = (cause: "stopping" | "protocol" | "lost", reason: string) =>
    Effect.ignore(writer.write(notice({ type: "closed", cause, reason })))
  const incoming = receive(reader, session, ports.hub).pipe(
    Effect.flatMap((problem) => closes(problem === null ? "lost" : "protocol", problem ?? "nothing came"))
  )
  const stopped = Effect.andThen(ports.stopping, closes("stopping", "the node stops"))
  yield* Effect.raceAllFirst([outgoing, pings, incoming, stopped])
})

/** Null after too long a silence; else what was wrong with what came. */
const receive = Effect.fnUntraced(function* (
  reader: Effect.Success<Socket.Socket["reader"]>,
  session: Session,
  hub: ConsoleHub
) {
  const decoder = new FrameDecoder(consoleFrameBytes_max)
  for (;;) {
    const chunks = yield* Effect.timeoutOption(reader.pull, silenceMs)
    if (Option.isNone(chunks)) return null
    const frames: Array<Frame> = []
    try {
      for (const chunk of chunks.value) {
        const octets = typeof chunk === "string" ? Buffer.from(chunk) : Buffer.from(chunk)
        decoder.push(octets, (frame) => frames.push(frame) > 0)
      }
    } catch (error) {
      if (error instanceof FrameError) return error.reason
      throw error
    }
    for (const frame of frames) {
      if (frame.type === frameType.pong) continue
      if (frame.type !== frameType.data) return `frame ${frame.type} is none that a client sends`
      if (session.mode === "read") return "the session may only watch"
      // It has no right to type any more, and has been told so.
      if (!(yield* hub.write(session, frame.payload))) return yield* Effect.never
    }
  }
})
