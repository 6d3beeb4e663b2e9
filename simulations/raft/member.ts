/**
 * A process with a member of the group: the production actor in the production replica, on a simulated disk, network and
 * clock. What survives a crash is the disk, with the facts and the last snapshot.
 */
import type { Message } from "../../src/events/envelope.ts"
import type {
  Entry,
  Members,
  RaftCommand,
  RaftMessage,
  RaftRequest,
  RaftSettings
} from "../../src/events/raft.ts"
import { raftActor } from "../../src/actors/raft/chart.ts"
import { wakesAtMs } from "../../src/actors/raft/decide.ts"
import type { RaftContext } from "../../src/actors/raft/step.ts"
import { Replica } from "../../src/kernel/replica.ts"
import type { Drifting } from "../world/clock.ts"
import { Disk } from "../world/disk.ts"
import type { DiskOptions } from "../world/disk.ts"
import type { Random } from "../world/random.ts"
import type { Schedule } from "../world/schedule.ts"
import { Machine } from "./machine.ts"
import type { Command, Result } from "./machine.ts"

export type ClientAnswer =
  | { readonly ok: true; readonly result: Result }
  /** Nothing has happened, or nobody here knows: try again, at `leader` when one is known. */
  | { readonly ok: false; readonly leader: string | null }

export interface Snapshot {
  readonly index: number
  readonly term: number
  readonly members: Members
  readonly text: string
}

/** Sees what every member does; the checkers are one. */
export interface Watcher {
  readonly takes: (role: string, input: RaftCommand) => void
  readonly stepped: (member: Member) => void
  readonly applied: (member: Member, entry: Entry, isNew: boolean) => void
  /** Entries that anyone has applied. */
  readonly decided: number
  /** A read is answered by what was applied up to `index`; `decided` was there when it was asked. */
  readonly readable: (member: Member, index: number, decided: number) => void
  readonly sent: (member: Member, message: RaftMessage) => void
}

export interface MemberOptions {
  readonly id: string
  readonly settings: RaftSettings
  readonly disk: DiskOptions
  readonly clock: Drifting
  readonly snapshotEvery: number
  readonly snapshotPartBytes: number
}

interface World {
  readonly schedule: Schedule
  readonly random: Random
  readonly send: (from: string, to: string, message: RaftMessage) => void
  readonly watcher: Watcher
}

interface Asking {
  readonly answer: (answer: ClientAnswer) => void
  readonly key: string | null
  /** Told of the place, for whom that is all. */
  readonly placed: (() => void) | null
  /** How many entries had been applied by anyone when it was asked. */
  readonly decided: number
  /** Of the entry that it became. */
  place: { readonly index: number; readonly term: number } | null
}

export class Member {
  readonly id: string
  readonly options: MemberOptions
  readonly disk: Disk
  readonly #world: World
  snapshot: Snapshot | null = null
  #incoming: { readonly index: number; text: string } | null = null
  isUp = false
  /** Counts the times it was started. */
  life = 0
  /** Stands still until then: a long pause of its process or its machine. */
  pausedMs = 0
  #replica!: Replica<RaftRequest>
  machine = new Machine()
  #asking = new Map<string, Asking>()
  #reading: Array<{ readonly index: number; readonly ticket: string }> = []
  #wakeMs = Number.POSITIVE_INFINITY
  #tickets = 0
  #isCompacting = false

  constructor(world: World, options: MemberOptions) {
    this.#world = world
    this.options = options
    this.id = options.id
    this.disk = new Disk(world.schedule, world.random.split(`disk ${options.id}`), options.disk)
  }

  get role(): string {
    return this.#replica.state.value as string
  }

  get context(): RaftContext {
    return this.#replica.state.context as RaftContext
  }

  get replica(): Replica<RaftRequest> {
    return this.#replica
  }

