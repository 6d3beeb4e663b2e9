/**
 * Clients' histories as others' checkers read them: porcupine (Athalye; its key-value logs, `test_data/kv`), and Knossos
 * (Kingsbury; Jepsen's operations as EDN, with `[key value]` tuples as `jepsen.independent` has them).
 *
 * Both number processes, of which each has one operation under way; one that was never answered keeps its process busy.
 * porcupine's logs know gets, puts and appends: a swap is written as `:cas`, which is `:fail` when another value was there.
 * (`test/simulations/porcupine` reads these; the parser in porcupine's own tests would pass over them without a word.)
 *
 * To Knossos' register a read of `nil` says nothing, and may be answered whatever is there. So nothing is the empty text,
 * and each key's history begins with a write of it. And it leaves `:fail` out: what a swap that failed saw is not looked at.
 */
import type { Call } from "./checkers/linearizability.ts"

interface Numbered {
  readonly process: number
  readonly call: Call
}

interface Moment extends Numbered {
  readonly atMs: number
  readonly isAnswer: boolean
}

const isAnswered = ({ answeredMs }: Call) => answeredMs !== Number.POSITIVE_INFINITY

/** Each on the first process that is free. A read that was not answered says nothing. */
function numbered(calls: ReadonlyArray<Call>): ReadonlyArray<Numbered> {
  const freeMs: Array<number> = []
  const said = calls.filter((call) => call.operation.op !== "read" || isAnswered(call))
  return said
    .toSorted((a, b) => a.calledMs - b.calledMs)
    .map((call) => {
      const free = freeMs.findIndex((atMs) => atMs < call.calledMs)
      const process = free < 0 ? freeMs.length : free
      freeMs[process] = call.answeredMs
      return { process, call }
    })
}

/** In the order of time; of the same time calls first, so that they overlap. */
const moments = (calls: ReadonlyArray<Call>): ReadonlyArray<Moment> =>
  numbered(calls)
    .flatMap((one) => [
      { ...one, atMs: one.call.calledMs, isAnswer: false },
      { ...one, atMs: one.call.answeredMs, isAnswer: true }
    ])
    .toSorted((a, b) => (a.atMs === b.atMs ? Number(a.isAnswer) - Number(b.isAnswer) : a.atMs - b.atMs))

const lines = (some: ReadonlyArray<string>) => some.map((line) => `${line}\n`).join("")

const text = (value: unknown): string => JSON.stringify(value ?? "")

/** Nothing is there is the empty text, as in its model. */
export function porcupine(calls: ReadonlyArray<Call>): string {
  const line = ({ process, call: { operation, result }, isAnswer }: Moment): string => {
    const { op, key } = operation
    const said = (type: string, f: string, value: string) =>
      `{:process ${process}, :type :${type}, :f :${f}, :key ${text(key)}, :value ${value}}`
    if (op === "read") return said(isAnswer ? "ok" : "invoke", "get", isAnswer ? text(result) : "nil")
    if (op === "write") return said(isAnswer ? "ok" : "invoke", "put", text(operation.value))
    const type = isAnswer ? (result === true ? "ok" : "fail") : "invoke"
    return said(type, "cas", `[${text(operation.expected)} ${text(operation.value)}]`)
  }
  return lines(
    moments(calls)
      .filter(({ atMs }) => atMs !== Number.POSITIVE_INFINITY)
      .map(line)
  )
}

/** Times in ns. What was never answered ends as `:info`: nobody knows. */
export function knossos(calls: ReadonlyArray<Call>): string {
  const lastMs = Math.max(0, ...calls.map(({ calledMs }) => calledMs), ...calls.filter(isAnswered).map(endOf))
  const said = (process: number, type: string, f: string, key: string, value: string, atMs: number): string =>
    `:process ${process}, :type :${type}, :f :${f}, :value [${text(key)} ${value}], :time ${Math.round(atMs * 1e6)}}`
  const empty = [...new Set(calls.map(({ operation }) => operation.key))].flatMap((key) =>
    ["invoke", "ok"].map((type) => said(0, type, "write", key, text(""), 0))
  )
  const line = ({ process, call: { operation, result }, isAnswer, atMs }: Moment): string => {
    const { op, key } = operation
    const isOpen = atMs === Number.POSITIVE_INFINITY
    const type = !isAnswer ? "invoke" : isOpen ? "info" : op === "swap" && result !== true ? "fail" : "ok"
    const value =
      op === "read"
        ? isAnswer
          ? text(result)
          : "nil"
        : op === "write"
          ? text(operation.value)
          : `[${text(operation.expected)} ${text(operation.value)}]`
    return said(process, type, op === "swap" ? "cas" : op, key, value, isOpen ? lastMs : atMs)
  }
  return lines([...empty, ...moments(calls).map(line)].map((rest, index) => `{:index ${index}, ${rest}`))
}

const endOf = ({ answeredMs }: Call): number => answeredMs
