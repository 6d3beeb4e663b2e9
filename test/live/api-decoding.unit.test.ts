import assert from "node:assert/strict"
import { test } from "node:test"
import { Exit, Schema } from "effect"
import * as fc from "fast-check"
import { commandHeaders } from "../../src/live/api/bodies.ts"
import { headersDecoder } from "../../src/live/api/decoding.ts"

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
