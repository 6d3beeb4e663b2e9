/** SHA-256 (FIPS 180-4) of a UTF-8 text, as 64 hex digits. */
import { Context } from "effect"

export class Digest extends Context.Service<Digest, { readonly sha256: (text: string) => string }>()(
  "novacron/kernel/ports/Digest"
) {}
