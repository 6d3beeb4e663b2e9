/**
 * Node's two messages with a shorter way through them. A request that is taken is no stream: its body is handed over in one piece,
 * without the events, and the ticks, that a stream's end takes; an answer's head is put together in one piece and not field by field.
 * That is an eighth of what a command takes of the thread. It rests on what node 24 does and does not promise (it gives a body to `push`,
 * looks at `_consuming` and `endEmitted` after the answer, sends a `_header` that is there), so a test holds the octets against those of
 * node's own way, and all that is not plain goes that way.
 */
import { IncomingMessage, STATUS_CODES, validateHeaderValue } from "node:http"
import type { ServerResponse } from "node:http"

interface RequestInternals {
  /** Else node reads what it thinks is left of the body. */
  _consuming: boolean
  /** Else its parser keeps the request until the next one. */
  readonly _readableState: { endEmitted: boolean }
}

/** What a server has to make its requests of, for `handOver` to be there. */
export class Request extends IncomingMessage {
  #subject: unknown = null
  #take: ((subject: any, body: string) => void) | null = null
  #body: Buffer | null = null
  /** Where the body comes in pieces. */
  #pieces: Array<Buffer> | null = null

  /**
   * Calls `take` with the subject and the body, as UTF-8, when it has come to its end; never when the connection ends before. Only for
   * one of which nothing was read, and whose length is bounded. `take` is to be the same function for all: when each request had one
   * of its own, an old one held the next, and so on, until the whole heap was looked at.
   */
  handOver<A>(subject: A, take: (subject: A, body: string) => void): void {
    this.#subject = subject
    this.#take = take
  }

  /** Node's parser calls it with each piece of the body, and with null at its end. */
  override push(piece: Buffer | null): boolean {
    const take = this.#take
    if (take === null) return super.push(piece)
    if (piece !== null) {
      if (this.#body === null) this.#body = piece
      else (this.#pieces ??= [this.#body]).push(piece)
      return true
    }
    const internals = this as unknown as RequestInternals
    internals._consuming = true
    internals._readableState.endEmitted = true
    const body = this.#pieces === null ? this.#body : Buffer.concat(this.#pieces)
    take(this.#subject, body === null ? "" : body.toString("utf8"))
    return false
  }
}

/** The server's `keepAliveTimeout`, which its answers tell. */
export const keepAliveMs = 5000

interface ResponseInternals {
  _header: string | null
  _headerSent: boolean
}

let second = 0
let date = ""

/** RFC 9110, 5.6.7; made once a second. */
function dateNow(): string {
  const now = Math.floor(Date.now() / 1000)
  if (now !== second) {
    second = now
    date = new Date(now * 1000).toUTCString()
  }
  return date
}

/** Answers as `writeHead` and `end` do. A location that is none throws node's `ERR_INVALID_CHAR`. */
export function answerJson(response: ServerResponse, status: number, location: string, body: string): void {
  const length = Buffer.byteLength(body)
  if (response.shouldKeepAlive) {
    validateHeaderValue("location", location)
    const internals = response as unknown as ResponseInternals
    response.statusCode = status
    internals._header =
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nlocation: ${location}\r\ncontent-type: application/json\r\n` +
      `content-length: ${length}\r\nDate: ${dateNow()}\r\nConnection: keep-alive\r\nKeep-Alive: timeout=${keepAliveMs / 1000}\r\n\r\n`
    internals._headerSent = false
  } else
    response.writeHead(status, { location, "content-type": "application/json", "content-length": length })
  // What is of ASCII alone is the same in both, and node copies Latin-1 as it lies.
  response.end(body, length === body.length ? "latin1" : "utf8")
}