  /** Start the process on what its disk has. */
  start(): void {
    this.isUp = true
    this.life++
    this.#replica = this.#opened()
    this.machine = new Machine()
    if (this.snapshot !== null) this.machine.restore(this.snapshot.index, this.snapshot.text)
    this.#asking = new Map()
    this.#reading = []
    this.#incoming = null
    this.#wakeMs = Number.POSITIVE_INFINITY
    this.#isCompacting = false
    const { settings } = this.options
    this.take({ type: "raft.begin", id: this.id, settings, chance: this.#world.random.next() })
  }

  #opened(): Replica<RaftRequest> {
    const replica = new Replica<RaftRequest>(raftActor, `raft/${this.id}`)
    replica.restore(this.disk.facts)
    return replica
  }

  /** The state that a restart would find now. */
  replayed(): RaftContext {
    return this.#opened().state.context as RaftContext
  }

  crash(): void {
    this.isUp = false
    this.disk.crash()
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

  receive(from: string, message: RaftMessage): void {
    if (!this.isUp) return
    this.#whenAwake(this.life, () =>
      this.take({ type: "raft.receive", from, message, chance: this.#world.random.next() })
    )
  }

  /** A client's command; reads go by the log or by a read index, as the command says. */
  ask(command: Command, isIndexed: boolean, answer: (answer: ClientAnswer) => void): void {
    if (!this.isUp) return
    this.#whenAwake(this.life, () => {
      const ticket = `${command.session}:${command.sequence}:${this.#tickets++}`
      const { operation } = command
      const isRead = isIndexed && operation.op === "read"
      this.#asking.set(ticket, {
        answer,
        key: isRead ? operation.key : null,
        placed: null,
        decided: this.#world.watcher.decided,
        place: null
      })
      if (isRead) this.take({ type: "raft.read", ticket })
      else this.take({ type: "raft.propose", proposals: [{ ticket, data: JSON.stringify(command) }] })
    })
  }

  /** What operators ask; `done` says whether it found a place. */
  operate(input: Extract<RaftCommand, { readonly ticket: string }>, done: (isPlaced: boolean) => void): void {
    if (!this.isUp || this.pausedMs > this.#world.schedule.nowMs) return done(false)
    this.#asking.set(input.ticket, {
      answer: ({ ok }) => done(ok),
      placed: () => done(true),
      key: null,
      decided: 0,
      place: null
    })
    this.take(input)
  }

  take(input: RaftCommand): void {
    this.#world.watcher.takes(this.role, input)
    const { now, facts } = this.#replica.take(input, this.#nowMs())
    if (facts.length > 0) this.#keep(facts)
    this.#world.watcher.stepped(this)
    for (const request of now) this.#perform(request)
    this.#wake()
  }

  #nowMs(): number {
    return this.options.clock.shows(this.#world.schedule.nowMs)
  }

  #keep(facts: ReadonlyArray<Message>): void {
    const { life } = this
    const appended = facts.findLast(({ type }) => type === "raft.appended")
    const last = (appended?.["entries"] as ReadonlyArray<Entry> | undefined)?.at(-1)
    this.disk.append(facts, () =>
      this.#whenAwake(life, () => {
        for (const request of this.#replica.stored(facts.length)) this.#perform(request)
        if (last !== undefined)
          this.take({
            type: "raft.stored",
            index: last.index,
            term: last.term,
            chance: this.#world.random.next()
          })
      })
    )
  }

  /** One timer at a time; where it was put off meanwhile it is set again. */
  #wake(): void {
    const dueMs = this.options.clock.worldMs(wakesAtMs(this.role, this.context))
    if (dueMs >= this.#wakeMs || dueMs === Number.POSITIVE_INFINITY) return
    const atMs = Math.max(dueMs, this.#world.schedule.nowMs)
    this.#wakeMs = atMs
    this.#later(atMs - this.#world.schedule.nowMs, () => {
      if (this.#wakeMs !== atMs) return
      this.#wakeMs = Number.POSITIVE_INFINITY
      if (this.#nowMs() >= wakesAtMs(this.role, this.context))
        this.take({ type: "raft.tick", chance: this.#world.random.next() })
      else this.#wake()
    })
  }

  #perform(request: RaftRequest): void {
    switch (request.port) {
      case "peer":
        this.#world.watcher.sent(this, request.message)
        return this.#world.send(this.id, request.to, request.message)
      case "caller":
        return this.#answer(request)
      case "machine":
        if (request.op === "restore") this.#restore()
        else for (const entry of request.entries) this.#apply(entry)
        this.#serveReads()
        return this.#compact()
      case "snapshots":
        return request.op === "read" ? this.#readPart(request) : this.#writePart(request)
    }
  }

  #answer(request: Extract<RaftRequest, { readonly port: "caller" }>): void {
    const asking = this.#asking.get(request.ticket)
    if (asking === undefined) return
    if (request.op === "placed") {
      asking.place = request
      if (asking.placed === null) return
      this.#asking.delete(request.ticket)
      asking.placed()
    } else if (request.op === "readable") {
      this.#world.watcher.readable(this, request.index, asking.decided)
      this.#reading.push(request)
      this.#serveReads()
    } else {
      this.#asking.delete(request.ticket)
      asking.answer({ ok: false, leader: request.leader })
    }
  }

  #serveReads(): void {
    const ready = this.#reading.filter(({ index }) => index <= this.machine.applied)
    this.#reading = this.#reading.filter(({ index }) => index > this.machine.applied)
    for (const { ticket } of ready) {
      const asking = this.#asking.get(ticket)
      this.#asking.delete(ticket)
      if (asking?.key != null) asking.answer({ ok: true, result: this.machine.read(asking.key) })
    }
  }

  #apply(entry: Entry): void {
    // A snapshot that was received had it already.
    if (entry.index <= this.machine.applied) return
    const applied = this.machine.apply(entry)
    this.#world.watcher.applied(this, entry, applied?.isNew ?? false)
    for (const [ticket, { place, answer }] of this.#asking) {
      if (place === null || place.index > entry.index) continue
      this.#asking.delete(ticket)
      const isIt = place.index === entry.index && place.term === entry.term && applied !== null
      answer(isIt ? { ok: true, result: applied.result } : { ok: false, leader: this.context.leader })
    }
  }

  #restore(): void {
    if (this.snapshot !== null && this.snapshot.index > this.machine.applied)
      this.machine.restore(this.snapshot.index, this.snapshot.text)
  }

  /** A snapshot when enough was applied since the last one; it is on the disk before the log forgets. */
  #compact(): void {
    const { applied } = this.machine
    const { log, history } = this.context
    const { snapshotEvery } = this.options
    if (this.#isCompacting || applied - Math.max(log.base, this.snapshot?.index ?? 0) < snapshotEvery) return
    const members = history.findLast(({ index }) => index <= applied)?.members
    const term = log.termAt(applied)
    if (members === undefined || term === null) return
    const snapshot = { index: applied, term, members, text: this.machine.text() }
    this.#isCompacting = true
    this.#later(this.options.disk.syncMeanMs, () => {
      this.#isCompacting = false
      if (snapshot.index <= (this.snapshot?.index ?? 0)) return
      this.snapshot = snapshot
      // The latest entries stay, for members that are only a little behind.
      this.take({ type: "raft.compact", index: snapshot.index - Math.floor(snapshotEvery / 4) })
    })
  }

  #readPart({ to, index, offset }: Extract<RaftRequest, { readonly op: "read" }>): void {
    const { snapshot } = this
    if (snapshot === null) return
    const from = snapshot.index === index ? offset : 0
    const data = snapshot.text.slice(from, from + this.options.snapshotPartBytes)
    const last = from + data.length === snapshot.text.length
    const part = { index: snapshot.index, indexTerm: snapshot.term, members: snapshot.members, offset: from }
    this.#later(0, () => this.take({ type: "raft.snapshotRead", to, ...part, data, last }))
  }

  #writePart({ from, message }: Extract<RaftRequest, { readonly op: "write" }>): void {
    const { index, indexTerm, members, offset, data, last, round } = message
    if (offset === 0 || this.#incoming?.index !== index) this.#incoming = { index, text: "" }
    const { text } = this.#incoming
    const fits = offset === text.length
    if (fits) this.#incoming.text = text + data
    const whole = fits && last
    const now = this.#incoming.text
    this.#later(this.options.disk.syncMeanMs, () => {
      if (whole && index > (this.snapshot?.index ?? 0))
        this.snapshot = { index, term: indexTerm, members, text: now }
      const written = { from, index, indexTerm, members, offset: now.length, whole, round }
      this.take({ type: "raft.snapshotWritten", ...written })
    })
  }
}
