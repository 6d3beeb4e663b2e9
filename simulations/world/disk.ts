/**
 * A disk that facts are appended to. What is written counts when it is synced; one sync is under way at a time and takes
 * with it all that was written before it began. A crash keeps a part of what was not synced, and loses the rest.
 *
 * Where it is to do worse it has records as well: what lies there may rot, get lost, or be overwritten by what belongs
 * elsewhere, and nobody notices before they are opened again.
 */
import type { Message } from "../../src/events/envelope.ts"
import { open, seal } from "../../src/kernel/records.ts"
import type { Found, Opened, Sealed } from "../../src/kernel/records.ts"
import type { Random } from "./random.ts"
import type { Schedule } from "./schedule.ts"

export interface DiskOptions {
  readonly syncMinMs: number
  readonly syncMeanMs: number
  /** Of syncs that take a hundred times as long. */
  readonly stalls: number
  /** Of facts that were written and not synced, the share that a crash loses. */
  readonly lostAtCrash: number
  /** Keep records, so that there is something to be damaged. */
  readonly hasRecords: boolean
}

export interface DiskCounts {
  syncs: number
  stalls: number
  lostFacts: number
  tornWrites: number
  /** Operations that ended with an error, as they were told to or as there was no room. */
  writeErrors: number
  syncErrors: number
  fullErrors: number
}

interface Write {
  readonly facts: ReadonlyArray<Message>
  readonly synced: () => void
  /** These stand for all that were there before. They are there together, or none of them. */
  readonly isAnew: boolean
}

export type Damage = "rot" | "lost" | "misdirected"

export class Disk {
  readonly #schedule: Schedule
  readonly #random: Random
  readonly #options: DiskOptions
  readonly #owner: string
  /** What a restart finds. */
  readonly facts: Array<Message> = []
  /** The same facts as they lie there. */
  #records: Array<Found> = []
  #last: Sealed | null = null
  /** So many were on the disk before the last sync began, and the disk knows. */
  #acknowledged = 0
  /** Verified, and not touched since. */
  #verified = 0
  #isTouched = false
  /** Counts the times that `facts` became others than they were. */
  generation = 0
  /** How often it was begun anew. */
  rewrites = 0
  #written: Array<Write> = []
  #syncing: ReadonlyArray<Write> = []
  #stalledMs = 0
  #fullMs = 0
  #fails: "write" | "sync" | null = null
  /** A crash ends a life: what it had begun does not come to its end. */
  #life = 0
  readonly counts: DiskCounts = {
    ...{ syncs: 0, stalls: 0, lostFacts: 0, tornWrites: 0 },
    ...{ writeErrors: 0, syncErrors: 0, fullErrors: 0 }
  }
  /** The process is told of an error. */
  onError: (() => void) | null = null
  onSync: (() => void) | null = null

  constructor(schedule: Schedule, random: Random, options: DiskOptions, owner: string) {
    this.#schedule = schedule
    this.#random = random
    this.#options = options
    this.#owner = owner
  }

