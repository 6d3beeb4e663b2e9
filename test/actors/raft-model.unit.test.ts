/**
 * The actor beside the textbook (`raft-model.ts`): groups whose messages, disks, clocks and crashes are drawn, the same
 * inputs for both, and after every step the same term, vote, log, commit index, role and messages.
 */
import assert from "node:assert/strict"
import { test } from "node:test"
import * as fc from "fast-check"
import { raftActor } from "../../src/actors/raft/chart.ts"
import { wakesAtMs } from "../../src/actors/raft/decide.ts"
import { Log } from "../../src/actors/raft/log.ts"
import { noMembers } from "../../src/actors/raft/quorum.ts"
import type { RaftContext } from "../../src/actors/raft/step.ts"
import type { Entry, RaftCommand, RaftFact, RaftMessage, RaftRequest } from "../../src/events/raft.ts"
import type { RaftSettings } from "../../src/events/raft.ts"
import { Replica } from "../../src/kernel/replica.ts"
import { decide } from "../../src/kernel/statechart.ts"
import { RaftModel } from "./raft-model.ts"
import type { Disk } from "./raft-model.ts"

const seed = 20_261_129

const settings: RaftSettings = {
  heartbeatMs: 300,
  electionMs: 1000,
  messageBytesMax: 64,
  inflightBytesMax: 4096,
  inflightEntriesMax: 8,
  uncommittedBytesMax: 1024 * 1024,
  readsMax: 10,
  lagEntriesMax: 10,
  leaseDriftPercent: 0
}

/** What is drawn: `at` says to whom or to what, by its remainder. */
interface Move {
  readonly what: "deliver" | "drop" | "repeat" | "tick" | "propose" | "write" | "restart" | "isolate"
  readonly at: number
  readonly chance: number
}

/** Facts that are handed to a disk, and what the model's disk has with them. */
interface Piece {
  readonly facts: ReadonlyArray<RaftFact>
  readonly disk: Disk
}

interface Member {
  readonly id: string
  replica: Replica<RaftRequest>
  model: RaftModel
  facts: Array<RaftFact>
  disk: Disk
  unwritten: Array<Piece>
}

interface Envelope {
  readonly from: string
  readonly to: string
  readonly message: RaftMessage
}

/** How often what is worth comparing has happened. */
const seen = { elections: 0, commits: 0, cuts: 0, refusals: 0, restarts: 0, stepDowns: 0, splits: 0 }

/** Whoever draws more gets nothing new. */
const networkMax = 60

class Both {
  readonly members: ReadonlyArray<Member>
  readonly voters: ReadonlyArray<string>
  readonly isSlow: boolean
  network: Array<Envelope> = []
  /** What it sends and is sent is lost. */
  isolated: string | null = null
  nowMs = 0
  #proposals = 0

  constructor(size: number, isSlow: boolean) {
    this.isSlow = isSlow
    this.voters = ["a", "b", "c", "d", "e"].slice(0, size)
    this.members = this.voters.map((id) => {
      const facts: Array<RaftFact> = [{ type: "raft.formed", members: { ...noMembers, voters: this.voters } }]
      const disk = { term: 0, vote: null, entries: [] }
      return { id, ...this.#started(id, facts, disk), facts, disk, unwritten: [] }
    })
  }

  #started(id: string, facts: ReadonlyArray<RaftFact>, disk: Disk) {
    const replica = new Replica<RaftRequest>(raftActor, `raft/${id}`)
    replica.restore(facts)
    replica.take({ type: "raft.begin", id, settings, chance: 0 }, this.nowMs)
    return { replica, model: new RaftModel(id, this.voters, settings, disk, this.nowMs) }
  }

  move({ what, at, chance }: Move): void {
    const member = this.members[at % this.members.length] as Member
    // Mostly in order, but not always.
    const envelope = this.network[at % Math.min(4, this.network.length || 1)]
    switch (what) {
      case "tick": {
        const { value, context } = member.replica.state
        this.nowMs = Math.max(this.nowMs, wakesAtMs(value as string, context as RaftContext))
        return this.#take(member, { type: "raft.tick", chance }, (model) => model.tick())
      }
      case "propose": {
        const data = `d${this.#proposals++}`
        const proposals = [{ ticket: data, data }]
        return this.#take(member, { type: "raft.propose", proposals }, (model) => model.propose([data]))
      }
      case "write":
        return this.#write(member)
      case "isolate":
        this.isolated = this.isolated === null ? member.id : null
        return
      case "restart":
        seen.restarts++
        member.unwritten = []
        return void Object.assign(member, this.#started(member.id, member.facts, member.disk))
      default:
        if (envelope !== undefined) this.#pass(envelope, what, chance)
    }
  }

  #pass(envelope: Envelope, what: "deliver" | "drop" | "repeat", chance: number): void {
    if (what !== "repeat" || this.network.length > networkMax)
      this.network = this.network.filter((one) => one !== envelope)
    if (what === "drop") return
    const { from, to, message } = envelope
    const member = this.members.find(({ id }) => id === to) as Member
    this.#take(member, { type: "raft.receive", from, message, chance }, (model) =>
      model.receive(from, message)
    )
  }

  #take(member: Member, input: RaftCommand, run: (model: RaftModel) => void): void {
    const { replica, model } = member
    const before = { role: model.role, entries: model.entries, commit: model.commit }
    const stamp = { self: `raft/${member.id}`, timeMs: this.nowMs }
    freeze(replica.state.context)
    const asked = decide(raftActor, replica.state, input, stamp).flatMap((fact) =>
      "asks" in fact ? (fact["asks"] as ReadonlyArray<RaftRequest>) : []
    )
    model.at(this.nowMs, "chance" in input ? input.chance : 0)
    run(model)
    const { now, facts } = replica.take(input, this.nowMs)
    compare(member, asked, input)
    timed(member, this.nowMs)
    note(before, model)
    this.#send(member.id, now)
    if (facts.length === 0) return
    member.unwritten.push({ facts: facts as ReadonlyArray<RaftFact>, disk: model.disk })
    if (!this.isSlow) this.#write(member)
  }

  #write(member: Member): void {
    const piece = member.unwritten.shift()
    if (piece === undefined) return
    member.facts = [...member.facts, ...piece.facts]
    member.disk = piece.disk
    this.#send(member.id, member.replica.stored(piece.facts.length))
    const last = piece.facts.findLast((fact) => fact.type === "raft.appended")?.entries.at(-1)
    if (last === undefined) return
    const { index, term } = last
    this.#take(member, { type: "raft.stored", index, term, chance: 0 }, (model) => model.wrote(index, term))
  }

  #send(from: string, requests: ReadonlyArray<RaftRequest>): void {
    for (const request of requests) {
      if (request.port !== "peer" || this.network.length >= networkMax) continue
      const { to, message } = request
      if (from !== this.isolated && to !== this.isolated) this.network.push({ from, to, message })
    }
  }
}

