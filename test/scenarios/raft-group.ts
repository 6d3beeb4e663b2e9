/**
 * A group whose messages, disks and clock are moved by hand, one step at a time: the production actor in the production
 * replica, and the plainest process around it. Everything that happens is told as a line.
 */
import { raftActor } from "../../src/actors/raft/chart.ts"
import { wakesAtMs } from "../../src/actors/raft/decide.ts"
import { noMembers } from "../../src/actors/raft/quorum.ts"
import type { RaftContext } from "../../src/actors/raft/step.ts"
import type {
  Entry,
  Members,
  RaftCommand,
  RaftFact,
  RaftMessage,
  RaftRequest,
  RaftSettings
} from "../../src/events/raft.ts"
import { Replica } from "../../src/kernel/replica.ts"
import { factText, messageText, requestText, stateText } from "./raft-text.ts"

export interface Envelope {
  readonly from: string
  readonly to: string
  readonly message: RaftMessage
}

interface Snapshot {
  readonly index: number
  readonly term: number
  readonly members: Members
  readonly text: string
}

interface Process {
  readonly id: string
  replica: Replica<RaftRequest>
  isUp: boolean
  /** Its disk is done with everything at once, or when the scenario says so. */
  isSlow: boolean
  readonly disk: Array<RaftFact>
  /** Not on the disk yet, in the pieces in which they were handed to it. */
  unwritten: Array<ReadonlyArray<RaftFact>>
  snapshot: Snapshot | null
  incoming: { readonly index: number; readonly text: string } | null
  /** What its state machine has: the data of everything applied. */
  machine: string
  applied: number
  told: string
}

export class Group {
  timeMs = 0
  settings: RaftSettings
  snapshotPartBytes: number
  /** On their way, oldest first. */
  network: Array<Envelope> = []
  /** Kept back by the scenario. */
  readonly held: Array<Envelope> = []
  /** Whose messages are lost, to and from. */
  readonly isolated = new Set<string>()
  readonly #members = new Map<string, Process>()
  #told: Array<string> = []
  #tickets = 0

  constructor(settings: RaftSettings, snapshotPartBytes: number) {
    this.settings = settings
    this.snapshotPartBytes = snapshotPartBytes
  }

  get ids(): ReadonlyArray<string> {
    return [...this.#members.keys()]
  }

  /** Everything that was told since the last time. */
  takeTold(): ReadonlyArray<string> {
    for (const { id, isUp } of this.#members.values()) if (isUp) this.#tellState(id)
    const told = this.#told
    this.#told = []
    return told
  }

  tell(line: string): void {
    this.#told.push(line)
  }

  #of(id: string): Process {
    const found = this.#members.get(id)
    if (found === undefined) throw new Error(`there is no member ${id}`)
    return found
  }

  context(id: string): RaftContext {
    return this.#of(id).replica.state.context as RaftContext
  }

  role(id: string): string {
    return this.#of(id).replica.state.value as string
  }

  #tellState(id: string): void {
    const member = this.#of(id)
    const text = stateText(this.role(id), this.context(id))
    if (text === member.told) return
    member.told = text
    this.tell(`${id}: ${text}`)
  }

