/** The Digest port in plain JavaScript, so that a simulation needs nothing of the machine it runs on. */
import { sha256 } from "@noble/hashes/sha2.js"
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js"
import { Layer } from "effect"
import { Digest } from "../../src/kernel/ports/digest.ts"

export const layer: Layer.Layer<Digest> = Layer.succeed(
  Digest,
  Digest.of({ sha256: (text) => bytesToHex(sha256(utf8ToBytes(text))) })
)
