/** The client's end of `novacron-console/1`, over TCP, TLS or a unix socket. */
import { request as httpRequest } from "node:http"
import type { IncomingMessage, RequestOptions } from "node:http"
import { request as httpsRequest } from "node:https"
import type { Duplex } from "node:stream"
import { Effect, Schema } from "effect"
import type { Scope } from "effect"
import type { ClientOptions } from "../api/client.ts"
import { decodePayload, encodeFrame, FrameDecoder, FrameError, frameType } from "../link/frames.ts"
import type { Frame } from "../link/frames.ts"
import {
  consoleFrameBytes_max,
  ConsoleNotice,
  consolePieceBytes_max,
  consoleProtocol,
  pingEveryMs,
  silenceMs
} from "./protocol.ts"
import type { ConsoleItem } from "./inbox.ts"

/** The connection could not be made, or broke. */
export class ConsoleLost extends Schema.TaggedError<ConsoleLost>()("ConsoleLost", {
  reason: Schema.String
}) {
  override get message(): string {
    return this.reason
  }
}

export interface ConsoleConnection {
  /** Hand each item on, in order, each after the one before was taken; ends after `closed`, fails when it breaks. */
  readonly receive: (take: (item: ConsoleItem) => Promise<void>) => Effect.Effect<void, ConsoleLost>
  /** Waits until the octets are on their way. */
  readonly send: (octets: Uint8Array) => Effect.Effect<void, ConsoleLost>
}

const problemBytes_max = 64 * 1024
const connectTimeoutMs = 30_000

/** Attach to the session that was opened. Fails with the API's problem, as plain data, or `ConsoleLost`. */
export const attachConsole = (
  options: ClientOptions,
  vm: string,
  session: string
): Effect.Effect<ConsoleConnection, unknown, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(upgraded(options, vm, session), (socket) =>
      // What was typed last has to get there; who does not take it is not waited for.
      Effect.sync(() => {
        socket.end()
        setTimeout(() => socket.destroy(), 1000).unref()
      })
    ),
    connectionOn
  )

const upgraded = (options: ClientOptions, vm: string, session: string) =>
  Effect.callback<Duplex, unknown>((resume) => {
    const url = new URL(`${options.url}/v1/vms/${vm}/console/${session}`)
    const asked: RequestOptions & { readonly ca?: string } = {
      headers: {
        connection: "upgrade",
        upgrade: consoleProtocol,
        authorization: `Bearer ${options.token}`
      },
      // The server closes the connection after a refusal, so none is kept for the next one.
      agent: false,
      timeout: connectTimeoutMs,
      ...(options.socket === undefined ? {} : { socketPath: options.socket }),
      ...(options.authority === undefined ? {} : { ca: options.authority })
    }
    const request = (url.protocol === "https:" ? httpsRequest : httpRequest)(url, asked)
    const lost = (reason: string) => resume(Effect.fail(new ConsoleLost({ reason })))
    request.on("error", (error) => lost(error.message))
    request.on("timeout", () => request.destroy(new Error(`no answer within ${connectTimeoutMs} ms`)))
    request.on("response", (response) => {
      void problemIn(response).then((problem) => resume(Effect.fail(problem)))
    })
    request.on("upgrade", (_response, socket, head) => {
      socket.setTimeout(0)
      socket.on("error", () => socket.destroy())
      if (head.length > 0) socket.unshift(head)
      resume(Effect.succeed(socket))
    })
    request.end()
    return Effect.sync(() => request.destroy())
  })

async function problemIn(response: IncomingMessage): Promise<unknown> {
  const status = `status ${response.statusCode} instead of an upgrade`
  try {
    let text = ""
    for await (const chunk of response.setEncoding("utf8")) {
      text += String(chunk)
      if (text.length > problemBytes_max) break
    }
    return JSON.parse(text) as unknown
  } catch {
    return new ConsoleLost({ reason: status })
  }
}

const connectionOn = (socket: Duplex): ConsoleConnection => ({
  receive: (take) =>
    Effect.tryPromise({
      try: () => receiveAll(socket, take),
      catch: (cause) => new ConsoleLost({ reason: cause instanceof Error ? cause.message : String(cause) })
    }),
  send: (octets) =>
    Effect.callback<void, ConsoleLost>((resume) => {
      let left = 1
      const done = (error?: Error | null) => {
        left -= 1
        if (error) resume(Effect.fail(new ConsoleLost({ reason: error.message })))
        else if (left === 0) resume(Effect.void)
      }
      for (let at = 0; at < octets.length; at += consolePieceBytes_max) {
        left += 1
        const piece = Buffer.from(octets.subarray(at, at + consolePieceBytes_max))
        socket.write(encodeFrame(frameType.data, 0, piece), done)
      }
      done()
    })
})

async function receiveAll(socket: Duplex, take: (item: ConsoleItem) => Promise<void>): Promise<void> {
  const decoder = new FrameDecoder(consoleFrameBytes_max)
  // Also while what came is taken slowly, and pings wait behind it, the server hears that somebody is here.
  const alive = setInterval(() => socket.write(encodeFrame(frameType.pong, 0)), pingEveryMs)
  let silence: NodeJS.Timeout | undefined
  const listen = () => {
    silence = setTimeout(() => socket.destroy(new Error(`nothing came for ${silenceMs} ms`)), silenceMs)
  }
  try {
    listen()
    for await (const chunk of socket) {
      clearTimeout(silence)
      const frames: Array<Frame> = []
      decoder.push(chunk as Buffer, (frame) => frames.push(frame) > 0)
      for (const frame of frames) if (await handle(frame, take)) return
      listen()
    }
  } catch (error) {
    if (error instanceof FrameError)
      throw new Error(`what came is no console: ${error.reason}`, { cause: error })
    throw error
  } finally {
    clearTimeout(silence)
    clearInterval(alive)
  }
  throw new Error("the connection was closed")
}

/** True after the last one. */
async function handle(frame: Frame, take: (item: ConsoleItem) => Promise<void>): Promise<boolean> {
  if (frame.type === frameType.ping) return false
  if (frame.type === frameType.data) {
    await take(frame.payload)
    return false
  }
  if (frame.type !== frameType.notice) {
    throw new FrameError({ code: "type", reason: `frame ${frame.type} is none that a server sends` })
  }
  const notice = decodePayload(ConsoleNotice, frame)
  await take(notice)
  return notice.type === "closed"
}
