/** The Digest port on OpenSSL, by node's one-shot `hash`. */
import { hash } from "node:crypto"
import { Layer } from "effect"
import { Digest } from "../kernel/ports/digest.ts"

export const layer: Layer.Layer<Digest> = Layer.succeed(
  Digest,
  Digest.of({ sha256: (text) => hash("sha256", text, "hex") })
)
