/**
 * What the journal keeps around each fact. `Fact` is what an actor says; `Draft` is a fact the kernel has
 * stamped; `Recorded` is a draft the event store has placed in its stream and in the hash chain.
 */
import { Schema } from "effect"
import { Stream } from "./fields.ts"

/** A plain data object with a `type`. Facts, commands and reports all have this shape. */
export interface Message {
  readonly type: string
  readonly [key: string]: unknown
}

/** Who asked: a person or token, a node, or another actor. */
export const Principal = Schema.Struct({
  kind: Schema.Literals(["operator", "node", "actor", "system"]),
  name: Schema.String.check(Schema.isMaxLength(256))
})
export type Principal = typeof Principal.Type

export const Draft = Schema.Struct({
  /** Unique for ever; appending it twice is one append. `cause#n` of the input that caused it. */
  id: Schema.String,
  /** `novacron.vm.started`: the fact's own type with the product's prefix. */
  type: Schema.String,
  /** Version of the fact's schema, 1 of all so far: older facts are read as they are, so what is added to one is optional. */
  version: Schema.Int,
  /** Milliseconds since the Unix epoch, stamped once, by the mailbox. */
  timeMs: Schema.Int,
  correlation: Schema.String,
  /** The id of the command, or the key of the request whose report was answered. */
  causation: Schema.String,
  principal: Principal,
  node: Schema.String,
  /** The request this fact concludes, when the input was a final report. */
  answers: Schema.NullOr(Schema.String),
  data: Schema.Record(Schema.String, Schema.Unknown)
})
export type Draft = typeof Draft.Type

export const Recorded = Schema.Struct({
  /** Place in the whole store, from 1 without gaps. */
  position: Schema.Int,
  stream: Stream,
  /** Place in the stream, from 0 without gaps. */
  revision: Schema.Int,
  ...Draft.fields,
  /** Hash of the previous position, 64 zeros before the first. */
  previousHash: Schema.String,
  /** SHA-256 over `previousHash` and all that is above; see `chainText`. */
  hash: Schema.String
})
export type Recorded = typeof Recorded.Type

export const typePrefix = "novacron."

/** Types that are remembered; there are some hundred. */
const types_max = 1000

/** One string for all facts of a type, instead of one each: they are compared, looked up and written again and again. */
function remembered(make: (type: string) => string): (type: string) => string {
  const known = new Map<string, string>()
  return (type) => {
    let made = known.get(type)
    if (made !== undefined) return made
    made = make(type)
    if (known.size < types_max) known.set(type, made)
    return made
  }
}

/** `novacron.vm.started` of `vm.started`. */
export const withPrefix = remembered((type) => typePrefix + type)
/** `vm.started` of `novacron.vm.started`. */
export const withoutPrefix = remembered((type) => type.slice(typePrefix.length))

export const genesisHash = "0".repeat(64)

/**
 * What a fact says, beside where it stands: a JSON array, so that field order is part of the contract and not of an object.
 * `dataText` is the JSON of `data`, taken as it is stored: what was written is what is verified.
 */
export function factText(fact: Omit<Draft, "data">, dataText: string): string {
  const { kind, name } = fact.principal
  return JSON.stringify([
    fact.id,
    fact.type,
    fact.version,
    fact.timeMs,
    fact.correlation,
    fact.causation,
    kind,
    name,
    fact.node,
    fact.answers,
    dataText
  ])
}

/** The text that is hashed: a JSON array of where the fact stands, and behind that the members of its `factText`. */
export const chainText = (
  previousHash: string,
  position: number,
  stream: string,
  revision: number,
  fact: string
): string => `["${previousHash}",${position},${JSON.stringify(stream)},${revision},${fact.slice(1)}`

/** Of a fact that stands somewhere, the text that is hashed. */
export const canonicalText = (
  row: Omit<Recorded, "data" | "previousHash" | "hash">,
  dataText: string,
  previousHash: string
): string => chainText(previousHash, row.position, row.stream, row.revision, factText(row, dataText))

/** The `type`s of a union of messages, in its order: what a chart may be asked, and may say. */
export const typesOf = (union: {
  readonly members: ReadonlyArray<{
    readonly fields: { readonly type: { readonly schema: { readonly literal: string } } }
  }>
}): ReadonlyArray<string> => union.members.map((member) => member.fields.type.schema.literal)
