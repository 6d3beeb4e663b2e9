/** What the journal says of peers beside what a failure detector has seen of them: which of the two has the later word, and what it is. */
import type { PeerCommand, PeerDescription } from "../../events/peer.ts"
import { descriptionText, noticeOf } from "../../events/peer.ts"
import type { PeerStatus, PeerUpdate, PeerView } from "../../events/swim.ts"
import type { Kernel } from "../../kernel/kernel.ts"

/** A peer as its actor knows it. */
export interface RecordedPeer {
  readonly name: string
  readonly state: "alive" | "suspect" | "failed" | "left"
  readonly incarnation: number
  readonly address: string
  readonly description: PeerDescription
  readonly by: string
  readonly sinceMs: number
}

export const peerStream = (name: string) => `peer/${name}`

type Residents = ReturnType<Kernel["Service"]["resident"]>

/** Null where the journal says nothing of it. */
export function recordedPeer(actors: Residents, name: string): RecordedPeer | null {
  const chart = actors.get(peerStream(name))?.chart
  if (chart === undefined || chart.value === "unknown") return null
  return {
    name,
    state: chart.value as RecordedPeer["state"],
    ...(chart.context as Omit<RecordedPeer, "name" | "state">)
  }
}

/** Everybody that the journal knows, in the order of their names. */
export function recordedPeers(actors: Residents): ReadonlyArray<RecordedPeer> {
  const all: Array<RecordedPeer> = []
  for (const stream of actors.keys()) {
    const peer = stream.startsWith("peer/") ? recordedPeer(actors, stream.slice("peer/".length)) : null
    if (peer !== null) all.push(peer)
  }
  return all.sort((a, b) => (a.name < b.name ? -1 : 1))
}

const ranks = { alive: 0, suspect: 1, dead: 2, failed: 2, left: 3 } as const
type Word = { readonly incarnation: number; readonly rank: number }
const isLater = (one: Word, other: Word): boolean =>
  one.incarnation > other.incarnation || (one.incarnation === other.incarnation && one.rank > other.rank)
const seenWord = ({ incarnation, status }: PeerView): Word => ({ incarnation, rank: ranks[status] })
const recordedWord = ({ incarnation, state }: RecordedPeer): Word => ({ incarnation, rank: ranks[state] })

/**
 * The next thing to tell the peer's actor, which may be one of two: who is suspected in a life that the journal does not know of
 * came first. Null when the journal has what is worth a fact. Another incarnation alone is not: members take one for each change of
 * what they say, and whatever is of use of that is in the description.
 */
export function newsOf(recorded: RecordedPeer | null, seen: PeerView, by: string): PeerCommand | null {
  const alive = () => noticeOf({ ...seen, status: "alive" }, by)
  if (recorded === null) return seen.status === "alive" || seen.status === "suspect" ? alive() : null
  if (!isLater(seenWord(seen), recordedWord(recorded))) return null
  const isGone = recorded.state === "failed" || recorded.state === "left"
  switch (seen.status) {
    case "alive": {
      const notice = alive()
      if (notice?.type !== "peer.noticeAlive" || recorded.state !== "alive") return notice
      const isSame =
        notice.address === recorded.address && isSameDescription(notice.description, recorded.description)
      return isSame ? null : notice
    }
    case "suspect":
      return isGone ? alive() : noticeOf(seen, by)
    case "dead":
      return isGone ? null : noticeOf(seen, by)
    case "left":
      return recorded.state === "left" ? null : noticeOf(seen, by)
  }
}

const isSameDescription = (one: PeerDescription, other: PeerDescription): boolean =>
  descriptionText(one) === descriptionText(other)

const statuses = {
  alive: "alive",
  suspect: "suspect",
  failed: "dead",
  left: "left"
} as const satisfies Record<RecordedPeer["state"], PeerStatus>

/** What the detector has to hear of the journal; null where it knows as much. */
export function recalledOf(recorded: RecordedPeer, seen: PeerView | null): PeerUpdate | null {
  const { name: id, incarnation, address, description, by, state } = recorded
  const alive: PeerUpdate = {
    id,
    status: "alive",
    incarnation,
    by,
    address,
    meta: descriptionText(description)
  }
  // Whether it lives still is found out by probes.
  if (seen === null) return state === "alive" || state === "suspect" ? alive : null
  if (!isLater(recordedWord(recorded), seenWord(seen))) return null
  return state === "alive" ? alive : { ...alive, status: statuses[state], address: "", meta: "" }
}
