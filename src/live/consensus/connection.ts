/**
 * One mutual TLS connection between two nodes of a group, `novacron-group/1`, both ways: frames of a length and a message
 * (codec.ts). A message is sent at once or not at all; what is lost the protocol sends again.
 *
 *     u32 length | message
 *
 * Version rule: a message of a new kind is only sent to who is known to have it; anything else raises the protocol's number.
 */
import type { TLSSocket } from "node:tls"
import { NotUnderstood } from "./codec.ts"

/** Larger than any message: a page of a journal, or what one append may carry. */
const frameBytes_max = 64 * 1024 * 1024
/** Not sent yet; more is dropped. */
const unsentBytes_max = 32 * 1024 * 1024

export const lengthBytes = 4

export class Connection {
  readonly peer: string
  readonly #socket: TLSSocket
  readonly #take: (payload: Buffer) => void
  readonly #onEnd: (reason: string) => void
  #chunks: Array<Buffer> = []
  #bytes = 0
  #isOver = false
  /** Something has come since this was last asked. */
  #hasHeard = true

  constructor(
    socket: TLSSocket,
    peer: string,
    take: (payload: Buffer) => void,
    onEnd: (reason: string) => void
  ) {
    this.peer = peer
    this.#socket = socket
    this.#take = take
    this.#onEnd = onEnd
    socket.on("data", (chunk: Buffer) => this.#receive(chunk))
    socket.on("error", (error: Error) => this.end(error.message))
    socket.on("end", () => this.end("the other side ended the connection"))
    socket.on("close", () => this.end("the connection is closed"))
    socket.resume()
  }

  get isOver(): boolean {
    return this.#isOver
  }

  /** Whether anything has come since the last call. */
  hasHeard(): boolean {
    const heard = this.#hasHeard
    this.#hasHeard = false
    return heard
  }

  /** A message with `lengthBytes` free before it. False when it is not sent. */
  send(frame: Buffer): boolean {
    if (this.#isOver || this.#socket.writableLength > unsentBytes_max) return false
    frame.writeUInt32LE(frame.length - lengthBytes, 0)
    this.#socket.write(frame)
    return true
  }

  end(reason: string): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#socket.destroy()
    this.#onEnd(reason)
  }

  #receive(chunk: Buffer): void {
    if (this.#isOver) return
    this.#hasHeard = true
    this.#chunks.push(chunk)
    this.#bytes += chunk.length
    if (this.#bytes < lengthBytes || this.#bytes < lengthBytes + this.#nextLength()) return
    let buffer = this.#chunks.length === 1 ? chunk : Buffer.concat(this.#chunks)
    while (!this.#isOver && buffer.length >= lengthBytes) {
      const end = lengthBytes + buffer.readUInt32LE(0)
      if (end > lengthBytes + frameBytes_max) return this.end(`a frame of ${end} octets is too large`)
      if (buffer.length < end) break
      this.#deliver(buffer.subarray(lengthBytes, end))
      buffer = buffer.subarray(end)
    }
    this.#chunks = buffer.length === 0 ? [] : [buffer]
    this.#bytes = buffer.length
  }

  #nextLength(): number {
    const [first] = this.#chunks
    if (first !== undefined && first.length >= lengthBytes)
      return Math.min(first.readUInt32LE(0), frameBytes_max)
    return 0
  }

  #deliver(payload: Buffer): void {
    try {
      this.#take(payload)
    } catch (error) {
      if (!(error instanceof NotUnderstood)) throw error
      this.end(`what it says is not understood: ${error.message}`)
    }
  }
}