/** When it asks for votes is its own choice, safe at any time: the textbook's timer is set to it. But never for longer than that has it. */
function timed({ replica, model }: Member, nowMs: number): void {
  const { deadlineMs } = replica.state.context as RaftContext
  assert.ok(
    deadlineMs <= nowMs + 2 * settings.electionMs,
    `${model.id} waits until ${deadlineMs} at ${nowMs}`
  )
  model.campaignAtMs = deadlineMs
}

/** A step that changed what it is given would throw. Logs share their entries, and keep to themselves how. */
function freeze(value: unknown): void {
  if (typeof value !== "object" || value === null || value instanceof Log || Object.isFrozen(value)) return
  Object.freeze(value)
  for (const inner of Object.values(value)) freeze(inner)
}

function note(
  before: { readonly role: string; readonly entries: ReadonlyArray<Entry>; readonly commit: number },
  model: RaftModel
): void {
  const { role, entries, commit, said } = model
  if (role === "leader" && before.role !== "leader") seen.elections++
  if (before.role === "leader" && role !== "leader") seen.stepDowns++
  if (before.role === "candidate" && role === "follower") seen.splits++
  if (commit > before.commit) seen.commits++
  if (entries !== before.entries && entries.length <= before.entries.length) seen.cuts++
  if (said.some(({ message }) => message.type === "appended" && !message.success)) seen.refusals++
}

const isAppend = ({ message }: { readonly message: RaftMessage }) => message.type === "append"

function compare(
  { id, replica, model }: Member,
  asked: ReadonlyArray<RaftRequest>,
  input: RaftCommand
): void {
  const { term, vote, log, commit, stored } = replica.state.context as RaftContext
  const what = `${id} ${JSON.stringify(input)}`
  assert.deepEqual(
    { role: replica.state.value, term, vote, commit, stored, entries: log.slice(1) },
    {
      role: model.role,
      term: model.term,
      vote: model.vote,
      commit: model.commit,
      stored: model.stored,
      entries: model.entries
    },
    what
  )
  // Only entries may be ahead of the disk.
  for (const one of asked) assert.ok(one.port !== "peer" || !one.early || isAppend(one), what)
  const sent = asked.flatMap((one) => (one.port === "peer" ? [{ to: one.to, message: one.message }] : []))
  assert.deepEqual(
    sent.filter((one) => !isAppend(one)),
    model.said,
    what
  )
  const appends = sent.filter(isAppend)
  for (const { message } of appends) isRight(model, message, what)
  if (!model.beats) return
  const told = new Set(appends.map(({ to }) => to))
  assert.deepEqual(
    [...told].sort(),
    model.voters.filter((one) => one !== id).toSorted(),
    `${what}: heartbeat`
  )
}

/** Whatever a leader sends is its log, and commits no more than it has. */
function isRight(model: RaftModel, message: RaftMessage, what: string): void {
  assert.ok(message.type === "append" && model.role === "leader", what)
  const { previousIndex, previousTerm, entries } = message
  assert.equal(message.term, model.term, what)
  assert.ok(message.commit <= model.commit, what)
  assert.equal(model.termAt(previousIndex), previousTerm, what)
  assert.deepEqual(entries, model.entries.slice(previousIndex, previousIndex + entries.length), what)
}

const weights = {
  deliver: 24,
  tick: 3,
  propose: 3,
  write: 6,
  repeat: 2,
  drop: 2,
  restart: 1,
  isolate: 1
} as const

const move = fc.record({
  what: fc.oneof(
    ...Object.entries(weights).map(([what, weight]) => ({
      weight,
      arbitrary: fc.constant(what as Move["what"])
    }))
  ),
  at: fc.nat(1000),
  chance: fc.double({ min: 0, max: 0.99, noNaN: true })
})

test(`a member does what the textbook says, whatever comes (seed ${seed})`, () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 5 }),
      fc.boolean(),
      fc.array(move, { minLength: 50, maxLength: 400, size: "max" }),
      (size, isSlow, moves) => {
        const both = new Both(size, isSlow)
        for (const one of moves) both.move(one)
      }
    ),
    { seed, numRuns: 800 }
  )
  console.log(`  ${JSON.stringify(seen)}`)
  for (const [what, count] of Object.entries(seen)) assert.ok(count >= 20, `${what}: ${count}`)
})
