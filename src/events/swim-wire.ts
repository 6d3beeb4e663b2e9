/**
 * Datagrams as bytes: a JSON array whose places have fixed meanings, so that an update takes some twenty bytes and not a
 * hundred. Everything in them is ASCII, so that characters are bytes.
 */
import { Schema } from "effect"
import { SwimDatagram } from "./swim.ts"
import type { PeerStatus, PeerUpdate, SwimHead } from "./swim.ts"

const version = 1

const letters = { alive: "a", suspect: "s", dead: "d", left: "l" } as const
const statusOf: Readonly<Record<string, PeerStatus>> = { a: "alive", s: "suspect", d: "dead", l: "left" }

/** Address and what is told are left out where they are empty. */
const updateFields = ({ id, status, incarnation, by, address, meta }: PeerUpdate): ReadonlyArray<unknown> => {
  const short = [letters[status], id, incarnation, by]
  if (address === "" && meta === "") return short
  return meta === "" ? [...short, address] : [...short, address, meta]
}

function headFields(head: SwimHead): ReadonlyArray<unknown> {
  switch (head.type) {
    case "ping":
      return ["p", head.sequence, head.target]
    case "pingRequest":
      return ["r", head.sequence, head.target, head.address]
    case "ack":
      return ["a", head.sequence]
    case "nack":
      return ["n", head.sequence]
    case "gossip":
      return ["g"]
    case "compare":
      return ["c", head.answer ? 1 : 0, head.digests]
    case "entries":
      return ["e"]
  }
}

/** With the comma that follows it. */
export const updateBytes = (update: PeerUpdate): number => JSON.stringify(updateFields(update)).length + 1

/** Of a datagram without updates. */
export const headBytes = (from: string, head: SwimHead): number =>
  JSON.stringify([version, from, headFields(head), []]).length

export const encodeDatagram = ({ from, head, updates }: SwimDatagram): string =>
  JSON.stringify([version, from, headFields(head), updates.map(updateFields)])

/** What came is no datagram of this protocol; says where. */
export class BadDatagram extends Schema.TaggedError<BadDatagram>()("BadDatagram", {
  problem: Schema.String
}) {}

const isDatagram = Schema.decodeUnknownSync(SwimDatagram)

function readHead(fields: unknown): unknown {
  if (!Array.isArray(fields)) return fields
  const [kind, one, two, three] = fields as ReadonlyArray<unknown>
  switch (kind) {
    case "p":
      return { type: "ping", sequence: one, target: two }
    case "r":
      return { type: "pingRequest", sequence: one, target: two, address: three }
    case "a":
      return { type: "ack", sequence: one }
    case "n":
      return { type: "nack", sequence: one }
    case "g":
      return { type: "gossip" }
    case "c":
      return { type: "compare", answer: one === 1 ? true : one === 0 ? false : one, digests: two }
    case "e":
      return { type: "entries" }
    default:
      return fields
  }
}

function readUpdate(fields: unknown): unknown {
  if (!Array.isArray(fields)) return fields
  const [letter, id, incarnation, by, address = "", meta = ""] = fields as ReadonlyArray<unknown>
  return { id, status: statusOf[String(letter)], incarnation, by, address, meta }
}

/** Throws `BadDatagram` for everything that `encodeDatagram` does not write. */
export function decodeDatagram(text: string): SwimDatagram {
  let fields: unknown
  try {
    fields = JSON.parse(text)
  } catch {
    throw new BadDatagram({ problem: "no JSON" })
  }
  if (!Array.isArray(fields) || fields.length !== 4 || fields[0] !== version)
    throw new BadDatagram({ problem: `no datagram of version ${version}` })
  const [, from, head, updates] = fields as ReadonlyArray<unknown>
  const said = {
    from,
    head: readHead(head),
    updates: Array.isArray(updates) ? updates.map(readUpdate) : updates
  }
  try {
    return isDatagram(said)
  } catch (error) {
    throw new BadDatagram({ problem: String((error as Error).message).slice(0, 512) })
  }
}