  /** `synced` is called when these facts would be found after a crash. False when there was an error. */
  append(facts: ReadonlyArray<Message>, synced: () => void): boolean {
    if (this.isFull || this.#fails === "write") {
      this.counts[this.isFull ? "fullErrors" : "writeErrors"]++
      this.#fails = null
      return false
    }
    this.#written.push({ facts, synced, isAnew: false })
    if (this.#syncing.length === 0) this.#sync()
    return true
  }

  /** Begin anew with these, which stand for all that was written before: the one before is gone when the new one is there. */
  rewrite(facts: ReadonlyArray<Message>): void {
    this.#written.push({ facts, synced: () => {}, isAnew: true })
    if (this.#syncing.length === 0) this.#sync()
  }

  /** No sync that begins from now on ends before. */
  stall(untilMs: number): void {
    this.#stalledMs = Math.max(this.#stalledMs, untilMs)
  }

  /** Nothing can be written before. */
  fill(untilMs: number): void {
    this.#fullMs = Math.max(this.#fullMs, untilMs)
  }

  /** The next one ends with an error. */
  fail(operation: "write" | "sync"): void {
    this.#fails = operation
  }

  get isFull(): boolean {
    return this.#schedule.nowMs < this.#fullMs
  }

  /** No more errors. What is damaged stays so. */
  mend(): void {
    this.#fullMs = 0
    this.#stalledMs = 0
    this.#fails = null
  }

  #sync(): void {
    // What stands for all the rest is synced alone.
    const anew = this.#written.findIndex(({ isAnew }) => isAnew)
    this.#syncing = this.#written.splice(0, anew < 0 ? this.#written.length : Math.max(1, anew))
    const { syncMinMs, syncMeanMs, stalls } = this.#options
    const isStalled = stalls > 0 && this.#random.chance(stalls)
    const tookMs = (syncMinMs - Math.log(1 - this.#random.next()) * syncMeanMs) * (isStalled ? 100 : 1)
    this.counts.syncs++
    if (isStalled) this.counts.stalls++
    const life = this.#life
    this.#schedule.at(Math.max(this.#schedule.nowMs + tookMs, this.#stalledMs), () => {
      if (life !== this.#life) return
      if (this.#fails === "sync") {
        this.counts.syncErrors++
        this.#fails = null
        this.onError?.()
        return
      }
      const done = this.#syncing
      this.#syncing = []
      this.#acknowledged = this.facts.length
      for (const one of done) this.#write(one)
      for (const { synced } of done) if (life === this.#life) synced()
      if (life === this.#life && this.#syncing.length === 0 && this.#written.length > 0) this.#sync()
      this.onSync?.()
    })
  }

  #write({ facts, isAnew }: Pick<Write, "facts" | "isAnew">): void {
    if (isAnew) {
      this.generation++
      this.facts.length = 0
      this.#records = []
      this.#last = null
      this.#verified = 0
      this.rewrites++
    }
    this.#put(facts)
    if (isAnew) this.#acknowledged = facts.length
  }

  #put(facts: ReadonlyArray<Message>): void {
    this.facts.push(...facts)
    if (!this.#options.hasRecords) return
    for (const fact of facts)
      this.#records.push((this.#last = seal(this.#owner, this.#last, JSON.stringify(fact))))
  }

  /** Before the first start. */
  format(fact: Message): void {
    this.#put([fact])
    this.#acknowledged = 1
  }

  /** The process ends, and the machine does not: the system has what was written, and not what waits for its turn. */
  kill(): void {
    this.#life++
    const written = this.#syncing
    this.#syncing = []
    this.#written = []
    for (const one of written) this.#write(one)
  }

  /** In the order in which they were written a part is found again; the rest never was. */
  crash(): void {
    this.#life++
    const unsynced = [...this.#syncing, ...this.#written].flatMap(
      ({ facts, isAnew }): Array<Pick<Write, "facts" | "isAnew">> =>
        isAnew ? [{ facts, isAnew }] : facts.map((fact) => ({ facts: [fact], isAnew }))
    )
    this.#syncing = []
    this.#written = []
    let kept = 0
    while (kept < unsynced.length && !this.#random.chance(this.#options.lostAtCrash)) kept++
    if (kept > 0 && kept < unsynced.length) this.counts.tornWrites++
    this.counts.lostFacts += unsynced.length - kept
    for (const one of unsynced.slice(0, kept)) this.#write(one)
    const next = unsynced[kept]
    const torn = next?.isAnew === false ? next.facts[0] : undefined
    if (torn === undefined || !this.#options.hasRecords || !this.#random.chance(0.5)) return
    const whole = seal(this.#owner, this.#last, JSON.stringify(torn))
    this.#records.push({ ...whole, text: whole.text.slice(0, whole.text.length / 2) })
  }

  /**
   * Something that was acknowledged is no more what it was, at a place from 0 up to 1. (Damage to what was not marked as
   * acknowledged yet can't be told from a torn end: ADR 12.) False when there is nothing.
   */
  damage(how: Damage, place: number): boolean {
    const at = Math.floor(place * this.#acknowledged)
    const one = this.#records[at]
    if (one == null || (how === "misdirected" && this.#acknowledged < 2)) return false
    this.#verified = Math.min(this.#verified, at)
    this.#isTouched = true
    if (how === "rot") {
      const rotten = Math.floor(place * one.text.length)
      const unit = String.fromCharCode(one.text.charCodeAt(rotten) ^ 1)
      this.#records[at] = { ...one, text: one.text.slice(0, rotten) + unit + one.text.slice(rotten + 1) }
    } else this.#records[at] = how === "lost" ? null : (this.#records[at === 0 ? 1 : at - 1] ?? null)
    return true
  }

  /** As a process does that starts: verify all, and cut off a torn end. */
  open(): Opened["state"] {
    if (!this.#options.hasRecords) return "whole"
    const { state, intact } = open(this.#owner, this.#records, this.#acknowledged, this.#verified)
    if (state === "damaged") return state
    this.#verified = intact
    this.#records.length = intact
    if (this.#isTouched) this.#read()
    this.#last = this.#records.at(-1) ?? null
    return state
  }

  /** Whoever takes damaged records for good ones gets what they say. */
  #read(): void {
    this.generation++
    this.facts.length = 0
    for (const one of this.#records) if (one !== null) this.facts.push(JSON.parse(one.text) as Message)
  }
}
