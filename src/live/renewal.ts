/** Certificates last 90 days; each node gets a new one long before, without a restart and without losing a link. */
import { X509Certificate } from "node:crypto"
import { Clock, Effect } from "effect"
import { acceptCertificate, saveIdentity } from "./ca.ts"
import type { NodeIdentity } from "./ca.ts"
import { generateKeys, signingRequest } from "./ca/certificate.ts"
import type { CaError } from "./ca/files.ts"
import { renewIdentity } from "./ca/join.ts"
import type { Register } from "./ca/register.ts"
import { Endpoint } from "./link/endpoint.ts"

const checkEveryMs = 3_600_000
/** Whom it is asked of may not be there yet, or no majority of them: again after so long, then after twice that, and so on. */
const againMs_min = 2000
/** Renewed when less than this part of its life is left. */
const leftShare_min = 1 / 3

function isDue(identity: NodeIdentity, nowMs: number): boolean {
  const certificate = new X509Certificate(identity.certificate)
  const from = Date.parse(certificate.validFrom)
  const to = Date.parse(certificate.validTo)
  return (to - nowMs) / (to - from) < leftShare_min
}

/** At a node with the key: decided on as everybody's, and signed here. */
export const renewHere = (register: Register, identity: NodeIdentity) =>
  Effect.gen(function* () {
    const keys = generateKeys()
    const { node, ca } = identity
    const { serialNumber } = new X509Certificate(identity.certificate)
    const certificate = yield* register.renew(node, serialNumber, signingRequest(keys, node))
    return yield* acceptCertificate(node, keys, certificate, ca)
  })

/** `renew` gives a new identity of the same node. Runs until interrupted. */
export const keepCertificate = Effect.fn("keepCertificate")(function* <E extends CaError, R>(
  folder: string,
  first: NodeIdentity,
  renew: (identity: NodeIdentity) => Effect.Effect<NodeIdentity, E, R>
) {
  const endpoint = yield* Endpoint
  let identity = first
  let told = ""
  let againMs = againMs_min
  for (;;) {
    if (!isDue(identity, yield* Clock.currentTimeMillis)) {
      yield* Effect.sleep(checkEveryMs)
      continue
    }
    const renewed = yield* Effect.result(
      renew(identity).pipe(
        Effect.tap((next) => saveIdentity(folder, next)),
        Effect.tap((next) => endpoint.replaceIdentity(next))
      )
    )
    if (renewed._tag === "Success") {
      identity = renewed.success
      told = ""
      againMs = againMs_min
      yield* Effect.logInfo("the node's certificate was renewed")
      continue
    }
    const { reason } = renewed.failure
    if (reason !== told) yield* Effect.logWarning(`the node's certificate was not renewed yet: ${reason}`)
    told = reason
    yield* Effect.sleep(againMs)
    againMs = Math.min(checkEveryMs, againMs * 2)
  }
})

/** At a host: of whichever of these nodes gives one. */
export const renewOver = (nodes: () => ReadonlyArray<string>) => (identity: NodeIdentity) =>
  Effect.suspend(() => renewIdentity(identity, nodes()))
