/**
 * Connections between processes, as `src/live/consensus/peers.ts` has them: each pair has one, made by whoever notices that there
 * is none. What is sent over it arrives in order, or not at all; whoever hears nothing for a while ends it, and is told that the
 * other is lost. While a path is cut what is sent on it waits, as in a system's buffers, and is gone with the connection.
 */
import type { Random } from "./random.ts"
import type { Schedule } from "./schedule.ts"

export interface WiresOptions {
  readonly delayMinMs: number
  /** Of an exponential distribution on top of the least. */
  readonly delayMeanMs: number
  /** Share of what is sent that goes by a second connection, and may overtake, or be overtaken by, what goes by the first. */
  readonly crossings: number
  /** Share of what may arrive twice that does. */
  readonly duplication: number
  /** How often each looks whether it hears of the other, and makes a connection where there is none. */
  readonly tendEveryMs: number
  /** On a path; what is beyond it is not sent, and who sends is told so, as by a connection whose buffer is full. */
  readonly underWay_max: number
}

export interface WireCounts {
  sent: number
  duplicated: number
  crossed: number
  /** Arrived after what was sent later on the same path. */
  overtaken: number
  held: number
  /** Sent, and gone with its connection. */
  lost: number
  connections: number
  ended: number
  overflowed: number
}

/** A process, as the wires see it. */
export interface End<Message> {
  readonly isUp: boolean
  /** Neither paused nor down. */
  readonly isAwake: boolean
  readonly receive: (from: string, message: Message) => void
  /** A connection has ended; `isCurrent` when it was the one that was sent by. */
  readonly lost: (peer: string, isCurrent: boolean) => void
}

interface Connection {
  /** Those that have not ended it. */
  readonly open: Set<string>
  /** By sender: when what it sent last arrives. */
  readonly lastMs: Map<string, number>
  /** By who listens: looks in a row at which nothing was heard. */
  readonly misses: Map<string, number>
}

interface Path {
  readonly random: Random
  cuts: number
  cloggedMs: number
  underWay: number
  sent: number
  /** Of those that have arrived, the one that was sent last. */
  latest: number
  held: Array<() => void>
}

/** As `missed_max` there. */
const misses_max = 4

export class Wires<Message> {
  readonly #schedule: Schedule
  readonly #random: Random
  readonly #options: WiresOptions
  readonly #mayRepeat: (message: Message) => boolean
  readonly #ends = new Map<string, End<Message>>()
  /** By both names in order: the one that each would send by. */
  readonly #connections = new Map<string, Connection>()
  readonly #paths = new Map<string, Path>()
  #cuts = 0
  #era = 0
  #isHealed = false
  readonly counts: WireCounts = {
    sent: 0,
    duplicated: 0,
    crossed: 0,
    overtaken: 0,
    held: 0,
    lost: 0,
    connections: 0,
    ended: 0,
    overflowed: 0
  }

  constructor(
    schedule: Schedule,
    random: Random,
    options: WiresOptions,
    mayRepeat: (message: Message) => boolean
  ) {
    this.#schedule = schedule
    this.#random = random
    this.#options = options
    this.#mayRepeat = mayRepeat
  }

  /** From now on it is there to be reached. */
  add(name: string, end: End<Message>): void {
    this.#ends.set(name, end)
    const tend = () => {
      if (end.isAwake) for (const other of this.#ends.keys()) if (other !== name) this.#tend(name, other)
      this.#schedule.after(this.#options.tendEveryMs, tend)
    }
    this.#schedule.after(this.#random.next() * this.#options.tendEveryMs, tend)
  }

  connected(from: string, to: string): boolean {
    return this.#connections.get(pairOf(from, to))?.open.has(from) === true
  }

  /** False when there is no connection. */
  send(from: string, to: string, message: Message): boolean {
    const connection = this.#connections.get(pairOf(from, to))
    if (connection?.open.has(from) !== true) return false
    const { crossings, duplication, underWay_max } = this.#options
    const path = this.#path(from, to)
    const delays = [path.random.next(), path.random.next()] as const
    const isCrossing = path.random.chance(crossings)
    const isDoubled = path.random.chance(duplication) && !this.#isHealed && this.#mayRepeat(message)
    this.counts.sent++
    if (path.underWay >= underWay_max && !this.#isHealed) {
      this.counts.overflowed++
      return false
    }
    path.sent++
    this.#carry(connection, from, to, message, delays[0], isCrossing && !this.#isHealed)
    if (isDoubled) {
      this.counts.duplicated++
      this.#carry(connection, from, to, message, delays[1], true)
    }
    return true
  }

  /** Nothing comes through on these paths, `from>to`, before what is returned is called. */
  cut(paths: ReadonlyArray<string>): () => void {
    const era = this.#era
    this.#cuts++
    for (const name of paths) this.#named(name).cuts++
    let isCut = true
    return () => {
      if (!isCut || era !== this.#era) return
      isCut = false
      this.#cuts--
      for (const name of paths) {
        const path = this.#named(name)
        path.cuts--
        if (path.cuts === 0) this.#release(path)
      }
    }
  }

  get isCut(): boolean {
    return this.#cuts > 0
  }

  /** What is sent on this path arrives after `untilMs`. */
  clog(name: string, untilMs: number): void {
    const path = this.#named(name)
    path.cloggedMs = Math.max(path.cloggedMs, untilMs)
  }

  /** The connection of these two ends, for both, and what is under way is gone. */
  break(one: string, other: string): boolean {
    const connection = this.#connections.get(pairOf(one, other))
    if (connection === undefined) return false
    for (const [from, to] of [
      [one, other],
      [other, one]
    ] as const)
      this.#schedule.after(this.#delayMs(this.#path(from, to).random.next()), () =>
        this.#end(connection, to, from)
      )
    return true
  }

  /** Its process is gone, and its system is there to say so; or nobody is, when the machine has lost its power. */
  gone(name: string, isSilent: boolean): void {
    for (const other of this.#ends.keys()) {
      const connection = this.#connections.get(pairOf(name, other))
      if (other === name || connection === undefined || !connection.open.delete(name)) continue
      if (!isSilent) this.#finish(connection, name, other)
    }
  }

  /** No more faults than the delay. */
  heal(): void {
    this.#era++
    this.#cuts = 0
    this.#isHealed = true
    for (const path of this.#paths.values()) {
      Object.assign(path, { cuts: 0, cloggedMs: 0 })
      this.#release(path)
    }
  }

  #named(name: string): Path {
    const [from = "", to = ""] = name.split(">")
    return this.#path(from, to)
  }

