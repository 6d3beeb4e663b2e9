/**
 * Facts and messages of a group as octets: JSON, with the data of entries beside it and not in it, since that is text already
 * and would be escaped and read once more at every node.
 *
 *     u32 length of the JSON | JSON | data of the entries, UTF-8, one after the other
 *
 * In the JSON an entry is `[index, term, octets of its data or null, members or null]`. What is decoded is checked for what
 * the protocol relies on; who sent it is known by its certificate.
 */
import type { Message } from "../../events/envelope.ts"
import { Members } from "../../events/raft.ts"
import type { Entry } from "../../events/raft.ts"
import { Schema } from "effect"
import type { GroupMessage } from "../../kernel/group-node.ts"

type Packed = readonly [index: number, term: number, dataBytes: number | null, members: Members | null]

/** What was received, or read, is not what was sent, or written. */
export class NotUnderstood extends Error {}

const isMembers = Schema.is(Members)

class Packing {
  readonly #texts: Array<string> = []
  #bytes = 0

  text(data: string): number {
    const bytes = Buffer.byteLength(data)
    this.#texts.push(data)
    this.#bytes += bytes
    return bytes
  }

  entries(entries: ReadonlyArray<Entry>): ReadonlyArray<Packed> {
    return entries.map(({ index, term, data, members }) => [
      index,
      term,
      data === null ? null : this.text(data),
      members
    ])
  }

