/** Single frames on a socket that is something else afterwards: the openings of streams, and joining. */
import type { Duplex } from "node:stream"
import { Effect } from "effect"
import { FrameDecoder, FrameError, greetingBytesMax } from "./frames.ts"
import type { Frame } from "./frames.ts"

/** The connection ended, or nothing came in time. */
export class ExchangeEnded {
  readonly _tag = "ExchangeEnded"
  readonly reason: string
  constructor(reason: string) {
    this.reason = reason
  }
}

/** The next frame. What came after it stays in the socket, which is left paused. */
export const receiveFrame = (
  socket: Duplex,
  timeoutMs: number
): Effect.Effect<Frame, FrameError | ExchangeEnded> =>
  Effect.callback<Frame, FrameError | ExchangeEnded>((resume) => {
    const decoder = new FrameDecoder(greetingBytesMax)
    const onEnd = () => finish(Effect.fail(new ExchangeEnded("the connection ended")))
    const onData = (chunk: Buffer) => {
      try {
        let found: Frame | null = null
        const rest = decoder.push(chunk, (frame) => {
          found = frame
          return false
        })
        if (found === null) return
        finish(Effect.succeed(found))
        if (rest !== null && rest.length > 0) socket.unshift(rest)
      } catch (error) {
        if (!(error instanceof FrameError)) throw error
        finish(Effect.fail(error))
      }
    }
    const stop = () => {
      socket.pause()
      socket.off("data", onData)
      socket.off("end", onEnd)
      socket.off("close", onEnd)
    }
    const finish = (effect: Effect.Effect<Frame, FrameError | ExchangeEnded>) => {
      stop()
      resume(effect)
    }
    if (socket.destroyed) {
      resume(Effect.fail(new ExchangeEnded("the connection ended")))
      return
    }
    socket.on("data", onData)
    socket.on("end", onEnd)
    socket.on("close", onEnd)
    // A listener alone does not start a stream again that the previous exchange has paused.
    socket.resume()
    return Effect.sync(stop)
  }).pipe(
    Effect.timeoutOrElse({
      duration: timeoutMs,
      orElse: () => Effect.fail(new ExchangeEnded(`nothing came within ${timeoutMs} ms`))
    })
  )
