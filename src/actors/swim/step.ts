/**
 * One step of a member: a working copy of what it knows, which the protocol's functions change, and which ends as facts:
 * its incarnation, when that went up, and one with everything that a restart forgets, and what is asked.
 */
import type {
  PeerStatus,
  PeerUpdate,
  SwimFact,
  SwimHead,
  SwimRequest,
  SwimSettings
} from "../../events/swim.ts"
import { headBytes, updateBytes } from "../../events/swim-wire.ts"
import { Deadlines } from "./deadlines.ts"
import { noRound } from "./order.ts"
import type { Round } from "./order.ts"
import { Queue } from "./queue.ts"
import { Table } from "./table.ts"
import type { Peer } from "./table.ts"

export type Role = "alone" | "member" | "leaving" | "left"

/** A probe that is under way: one at a time. */
export interface Probe {
  readonly target: string
  readonly address: string
  /** Of the target, when it began. */
  readonly incarnation: number
  readonly sequence: number
  /** When others are asked; infinity when they are. */
  readonly relayMs: number
  readonly relays: ReadonlyArray<string>
  /** Who of them said that they heard nothing. */
  readonly nacks: ReadonlyArray<string>
  readonly isAnswered: boolean
}

/** A probe for somebody else. */
export interface Relayed {
  /** Of the ping that was sent for it. */
  readonly sequence: number
  readonly target: string
  /** Whom to answer, with what. */
  readonly address: string
  readonly asked: number
  /** When it is said that nothing was heard; it ends then. */
  readonly nackMs: number
}

/** What survives a restart. */
export interface Durable {
  readonly incarnation: number
}

export interface Volatile {
  readonly id: string
  readonly address: string
  readonly meta: string
  readonly settings: SwimSettings | null
  readonly table: Table
  readonly queue: Queue
  /** When suspicions end, and the dead are forgotten. */
  readonly deadlines: Deadlines
  readonly round: Round
  readonly probe: Probe | null
  readonly relayed: ReadonlyArray<Relayed>
  readonly sequence: number
  /** From 0, well, up to the settings' `healthMax`. */
  readonly health: number
  readonly seeds: ReadonlyArray<string>
  /** When it met others: for a while it has no news for them. */
  readonly metMs: number
  /** No suspicion ends before: what was missed while standing still is read first. */
  readonly graceMs: number
  readonly periodAtMs: number
  readonly gossipAtMs: number
  readonly compareAtMs: number
  readonly reconnectAtMs: number
  readonly joinAtMs: number
  readonly leftAtMs: number
  /** Strangers are not asked who they are before. */
  readonly greetAtMs: number
}

export interface SwimContext extends Durable, Volatile {}

const never = Number.POSITIVE_INFINITY

export const initialContext: SwimContext = {
  incarnation: 0,
  id: "",
  address: "",
  meta: "",
  settings: null,
  table: Table.empty,
  queue: Queue.empty,
  deadlines: Deadlines.empty,
  round: noRound,
  probe: null,
  relayed: [],
  sequence: 0,
  health: 0,
  seeds: [],
  metMs: 0,
  graceMs: 0,
  periodAtMs: never,
  gossipAtMs: never,
  compareAtMs: never,
  reconnectAtMs: never,
  joinAtMs: never,
  leftAtMs: never,
  greetAtMs: 0
}

type KeptFact = Extract<SwimFact, { readonly type: "swim.incarnated" }>

/** What the fact that is kept makes of what is kept; the same live, on replay and within a step. */
export const keep = (_before: Durable, { incarnation }: KeptFact): Durable => ({ incarnation })

type Draft = { -readonly [Key in keyof Volatile]: Volatile[Key] }

const factOf = {
  alone: "swim.parted",
  member: "swim.met",
  leaving: "swim.leaving",
  left: "swim.left"
} as const

export class Step {
  readonly nowMs: number
  readonly settings: SwimSettings
  kept: Durable
  role: Role
  /** The working copy. */
  readonly now: Draft
  readonly #facts: Array<SwimFact> = []
  readonly #asks: Array<SwimRequest> = []
  #seed: number
  #moved = false

  /** `chance`, from 0 up to 1, is all the randomness that the step has. */
  constructor(context: SwimContext, role: Role, nowMs: number, chance: number, settings = context.settings) {
    if (settings === null) throw new Error("swim: nothing may be said before swim.begin")
    const { incarnation, ...now } = context
    this.kept = { incarnation }
    this.now = now
    this.role = role
    this.nowMs = nowMs
    this.settings = settings
    this.#seed = Math.floor(chance * 2 ** 32) >>> 0
  }

