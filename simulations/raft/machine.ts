/**
 * What a simulated group keeps: registers by key, and for each client's session the last command that took effect, so
 * that one that is sent again is answered as it was (thesis, 6.3).
 */
import type { Entry } from "../../src/events/raft.ts"

export type Operation =
  | { readonly op: "write"; readonly key: string; readonly value: string }
  /** Sets `value` when `expected` is there. */
  | { readonly op: "swap"; readonly key: string; readonly expected: string | null; readonly value: string }
  | { readonly op: "read"; readonly key: string }

export interface Command {
  readonly session: string
  readonly sequence: number
  readonly operation: Operation
}

/** An entry's data: when it is, and the command. */
export const stamped = (timeMs: number, command: Command): string => `${timeMs} ${JSON.stringify(command)}`

export const stampOf = (data: string): number => Number(data.slice(0, data.indexOf(" ")))

export const commandOf = (data: string): Command => JSON.parse(data.slice(data.indexOf(" ") + 1)) as Command

/** What was read, or whether a swap was done; null for a write. */
export type Result = string | boolean | null

interface Kept {
  readonly stampMs: number | null
  readonly registers: Array<[string, string]>
  readonly sessions: Array<[string, { readonly sequence: number; readonly result: Result }]>
}

export interface Applied {
  readonly result: Result
  /** False for one that had taken effect already. */
  readonly isNew: boolean
}

export class Machine {
  #registers = new Map<string, string>()
  #sessions = new Map<string, { readonly sequence: number; readonly result: Result }>()
  applied = 0
  /** Of the last command. */
  stampMs = Number.NEGATIVE_INFINITY

  /** Null for an entry that says nothing to the machine. */
  apply(entry: Entry): Applied | null {
    if (entry.index !== this.applied + 1)
      throw new Error(`machine: entry ${entry.index} after ${this.applied}`)
    this.applied = entry.index
    if (entry.data === null) return null
    const { session, sequence, operation } = commandOf(entry.data)
    this.stampMs = stampOf(entry.data)
    const last = this.#sessions.get(session)
    if (last !== undefined && sequence <= last.sequence) return { result: last.result, isNew: false }
    const result = this.#perform(operation)
    this.#sessions.set(session, { sequence, result })
    return { result, isNew: true }
  }

  read(key: string): string | null {
    return this.#registers.get(key) ?? null
  }

  #perform(operation: Operation): Result {
    const { key } = operation
    if (operation.op === "read") return this.read(key)
    if (operation.op === "swap" && this.read(key) !== operation.expected) return false
    this.#registers.set(key, operation.value)
    return operation.op === "swap" ? true : null
  }

  /** Equal states give equal texts. */
  text(): string {
    const { stampMs } = this
    const kept: Kept = { stampMs, registers: sorted(this.#registers), sessions: sorted(this.#sessions) }
    return JSON.stringify(kept)
  }

  restore(index: number, text: string): void {
    const { stampMs, registers, sessions } = JSON.parse(text) as Kept
    // JSON has no infinity.
    this.stampMs = stampMs ?? Number.NEGATIVE_INFINITY
    this.#registers = new Map(registers)
    this.#sessions = new Map(sessions)
    this.applied = index
  }
}

const sorted = <A>(some: ReadonlyMap<string, A>): Array<[string, A]> =>
  [...some].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
