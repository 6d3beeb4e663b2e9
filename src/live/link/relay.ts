/**
 * Carries one local connection over one TLS connection, both ways. On the TLS side the octets go in pieces,
 *
 *     +---------+------------------+
 *     | length  | octets           |      u32, big-endian; length 0: this direction is complete
 *     +---------+------------------+
 *
 * because Node reports the end of a TLS stream alike whether the other side closed it or the network cut it off.
 * With the piece of length 0 an orderly half-close is told from a broken link, which closes both ends.
 */
import type { Socket } from "node:net"
import type { TLSSocket } from "node:tls"
import { Effect } from "effect"

export interface ByteCounts {
  sentBytes: number
  receivedBytes: number
}

const headBytes = 4
const noOctets = Buffer.alloc(headBytes)
/** A piece is as long as one read of a local socket; nothing longer is made, or taken. */
const pieceBytesMax = 1024 * 1024
/** More than one piece, so that reading does not stop and begin again with each. */
const unsentBytesMax = 256 * 1024
/** Unsent octets that don't move for so long mean that the link is gone. */
const stallTimeoutMs = 60_000

/** Ends when both directions are complete, and fails with the reason when either side breaks. Both are closed then. */
export const relay = (local: Socket, remote: TLSSocket, counts: ByteCounts): Effect.Effect<void, string> =>
  Effect.callback<void, string>((resume) => {
    const session = new Relay(local, remote, counts, (broken) =>
      resume(broken === null ? Effect.void : Effect.fail(broken))
    )
    session.start()
    return Effect.sync(() => session.finish("the transfer was closed"))
  })

/**
 * Give the memory of a chunk back that nobody needs any more. Left to the garbage collector, what is carried makes it mark
 * the whole heap every 30 MB, which is more work than the encryption.
 */
function release(chunk: Buffer): void {
  const { buffer } = chunk
  // Only what was read for itself: a small buffer may be a part of a pool.
  if (buffer instanceof ArrayBuffer && buffer.byteLength === chunk.byteLength) buffer.transfer(0)
}

class Relay {
  readonly #local: Socket
  readonly #remote: TLSSocket
  readonly #counts: ByteCounts
  readonly #done: (broken: string | null) => void
  readonly #head = Buffer.alloc(headBytes)
  #headFilled = 0
  #pieceLeft = 0
  #sentEnd = false
  #receivedEnd = false
  #finished = false
  #gathering = false

  constructor(local: Socket, remote: TLSSocket, counts: ByteCounts, done: (broken: string | null) => void) {
    this.#local = local
    this.#remote = remote
    this.#counts = counts
    this.#done = done
  }

  start(): void {
    const local = this.#local
    const remote = this.#remote
    local.allowHalfOpen = true
    remote.allowHalfOpen = true
    local.on("data", (chunk: Buffer) => this.#fromLocal(chunk))
    local.on("end", () => this.#localEnded())
    local.on("drain", () => remote.resume())
    local.on("error", (error) => this.finish(`the local socket: ${error.message}`))
    local.on("close", () => this.#localClosed())
    remote.on("data", (chunk: Buffer) => this.#fromRemote(chunk))
    remote.on("end", () => this.#remoteEnded())
    remote.on("drain", () => local.resume())
    remote.on("error", (error) => this.finish(`the link: ${error.message}`))
    remote.on("close", () => this.#remoteEnded())
    remote.setKeepAlive(true, 10_000)
    remote.removeAllListeners("timeout")
    remote.setTimeout(stallTimeoutMs, () => {
      if (remote.writableLength > 0) this.finish(`the link did not move for ${stallTimeoutMs} ms`)
    })
    if (local.destroyed) this.#localClosed()
    if (remote.destroyed) this.#remoteEnded()
    local.resume()
    remote.resume()
  }

  /** `broken`: why it ends early; null when everything was carried. */
  finish(broken: string | null): void {
    if (this.#finished) return
    this.#finished = true
    this.#local.destroy()
    this.#remote.destroy()
    this.#done(broken)
  }

  #fromLocal(chunk: Buffer): void {
    this.#counts.sentBytes += chunk.length
    const head = Buffer.allocUnsafe(headBytes)
    head.writeUInt32BE(chunk.length, 0)
    this.#remote.cork()
    this.#remote.write(head)
    const room = this.#remote.write(chunk, () => release(chunk))
    this.#remote.uncork()
    if (!room && this.#remote.writableLength > unsentBytesMax) this.#local.pause()
  }

  #localEnded(): void {
    this.#sentEnd = true
    this.#remote.write(noOctets)
    this.#closeWhenComplete()
  }

  #localClosed(): void {
    if (!this.#sentEnd || !this.#receivedEnd) this.finish("the local socket was closed")
  }

  #fromRemote(chunk: Buffer): void {
    this.#gatherWrites()
    let offset = 0
    while (offset < chunk.length && !this.#finished) {
      if (this.#pieceLeft === 0) {
        const count = chunk.copy(this.#head, this.#headFilled, offset)
        this.#headFilled += count
        offset += count
        if (this.#headFilled === headBytes) this.#beginPiece()
        continue
      }
      const octets = chunk.subarray(offset, offset + this.#pieceLeft)
      offset += octets.length
      this.#pieceLeft -= octets.length
      this.#counts.receivedBytes += octets.length
      const last = offset === chunk.length ? () => release(chunk) : undefined
      const room = this.#local.write(octets, last)
      if (!room && this.#local.writableLength > unsentBytesMax) this.#remote.pause()
    }
  }

  /**
   * TLS gives its records of 16 KiB one by one, each in a tick of its own: what one turn of the event loop brought is
   * written at once. Written one by one each wakes who reads it, and often gives the processor away to it.
   */
  #gatherWrites(): void {
    if (this.#gathering) return
    this.#gathering = true
    this.#local.cork()
    setImmediate(() => {
      this.#gathering = false
      this.#local.uncork()
    })
  }

  #beginPiece(): void {
    this.#headFilled = 0
    this.#pieceLeft = this.#head.readUInt32BE(0)
    if (this.#receivedEnd || this.#pieceLeft > pieceBytesMax) {
      this.finish(`the link: a piece of ${this.#pieceLeft} octets where none may be`)
      return
    }
    if (this.#pieceLeft > 0) return
    this.#receivedEnd = true
    this.#local.end()
    this.#closeWhenComplete()
  }

  #remoteEnded(): void {
    if (this.#sentEnd && this.#receivedEnd) this.#settle()
    else this.finish("the link broke before the stream was complete")
  }

  #closeWhenComplete(): void {
    if (this.#sentEnd && this.#receivedEnd) this.#remote.end()
  }

  /** The other side has everything and has said all; wait only for the local side to take the rest. */
  #settle(): void {
    if (this.#local.writableFinished || this.#local.destroyed) this.finish(null)
    else this.#local.once("finish", () => this.finish(null))
  }
}
