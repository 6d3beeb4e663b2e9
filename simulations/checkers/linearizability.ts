/**
 * Whether a history of one register's operations could have happened one after the other, each at a moment between its
 * call and its answer (Wing and Gong 1993, with Lowe's memory of what was tried, 2017). What was never answered may have
 * happened at any later moment, or not at all. Registers are independent, so each is looked at alone.
 */
import type { Operation, Result } from "../raft/machine.ts"

export interface Call {
  readonly operation: Operation
  readonly calledMs: number
  /** Infinity while there is no answer. */
  readonly answeredMs: number
  readonly result: Result | undefined
}

/** The register after it, or `impossible` when this answer can't be given. */
function after(register: string | null, { operation, result }: Call): string | null | typeof impossible {
  switch (operation.op) {
    case "write":
      return operation.value
    case "read":
      return result === undefined || result === register ? register : impossible
    case "swap": {
      const isDone = register === operation.expected
      if (result !== undefined && result !== isDone) return impossible
      return isDone ? operation.value : register
    }
  }
}
const impossible = Symbol("impossible")

/** Steps after which the search gives up. */
const steps_max = 200_000

/** The calls of one key. Null when nobody could say within `steps_max`. */
export function isLinearizable(calls: ReadonlyArray<Call>): boolean | null {
  const isAnswered = ({ answeredMs }: Call) => answeredMs !== Number.POSITIVE_INFINITY
  // A read that was not answered says nothing.
  const said = calls.filter((call) => call.operation.op !== "read" || isAnswered(call))
  // Values are written once. What was never answered and never seen most likely never happened: try that first.
  const seen = new Set(said.filter(isAnswered).map(seenBy))
  const likely = said.filter((call) => isAnswered(call) || seen.has(writtenBy(call)))
  return search(likely) === true ? true : search(said)
}

/** The value that this answer says was there; undefined when it says nothing. */
const seenBy = ({ operation, result }: Call): unknown =>
  operation.op === "read"
    ? result
    : operation.op === "swap" && result === true
      ? operation.expected
      : undefined

const writtenBy = ({ operation }: Call): unknown => (operation.op === "read" ? undefined : operation.value)

function search(calls: ReadonlyArray<Call>): boolean | null {
  const sorted = calls.toSorted((a, b) => a.calledMs - b.calledMs)
  const mustHappen = sorted.filter(({ answeredMs }) => answeredMs !== Number.POSITIVE_INFINITY).length
  const done = new Uint8Array(sorted.length)
  const tried = new Set<string>()
  let steps = 0

  /** Those that may be next: called before any of the others was answered. */
  const next = (first: number): ReadonlyArray<number> => {
    let soonestMs = Number.POSITIVE_INFINITY
    const some: Array<number> = []
    for (let at = first; at < sorted.length; at++) {
      const call = sorted[at] as Call
      if (done[at] === 1) continue
      if (call.calledMs > soonestMs) break
      some.push(at)
      soonestMs = Math.min(soonestMs, call.answeredMs)
    }
    return some.filter((at) => (sorted[at] as Call).calledMs <= soonestMs)
  }

  interface Frame {
    readonly register: string | null
    readonly left: number
    readonly first: number
    readonly choices: ReadonlyArray<number>
    at: number
  }
  const frameOf = (register: string | null, left: number, before: number): Frame => {
    let first = before
    while (first < sorted.length && done[first] === 1) first++
    return { register, left, first, choices: next(first), at: 0 }
  }
  const stack: Array<Frame> = [frameOf(null, mustHappen, 0)]
  const path: Array<number> = []
  for (let frame = stack.at(-1); frame !== undefined; frame = stack.at(-1)) {
    if (frame.left === 0) return true
    if (++steps > steps_max) return null
    const choice = frame.choices[frame.at++]
    if (choice === undefined) {
      stack.pop()
      const undone = path.pop()
      if (undone !== undefined) done[undone] = 0
      continue
    }
    const call = sorted[choice] as Call
    const register = after(frame.register, call)
    if (register === impossible) continue
    done[choice] = 1
    const isAnswered = call.answeredMs !== Number.POSITIVE_INFINITY
    const deeper = frameOf(register, frame.left - (isAnswered ? 1 : 0), frame.first)
    // The same operations done and the same register: what follows was tried.
    const key = `${register ?? ""}\0${deeper.first}\0${keyOf(done, deeper.first)}`
    if (tried.has(key)) {
      done[choice] = 0
      continue
    }
    tried.add(key)
    path.push(choice)
    stack.push(deeper)
  }
  return mustHappen === 0
}

/** Which ones are done beyond the first that is not. */
function keyOf(done: Uint8Array, first: number): string {
  let key = ""
  for (let at = first; at < done.length; at++) if (done[at] === 1) key += `${at - first},`
  return key
}
