/** What a node with a kernel does for the certificates of the cluster: it lets nodes in, renews, and has the key or gets it. */
import { join } from "node:path"
import { Effect } from "effect"
import type { AuthorityState } from "../events/authority.ts"
import { Kernel } from "../kernel/kernel.ts"
import { Consensus } from "../kernel/ports/consensus.ts"
import { Link } from "../kernel/ports/link.ts"
import { authorityHash } from "../live/ca/held-key.ts"
import { renewHandler, renewIdentity, renewKind, serveJoins } from "../live/ca/join.ts"
import { revokedBy, serveRevoked } from "../live/ca/revoked.ts"
import { fetchKey, giveUpKey, serveKey } from "../live/ca/key-handover.ts"
import { readLegacy, setLegacyAside } from "../live/ca/legacy.ts"
import { Register } from "../live/ca/register.ts"
import { Directory } from "../live/consensus/directory.ts"
import { learnRemoval, serveStanding } from "../live/consensus/standing.ts"
import { Endpoint } from "../live/link/endpoint.ts"
import { keepCertificate, renewHere } from "../live/renewal.ts"
import { Identity } from "./up-parts.ts"
import type { Parts } from "./up-parts.ts"

const prepareAgainMs = 1000
const lookEveryMs = 500

/** For the API. */
export const authorityOf = Effect.map(Identity, ({ node: { ca }, key }) => ({
  hash: authorityHash(ca),
  certificate: ca,
  hasKey: () => key.authority !== null
}))

/** What lies here and not in the journal goes there, however long it takes until somebody decides. */
const prepare = Effect.fnUntraced(function* (register: Register) {
  const { node, key } = yield* Identity
  let told = ""
  for (;;) {
    const done = yield* Effect.result(
      Effect.gen(function* () {
        const legacy = key.authority === null ? null : yield* readLegacy(key.folder)
        yield* register.prepare(node, legacy)
        if (legacy === null) return
        yield* setLegacyAside(key.folder)
        const { names, tokens, unreadable } = legacy
        yield* Effect.logInfo(
          `${names.length} names and ${tokens.length} tokens of an earlier release are in the journal now`
        )
        for (const path of unreadable) yield* Effect.logWarning(`${path} says nothing that is understood`)
      })
    )
    if (done._tag === "Success") return
    const { reason } = done.failure
    if (reason !== told) yield* Effect.logWarning(`the authority's register is not ready yet: ${reason}`)
    told = reason
    yield* Effect.sleep(prepareAgainMs)
  }
})

/** Never ends: who shows a certificate that was taken back is not spoken with, and what is open with it is cut. */
const refuseRevoked = Effect.gen(function* () {
  const kernel = yield* Kernel
  const endpoint = yield* Endpoint
  let seen: AuthorityState["revoked"] = {}
  for (;;) {
    const revoked = revokedBy(kernel) ?? seen
    if (revoked !== seen) {
      seen = revoked
      yield* endpoint.refuse(new Set(Object.keys(revoked)))
    }
    yield* Effect.sleep(lookEveryMs)
  }
})

/** Of a voter: the key comes from the others and goes to them, and goes when this node was removed. */
const shareKey = Effect.fnUntraced(function* (register: Register) {
  const { node, key } = yield* Identity
  const order = yield* Consensus
  const directory = yield* Directory
  const kernel = yield* Kernel
  yield* serveKey(register, order)
  yield* serveStanding(kernel, order)
  const others = () =>
    directory
      .members()
      .filter((one) => one !== order.node)
      .flatMap((one) => directory.addressOf(one) ?? [])
  const untilRemoved = Effect.andThen(learnRemoval(order), giveUpKey(key, node.ca, others))
  yield* Effect.forkScoped(untilRemoved)
  yield* Effect.forkScoped(fetchKey(key, node.ca, order, directory))
  return directory
})

/** Everything of it, for as long as the scope lives. */
export const serveAuthority = Effect.fnUntraced(function* ({ config, resolved }: Parts) {
  const { node, key } = yield* Identity
  const kernel = yield* Kernel
  const link = yield* Link
  const register = new Register(kernel, key)
  yield* serveJoins({ key, register })
  yield* link.serve(renewKind, renewHandler({ register }))
  yield* Effect.forkScoped(prepare(register))
  yield* Effect.forkScoped(refuseRevoked)
  yield* serveRevoked(kernel)
  const directory = config.cluster.voter ? yield* shareKey(register) : null
  const others = () => (directory?.members() ?? []).filter((one) => one !== resolved.nodeId)
  const renewed = keepCertificate(join(resolved.dataDir, "identity"), node, (identity) =>
    renewHere(register, identity).pipe(
      Effect.catch((error) =>
        others().length === 0 ? Effect.fail(error) : renewIdentity(identity, others())
      )
    )
  )
  yield* Effect.forkScoped(renewed)
})
