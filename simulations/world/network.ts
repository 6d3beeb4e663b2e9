/**
 * Datagrams between named ends: each is delayed, and may be lost, doubled, overtaken, cut off or held up. What is
 * drawn per run are the options; what happens to a datagram is drawn when it is sent, from its path's own chance and
 * always as often, so that a path's datagrams fare the same whatever is left out elsewhere.
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

interface Path {
  readonly random: Random
  /** Of the cuts that it is in. */
  cuts: number
  /** What is sent before arrives after. */
  cloggedMs: number
  underWay: number
  /** When all that is under way has arrived. */
  emptyMs: number
  sent: number
  /** Of those that have arrived, the one that was sent last. */
  latest: number
}

export class Network<Datagram> {
  readonly #schedule: Schedule
  readonly #random: Random
  readonly #deliver: (from: string, to: string, datagram: Datagram) => void
  #options: NetworkOptions
  /** By `from>to`; one way each. */
  readonly #paths = new Map<string, Path>()
  #cuts = 0
  /** Counts how often all was healed: what was cut before needs no healing. */
  #era = 0
  readonly #isLarge: boolean
  /** Arrived after what was sent later on the same path. Not among the counts, of which the hashes of lives are made. */
  overtaken = 0
  readonly counts: NetworkCounts = { sent: 0, lost: 0, duplicated: 0, cut: 0, clogged: 0, overflowed: 0 }

  constructor(
    schedule: Schedule,
    random: Random,
    options: NetworkOptions,
    deliver: (from: string, to: string, datagram: Datagram) => void,
    /** Draws for all paths together, and keeps none that is idle: a run without one of its faults is another run. */
    isLarge = false
  ) {
    this.#isLarge = isLarge
    this.#schedule = schedule
    this.#random = random
    this.#options = options
    this.#deliver = deliver
  }

  send(from: string, to: string, datagram: Datagram): void {
    this.counts.sent++
    const { loss, duplication, capacity } = this.#options
    const path = this.#path(`${from}>${to}`)
    const isLost = path.random.next() < loss
    const isDoubled = path.random.next() < duplication
    const [delay, other] = [path.random.next(), path.random.next()]
    if (isLost) {
      this.counts.lost++
      return
    }
    if (path.underWay >= capacity) {
      this.counts.overflowed++
      return
    }
    path.sent++
    this.#carry(path, delay, from, to, datagram)
    if (isDoubled) {
      this.counts.duplicated++
      this.#carry(path, other, from, to, datagram)
    }
  }

  /** As the end of a connection: nothing that was sent before comes after it. */
  sendLast(from: string, to: string, datagram: Datagram): void {
    const path = this.#path(`${from}>${to}`)
    path.sent++
    this.#carry(path, path.random.next(), from, to, datagram, path.emptyMs)
  }

  /** Nothing comes through on these paths, `from>to`; what is under way is lost too. Returns what ends the cut. */
  cut(paths: ReadonlyArray<string>): () => void {
    const era = this.#era
    this.#cuts++
    for (const name of paths) this.#path(name).cuts++
    let isCut = true
    return () => {
      if (!isCut || era !== this.#era) return
      isCut = false
      this.#cuts--
      for (const name of paths) this.#path(name).cuts--
    }
  }

  get isCut(): boolean {
    return this.#cuts > 0
  }

  /** What is sent on this path arrives after `untilMs`. */
  clog(path: string, untilMs: number): void {
    const clogged = this.#path(path)
    clogged.cloggedMs = Math.max(clogged.cloggedMs, untilMs)
  }

  /** No more faults than the delay. */
  heal(): void {
    this.#era++
    this.#cuts = 0
    for (const path of this.#paths.values()) Object.assign(path, { cuts: 0, cloggedMs: 0 })
    this.#options = { ...this.#options, loss: 0, duplication: 0 }
  }

  #path(name: string): Path {
    const known = this.#paths.get(name)
    if (known !== undefined) return known
    const random = this.#isLarge ? this.#random : this.#random.split(name)
    const path = { random, cuts: 0, cloggedMs: 0, underWay: 0, emptyMs: 0, sent: 0, latest: 0 }
    this.#paths.set(name, path)
    return path
  }

  /** Of a large network most paths are used once in a while. */
  #forget(from: string, to: string, { underWay, cuts, cloggedMs }: Path): void {
    if (underWay === 0 && cuts === 0 && cloggedMs <= this.#schedule.nowMs) this.#paths.delete(`${from}>${to}`)
  }

  #carry(path: Path, draw: number, from: string, to: string, datagram: Datagram, leastMs = 0): void {
    const { delayMinMs, delayMeanMs } = this.#options
    const delayMs = delayMinMs + (delayMeanMs === 0 ? 0 : -Math.log(1 - draw) * delayMeanMs)
    if (path.cloggedMs > this.#schedule.nowMs) this.counts.clogged++
    path.underWay++
    const place = path.sent
    const arrivesMs = Math.max(this.#schedule.nowMs, path.cloggedMs, leastMs) + delayMs
    path.emptyMs = Math.max(path.emptyMs, arrivesMs)
    this.#schedule.at(arrivesMs, () => {
      path.underWay--
      const isCut = path.cuts > 0
      if (this.#isLarge) this.#forget(from, to, path)
      if (isCut) {
        this.counts.cut++
        return
      }
      if (place < path.latest) this.overtaken++
      path.latest = Math.max(path.latest, place)
      this.#deliver(from, to, datagram)
    })
  }
}

export const partitionKinds = ["halves", "isolate", "mute", "deaf", "one-way", "random"] as const
export type PartitionKind = (typeof partitionKinds)[number]

/** By kind: how many have cut something. */
export type PartitionCounts = Record<`partition ${PartitionKind}`, number>
export const noPartitions = (): PartitionCounts =>
  Object.fromEntries(partitionKinds.map((kind) => [`partition ${kind}`, 0])) as PartitionCounts

/** The paths that a partition of this kind cuts between these ends; `loner` is whom some of them are about. */
export function partition(
  kind: PartitionKind,
  ends: ReadonlyArray<string>,
  loner: string,
  random: Random
): ReadonlyArray<string> {
  const side = new Map(ends.map((end) => [end, random.chance(0.5)]))
  return pathsAmong(ends, (from, to) => {
    switch (kind) {
      case "halves":
        return side.get(from) !== side.get(to)
      case "isolate":
        return from === loner || to === loner
      case "mute":
        return from === loner
      case "deaf":
        return to === loner
      case "one-way":
        return side.get(from) === true && side.get(to) === false
      case "random":
        return random.chance(0.4)
    }
  })
}

/** The paths between two sides, both ways. */
export const between = (ends: ReadonlyArray<string>, isInside: (end: string) => boolean) =>
  pathsAmong(ends, (from, to) => isInside(from) !== isInside(to))

function pathsAmong(
  ends: ReadonlyArray<string>,
  isCut: (from: string, to: string) => boolean
): ReadonlyArray<string> {
  const paths: Array<string> = []
  for (const from of ends)
    for (const to of ends) if (from !== to && isCut(from, to)) paths.push(`${from}>${to}`)
  return paths
}