  /** From 0 up to, not including, 1 (splitmix32). */
  random(): number {
    this.#seed = (this.#seed + 0x9e3779b9) >>> 0
    let z = this.#seed
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad)
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
    return ((z ^ (z >>> 15)) >>> 0) / 2 ** 32
  }

  /** From 0 to `count - 1`. */
  pick(count: number): number {
    return Math.floor(this.random() * count)
  }

  /** The time so many milliseconds from now; clocks show whole ones. */
  after(delayMs: number): number {
    return this.nowMs + Math.ceil(delayMs)
  }

  get incarnation(): number {
    return this.kept.incarnation
  }

  /** What it says of itself. */
  get self(): PeerUpdate {
    const { id, address, meta } = this.now
    const status: PeerStatus = this.role === "leaving" || this.role === "left" ? "left" : "alive"
    return { id, status, incarnation: this.incarnation, by: id, address, meta }
  }

  /** How often an update is sent. */
  get retransmits(): number {
    return this.settings.retransmit * Math.ceil(Math.log10(this.now.table.present + 1))
  }

  incarnate(incarnation: number): void {
    const fact = { type: "swim.incarnated", incarnation } as const
    this.kept = keep(this.kept, fact)
    this.#facts.push(fact)
  }

  become(role: Role): void {
    this.role = role
    this.#moved = true
  }

  ask(request: SwimRequest): void {
    this.#asks.push(request)
  }

  nextSequence(): number {
    this.now.sequence = (this.now.sequence + 1) >>> 0
    return this.now.sequence
  }

  /** News for all. */
  spread(update: PeerUpdate): void {
    const { now, settings } = this
    now.queue = now.queue.add(update, settings.queueMax)
    // Members don't gossip in step.
    if (now.gossipAtMs === never) now.gossipAtMs = this.after(settings.gossipEveryMs * this.random())
  }

  /** With `first`, where there is room, and then of the news what fits in. */
  send(to: string, head: SwimHead, first: ReadonlyArray<PeerUpdate> = []): void {
    const { now, settings } = this
    const left = settings.datagramBytesMax - headBytes(now.id, head)
    const datagram = { from: now.id, head, updates: this.#news(left, first) }
    this.#asks.push({ port: "datagram", to, datagram })
  }

  /** Only these, which the caller knows to fit. */
  sendOnly(to: string, head: SwimHead, updates: ReadonlyArray<PeerUpdate>): void {
    this.#asks.push({ port: "datagram", to, datagram: { from: this.now.id, head, updates } })
  }

  #news(bytesMax: number, first: ReadonlyArray<PeerUpdate>): ReadonlyArray<PeerUpdate> {
    const { now } = this
    const told = fitting(first, bytesMax)
    if (now.queue.length === 0) return told.updates
    const { queue, updates } = now.queue.take(told.left, this.retransmits, ({ id, status, incarnation }) => {
      const peer = now.table.get(id)
      return peer !== null && peer.status === status && peer.incarnation === incarnation
    })
    now.queue = queue
    return told.updates.length === 0 ? updates : [...told.updates, ...updates]
  }

  /** The facts, the one that is kept first. */
  facts(): Array<SwimFact> {
    const type = this.#moved ? factOf[this.role] : "swim.noted"
    return [...this.#facts, { type, changes: this.now, asks: this.#asks }]
  }
}

/** What of these fits, and the bytes that are left. */
export function fitting(
  updates: ReadonlyArray<PeerUpdate>,
  bytesMax: number
): { readonly updates: ReadonlyArray<PeerUpdate>; readonly left: number } {
  let left = bytesMax
  const fit: Array<PeerUpdate> = []
  for (const update of updates) {
    const sizeBytes = updateBytes(update)
    if (sizeBytes > left) break
    left -= sizeBytes
    fit.push(update)
  }
  return { updates: fit, left }
}

/** As an entry of a table says it. */
export const updateOf = (
  { id, status, incarnation, address, meta, suspicion }: Peer,
  self: string
): PeerUpdate => ({
  id,
  status,
  incarnation,
  by: suspicion?.by[0] ?? self,
  address,
  meta
})

/** Without what only a member says of itself. */
export const accusation = (
  { id, incarnation }: Pick<Peer, "id" | "incarnation">,
  status: "suspect" | "dead",
  by: string
): PeerUpdate => ({ id, status, incarnation, by, address: "", meta: "" })
