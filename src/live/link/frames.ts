/**
 * The frames of `novacron-link/1`, `novacron-stream/1`, `novacron-join/1` and `novacron-console/1`.
 *
 *     0       4      5           9
 *     +-------+------+-----------+---------------------+
 *     | length| type | request id| payload             |
 *     | u32   | u8   | u32       | length - 5 octets   |
 *     +-------+------+-----------+---------------------+       big-endian; length counts from `type`
 *
 *      type       id        payload
 *      1 hello    0         Hello                first frame of both sides of a link
 *      2 refuse   0         Refusal              the sender closes
 *      3 bye      0         Refusal              the sender closes, in good order
 *      4 ping     sequence  empty
 *      5 pong     the ping's empty
 *      6 request  new       LinkRequest          caller  -> server
 *      7 reply    request's JSON, one element    caller <-  server
 *      8 end      request's empty                caller <-  server
 *      9 fail     request's LinkFailure          caller <-  server
 *     10 cancel   request's empty                caller  -> server
 *     11 credit   request's LinkCredit           caller  -> server
 *     12 probe    any       octets, dropped
 *     13 open     0         StreamOpen, JoinHello, JoinRequest: see transport.ts and ca/join.ts
 *     14 opened   0         StreamOpened, JoinAnswer
 *     15 data     0         octets of a console
 *     16 notice   0         ConsoleNotice: see console/protocol.ts
 *
 * Version rule: a type is never given a new meaning. A new type or field is announced as a feature in `hello` and
 * used only when both sides have it; what can't be added so raises the version, and both speak the highest they
 * share. An unknown type, a frame longer than allowed, or a payload that doesn't decode ends the connection.
 */
import { Schema } from "effect"

export const frameType = {
  hello: 1,
  refuse: 2,
  bye: 3,
  ping: 4,
  pong: 5,
  request: 6,
  reply: 7,
  end: 8,
  fail: 9,
  cancel: 10,
  credit: 11,
  probe: 12,
  open: 13,
  opened: 14,
  data: 15,
  notice: 16
} as const

const typeMax = 16
const headBytes = 9
/** Octets that `length` counts beside the payload. */
export const overheadBytes = 5
/** Before the hello nobody may ask for more memory than this. */
export const greetingBytesMax = 32 * 1024

export interface Frame {
  readonly type: number
  readonly id: number
  readonly payload: Buffer
}

/** What came is not a frame; the connection can't go on. */
export class FrameError extends Schema.TaggedError<FrameError>()("FrameError", {
  code: Schema.Literals(["length", "type", "payload"]),
  reason: Schema.String
}) {}

const nothing = Buffer.alloc(0)

export function encodeFrame(type: number, id: number, payload: Buffer = nothing): Buffer {
  const frame = Buffer.allocUnsafe(headBytes + payload.length)
  frame.writeUInt32BE(overheadBytes + payload.length, 0)
  frame.writeUInt8(type, 4)
  frame.writeUInt32BE(id, 5)
  payload.copy(frame, headBytes)
  return frame
}

export const encodeJson = (type: number, id: number, value: unknown): Buffer =>
  encodeFrame(type, id, Buffer.from(JSON.stringify(value) ?? "null"))

/** The payload as this Schema has it; throws a `FrameError`. */
export function decodePayload<S extends Schema.ConstraintDecoder<unknown>>(
  schema: S,
  frame: Frame
): S["Type"] {
  try {
    return Schema.decodeUnknownSync(schema)(JSON.parse(frame.payload.toString("utf8")))
  } catch (cause) {
    const reason = `frame ${frame.type}: ${cause instanceof Error ? cause.message.slice(0, 300) : "undecodable"}`
    throw new FrameError({ code: "payload", reason })
  }
}

/**
 * Takes octets as they come and gives the frames in them. Holds at most one unfinished frame; each octet is
 * copied once at most, however small the pieces.
 */
export class FrameDecoder {
  /** Longest frame that is taken, counted as `length` counts. May be raised after the hello. */
  frameBytesMax: number
  readonly #head = Buffer.alloc(headBytes)
  #headFilled = 0
  #payload: Buffer | null = null
  #payloadFilled = 0

  constructor(frameBytesMax: number) {
    this.frameBytesMax = frameBytesMax
  }

  /**
   * Calls `onFrame` for each frame that `chunk` completes, until it says false. Returns the octets after that
   * frame, or null when all were taken. Throws a `FrameError`; the decoder is of no use then.
   */
  push(chunk: Buffer, onFrame: (frame: Frame) => boolean): Buffer | null {
    let offset = 0
    while (offset < chunk.length) {
      if (this.#payload === null) {
        const count = Math.min(headBytes - this.#headFilled, chunk.length - offset)
        chunk.copy(this.#head, this.#headFilled, offset, offset + count)
        this.#headFilled += count
        offset += count
        if (this.#headFilled < headBytes) return null
        this.#payload = this.#begin()
        this.#payloadFilled = 0
      }
      const count = Math.min(this.#payload.length - this.#payloadFilled, chunk.length - offset)
      chunk.copy(this.#payload, this.#payloadFilled, offset, offset + count)
      this.#payloadFilled += count
      offset += count
      if (this.#payloadFilled < this.#payload.length) return null
      const frame = { type: this.#head.readUInt8(4), id: this.#head.readUInt32BE(5), payload: this.#payload }
      this.#payload = null
      this.#headFilled = 0
      if (!onFrame(frame)) return chunk.subarray(offset)
    }
    return null
  }

  #begin(): Buffer {
    const length = this.#head.readUInt32BE(0)
    const type = this.#head.readUInt8(4)
    if (length < overheadBytes || length > this.frameBytesMax) {
      const reason = `a frame of ${length} octets; ${overheadBytes} to ${this.frameBytesMax} are allowed`
      throw new FrameError({ code: "length", reason })
    }
    if (type < 1 || type > typeMax) {
      throw new FrameError({ code: "type", reason: `frame type ${type}; 1 to ${typeMax} are known` })
    }
    return length === overheadBytes ? nothing : Buffer.allocUnsafe(length - overheadBytes)
  }
}