  /** With `before` octets free at the beginning. */
  finish(value: unknown, before: number): Buffer {
    const head = JSON.stringify(value)
    const headBytes = Buffer.byteLength(head)
    const buffer = Buffer.allocUnsafe(before + 4 + headBytes + this.#bytes)
    buffer.writeUInt32LE(headBytes, before)
    let at = before + 4
    at += buffer.write(head, at)
    for (const text of this.#texts) at += buffer.write(text, at)
    return buffer
  }
}

class Unpacking {
  readonly #buffer: Buffer
  #at: number
  readonly value: unknown

  constructor(buffer: Buffer) {
    if (buffer.length < 4) throw new NotUnderstood("it is shorter than its own length")
    const end = 4 + buffer.readUInt32LE(0)
    if (end > buffer.length) throw new NotUnderstood("it ends within its head")
    this.#buffer = buffer
    this.#at = end
    try {
      this.value = JSON.parse(buffer.toString("utf8", 4, end))
    } catch {
      throw new NotUnderstood("its head is no JSON")
    }
  }

  text(bytes: number): string {
    const end = this.#at + bytes
    if (!isIndex(bytes) || end > this.#buffer.length)
      throw new NotUnderstood(`${bytes} octets of data are not there`)
    const text = this.#buffer.toString("utf8", this.#at, end)
    this.#at = end
    return text
  }

  entries(packed: unknown): ReadonlyArray<Entry> {
    if (!Array.isArray(packed)) throw new NotUnderstood("it has no entries")
    return packed.map((one: unknown, at) => {
      if (!Array.isArray(one) || one.length !== 4) throw new NotUnderstood(`entry ${at} is none`)
      const [index, term, bytes, members] = one as [unknown, unknown, unknown, unknown]
      if (!isIndex(index) || !isIndex(term) || !(bytes === null || isIndex(bytes)))
        throw new NotUnderstood(`entry ${at} has no index, term or length`)
      if (members !== null && !isMembers(members)) throw new NotUnderstood(`entry ${at} has no members`)
      return { index, term, data: bytes === null ? null : this.text(bytes), members }
    })
  }

  finish(): void {
    if (this.#at !== this.#buffer.length)
      throw new NotUnderstood(`${this.#buffer.length - this.#at} octets are left over`)
  }
}

const isIndex = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0

/** Facts that are kept together, with `before` octets free at the beginning. */
export function encodeFacts(facts: ReadonlyArray<Message>, before: number): Buffer {
  const packing = new Packing()
  const packed = facts.map((fact) =>
    fact.type === "raft.appended"
      ? { ...fact, entries: packing.entries(fact["entries"] as ReadonlyArray<Entry>) }
      : fact
  )
  return packing.finish(packed, before)
}

export function decodeFacts(buffer: Buffer): ReadonlyArray<Message> {
  const unpacking = new Unpacking(buffer)
  if (!Array.isArray(unpacking.value)) throw new NotUnderstood("it has no facts")
  const facts = unpacking.value.map((fact: Message) =>
    fact.type === "raft.appended" ? { ...fact, entries: unpacking.entries(fact["entries"]) } : fact
  )
  unpacking.finish()
  return facts
}

export function encodeMessage(message: GroupMessage, before: number): Buffer {
  const packing = new Packing()
  if (message.kind === "propose")
    return packing.finish({ ...message, data: packing.text(message.data) }, before)
  if (message.kind !== "raft" || message.message.type !== "append") return packing.finish(message, before)
  const append = message.message
  return packing.finish(
    { ...message, message: { ...append, entries: packing.entries(append.entries) } },
    before
  )
}

/** Which members of a message are whole numbers that are not negative. */
const numbers: Readonly<Record<string, ReadonlyArray<string>>> = {
  requestVote: ["term", "lastIndex", "lastTerm"],
  vote: ["term"],
  append: ["term", "previousIndex", "previousTerm", "commit", "round"],
  appended: ["term", "index", "hintIndex", "hintTerm", "round"],
  snapshot: ["term", "index", "indexTerm", "offset", "round"],
  snapshotReceived: ["term", "index", "offset", "round"],
  timeoutNow: ["term"],
  propose: ["id", "term"],
  ask: ["id"],
  told: ["id"],
  facts: ["id", "after", "limit"],
  journal: ["id"]
}

function check(value: unknown, name: unknown): asserts value is Readonly<Record<string, unknown>> {
  const wanted = numbers[String(name)]
  if (wanted === undefined || typeof value !== "object" || value === null)
    throw new NotUnderstood(`${String(name)} is no message`)
  const wrong = wanted.find((field) => !isIndex((value as Readonly<Record<string, unknown>>)[field]))
  if (wrong !== undefined) throw new NotUnderstood(`${String(name)} has no number ${wrong}`)
}

export function decodeMessage(buffer: Buffer): GroupMessage {
  const unpacking = new Unpacking(buffer)
  const whole = unpacking.value as GroupMessage
  if (typeof whole !== "object" || whole === null) throw new NotUnderstood("it is no message")
  let message = whole
  if (whole.kind === "raft") {
    const said = whole.message
    check(said, said?.type)
    if (said.type === "append") {
      const entries = unpacking.entries(said.entries)
      message = { kind: "raft", message: { ...said, entries } }
    } else if (said.type === "snapshot" && (!isMembers(said.members) || typeof said.data !== "string"))
      throw new NotUnderstood("a snapshot has no members or no data")
  } else {
    check(whole, whole.kind)
    if (whole.kind === "propose") message = { ...whole, data: unpacking.text(Number(whole.data)) }
    else if (whole.kind === "journal" && !Array.isArray(whole.facts))
      throw new NotUnderstood("a part of a journal has no facts")
    else if (whole.kind === "ask" || whole.kind === "told") checkAsk(whole)
  }
  unpacking.finish()
  return message
}

const isNames = (value: unknown): boolean =>
  Array.isArray(value) && value.length <= 64 && value.every((one) => typeof one === "string")

function checkAsk(message: Extract<GroupMessage, { kind: "ask" | "told" }>): void {
  if (message.kind === "told") {
    const { answer } = message
    const isKnown = ["placed", "readable", "declined"].includes(answer?.answer)
    if (!isKnown || (answer.answer !== "declined" && !isIndex(answer.index)))
      throw new NotUnderstood("an answer is none")
    return
  }
  const { ask } = message
  const isKnown =
    ask?.what === "read" ||
    (ask?.what === "transfer" && typeof ask.to === "string") ||
    (ask?.what === "change" && isNames(ask.voters) && isNames(ask.learners))
  if (!isKnown) throw new NotUnderstood("what is asked is nothing known")
}
