/**
 * Push/pull: two tables are compared by digests of their parts, and each side sends what it has in those that differ. Where
 * nothing differs one datagram says so; a whole table goes only to who has none.
 */
import { digestParts } from "../../events/swim.ts"
import type { PeerUpdate, SwimHead } from "../../events/swim.ts"
import { headBytes, updateBytes } from "../../events/swim-wire.ts"
import { updateOf } from "./step.ts"
import type { Step } from "./step.ts"
import { partOf } from "./table.ts"
import type { Peer } from "./table.ts"

/** Up to so many members tables are compared as often as the settings say; then more seldom with each doubling. */
const oftenMembers = 32

export const compareEveryMs = ({ now, settings }: Step): number =>
  settings.compareEveryMs *
  Math.max(1, Math.ceil(Math.log2(Math.max(1, now.table.present) / oftenMembers)) + 1)

export const compareWith = (step: Step, address: string): void =>
  step.sendOnly(address, { type: "compare", answer: false, digests: step.now.table.digests() }, [])

/** With one that is there. */
export function compareWithAny(step: Step): void {
  const { table, id } = step.now
  for (let tries = 0; tries < 64; tries++) {
    const peer = table.at(step.pick(table.length))
    if (peer.status === "alive" && peer.id !== id) return compareWith(step, peer.address)
  }
}

export function onCompare(
  step: Step,
  address: string,
  { digests, answer }: Extract<SwimHead, { readonly type: "compare" }>
): void {
  const { now, settings } = step
  const parts = now.table.differing(digests)
  if (parts.length === 0) return
  const isWhole = sendEntries(step, address, parts)
  if (!answer) step.sendOnly(address, { type: "compare", answer: true, digests: now.table.digests() }, [])
  // Not all of it could be sent: there is more to compare soon.
  else if (!isWhole || parts.length > digestParts / 2)
    now.compareAtMs = Math.min(now.compareAtMs, step.after(settings.periodMs))
}

/** In datagrams, of limited size and number; which come first is drawn. Whether that was all. */
function sendEntries(step: Step, address: string, parts: ReadonlyArray<number>): boolean {
  const { now, settings } = step
  const head = { type: "entries" } as const
  const roomBytes = settings.datagramBytesMax - headBytes(now.id, head)
  let [sent, left] = [0, roomBytes]
  let updates: Array<PeerUpdate> = []
  const flush = () => {
    if (updates.length > 0) step.sendOnly(address, head, updates)
    sent++
    left = roomBytes
    updates = []
  }
  for (const peer of entriesOf(step, parts)) {
    const update = updateOf(peer, now.id)
    const sizeBytes = updateBytes(update)
    if (sizeBytes > left) {
      flush()
      if (sent >= settings.entryDatagramsMax) return false
    }
    left -= sizeBytes
    updates.push(update)
  }
  flush()
  return true
}

function entriesOf(step: Step, parts: ReadonlyArray<number>): ReadonlyArray<Peer> {
  const { table } = step.now
  const byPart = new Map<number, Array<Peer>>(parts.map((part) => [part, []]))
  for (let place = 0; place < table.length; place++) {
    const peer = table.at(place)
    byPart.get(partOf(peer.id))?.push(peer)
  }
  const all = [...byPart.values()]
  const first = step.pick(all.length)
  return [...all.slice(first), ...all.slice(0, first)].flat()
}
