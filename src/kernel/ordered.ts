/**
 * What a group orders for the kernel: batches of inputs as text, with the time at which the leader took them, and the mark
 * that says up to where a journal has them.
 */
import { Effect, Schema } from "effect"
import type { Principal } from "../events/envelope.ts"
import type { Entry } from "../events/raft.ts"
import type { EventStore, Snapshot, StoreFailure } from "./ports/event-store.ts"
import type { Input } from "./turn.ts"

/** A batch as its proposer made it. */
export interface Batch {
  /** The node that took the inputs: it is the node of their facts. */
  readonly node: string
  /** Of the process there, drawn when it started: another process's numbers are not this one's. */
  readonly life: string
  readonly number: number
  readonly inputs: ReadonlyArray<Input>
}

/** An entry of the log, decoded; `batch` is null where the group itself has something to say. */
export interface Decided {
  readonly index: number
  readonly term: number
  readonly timeMs: number
  readonly batch: Batch | null
}

type InputRow = readonly [
  stream: string,
  message: Input["message"],
  id: string,
  correlation: string,
  kind: Principal["kind"],
  name: string,
  answers: string | null,
  isFinal: boolean
]

/** One input of a batch, as text. */
export const inputText = ({ stream, message, id, correlation, principal, answers }: Input): string => {
  const { kind, name } = principal
  const row: InputRow = [
    stream,
    message,
    id,
    correlation,
    kind,
    name,
    answers?.key ?? null,
    answers?.final ?? false
  ]
  return JSON.stringify(row)
}

/** Of these inputs; what is JSON of a list is put together from the texts of its members. */
export const batchText = (
  { node, life, number }: Omit<Batch, "inputs">,
  inputs: ReadonlyArray<string>
): string => `[${JSON.stringify(node)},${JSON.stringify(life)},${number},[${inputs.join(",")}]]`

/** As the leader appends it to the log: its clock is the journal's. */
export const stampedText = (timeMs: number, batch: string): string => `${Math.floor(timeMs)} ${batch}`

/** What is in the log was made by `batchText` of some node of the group; who may speak in it is known by certificate. */
export function decidedOf({ index, term, data }: Entry): Decided {
  if (data === null) return { index, term, timeMs: 0, batch: null }
  const space = data.indexOf(" ")
  const [node, life, number, rows] = JSON.parse(data.slice(space + 1)) as [
    string,
    string,
    number,
    ReadonlyArray<InputRow>
  ]
  const inputs = rows.map(([stream, message, id, correlation, kind, name, key, final]): Input => {
    const principal = { kind, name }
    return { stream, message, id, correlation, principal, answers: key === null ? null : { key, final } }
  })
  return { index, term, timeMs: Number(data.slice(0, space)), batch: { node, life, number, inputs } }
}

/** The state that a snapshot stands for: a journal that ends so. */
export const InstallTarget = Schema.Struct({
  index: Schema.Int,
  term: Schema.Int,
  position: Schema.Int,
  hash: Schema.String
})
export type InstallTarget = typeof InstallTarget.Type

/** Everything up to `index` of the log is in the journal. */
export interface Mark {
  readonly index: number
  readonly term: number
  /** Facts of beyond are being added: the journal is at no index at all until all of them are there. */
  readonly installing: InstallTarget | null
}

export const noMark: Mark = { index: 0, term: 0, installing: null }

/** Beside the snapshots of actors, and saved in one transaction with the facts. */
const markStream = "kernel/applied"
const markVersion = 1

export const markSnapshot = (mark: Mark): Snapshot => ({
  stream: markStream,
  // Snapshots never go back; neither does what is applied.
  revision: mark.installing?.index ?? mark.index,
  position: 0,
  version: markVersion,
  state: JSON.stringify(mark)
})

export const loadMark = (store: EventStore["Service"]): Effect.Effect<Mark, StoreFailure> =>
  Effect.map(store.loadSnapshot(markStream, markVersion), (snapshot) =>
    snapshot === null ? noMark : (JSON.parse(snapshot.state) as Mark)
  )
