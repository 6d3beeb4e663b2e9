/** The field types that several schemas share: names, sizes and their limits. */
import { Effect, Schema } from "effect"

/** A name people type: 1–63 characters, `a–z 0–9 -`, as in RFC 1123 labels. */
export const Name = Schema.String.check(
  Schema.isPattern(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, {
    expected: "a name of 1 to 63 characters a-z, 0-9 and -, beginning and ending with a letter or digit"
  })
)

/** A stream's name: `kind/name`. */
export const Stream = Schema.String.check(
  Schema.isPattern(/^[a-z]+\/[a-z0-9]([a-z0-9.-]{0,126}[a-z0-9])?$/, { expected: "kind/name" })
)

export const text = (lengthMax: number) => Schema.String.check(Schema.isMaxLength(lengthMax))

export const int = (minimum: number, maximum: number) =>
  Schema.Int.check(
    Schema.isBetween({ minimum, maximum }, { expected: `a whole number from ${minimum} to ${maximum}` })
  )

/** A key that may be left out; the decoded value always has it. Schema types its defaults with Effect. */
export const withDefault = <S extends Schema.Constraint>(schema: S, value: S["Encoded"]) =>
  Schema.withDecodingDefaultKey<S>(Effect.succeed(value))(schema)

export const Labels = Schema.Record(Name, text(128))
export const Bytes = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))
export const Milliseconds = Schema.Number.check(Schema.isGreaterThanOrEqualTo(0))
