/** One socket as a sequence of frames, with a bounded outgoing queue and one end that everyone learns of. */
import type { Duplex } from "node:stream"
import { Deferred, Effect, Latch, Semaphore } from "effect"
import { LinkError } from "../../kernel/ports/link.ts"
import { FrameDecoder, greetingBytesMax } from "./frames.ts"
import type { Frame } from "./frames.ts"

/** Data waits while so much is unsent. */
const softLimitBytes = 256 * 1024
/** Heartbeats and credits don't wait; a peer that lets so much of them pile up reads nothing and is cut off. */
const pressingLimitBytes = 256 * 1024

export class Wire {
  readonly peer: string
  readonly closed = Deferred.makeUnsafe<LinkError>()
  readonly decoder = new FrameDecoder(greetingBytesMax)
  readonly #socket: Duplex
  readonly #drained = Latch.makeUnsafe(true)
  readonly #turn = Semaphore.makeUnsafe(1)
  #onFrame: ((frame: Frame) => void) | null = null
  #end: LinkError | null = null
  #onEnd: ((end: LinkError) => void) | null = null
  /** Written by `sendNow` since everything was last sent. */
  #pressingBytes = 0

  constructor(socket: Duplex, peer: string) {
    this.#socket = socket
    this.peer = peer
    socket.on("data", (chunk: Buffer) => this.#receive(chunk))
    socket.on("drain", () => {
      this.#pressingBytes = 0
      this.#drained.openUnsafe()
    })
    socket.on("error", (error: Error) => this.destroy("lost", error.message))
    socket.on("end", () => this.destroy("lost", "the other side ended the connection"))
    socket.on("close", () => this.destroy("lost", "the connection is closed"))
    socket.pause()
  }

  /** Frames go to this function from now on; what it throws as a `FrameError` ends the connection. */
  listen(onFrame: (frame: Frame) => void): void {
    this.#onFrame = onFrame
    this.#socket.resume()
  }

  /** Call this function once, in the moment the wire ends. */
  onEnd(tell: (end: LinkError) => void): void {
    if (this.#end !== null) tell(this.#end)
    else this.#onEnd = tell
  }

  /** Hold what comes next back until `listen`. */
  hold(): void {
    this.#socket.pause()
  }

  get end(): LinkError | null {
    return this.#end
  }

  /** Write at once. For small frames that must not wait behind data. */
  sendNow(frame: Buffer): void {
    if (this.#end !== null) return
    if (this.#socket.writableLength === 0) this.#pressingBytes = 0
    this.#pressingBytes += frame.length
    this.#write(frame)
    if (this.#pressingBytes > pressingLimitBytes) {
      this.destroy(
        "protocol",
        `${this.#socket.writableLength} octets are unsent; the other side does not read`
      )
    }
  }

  /** Write when there is room, in the order of asking. */
  readonly send = (frame: Buffer): Effect.Effect<void, LinkError> =>
    this.#turn.withPermit(
      Effect.flatMap(this.#drained.await, () => {
        if (this.#end !== null) return Effect.fail(this.#end)
        this.#write(frame)
        return Effect.void
      })
    )

  /** Send a last frame and close in good order. */
  finish(frame: Buffer, reason: string): void {
    if (this.#end !== null) return
    this.#socket.end(frame)
    this.#close(new LinkError({ node: this.peer, code: "lost", reason }))
    // A peer that never reads the last frame must not keep the socket.
    setTimeout(() => this.#socket.destroy(), 1000).unref()
  }

  destroy(code: LinkError["code"], reason: string): void {
    if (this.#end !== null) return
    this.#close(new LinkError({ node: this.peer, code, reason }))
    this.#socket.destroy()
  }

  #write(frame: Buffer): void {
    if (!this.#socket.write(frame) && this.#socket.writableLength > softLimitBytes)
      this.#drained.closeUnsafe()
  }

  #close(end: LinkError): void {
    this.#end = end
    this.#onFrame = null
    this.#drained.openUnsafe()
    this.#onEnd?.(end)
    Deferred.doneUnsafe(this.closed, Effect.succeed(end))
  }

  #receive(chunk: Buffer): void {
    if (this.#onFrame === null) return
    try {
      const rest = this.decoder.push(chunk, (frame) => {
        this.#onFrame?.(frame)
        return this.#onFrame !== null && !this.#socket.isPaused()
      })
      if (rest !== null && rest.length > 0 && this.#end === null) this.#socket.unshift(rest)
    } catch (error) {
      if ((error as { _tag?: unknown })._tag !== "FrameError") throw error
      this.destroy("protocol", (error as { reason: string }).reason)
    }
  }
}
