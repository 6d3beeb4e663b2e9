/**
 * What the failure detector of the node whose kernel performs knows of the others, held against what the journal says of them: what
 * is later here is told to `peer/<name>`, and what is later there is told to the detector. So the two come together from both
 * sides, whoever led before and whatever a restart forgot (ADR 17).
 */
import { Clock, Effect } from "effect"
import type { PeerCommand } from "../../events/peer.ts"
import { Kernel } from "../../kernel/kernel.ts"
import { Link } from "../../kernel/ports/link.ts"
import type { GossipNode } from "./node.ts"
import { newsOf, peerStream, recalledOf, recordedPeer, recordedPeers } from "./recorded-peers.ts"

export interface NoticingOptions {
  readonly node: string
  readonly periodMs: number
}

/** Told at once, of different peers. */
const atOnce_max = 16
/** Of whom it is remembered who accused them. */
const accusers_max = 10_000
/** Of one peer one after the other: it came, and is suspected. */
const words_max = 3
/** Everybody is held against the journal again after so many periods, should a word have been lost. */
const everyPeriods = 30
const pollMsMin = 20
const pollMsMax = 250

/** Suspicions of one peer that are recorded within an hour; a path that loses much raises one after the other. */
const suspicions_max = 12
const hourMs = 3_600_000

/** How many there were in this hour, of each peer. */
export class Suspicions {
  readonly #counts = new Map<string, { count: number; sinceMs: number }>()

  /** Whether this one is to be recorded still. */
  admit(name: string, nowMs: number): boolean {
    const known = this.#counts.get(name)
    if (known !== undefined && nowMs - known.sinceMs < hourMs) return ++known.count <= suspicions_max
    this.#counts.delete(name)
    this.#counts.set(name, { count: 1, sinceMs: nowMs })
    const [oldest] = this.#counts.keys()
    if (this.#counts.size > accusers_max && oldest !== undefined) this.#counts.delete(oldest)
    return true
  }
}

/** Peers of whom something is to be told, and how. */
const makeTeller = (gossip: GossipNode, kernel: Kernel["Service"], node: string) => {
  const changed = new Set<string>()
  const accusers = new Map<string, string>()
  const suspicions = new Suspicions()
  gossip.onChanged(({ peer, by }) => {
    changed.add(peer.id)
    accusers.delete(peer.id)
    if (peer.status === "alive") return
    accusers.set(peer.id, by)
    const [oldest] = accusers.keys()
    if (accusers.size > accusers_max && oldest !== undefined) accusers.delete(oldest)
  })

  /** By its id the same word of two nodes is one. */
  const say = (command: PeerCommand, name: string) => {
    const id = `notice/${name}/${command.type.slice("peer.notice".length)}/${command.incarnation}`
    const principal = { kind: "node", name: node } as const
    return kernel.submit({ stream: peerStream(name), message: command, id, correlation: id, principal })
  }

  const tell = Effect.fnUntraced(function* (name: string) {
    for (let words = 0; words < words_max; words++) {
      const { member } = gossip
      const seen = member?.peer(name) ?? null
      const recorded = recordedPeer(kernel.resident(), name)
      const recalled = recorded === null ? null : recalledOf(recorded, seen)
      if (recalled !== null) return member?.recall(recalled)
      const by = seen === null || seen.status === "alive" ? name : (accusers.get(name) ?? node)
      const news = seen === null ? null : newsOf(recorded, seen, by)
      if (news === null) return
      const isSuspicion = news.type === "peer.noticeSuspect"
      if (isSuspicion && !suspicions.admit(name, yield* Clock.currentTimeMillis)) return
      yield* say(news, name)
    }
  })

  const tellSurely = (name: string) =>
    tell(name).pipe(
      // Refused is what somebody has said meanwhile; the rest is said again.
      Effect.catchTag("CommandRefused", () => Effect.void),
      Effect.catch((error) =>
        Effect.andThen(
          Effect.logDebug(`what became of ${name} is not recorded yet: ${error.message}`),
          Effect.sync(() => changed.add(name))
        )
      )
    )
  return {
    changed,
    tellAll: (names: ReadonlyArray<string>) =>
      Effect.forEach(names, tellSurely, { concurrency: atOnce_max, discard: true })
  }
}

/** Runs until interrupted; does nothing where another node's kernel performs. */
export const noticePeers = Effect.fn("gossip.noticePeers")(function* (
  gossip: GossipNode,
  { node, periodMs }: NoticingOptions
) {
  const kernel = yield* Kernel
  const link = yield* Link
  const { changed, tellAll } = makeTeller(gossip, kernel, node)
  /** By the journal when this node began to perform, and since: not all actors there are, which are many more. */
  let known: Set<string> | null = null

  /** Its link is tried now: the watch over hosts sees what comes of it, and alone decides who is lost. */
  const lookAt = (names: ReadonlyArray<string>) => {
    const doubted = names.filter((name) => {
      const status = gossip.member?.peer(name)?.status
      return name !== node && (status === "suspect" || status === "dead")
    })
    const look = (name: string) =>
      Effect.flatMap(link.look(name), (answers) =>
        answers ? Effect.void : Effect.logInfo(`${name} is doubted, and its link does not answer either`)
      )
    return Effect.forEach(doubted, look, { concurrency: atOnce_max, discard: true })
  }

  const pollMs = Math.min(pollMsMax, Math.max(pollMsMin, Math.floor(periodMs / 5)))
  for (let wholeMs = 0; ;) {
    yield* Effect.sleep(pollMs)
    const { member } = gossip
    if (member === null || !kernel.isPerforming()) {
      changed.clear()
      wholeMs = 0
      known = null
      continue
    }
    const nowMs = yield* Clock.currentTimeMillis
    const doubted = [...changed]
    if (nowMs - wholeMs >= everyPeriods * periodMs) {
      wholeMs = nowMs
      known ??= new Set(recordedPeers(kernel.resident()).map(({ name }) => name))
      for (const { id } of member.peers()) known.add(id)
      for (const name of known) changed.add(name)
    }
    if (changed.size === 0) continue
    const names = [...changed]
    changed.clear()
    yield* Effect.forkChild(lookAt(doubted))
    yield* tellAll(names)
  }
})
