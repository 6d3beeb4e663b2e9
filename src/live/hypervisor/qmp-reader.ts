/**
 * Reads the QEMU machine protocol: one JSON object a line (QEMU: docs/interop/qmp-spec.txt). Pure: bytes in,
 * messages out; whatever the bytes are, it answers with messages or says what is wrong with them.
 */
export type QmpMessage =
  | { readonly type: "greeting"; readonly version: string }
  | { readonly type: "return"; readonly id: number; readonly value: unknown }
  | { readonly type: "error"; readonly id: number; readonly class: string; readonly reason: string }
  | { readonly type: "event"; readonly name: string; readonly data: Readonly<Record<string, unknown>> }
  | { readonly type: "malformed"; readonly reason: string }

/** QEMU's longest answers (query-qmp-schema) are under 1 MiB. */
export const LINE_BYTES_MAX = 8 * 1024 * 1024

type Fields = Readonly<Record<string, unknown>>

const isFields = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const malformed = (reason: string): QmpMessage => ({ type: "malformed", reason })

const version = (greeting: unknown): string => {
  const numbers =
    isFields(greeting) && isFields(greeting["version"]) ? greeting["version"]["qemu"] : undefined
  if (!isFields(numbers)) return "unknown"
  return [numbers["major"], numbers["minor"], numbers["micro"]].map(String).join(".")
}

/** One line without its end. */
export const parseLine = (line: string): QmpMessage => {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    return malformed(`not JSON: ${line.slice(0, 80)}`)
  }
  if (!isFields(value)) return malformed("not an object")
  if ("QMP" in value) return { type: "greeting", version: version(value["QMP"]) }
  if (typeof value["event"] === "string") {
    return { type: "event", name: value["event"], data: isFields(value["data"]) ? value["data"] : {} }
  }
  const id = value["id"]
  if (typeof id !== "number")
    return malformed(`neither an event nor an answer with our id: ${line.slice(0, 80)}`)
  if ("return" in value) return { type: "return", id, value: value["return"] }
  const error = value["error"]
  if (isFields(error) && typeof error["class"] === "string" && typeof error["desc"] === "string") {
    return { type: "error", id, class: error["class"], reason: error["desc"] }
  }
  return malformed(`an answer with neither return nor error: ${line.slice(0, 80)}`)
}

export class QmpReader {
  #parts: Array<Buffer> = []
  #bytes = 0
  #dead = false
  readonly #lineBytesMax: number

  constructor(lineBytesMax: number = LINE_BYTES_MAX) {
    this.#lineBytesMax = lineBytesMax
  }

  /** The messages that `chunk` completes. After a line that is too long nothing more is read. */
  push(chunk: Buffer): ReadonlyArray<QmpMessage> {
    const messages: Array<QmpMessage> = []
    let rest = chunk
    while (!this.#dead) {
      const end = rest.indexOf(0x0a)
      const piece = end < 0 ? rest : rest.subarray(0, end)
      this.#bytes += piece.length
      if (this.#bytes > this.#lineBytesMax) {
        this.#dead = true
        this.#parts = []
        messages.push(malformed(`a line of more than ${this.#lineBytesMax} bytes`))
        break
      }
      this.#parts.push(piece)
      if (end < 0) break
      const line = Buffer.concat(this.#parts).toString("utf8").trim()
      this.#parts = []
      this.#bytes = 0
      if (line !== "") messages.push(parseLine(line))
      rest = rest.subarray(end + 1)
    }
    return messages
  }
}
