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
import { crc32c } from "../../src/kernel/records.ts"
import { Replica } from "../../src/kernel/replica.ts"
import type { Clock } from "../world/clock.ts"
import { Disk } from "../world/disk.ts"
import type { DiskOptions } from "../world/disk.ts"
import type { Random } from "../world/random.ts"
import type { Schedule } from "../world/schedule.ts"
import { Machine, stamped, stampOf } from "./machine.ts"
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
  /** Where the disk keeps records. */
  readonly checksum: number | null
}

/** Sees what every member does; the checkers are one. */
export interface Watcher {
  readonly takes: (member: Member, input: RaftCommand) => void
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
  readonly clock: Clock
  readonly snapshotEvery: number
  readonly snapshotPartBytes: number
  /** After an error of its disk. */
  readonly restartMs: number
}

interface World {
  readonly schedule: Schedule
  readonly random: Random
  readonly send: (from: string, to: string, message: RaftMessage) => void
  /** Its process has ended, and with it its connections. */
  readonly ended: (id: string) => void
  readonly watcher: Watcher
}

interface Asking {
  readonly answer: (answer: ClientAnswer) => void
  readonly key: string | null
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
  /** Its disk has lost what it had acknowledged: it takes no part any more, until operators replace it (ADR 12). */
  isOut = false
  /** Nobody starts it any more. */
  isGone = false
  /** Times that its process ended because of its disk. */
  errors = 0
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
  /** The process ends after so many requests of its next step. */
  #endsWithin: { readonly requests: number; readonly ended: () => void } | null = null

