/**
 * A process with a member: the production actor in the production replica, on a simulated disk, network and clock. What
 * survives a crash is the disk, with its incarnation.
 */
import type { Message } from "../../src/events/envelope.ts"
import type { SwimCommand, SwimDatagram, SwimRequest, SwimSettings } from "../../src/events/swim.ts"
import { swimActor } from "../../src/actors/swim/chart.ts"
import { wakesAtMs } from "../../src/actors/swim/decide.ts"
import type { SwimContext } from "../../src/actors/swim/step.ts"
import { Replica } from "../../src/kernel/replica.ts"
import type { Clock } from "../world/clock.ts"
import { Disk } from "../world/disk.ts"
import type { DiskOptions } from "../world/disk.ts"
import type { Random } from "../world/random.ts"
import type { Schedule } from "../world/schedule.ts"

/** Sees what every member does; the checkers do. */
export interface Watcher {
  readonly stepped: (
    member: Member,
    input: SwimCommand,
    before: SwimContext,
    asked: ReadonlyArray<SwimRequest>
  ) => void
  /** It leaves the process, after what it needs was on the disk. */
  readonly sent: (member: Member, datagram: SwimDatagram) => void
}

export interface MemberOptions {
  /** Its address too. */
  readonly id: string
  readonly meta: string
  readonly settings: SwimSettings
  readonly seeds: ReadonlyArray<string>
  readonly disk: DiskOptions
  readonly clock: Clock
  /** Datagrams that wait while the process stands still; more are dropped. */
  readonly bufferedMax: number
}

interface World {
  readonly schedule: Schedule
  readonly random: Random
  readonly send: (from: string, to: string, datagram: SwimDatagram) => void
  readonly watcher: Watcher
}

export class Member {
  readonly id: string
  readonly options: MemberOptions
  readonly #world: World
  disk: Disk
  isUp = false
  /** It has left, and its process has ended. */
  hasLeft = false
  /** Counts the times it was started. */
  life = 0
  /** Stands still until then. */
  pausedMs = 0
  /** Nothing goes out or comes in until then, while its timers run: its messages are not worked on. */
  heldUpMs = 0
  meta: string
  #buffered = 0
  #replica!: Replica<SwimRequest>
  #wakeMs = Number.POSITIVE_INFINITY

  constructor(world: World, options: MemberOptions) {
    this.#world = world
    this.options = options
    this.id = options.id
    this.meta = options.meta
    this.disk = this.#emptyDisk()
  }

