/** Certificates last 90 days; each node gets a new one long before, without a restart and without losing a link. */
import { X509Certificate } from "node:crypto"
import { Clock, Effect } from "effect"
import { issueIdentity, saveIdentity } from "./ca.ts"
import type { Authority, NodeIdentity } from "./ca.ts"
import { renewIdentity } from "./ca/join.ts"
import { Endpoint } from "./link/endpoint.ts"

const checkEveryMs = 3_600_000
/** Renewed when less than this part of its life is left. */
const leftShare_min = 1 / 3

function isDue(identity: NodeIdentity, nowMs: number): boolean {
  const certificate = new X509Certificate(identity.certificate)
  const from = Date.parse(certificate.validFrom)
  const to = Date.parse(certificate.validTo)
  return (to - nowMs) / (to - from) < leftShare_min
}

/** From the authority in this process, or over the link from the node that has it. Runs until interrupted. */
export const keepCertificate = Effect.fn("keepCertificate")(function* (
  folder: string,
  first: NodeIdentity,
  authority: Authority | { readonly node: string }
) {
  const endpoint = yield* Endpoint
  let identity = first
  for (;;) {
    if (isDue(identity, yield* Clock.currentTimeMillis)) {
      const renewed =
        "node" in authority
          ? renewIdentity(identity, authority.node)
          : issueIdentity(authority, identity.node)
      identity = yield* renewed.pipe(
        Effect.tap((next) => saveIdentity(folder, next)),
        Effect.tap((next) => endpoint.replaceIdentity(next)),
        Effect.tap(() => Effect.logInfo("the node's certificate was renewed")),
        Effect.catch((error) =>
          Effect.as(Effect.logWarning("the node's certificate was not renewed yet", error), identity)
        )
      )
    }
    yield* Effect.sleep(checkEveryMs)
  }
})
