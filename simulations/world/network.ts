/**
 * Datagrams between named ends: each is delayed, and may be lost, doubled, overtaken, cut off or held up. What is
 * drawn per run are the options; what happens to a datagram is drawn when it is sent.
 */
import type { Random } from "./random.ts"
import type { Schedule } from "./schedule.ts"

export interface NetworkOptions {
  readonly delayMinMs: number
  /** Of an exponential distribution on top of the least. */
  readonly delayMeanMs: number
  /** Shares from 0 to 1. */
  readonly loss: number
  readonly duplication: number
  /** Under way from one end to another; more are dropped. */
  readonly capacity: number
}

export interface NetworkCounts {
  sent: number
  lost: number
  duplicated: number
  cut: number
  clogged: number
  overflowed: number
}

export class Network<Datagram> {
  readonly #schedule: Schedule
  readonly #random: Random
  readonly #deliver: (from: string, to: string, datagram: Datagram) => void
  #options: NetworkOptions
  /** `from>to`; one way each. */
  #cuts: ReadonlySet<string> = new Set()
  readonly #clogs = new Map<string, number>()
  readonly #underWay = new Map<string, number>()
  readonly counts: NetworkCounts = { sent: 0, lost: 0, duplicated: 0, cut: 0, clogged: 0, overflowed: 0 }

  constructor(
    schedule: Schedule,
    random: Random,
    options: NetworkOptions,
    deliver: (from: string, to: string, datagram: Datagram) => void
  ) {
    this.#schedule = schedule
    this.#random = random
    this.#options = options
    this.#deliver = deliver
  }

  send(from: string, to: string, datagram: Datagram): void {
    this.counts.sent++
    const { loss, duplication, capacity } = this.#options
    const path = `${from}>${to}`
    if (loss > 0 && this.#random.chance(loss)) {
      this.counts.lost++
      return
    }
    if ((this.#underWay.get(path) ?? 0) >= capacity) {
      this.counts.overflowed++
      return
    }
    this.#carry(path, from, to, datagram)
    if (duplication > 0 && this.#random.chance(duplication)) {
      this.counts.duplicated++
      this.#carry(path, from, to, datagram)
    }
  }

  /** Nothing comes through on these paths, `from>to`, until others are cut; what is under way is lost too. */
  cut(paths: ReadonlySet<string>): void {
    this.#cuts = paths
  }

  get isCut(): boolean {
    return this.#cuts.size > 0
  }

  /** What is sent on this path arrives after `untilMs`. */
  clog(path: string, untilMs: number): void {
    this.#clogs.set(path, untilMs)
  }

  /** No more faults than the delay. */
  heal(): void {
    this.#cuts = new Set()
    this.#clogs.clear()
    this.#options = { ...this.#options, loss: 0, duplication: 0 }
  }

  #carry(path: string, from: string, to: string, datagram: Datagram): void {
    const { delayMinMs, delayMeanMs } = this.#options
    const delayMs = delayMinMs + (delayMeanMs === 0 ? 0 : -Math.log(1 - this.#random.next()) * delayMeanMs)
    const cloggedMs = this.#clogs.get(path) ?? 0
    if (cloggedMs > this.#schedule.nowMs) this.counts.clogged++
    this.#underWay.set(path, (this.#underWay.get(path) ?? 0) + 1)
    this.#schedule.at(Math.max(this.#schedule.nowMs, cloggedMs) + delayMs, () => {
      const others = (this.#underWay.get(path) ?? 1) - 1
      if (others > 0) this.#underWay.set(path, others)
      else this.#underWay.delete(path)
      if (this.#cuts.has(path)) {
        this.counts.cut++
        return
      }
      this.#deliver(from, to, datagram)
    })
  }
}

export const partitionKinds = ["halves", "isolate", "mute", "deaf", "one-way", "random"] as const
export type PartitionKind = (typeof partitionKinds)[number]

/** The paths that a partition of this kind cuts between these ends; `loner` is whom some of them are about. */
export function partition(
  kind: PartitionKind,
  ends: ReadonlyArray<string>,
  loner: string,
  random: Random
): ReadonlySet<string> {
  const cuts = new Set<string>()
  const side = new Map(ends.map((end) => [end, random.chance(0.5)]))
  for (const from of ends)
    for (const to of ends) {
      if (from === to) continue
      const isCut = {
        halves: side.get(from) !== side.get(to),
        isolate: from === loner || to === loner,
        mute: from === loner,
        deaf: to === loner,
        "one-way": side.get(from) === true && side.get(to) === false,
        random: random.chance(0.4)
      }[kind]
      if (isCut) cuts.add(`${from}>${to}`)
    }
  return cuts
}