  #emptyDisk(): Disk {
    const { schedule, random } = this.#world
    return new Disk(schedule, random.split(`disk ${this.life}`), this.options.disk, this.id)
  }

  get role(): string {
    return this.#replica.state.value as string
  }

  get context(): SwimContext {
    return this.#replica.state.context as SwimContext
  }

  get replica(): Replica<SwimRequest> {
    return this.#replica
  }

  /** Start the process on what its disk has. */
  start(): void {
    const { seeds, settings } = this.options
    this.#open(this.disk.facts)
    const { id, meta } = this
    this.take({ type: "swim.begin", id, address: id, meta, settings, chance: this.#world.random.next() })
    this.take({ type: "swim.join", seeds, chance: this.#world.random.next() })
  }

  /** Go on as one that has run for a while: `facts` say what it knows, those that are not kept among them. */
  resume(facts: ReadonlyArray<Message>): void {
    this.#open(facts)
    this.#wake()
  }

  #open(facts: ReadonlyArray<Message>): void {
    this.isUp = true
    this.hasLeft = false
    this.life++
    this.#buffered = 0
    this.#wakeMs = Number.POSITIVE_INFINITY
    this.#replica = new Replica<SwimRequest>(swimActor, `swim/${this.id}`)
    this.#replica.restore(facts)
  }

  crash(): void {
    this.isUp = false
    this.disk.crash()
  }

  /** What was on its disk is gone. */
  wipe(): void {
    this.disk = this.#emptyDisk()
  }

  /** Run when the process is up, in this life, and not paused. */
  #later(delayMs: number, run: () => void): void {
    const { life } = this
    this.#world.schedule.after(delayMs, () => this.#whenAwake(life, run))
  }

  #whenAwake(life: number, run: () => void): void {
    if (!this.isUp || this.life !== life) return
    const { schedule } = this.#world
    if (this.pausedMs > schedule.nowMs) schedule.at(this.pausedMs, () => this.#whenAwake(life, run))
    else run()
  }

  get isPaused(): boolean {
    return this.pausedMs > this.#world.schedule.nowMs
  }

  receive(from: string, datagram: SwimDatagram): void {
    if (!this.isUp) return
    const { life } = this
    const take = () =>
      this.take({ type: "swim.receive", address: from, datagram, chance: this.#world.random.next() })
    if (!this.isPaused && !this.#isHeldUp) return take()
    if (this.#buffered >= this.options.bufferedMax) return
    this.#buffered++
    const { schedule } = this.#world
    schedule.at(Math.max(this.heldUpMs, schedule.nowMs), () =>
      this.#whenAwake(life, () => {
        this.#buffered--
        take()
      })
    )
  }

  get #isHeldUp(): boolean {
    return this.heldUpMs > this.#world.schedule.nowMs
  }

  #send(to: string, datagram: SwimDatagram): void {
    const { life } = this
    const send = () => {
      this.#world.watcher.sent(this, datagram)
      this.#world.send(this.id, to, datagram)
    }
    if (!this.#isHeldUp) return send()
    this.#world.schedule.at(this.heldUpMs, () => {
      if (this.isUp && this.life === life) send()
    })
  }

  /** What its operator asks; nothing when it is down or stands still. */
  operate(input: SwimCommand): void {
    if (this.isUp && !this.isPaused) this.take(input)
  }

  describe(meta: string): void {
    if (!this.isUp || this.isPaused || this.role === "leaving") return
    this.meta = meta
    this.take({ type: "swim.describe", meta, chance: this.#world.random.next() })
  }

  take(input: SwimCommand): void {
    const before = this.context
    const { now, facts } = this.#replica.take(input, this.nowMs)
    this.#world.watcher.stepped(this, input, before, now)
    if (facts.length > 0) this.#keep(facts)
    for (const request of now) this.#perform(request)
    this.#wake()
  }

  #keep(facts: ReadonlyArray<Message>): void {
    const { life } = this
    this.disk.append(facts, () =>
      this.#whenAwake(life, () => {
        for (const request of this.#replica.stored(facts.length)) this.#perform(request)
      })
    )
  }

  /** What its clock shows. */
  get nowMs(): number {
    return this.options.clock.shows(this.#world.schedule.nowMs)
  }

  /** One timer at a time; where it was put off meanwhile it is set again. */
  #wake(): void {
    if (!this.isUp) return
    const dueMs = this.options.clock.worldMs(wakesAtMs(this.role, this.context))
    if (dueMs >= this.#wakeMs || dueMs === Number.POSITIVE_INFINITY) return
    const atMs = Math.max(dueMs, this.#world.schedule.nowMs)
    this.#wakeMs = atMs
    this.#later(atMs - this.#world.schedule.nowMs, () => {
      if (this.#wakeMs !== atMs) return
      this.#wakeMs = Number.POSITIVE_INFINITY
      if (this.nowMs >= wakesAtMs(this.role, this.context))
        this.take({ type: "swim.tick", chance: this.#world.random.next() })
      else this.#wake()
    })
  }

  #perform(request: SwimRequest): void {
    if (!this.isUp) return
    if (request.port === "datagram") this.#send(request.to, request.datagram)
    else if (request.port === "process") {
      this.isUp = false
      this.hasLeft = true
    }
  }
}
