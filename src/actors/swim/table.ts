/**
 * What a member knows of all members, as a value: by name, by place for whoever picks one at random, and by digests for
 * whoever compares tables. Reading and changing one member costs the same however many there are, but for a logarithm.
 */
import { digestParts } from "../../events/swim.ts"
import type { PeerStatus, PeerView } from "../../events/swim.ts"
import { Vector } from "./vector.ts"

export interface Suspicion {
  readonly startMs: number
  readonly leastMs: number
  readonly mostMs: number
  /** Others that would have to confirm it until it lasts the least. */
  readonly wanted: number
  /** Who accuses, the first one first. */
  readonly by: ReadonlyArray<string>
  readonly deadlineMs: number
}

export interface Peer extends PeerView {
  /** When it got this status here. */
  readonly sinceMs: number
  /** While it is a suspect. */
  readonly suspicion: Suspicion | null
}

/** Of two updates of the same incarnation the one with the higher rank stands. */
export const rankOf = (status: PeerStatus): number => ["alive", "suspect", "dead", "left"].indexOf(status)

type Counts = Readonly<Record<PeerStatus, number>>

/** FNV-1a, mixed once more, because names differ mostly in their last letters. */
export function hashOf(text: string): number {
  let hash = 0x811c9dc5
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193)
  return mix(hash)
}

function mix(value: number): number {
  let z = Math.imul(value ^ (value >>> 16), 0x21f0aaad)
  z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
  return (z ^ (z >>> 15)) >>> 0
}

export const partOf = (id: string): number => hashOf(id) % digestParts

/** The dead don't count: they are forgotten at different times. */
function digestOf({ id, incarnation, status }: PeerView): number {
  if (status === "dead" || status === "left") return 0
  return mix(hashOf(id) ^ mix(incarnation | 0) ^ mix(Math.floor(incarnation / 2 ** 32) + 7) ^ rankOf(status))
}

function toggle(digests: Uint32Array, peer: PeerView): void {
  const part = partOf(peer.id)
  digests[part] = (digests[part] ?? 0) ^ digestOf(peer)
}

const leastPlaces = 16

interface Parts {
  readonly peers: Vector<Peer>
  /** Open addressing: at the hash of a name, or after it, its place in `peers` + 1; 0 where there is none. */
  readonly index: Vector<number>
  readonly counts: Counts
  /** Exclusive or over the digests of the members of each part. */
  readonly digests: Uint32Array
}

export class Table {
  readonly #peers: Vector<Peer>
  readonly #index: Vector<number>
  readonly counts: Counts
  readonly #digests: Uint32Array

  private constructor({ peers, index, counts, digests }: Parts) {
    this.#peers = peers
    this.#index = index
    this.counts = counts
    this.#digests = digests
  }

  static readonly empty = new Table({
    peers: Vector.empty<Peer>(),
    index: Vector.of(Array.from({ length: leastPlaces }, () => 0)),
    counts: { alive: 0, suspect: 0, dead: 0, left: 0 },
    digests: new Uint32Array(digestParts)
  })

  get length(): number {
    return this.#peers.length
  }

  /** Members that are there, as far as is known. */
  get present(): number {
    return this.counts.alive + this.counts.suspect
  }

  /** Places go from 0 without gaps; a removal gives the last one another. */
  at(place: number): Peer {
    return this.#peers.at(place)
  }

  get(id: string): Peer | null {
    const place = this.#find(id)
    return place.slot < 0 ? null : this.#peers.at(place.slot)
  }

  /** In the place of what was known of it. */
  set(peer: Peer): Table {
    const { slot, at } = this.#find(peer.id)
    if (slot >= 0)
      return new Table({
        peers: this.#peers.set(slot, peer),
        index: this.#index,
        ...this.#counted(this.#peers.at(slot), peer)
      })
    const peers = this.#peers.push(peer)
    const isCrowded = peers.length * 2 > this.#index.length
    return new Table({
      peers,
      index: isCrowded ? indexed(peers, this.#index.length * 2) : this.#index.set(at, peers.length),
      ...this.#counted(null, peer)
    })
  }

  without(id: string): Table {
    const { slot, at } = this.#find(id)
    if (slot < 0) return this
    const gone = this.#peers.at(slot)
    const last = this.#peers.length - 1
    const moved = this.#peers.at(last)
    let index = this.#index
    if (slot !== last) index = index.set(this.#find(moved.id).at, slot + 1)
    const peers = (slot === last ? this.#peers : this.#peers.set(slot, moved)).pop()
    return new Table({ peers, index: closed(index, at, peers), ...this.#counted(gone, null) })
  }

  /** Of each part eight hexadecimal digits. */
  digests(): string {
    let text = ""
    for (const digest of this.#digests) text += digest.toString(16).padStart(8, "0")
    return text
  }

  /** The parts in which a table with these digests differs. */
  differing(digests: string): ReadonlyArray<number> {
    const parts: Array<number> = []
    for (const [part, digest] of this.#digests.entries())
      if (parseInt(digests.slice(part * 8, part * 8 + 8), 16) !== digest) parts.push(part)
    return parts
  }

  #find(id: string): { readonly slot: number; readonly at: number } {
    const last = this.#index.length - 1
    let at = hashOf(id) & last
    for (;;) {
      const slot = this.#index.at(at) - 1
      if (slot < 0 || this.#peers.at(slot).id === id) return { slot, at }
      at = (at + 1) & last
    }
  }

  #counted(before: Peer | null, after: Peer | null): Pick<Parts, "counts" | "digests"> {
    const counts = { ...this.counts }
    const digests = this.#digests.slice()
    if (before !== null) {
      counts[before.status]--
      toggle(digests, before)
    }
    if (after !== null) {
      counts[after.status]++
      toggle(digests, after)
    }
    return { counts, digests }
  }
}

/** Nobody is looked for across a gap: what follows it moves up (Knuth, 6.4, algorithm R). */
function closed(index: Vector<number>, at: number, peers: Vector<Peer>): Vector<number> {
  const last = index.length - 1
  let [next, gap] = [index, at]
  for (let place = (gap + 1) & last; ; place = (place + 1) & last) {
    const entry = next.at(place)
    if (entry === 0) return next.set(gap, 0)
    const home = hashOf(peers.at(entry - 1).id) & last
    // It is found where it is, if the gap is not between its home and itself.
    if (((place - home) & last) < ((place - gap) & last)) continue
    next = next.set(gap, entry)
    gap = place
  }
}

function indexed(peers: Vector<Peer>, places: number): Vector<number> {
  const index = Array.from({ length: places }, () => 0)
  for (let slot = 0; slot < peers.length; slot++) {
    let at = hashOf(peers.at(slot).id) & (places - 1)
    while (index[at] !== 0) at = (at + 1) & (places - 1)
    index[at] = slot + 1
  }
  return Vector.of(index)
}
