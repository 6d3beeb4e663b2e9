/**
 * Who did what, why, caused by what, and how it ended: of each fact one entry, from the fact alone. So nothing is kept; who asks for
 * entries has them made from the journal's facts.
 */
import type { Principal, Recorded } from "../events/envelope.ts"
import { withoutPrefix } from "../events/envelope.ts"

export interface AuditEntry {
  readonly position: number
  readonly stream: string
  readonly revision: number
  /** Milliseconds since the Unix epoch. */
  readonly timeMs: number
  /** Without the product's prefix: `vm.started`. */
  readonly what: string
  readonly who: Principal
  /** The node whose kernel recorded it. */
  readonly node: string
  /** The reason that was given, null where none was. */
  readonly why: string | null
  readonly correlation: string
  /** The command's id, or the key of the request that was answered. */
  readonly causation: string
  /** The fact whose request was answered or whose command this is; null when somebody outside asked. */
  readonly causedBy: { readonly stream: string; readonly revision: number } | null
  readonly result: "done" | "failed"
  readonly hash: string
}

/** `stream@revision#n`, the key of a request. */
const requestKey = /^([a-z]+\/[a-z0-9.-]+)@(\d+)#\d+$/

/** Facts that say that something did not succeed. */
const failures: ReadonlySet<string> = new Set([
  "vm.operationFailed",
  "vm.notPlaced",
  "vm.crashed",
  "placement.noHost",
  "placement.contested",
  "placement.failed",
  "migration.failed",
  "migration.rollingBack",
  "host.lost",
  "host.fencingHeld",
  "vm.waitsForHost",
  "vm.recoveryDelayed",
  "node.crashed",
  "node.componentFailed",
  "node.startFailed"
])

/** The fact that asked for what this id answers or carries out; null when it came from outside. */
export function causeOf(causation: string): AuditEntry["causedBy"] {
  const match = requestKey.exec(causation)
  if (match === null) return null
  return { stream: match[1] as string, revision: Number(match[2]) }
}

export function entryOf(fact: Recorded): AuditEntry {
  const what = withoutPrefix(fact.type)
  const { reason } = fact.data
  return {
    position: fact.position,
    stream: fact.stream,
    revision: fact.revision,
    timeMs: fact.timeMs,
    what,
    who: fact.principal,
    node: fact.node,
    why: typeof reason === "string" && reason !== "" ? reason : null,
    correlation: fact.correlation,
    causation: fact.causation,
    causedBy: causeOf(fact.causation),
    result: failures.has(what) ? "failed" : "done",
    hash: fact.hash
  }
}

export interface AuditFilter {
  readonly stream?: string
  readonly correlation?: string
  /** The principal's name. */
  readonly who?: string
  /** Times of the facts, both included. */
  readonly fromMs?: number
  readonly toMs?: number
}

export const matches = (entry: AuditEntry, filter: AuditFilter): boolean =>
  (filter.stream === undefined || entry.stream === filter.stream) &&
  (filter.correlation === undefined || entry.correlation === filter.correlation) &&
  (filter.who === undefined || entry.who.name === filter.who) &&
  (filter.fromMs === undefined || entry.timeMs >= filter.fromMs) &&
  (filter.toMs === undefined || entry.timeMs <= filter.toMs)
