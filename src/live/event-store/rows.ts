/** One fact as a row: the columns in order, the text that is hashed, and the way back to `Recorded`. */
import type { SQLOutputValue } from "node:sqlite"
import { canonicalText } from "../../events/envelope.ts"
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

/** The canonical text of a fact that is about to be stored; what SQLite would not give back as it was is refused. */
export function storableText(fact: Recorded, dataText: string): string {
  checkInteger(fact.version, "version")
  checkInteger(fact.timeMs, "timeMs")
  const text = canonicalText(fact, dataText, fact.previousHash)
  // What SQLite would change, NUL and halves of surrogate pairs, JSON writes as \u and four digits, and little else.
  if (!text.includes("\\u")) return text
  const { id, type, correlation, causation, principal, node, answers } = fact
  const texts = { id, type, correlation, causation, node, answers: answers ?? "" }
  for (const [field, one] of Object.entries(texts)) checkText(one, field)
  checkText(principal.kind, "principal.kind")
  checkText(principal.name, "principal.name")
  return text
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
