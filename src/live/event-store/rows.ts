/** One fact as a row: the columns in order, the text of what it says, and the way back to `Recorded`. */
import type { SQLOutputValue } from "node:sqlite"
import { factText } from "../../events/envelope.ts"
import type { Draft, Principal, Recorded } from "../../events/envelope.ts"
import { StoreFailure } from "../../kernel/ports/event-store.ts"

/** In this order everywhere: in the table, in the insert and in a row that is read. */
export const columns = ["position", "stream", "revision", "fact", "hash"] as const

export type Row = ReadonlyArray<SQLOutputValue>

function checkText(text: string, field: string): void {
  if (text.isWellFormed() && !text.includes("\0")) return
  throw new StoreFailure({
    operation: "append",
    reason: `${field} ${JSON.stringify(text)} must be well-formed Unicode without NUL`
  })
}

function checkInteger(value: number, field: string): void {
  if (Number.isSafeInteger(value)) return
  throw new StoreFailure({ operation: "append", reason: `${field} ${value} must be a safe integer` })
}

/** The `factText` of a fact that is about to be stored; what SQLite would not give back as it was is refused. */
export function storableText(fact: Draft, dataText: string): string {
  checkInteger(fact.version, "version")
  checkInteger(fact.timeMs, "timeMs")
  const text = factText(fact, dataText)
  // What SQLite would change, NUL and halves of surrogate pairs, JSON writes as \u and four digits, and little else.
  if (!text.includes("\\u")) return text
  const { id, type, correlation, causation, principal, node, answers } = fact
  const texts = { id, type, correlation, causation, node, answers: answers ?? "" }
  for (const [field, one] of Object.entries(texts)) checkText(one, field)
  checkText(principal.kind, "principal.kind")
  checkText(principal.name, "principal.name")
  return text
}

type Said = readonly [
  id: string,
  type: string,
  version: number,
  timeMs: number,
  correlation: string,
  causation: string,
  principalKind: Principal["kind"],
  principalName: string,
  node: string,
  answers: string | null,
  dataText: string
]
const members = 11

/** Throws `SyntaxError` when it is no longer what `factText` writes, which only damage does. */
function said(text: string): Said {
  const all: unknown = JSON.parse(text)
  if (Array.isArray(all) && all.length === members) return all as unknown as Said
  throw new SyntaxError(`a fact has ${members} members`)
}

/** The id of a stored fact; null when it is damaged. */
export function idOf(text: string): string | null {
  try {
    return said(text)[0]
  } catch {
    return null
  }
}

/** Throws `SyntaxError` when the fact is no longer JSON, which only damage does. */
export function decode(row: Row, stream: string, previousHash: string): Recorded {
  const [id, type, version, timeMs, correlation, causation, kind, name, node, answers, dataText] = said(
    row[3] as string
  )
  return {
    position: row[0] as number,
    stream,
    revision: row[2] as number,
    id,
    type,
    version,
    timeMs,
    correlation,
    causation,
    principal: { kind, name },
    node,
    answers,
    data: JSON.parse(dataText) as Record<string, unknown>,
    previousHash,
    hash: row[4] as string
  }
}

/** The same fact, as `append` returns it, but for its hash: `data` is parsed again so that it is what a read would give. */
export function record(
  position: number,
  stream: string,
  revision: number,
  draft: Draft,
  dataText: string,
  previousHash: string
): Recorded & { hash: string } {
  return {
    position,
    stream,
    revision,
    id: draft.id,
    type: draft.type,
    version: draft.version,
    timeMs: draft.timeMs,
    correlation: draft.correlation,
    causation: draft.causation,
    principal: { kind: draft.principal.kind, name: draft.principal.name },
    node: draft.node,
    answers: draft.answers,
    data: JSON.parse(dataText) as Record<string, unknown>,
    previousHash,
    hash: ""
  }
}
