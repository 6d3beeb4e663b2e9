/**
 * What a request is decoded by. A schema that is to find every fault and every key that nobody knows walks a value in a
 * slower way than one that only has to say whether it is right; so it is asked the short question first where the
 * answer is the same, and the long one when there is something to tell.
 */
import { Exit, Schema, SchemaAST } from "effect"
import type { HttpApiEndpoint } from "effect/http-api"
import { strict } from "../config/issues.ts"

export type Decode = (input: unknown) => Exit.Exit<unknown, Schema.SchemaError>

export interface PayloadDecoder {
  readonly decode: Decode
  /** What an absent body is decoded as. */
  readonly absent: null | undefined
}

const decodeWith = (schema: Schema.Constraint, options?: SchemaAST.ParseOptions): Decode =>
  Schema.decodeUnknownExit(schema as Schema.ConstraintDecoder<unknown>, options)

/** Every fault, and keys that nobody knows are faults. */
export const strictly = (schema: Schema.Constraint): Decode => decodeWith(schema, strict)

/** The keys of the only object among these; null when there is none, or more, or one that has others too. */
function keysOf(asts: ReadonlyArray<SchemaAST.AST>): ReadonlySet<PropertyKey> | null {
  const [object, ...others] = asts.map(SchemaAST.toEncoded).filter((ast) => !SchemaAST.isNull(ast))
  if (object === undefined || others.length > 0 || !SchemaAST.isObjects(object)) return null
  return object.indexSignatures.length > 0
    ? null
    : new Set(object.propertySignatures.map((property) => property.name))
}

/** No key of it, at any depth, can be one that nobody knows. */
function hasOnly(keys: ReadonlySet<PropertyKey>, value: unknown): boolean {
  if (typeof value !== "object" || value === null) return true
  for (const key of Object.keys(value)) {
    const member = (value as Readonly<Record<string, unknown>>)[key]
    if (!keys.has(key) || (typeof member === "object" && member !== null)) return false
  }
  return true
}

/** Of an endpoint that takes a body. */
export function payloadDecoder(endpoint: HttpApiEndpoint.Top): PayloadDecoder | null {
  const schemas = endpoint.payload.get("application/json")?.schemas
  if (schemas === undefined) return null
  const asts = schemas.map((one) => one.ast)
  const absent = asts.some((ast) => SchemaAST.isNull(SchemaAST.toEncoded(ast))) ? null : undefined
  const keys = keysOf(asts)
  const all = Schema.Union(schemas)
  const decodeStrictly = strictly(all)
  if (keys === null) return { decode: decodeStrictly, absent }
  const decodeShortly = decodeWith(all)
  const decode: Decode = (input) => {
    if (!hasOnly(keys, input)) return decodeStrictly(input)
    const decoded = decodeShortly(input)
    return Exit.isSuccess(decoded) ? decoded : decodeStrictly(input)
  }
  return { decode, absent }
}

/** Whether a value is as a schema of a text with filters wants it, and is decoded to itself; null for another schema. */
function textCheck(ast: SchemaAST.AST): ((value: unknown) => boolean) | null {
  const { checks = [] } = ast
  if (!SchemaAST.isString(ast) || ast.encoding !== undefined) return null
  const filters = checks.flatMap((check) => (check._tag === "Filter" ? [check] : []))
  if (filters.length < checks.length) return null
  return (value) =>
    typeof value === "string" && filters.every((filter) => filter.run(value, ast, {}) === undefined)
}

/** Only what the schema asks for: headers may be anything else too. What is wrong with them is not told. */
export function headersDecoder(schema: Schema.Constraint | undefined): Decode | null {
  if (schema === undefined) return null
  const decode = decodeWith(schema)
  const fields = (schema as { readonly fields?: Readonly<Record<string, Schema.Constraint>> }).fields
  if (fields === undefined) return decode
  const asks = Object.entries(fields).map(([name, { ast }]) => ({ name, isRight: textCheck(ast) }))
  return (headers) => {
    const asked: Record<string, unknown> = {}
    let isRight = true
    for (const one of asks) {
      const value = (headers as Readonly<Record<string, unknown>>)[one.name]
      if (value !== undefined) asked[one.name] = value
      isRight &&= one.isRight?.(value) === true
    }
    // An absent one may be right too: the schema knows.
    return isRight ? Exit.succeed(asked) : decode(asked)
  }
}