  #path(from: string, to: string): Path {
    const name = `${from}>${to}`
    let path = this.#paths.get(name)
    if (path === undefined)
      this.#paths.set(
        name,
        (path = {
          random: this.#random.split(name),
          cuts: 0,
          cloggedMs: 0,
          underWay: 0,
          sent: 0,
          latest: 0,
          held: []
        })
      )
    return path
  }

  #delayMs(draw: number): number {
    const { delayMinMs, delayMeanMs } = this.#options
    return delayMinMs + (delayMeanMs === 0 ? 0 : -Math.log(1 - draw) * delayMeanMs)
  }

  #release(path: Path): void {
    const { held } = path
    path.held = []
    for (const arrive of held) arrive()
  }

  #carry(
    connection: Connection,
    from: string,
    to: string,
    message: Message,
    draw: number,
    isApart: boolean
  ): void {
    const path = this.#path(from, to)
    const soonestMs = Math.max(this.#schedule.nowMs, path.cloggedMs) + this.#delayMs(draw)
    const atMs = isApart ? soonestMs : Math.max(soonestMs, connection.lastMs.get(from) ?? 0)
    if (isApart) this.counts.crossed++
    else connection.lastMs.set(from, atMs)
    path.underWay++
    const place = path.sent
    this.#arriving(path, atMs, isApart, () => {
      path.underWay--
      const end = this.#ends.get(to)
      if (end?.isUp !== true || !connection.open.has(to)) this.counts.lost++
      else {
        if (place < path.latest) this.counts.overtaken++
        path.latest = Math.max(path.latest, place)
        end.receive(from, message)
      }
    })
  }

  /** Of what is due at the same time the one that was sent first is first. */
  #arriving(path: Path, atMs: number, isApart: boolean, arrive: () => void): void {
    const due = () => {
      if (path.cuts === 0 && (isApart || path.held.length === 0)) return arrive()
      this.counts.held++
      path.held.push(arrive)
    }
    if (isApart) this.#schedule.at(atMs, due)
    else this.#schedule.at(atMs, due, 0.5 + this.#sent++ * 1e-12)
  }
  #sent = 0

  /** Who hears nothing ends it; who has none makes one, when both can be reached. */
  #tend(name: string, other: string): void {
    const connection = this.#connections.get(pairOf(name, other))
    const hears = this.#hears(name, other)
    if (connection?.open.has(name) === true) {
      const isQuiet = !hears || !connection.open.has(other)
      const misses = isQuiet ? (connection.misses.get(name) ?? 0) + 1 : 0
      connection.misses.set(name, misses)
      if (misses >= misses_max) this.#end(connection, name, other)
      return
    }
    if (hears && this.#hears(other, name)) this.#make(name, other)
  }

  #hears(name: string, other: string): boolean {
    const path = this.#path(other, name)
    return (
      path.cuts === 0 && path.cloggedMs <= this.#schedule.nowMs && this.#ends.get(other)?.isAwake === true
    )
  }

  /** It takes the place of one that the other has not ended yet. */
  #make(name: string, other: string): void {
    this.counts.connections++
    const connection = { open: new Set([name, other]), lastMs: new Map(), misses: new Map() }
    this.#connections.set(pairOf(name, other), connection)
  }

  #end(connection: Connection, name: string, other: string): void {
    if (!connection.open.delete(name)) return
    this.counts.ended++
    this.#finish(connection, name, other)
    const isCurrent = this.#connections.get(pairOf(name, other)) === connection
    this.#ends.get(name)?.lost(other, isCurrent)
  }

  /** The other hears of the end behind all that was sent before. */
  #finish(connection: Connection, name: string, other: string): void {
    const path = this.#path(name, other)
    const soonestMs = Math.max(this.#schedule.nowMs, path.cloggedMs) + this.#options.delayMinMs
    const atMs = Math.max(soonestMs, connection.lastMs.get(name) ?? 0)
    this.#arriving(path, atMs, false, () => this.#end(connection, other, name))
  }
}

const pairOf = (one: string, other: string): string => (one < other ? `${one} ${other}` : `${other} ${one}`)
