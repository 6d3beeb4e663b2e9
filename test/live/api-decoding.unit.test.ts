import assert from "node:assert/strict"
import { test } from "node:test"
import { Exit, Schema, SchemaAST } from "effect"
import * as fc from "fast-check"
import { Api, isCommand } from "../../src/live/api/api.ts"
import { commandHeaders } from "../../src/live/api/bodies.ts"
import { headersDecoder, payloadDecoder, strictly, textsOf } from "../../src/live/api/decoding.ts"

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31))
console.log(`seed ${seed}`)

const Short = Schema.String.check(Schema.isMinLength(1), Schema.isMaxLength(3))
const schemas = {
  "a command's": Schema.Struct(commandHeaders),
  "one that has to be there": Schema.Struct({ "idempotency-key": Short }),
  "some with more than a text's filters": Schema.Struct({
    "idempotency-key": Schema.optionalKey(Short),
    "x-count": Schema.NumberFromString
  }),
  "a text with grouped filters": Schema.Struct({
    "idempotency-key": Schema.String.check(
      Schema.makeFilterGroup([Schema.isMinLength(2), Schema.isMaxLength(4)])
    )
  })
}

const value = fc.oneof(
  fc.string({ maxLength: 6 }),
  fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9_.:-]{0,5}$/),
  fc.constantFrom("", "7", "a".repeat(128), "a".repeat(129)),
  // Node gives some headers as lists.
  fc.array(fc.string({ maxLength: 3 }), { maxLength: 2 })
)
const headers = fc.record(
  { "idempotency-key": value, "x-count": value, host: fc.string() },
  { requiredKeys: [] }
)

for (const [name, schema] of Object.entries(schemas))
  test(`headers are decoded as by their schema: ${name}`, () => {
    const decode = headersDecoder(schema)
    const bySchema = Schema.decodeUnknownExit(schema as Schema.ConstraintDecoder<unknown>)
    let right = 0
    const property = fc.property(headers, (given) => {
      const decoded = decode?.(given) as Exit.Exit<unknown>
      const expected = bySchema(given)
      assert.equal(Exit.isSuccess(decoded), Exit.isSuccess(expected))
      if (!Exit.isSuccess(decoded) || !Exit.isSuccess(expected)) return
      right++
      assert.deepEqual(decoded.value, expected.value)
    })
    fc.assert(property, { seed, numRuns: 1000 })
    assert.ok(right > 20 && right < 980, `${right} of 1000 were right`)
  })

type Endpoint = Parameters<typeof isCommand>[0]
const commands = Object.values(Api.groups).flatMap(({ endpoints }) =>
  Object.values(endpoints as unknown as Readonly<Record<string, Endpoint>>).filter(isCommand)
)

test("the headers of every command are decoded by their filters alone", () => {
  assert.ok(commands.length > 10)
  for (const { method, path, headers: schema } of commands)
    assert.notEqual(schema === undefined ? null : textsOf(schema.ast), null, `${method} ${path}`)
})

const text = fc.oneof(fc.string({ maxLength: 4 }), fc.constantFrom("web-1", "h1", "a".repeat(300)))
const member = fc.oneof(
  { weight: 8, arbitrary: text },
  { weight: 1, arbitrary: fc.jsonValue({ maxDepth: 1 }) }
)

for (const endpoint of commands) {
  const schemas = endpoint.payload.get("application/json")?.schemas
  if (schemas === undefined) continue
  test(`a body is decoded as by its schema: ${endpoint.method} ${endpoint.path}`, () => {
    const decode = payloadDecoder(endpoint)?.decode
    const bySchema = strictly(Schema.Union(schemas))
    const names = schemas.flatMap(({ ast }) =>
      SchemaAST.isObjects(ast) ? ast.propertySignatures.map(({ name }) => String(name)) : []
    )
    const object = fc.dictionary(fc.constantFrom(...names, "unknown", "__proto__"), member, { maxKeys: 4 })
    const body = fc.oneof({ weight: 9, arbitrary: object }, { weight: 1, arbitrary: fc.jsonValue() })
    const property = fc.property(body, (drawn) => {
      // As it comes from a request.
      const given: unknown = JSON.parse(JSON.stringify(drawn))
      const decoded = decode?.(given) as Exit.Exit<unknown>
      const expected = bySchema(given)
      assert.equal(Exit.isSuccess(decoded), Exit.isSuccess(expected), JSON.stringify(given))
      if (!Exit.isSuccess(decoded) || !Exit.isSuccess(expected)) return
      assert.deepEqual(decoded.value, expected.value)
      assert.equal(JSON.stringify(decoded.value), JSON.stringify(expected.value))
    })
    fc.assert(property, { seed, numRuns: 300 })
  })
}
