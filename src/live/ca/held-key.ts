/** The authority's key at this node: there from the start, or once a voter has given it; gone when the node votes no more. */
import { X509Certificate } from "node:crypto"
import { join } from "node:path"
import { Effect } from "effect"
import { caOpen } from "../ca.ts"
import type { Authority } from "../ca.ts"
import { keysFromPem, spkiHash } from "./certificate.ts"
import { CaError, createFile, makePrivateFolder, removeFile, replaceFile } from "./files.ts"

export class HeldKey {
  readonly folder: string
  #authority: Authority | null

  constructor(folder: string, authority: Authority | null) {
    this.folder = folder
    this.#authority = authority
  }

  /** What lies in `folder`; nothing, where there is no key. */
  static readonly open = (folder: string): Effect.Effect<HeldKey, CaError> =>
    caOpen(folder).pipe(
      Effect.map((authority) => new HeldKey(folder, authority)),
      Effect.catch((error) =>
        error.code === "missing" ? Effect.succeed(new HeldKey(folder, null)) : Effect.fail(error)
      )
    )

  get authority(): Authority | null {
    return this.#authority
  }

  /** Keep what a voter gave: only the key of this very authority. Mode 0600. */
  take(key: string, certificate: string): Effect.Effect<void, CaError> {
    return Effect.gen({ self: this }, function* () {
      const path = join(this.folder, "ca.key")
      const isItsKey = yield* Effect.try({
        try: () => new X509Certificate(certificate).checkPrivateKey(keysFromPem(key).privateKey),
        // What OpenSSL says could quote the key.
        catch: () => new CaError({ code: "invalid", path, reason: "what was given is no key" })
      })
      if (!isItsKey)
        return yield* new CaError({
          code: "invalid",
          path,
          reason: "what was given is not this authority's key"
        })
      yield* makePrivateFolder(this.folder)
      yield* replaceFile(join(this.folder, "ca.crt"), certificate)
      yield* createFile(path, key)
      this.#authority = yield* caOpen(this.folder)
    })
  }

  /** The certificate stays: who was let in by it can still be seen. */
  readonly forget: Effect.Effect<void, CaError> = Effect.suspend(() => {
    this.#authority = null
    return removeFile(join(this.folder, "ca.key"))
  })
}

/** What a token pins, of the authority's certificate. */
export const authorityHash = (certificate: string): string =>
  spkiHash(new X509Certificate(certificate).publicKey)