  /** A process on a disk that has these facts. */
  add(id: string, facts: ReadonlyArray<RaftFact>): void {
    if (this.#members.has(id)) throw new Error(`${id} is there already`)
    const replica = new Replica<RaftRequest>(raftActor, `raft/${id}`)
    const [snapshot, incoming] = [null, null]
    const rest = { disk: [...facts], unwritten: [], snapshot, incoming, machine: "", applied: 0, told: "" }
    this.#members.set(id, { id, replica, isUp: false, isSlow: false, ...rest })
    this.start(id)
  }

  start(id: string): void {
    const member = this.#of(id)
    if (member.isUp) throw new Error(`${id} is up`)
    member.isUp = true
    member.replica = new Replica<RaftRequest>(raftActor, `raft/${id}`)
    member.replica.restore(member.disk)
    member.machine = member.snapshot?.text ?? ""
    member.applied = member.snapshot?.index ?? 0
    member.incoming = null
    member.told = ""
    this.take(id, { type: "raft.begin", id, settings: this.settings, chance: 0 })
  }

  /** What was not on the disk is gone. */
  crash(id: string): void {
    const member = this.#of(id)
    member.isUp = false
    if (member.unwritten.length > 0) this.tell(`${id} loses what was not on its disk`)
    member.unwritten = []
  }

  ticket(letter: string): string {
    return `${letter}${++this.#tickets}`
  }

  take(id: string, input: RaftCommand): void {
    const member = this.#of(id)
    if (!member.isUp) throw new Error(`${id} is not up`)
    const { now, facts } = member.replica.take(input, this.timeMs)
    for (const fact of facts) this.tell(`${id} records ${factText(fact as RaftFact)}`)
    for (const request of now) this.#perform(member, request)
    if (facts.length === 0) return
    member.unwritten.push(facts as ReadonlyArray<RaftFact>)
    if (!member.isSlow) this.write(id)
  }

  setSlow(id: string, isSlow: boolean): void {
    this.#of(id).isSlow = isSlow
    if (!isSlow) while (this.#of(id).unwritten.length > 0) this.write(id)
  }

  isWriting(id: string): boolean {
    return this.#of(id).unwritten.length > 0
  }

  /** The oldest piece is on the disk. Unless `isSilent`, the actor is told of entries. */
  write(id: string, isSilent = false): void {
    const member = this.#of(id)
    const facts = member.unwritten.shift()
    if (facts === undefined) throw new Error(`${id} has nothing to write`)
    member.disk.push(...facts)
    for (const request of member.replica.stored(facts.length)) this.#perform(member, request)
    const appended = facts.findLast((fact) => fact.type === "raft.appended")
    const last = appended?.entries.at(-1)
    if (last === undefined || isSilent) return
    this.stored(id, last.index, last.term)
  }

  stored(id: string, index: number, term: number): void {
    this.take(id, { type: "raft.stored", index, term, chance: 0 })
  }

  /** The time at which it is due, and not before now. */
  tick(id: string): void {
    this.timeMs = Math.max(this.timeMs, wakesAtMs(this.role(id), this.context(id)))
    this.take(id, { type: "raft.tick", chance: 0 })
  }

  deliver({ from, to, message }: Envelope): void {
    if (this.#members.get(to)?.isUp !== true)
      return this.tell(`${from} > ${to} ${messageText(message)} finds nobody`)
    this.take(to, { type: "raft.receive", from, message, chance: 0 })
  }

  #perform(member: Process, request: RaftRequest): void {
    const { id } = member
    if (request.port === "peer") return this.#send({ from: id, to: request.to, message: request.message })
    this.tell(`${id} ${requestText(request)}`)
    if (request.port === "machine") {
      if (request.op === "restore") {
        member.machine = member.snapshot?.text ?? ""
        member.applied = request.index
      } else for (const entry of request.entries) this.#apply(member, entry)
    } else if (request.port === "snapshots") {
      if (request.op === "read") this.#readPart(member, request)
      else this.#writePart(member, request)
    }
  }

  #send(envelope: Envelope): void {
    const { from, to, message } = envelope
    const isLost = this.isolated.has(from) || this.isolated.has(to)
    this.tell(`${from} > ${to} ${messageText(message)}${isLost ? " (lost)" : ""}`)
    if (!isLost) this.network.push(envelope)
  }

  #apply(member: Process, { index, data }: Entry): void {
    if (index <= member.applied) return
    member.applied = index
    if (data !== null) member.machine += data
  }

  /** The state of now becomes a snapshot, and the log forgets what it stands for up to `index`. */
  compact(id: string, index: number): void {
    const member = this.#of(id)
    const { log, history } = this.context(id)
    const members = history.findLast((one) => one.index <= member.applied)?.members ?? noMembers
    const term = log.termAt(member.applied) ?? log.baseTerm
    member.snapshot = { index: member.applied, term, members, text: member.machine }
    this.take(id, { type: "raft.compact", index })
  }

  #readPart(member: Process, { to, index, offset }: Extract<RaftRequest, { readonly op: "read" }>): void {
    const { snapshot } = member
    if (snapshot === null) return
    const from = snapshot.index === index ? offset : 0
    const data = snapshot.text.slice(from, from + this.snapshotPartBytes)
    const last = from + data.length === snapshot.text.length
    const { members, term } = snapshot
    const part = { index: snapshot.index, indexTerm: term, members, offset: from, data, last }
    this.take(member.id, { type: "raft.snapshotRead", to, ...part })
  }

  #writePart(member: Process, { from, message }: Extract<RaftRequest, { readonly op: "write" }>): void {
    const { index, indexTerm, members, offset, data, last, round } = message
    const before = offset > 0 && member.incoming?.index === index ? member.incoming.text : ""
    const fits = offset === before.length
    const text = fits ? before + data : before
    member.incoming = { index, text }
    const whole = fits && last
    if (whole) member.snapshot = { index, term: indexTerm, members, text }
    const written = { from, index, indexTerm, members, offset: text.length, whole, round }
    this.take(member.id, { type: "raft.snapshotWritten", ...written })
  }

  machine(id: string): string {
    const { machine, applied } = this.#of(id)
    return `"${machine}" up to ${applied}`
  }
}
