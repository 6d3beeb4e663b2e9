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

type Members = Readonly<Record<string, unknown>>

/** Whether a value is as a schema of a text with filters wants it, and is decoded to itself; null for another schema. */
function textCheck(ast: SchemaAST.AST): ((value: unknown) => boolean) | null {
  const { checks = [] } = ast
  if (!SchemaAST.isString(ast) || ast.encoding !== undefined) return null
  const filters = checks.flatMap((check) => (check._tag === "Filter" ? [check] : []))
  if (filters.length < checks.length) return null
  return (value) =>
    typeof value === "string" && filters.every((filter) => filter.run(value, ast, {}) === undefined)
}

/**
 * What an object of texts is decoded to, by their filters alone, its other members left out; undefined when one of the texts is not
 * there or not right, of which the schema knows more. Null for a schema that asks for more than texts.
 */
export function textsOf(ast: SchemaAST.AST): ((input: Members) => Members | undefined) | null {
  if (!SchemaAST.isObjects(ast) || ast.encoding !== undefined || ast.checks !== undefined) return null
  if (ast.indexSignatures.length > 0) return null
  const texts = ast.propertySignatures.map(({ name, type }) => ({
    name: String(name),
    isRight: textCheck(type),
    isOptional: type.context?.isOptional === true && type.context.constructorDefault === undefined
  }))
  if (texts.some(({ isRight }) => isRight === null)) return null
  return (input) => {
    const found: Record<string, unknown> = {}
    for (const { name, isRight, isOptional } of texts) {
      const value = input[name]
      if (value === undefined && isOptional && !Object.hasOwn(input, name)) continue
      if (isRight?.(value) !== true) return undefined
      found[name] = value
    }
    return found
  }
}

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
    const member = (value as Members)[key]
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

/** Only what the schema asks for: headers may be anything else too. What is wrong with them is not told. */
export function headersDecoder(schema: Schema.Constraint | undefined): Decode | null {
  if (schema === undefined) return null
  const decode = decodeWith(schema)
  const texts = textsOf(schema.ast)
  if (texts === null) return decode
  return (headers) => {
    const found = texts(headers as Members)
    return found === undefined ? decode(headers) : Exit.succeed(found)
  }
}
