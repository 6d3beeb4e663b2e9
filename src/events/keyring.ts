/** The secret that the datagrams of who is there are sealed with: when it was turned over, and why. The secret itself is in no fact. */
import { Schema } from "effect"
import { int, text, withDefault } from "./fields.ts"

/** There is one. */
export const keyringStream = "keyring/gossip"

/** Counts from 1; which one the nodes' keys belong to is in their own files too. */
const rotation = int(1, Number.MAX_SAFE_INTEGER)
/** Which key it is, without saying it. */
const KeyId = Schema.String.check(Schema.isPattern(/^[0-9a-f]{8}$/, { expected: "8 hexadecimal digits" }))

export const KeyringCommand = Schema.Union([
  Schema.Struct({ type: Schema.tag("keyring.rotate"), reason: withDefault(text(256), "") }),
  /** Said by the node whose kernel performs, when every member has the new key alone. */
  Schema.Struct({ type: Schema.tag("keyring.noticeRotated"), rotation, key: KeyId })
])
export type KeyringCommand = typeof KeyringCommand.Type

export const KeyringFact = Schema.Union([
  Schema.Struct({ type: Schema.tag("keyring.rotationAsked"), rotation, reason: text(256) }),
  Schema.Struct({ type: Schema.tag("keyring.rotated"), rotation, key: KeyId })
])
export type KeyringFact = typeof KeyringFact.Type