  constructor(world: World, options: MemberOptions) {
    this.#world = world
    this.options = options
    this.id = options.id
    this.disk = new Disk(world.schedule, world.random.split(`disk ${options.id}`), options.disk, options.id)
    this.disk.onError = () => this.#end()
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

  /** Start the process on what its disk has, when that is all there. */
  start(): void {
    this.isOut ||= this.disk.open() === "damaged" || !this.#isSnapshotIntact()
    if (this.isOut) return
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

  #isSnapshotIntact(): boolean {
    const { snapshot } = this
    return snapshot === null || snapshot.checksum === null || snapshot.checksum === crc32c(snapshot.text)
  }

  /** One bit of the last snapshot is another. False when there is none. */
  rotSnapshot(place: number): boolean {
    const { snapshot } = this
    if (snapshot === null || snapshot.checksum === null || snapshot.text === "") return false
    const at = Math.floor(place * snapshot.text.length)
    const unit = String.fromCharCode(snapshot.text.charCodeAt(at) ^ 1)
    this.snapshot = { ...snapshot, text: snapshot.text.slice(0, at) + unit + snapshot.text.slice(at + 1) }
    return true
  }

  /** An error of the disk ends the process: what it knows is not what is there. It starts again on that. */
  #end(): void {
    this.errors++
    this.crash()
    this.#world.schedule.after(this.options.restartMs, () => {
      if (!this.isUp && !this.isGone) this.start()
    })
  }

  crash(): void {
    const wasUp = this.isUp
    this.isUp = false
    this.#endsWithin = null
    this.disk.crash()
    if (wasUp) this.#world.ended(this.id)
  }

  /** It ends in its next step, after so many of the requests of it; null for not any more. */
  crashWithin(requests: number | null, ended: () => void): void {
    this.#endsWithin = requests === null ? null : { requests, ended }
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

  /** Its connection with that one has ended. */
  lost(peer: string): void {
    if (this.isUp) this.#whenAwake(this.life, () => this.take({ type: "raft.lost", peer }))
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
        decided: this.#world.watcher.decided,
        place: null
      })
      if (isRead) this.take({ type: "raft.read", ticket })
      else
        this.take({ type: "raft.propose", proposals: [{ ticket, data: stamped(this.#stampMs(), command) }] })
    })
  }

  /** What operators ask; false when nobody is there to be asked. */
  operate(
    input:
      | { readonly type: "raft.transfer"; readonly to: string }
      | {
          readonly type: "raft.change"
          readonly voters: ReadonlyArray<string>
          readonly learners: ReadonlyArray<string>
        }
  ): boolean {
    if (!this.isUp || this.pausedMs > this.#world.schedule.nowMs) return false
    this.take({ ...input, ticket: `operator:${this.#tickets++}` })
    return true
  }

  take(input: RaftCommand): void {
    const { life } = this
    this.#world.watcher.takes(this, input)
    const { now, facts } = this.#replica.take(input, this.nowMs)
    if (facts.length > 0 && !this.#keep(facts)) return this.#end()
    this.#world.watcher.stepped(this)
    const ends = this.#endsWithin
    this.#endsWithin = null
    for (const request of ends === null ? now : now.slice(0, ends.requests)) {
      this.#perform(request)
      // What it was asked may have ended the process, or had it take another input.
      if (!this.isUp || this.life !== life) return
    }
    if (ends !== null) {
      this.crash()
      ends.ended()
    } else this.#wake()
  }

  /** What its own clock shows. */
  get nowMs(): number {
    return this.options.clock.shows(this.#world.schedule.nowMs)
  }

  /** False when the disk refuses. */
  #keep(facts: ReadonlyArray<Message>): boolean {
    const { life } = this
    const appended = facts.findLast(({ type }) => type === "raft.appended")
    const last = (appended?.["entries"] as ReadonlyArray<Entry> | undefined)?.at(-1)
    return this.disk.append(facts, () =>
      this.#whenAwake(life, () => {
        for (const request of this.#replica.stored(facts.length)) if (this.isUp) this.#perform(request)
        if (last !== undefined && this.isUp)
          this.take({
            type: "raft.stored",
            index: last.index,
            term: last.term,
            chance: this.#world.random.next()
          })
      })
    )
  }

  /** What was due later is due now, or the other way round. */
  clockJumped(): void {
    if (this.isUp) this.#wake()
  }

  /**
   * When a command is: what the wall clock shows, but never before the one before it in the log. A clock that was set back
   * makes time stand still, and not go back.
   */
  #stampMs(): number {
    const { log } = this.context
    let lastMs = this.machine.stampMs
    for (let index = log.last; index > this.machine.applied; index--) {
      const data = log.at(index)?.data ?? null
      if (data === null) continue
      lastMs = stampOf(data)
      break
    }
    return Math.max(lastMs, this.options.clock.wallMs(this.#world.schedule.nowMs))
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
      if (this.nowMs >= wakesAtMs(this.role, this.context))
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
        if (!this.isUp) return
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
    const { snapshot } = this
    if (snapshot === null || snapshot.index <= this.machine.applied) return
    if (!this.#isSnapshotIntact()) return this.#givesOut()
    this.machine.restore(snapshot.index, snapshot.text)
  }

  /** Its snapshot is damaged: it has nothing to go on with. */
  #givesOut(): void {
    this.crash()
    this.isOut = true
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
    const snapshot = this.#sealed({ index: applied, term, members, text: this.machine.text() })
    this.#isCompacting = true
    this.#later(this.options.disk.syncMeanMs, () => {
      this.#isCompacting = false
      if (this.disk.isFull) return this.#end()
      if (snapshot.index <= (this.snapshot?.index ?? 0)) return
      this.snapshot = snapshot
      // The latest entries stay, for members that are only a little behind.
      this.take({ type: "raft.compact", index: snapshot.index - Math.floor(snapshotEvery / 4) })
    })
  }

  #sealed(snapshot: Omit<Snapshot, "checksum">): Snapshot {
    return { ...snapshot, checksum: this.options.disk.hasRecords ? crc32c(snapshot.text) : null }
  }

  #readPart({ to, index, offset }: Extract<RaftRequest, { readonly op: "read" }>): void {
    const { snapshot } = this
    if (snapshot === null) return
    if (!this.#isSnapshotIntact()) return this.#givesOut()
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
      if (this.disk.isFull) return this.#end()
      if (whole && index > (this.snapshot?.index ?? 0))
        this.snapshot = this.#sealed({ index, term: indexTerm, members, text: now })
      const written = { from, index, indexTerm, members, offset: now.length, whole, round }
      this.take({ type: "raft.snapshotWritten", ...written })
    })
  }
}

/** Of those who lead, the one in the latest term: the others don't know yet. */
export function leaderAmong(members: Iterable<Member>): Member | undefined {
  let leader: Member | undefined
  for (const one of members)
    if (one.isUp && one.role === "leader" && !(one.context.term <= (leader?.context.term ?? -1))) leader = one
  return leader
}
