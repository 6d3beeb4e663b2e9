/**
 * The key is turned over by the node whose kernel performs: a new one is given to all, then sealed with, then alone. Each step waits
 * until every member that is there says that it has the one before; whoever is not there gets the keys with its next link.
 */
import { Clock, Effect } from "effect"
import { keyringOf } from "../../events/peer.ts"
import { keyringStream } from "../../events/keyring.ts"
import { Kernel } from "../../kernel/kernel.ts"
import { advancedRing, begunRing, keysOf } from "./keyring.ts"
import type { GossipNode } from "./node.ts"

const pollMs = 250
const complainEveryMs = 60_000
const namedMax = 10

/** Members that are there, or may be, and do not say that they have the keys of this version. */
export function withoutVersion(
  peers: ReadonlyArray<{ readonly id: string; readonly status: string; readonly meta: string }>,
  node: string,
  version: string | null
): ReadonlyArray<string> {
  return peers
    .filter(({ id, status }) => id !== node && (status === "alive" || status === "suspect"))
    .filter(({ meta }) => keyringOf(meta) !== version)
    .map(({ id }) => id)
}

/** Runs until interrupted; does nothing where another node's kernel performs. */
export const turnOverKeys = Effect.fn("gossip.turnOverKeys")(function* (gossip: GossipNode, node: string) {
  const kernel = yield* Kernel

  /** The rotation that was asked for and is not over; null when there is none. */
  const asked = (): number | null => {
    const chart = kernel.resident().get(keyringStream)?.chart
    return chart?.value === "rotating" ? (chart.context as { readonly rotation: number }).rotation : null
  }

  const finish = (rotation: number, key: string) => {
    const id = `keyring/rotated/${rotation}`
    const message = { type: "keyring.noticeRotated", rotation, key }
    const principal = { kind: "node", name: node } as const
    return kernel.submit({ stream: keyringStream, message, id, correlation: id, principal })
  }

  let waitingMs = 0
  const step = Effect.gen(function* () {
    const { ring, version, member } = gossip
    if (ring === null || member === null || !kernel.isPerforming()) return
    const rotation = asked()
    const nowMs = yield* Clock.currentTimeMillis
    if (rotation === null && ring.stage === "settled") return
    if (rotation !== null && ring.rotation < rotation && ring.stage === "settled") {
      waitingMs = nowMs
      return void (yield* gossip.take(begunRing(ring, rotation)))
    }
    const without = withoutVersion(member.peers(), node, version)
    if (without.length === 0) {
      waitingMs = nowMs
      if (ring.stage !== "settled") return void (yield* gossip.take(advancedRing(ring)))
      const [key] = keysOf(gossip.options.cluster, ring)
      if (rotation !== null && key !== undefined) yield* finish(rotation, key.id)
    } else if (nowMs - waitingMs >= complainEveryMs) {
      waitingMs = nowMs
      const named = without.slice(0, namedMax).join(", ")
      yield* Effect.logWarning(`the new key waits for ${without.length} members to have it: ${named}`)
    }
  })
  for (;;) {
    yield* Effect.sleep(pollMs)
    yield* step.pipe(
      Effect.catch((error) => Effect.logWarning(`the key is not turned over yet: ${error.message}`))
    )
  }
})
