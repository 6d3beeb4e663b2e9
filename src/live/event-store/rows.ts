/** One fact as a row: the columns in order, the text that is hashed, and the way back to `Recorded`. */
import type { SQLOutputValue } from "node:sqlite"
import type { Draft, Principal, Recorded } from "../../events/envelope.ts"
import { StoreFailure } from "../../kernel/ports/event-store.ts"

/** In this order everywhere: in the table, in the insert and in a row that is read. */
export const columns = [
  "position",
  "stream",
  "revision",
  "id",
  "type",
  "version",
  "time_ms",
  "correlation",
  "causation",
  "principal_kind",
  "principal_name",
  "node",
  "answers",
  "data",
  "previous_hash",
  "hash"
] as const

export type Row = ReadonlyArray<SQLOutputValue>

// Printable ASCII without the quote and the backslash: JSON writes it as it is.
const plain = /^[ !#-[\]-~]*$/

/** `JSON.stringify(text)`; a text that SQLite would not give back as it was is refused. */
function quote(text: string, field: string): string {
  if (plain.test(text)) return `"${text}"`
  if (!text.isWellFormed() || text.includes("\0"))
    throw new StoreFailure({
      operation: "append",
      reason: `${field} ${JSON.stringify(text)} must be well-formed Unicode without NUL`
    })
  return JSON.stringify(text)
}

function integer(value: number, field: string): number {
  if (Number.isSafeInteger(value)) return value
  throw new StoreFailure({ operation: "append", reason: `${field} ${value} must be a safe integer` })
}

/**
 * Equals `canonicalText` of the envelope for every draft it accepts (a property test says so), written by
 * hand because it is a third of the cost of an append. `stream` is a valid stream name, so it is plain.
 */
export function draftText(
  position: number,
  stream: string,
  revision: number,
  draft: Draft,
  dataText: string,
  previousHash: string
): string {
  const { kind, name } = draft.principal
  const answers = draft.answers === null ? "null" : quote(draft.answers, "answers")
  return (
    `["${previousHash}",${position},"${stream}",${revision},${quote(draft.id, "id")},` +
    `${quote(draft.type, "type")},${integer(draft.version, "version")},${integer(draft.timeMs, "timeMs")},` +
    `${quote(draft.correlation, "correlation")},${quote(draft.causation, "causation")},` +
    `${quote(kind, "principal.kind")},${quote(name, "principal.name")},${quote(draft.node, "node")},` +
    `${answers},${JSON.stringify(dataText)}]`
  )
}

/** Throws `SyntaxError` when `data` is no longer JSON, which only damage does. */
export function decode(row: Row, stream: string): Recorded {
  return {
    position: row[0] as number,
    stream,
    revision: row[2] as number,
    id: row[3] as string,
    type: row[4] as string,
    version: row[5] as number,
    timeMs: row[6] as number,
    correlation: row[7] as string,
    causation: row[8] as string,
    principal: { kind: row[9] as Principal["kind"], name: row[10] as string },
    node: row[11] as string,
    answers: row[12] as string | null,
    data: JSON.parse(row[13] as string) as Record<string, unknown>,
    previousHash: row[14] as string,
    hash: row[15] as string
  }
}

/** The same fact, as `append` returns it: `data` is parsed again so that it is what a read would give. */
export function record(
  position: number,
  stream: string,
  revision: number,
  draft: Draft,
  dataText: string,
  previousHash: string,
  hash: string
): Recorded {
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
    hash
  }
}
