/**
 * One step of a member: a working copy of what it knows, which the protocol's functions change, and which ends as facts:
 * what has to survive a restart each as its own, and one with everything that has not to, and what is asked.
 */
import type { Entry, Members, RaftFact, RaftMessage, RaftRequest, RaftSettings } from "../../events/raft.ts"
import { Log } from "./log.ts"
import { everyone, noMembers } from "./quorum.ts"

export type Role = "follower" | "poller" | "candidate" | "leader"

/** What a leader knows of another member. */
export interface Progress {
  /** Its log is the leader's up to here. */
  readonly match: number
  /** What is sent next. */
  readonly next: number
  /** One message at a time until it is known where the logs part; then many; or a snapshot first. */
  readonly state: "probe" | "replicate" | "snapshot"
  /** A probe was sent, and waits for its answer or the next heartbeat. */
  readonly waits: boolean
  /** Of entries from `match + 1` to `next - 1`. */
  readonly inflightBytes: number
  /** Has answered since the leader last counted. */
  readonly active: boolean
  /** The latest of the leader's rounds that it answered. */
  readonly round: number
  /** The commit index that it was last told. */
  readonly toldCommit: number
  /** The round in which it was last sent anew what had not come, and the entry after which it was. */
  readonly partedRound: number
  readonly partedAt: number
  /** Entries that may be under way, beside the limit of all: few after something was lost, and more with each that comes. */
  readonly window: number
  readonly snapshot: { readonly index: number; readonly offset: number } | null
}

/** What survives a restart: the fold of the facts that are kept. */
export interface Durable {
  readonly term: number
  readonly vote: string | null
  readonly log: Log
  /** Of the log's base, and each later one in the log; the last one decides, committed or not (thesis, 4.1). */
  readonly history: ReadonlyArray<{ readonly index: number; readonly members: Members }>
}

export interface Read {
  readonly ticket: string
  /** What was committed when it was asked. */
  readonly index: number
  /** The round that has to be answered by a quorum. */
  readonly round: number
}

export interface Volatile {
  readonly id: string
  readonly settings: RaftSettings | null
  readonly leader: string | null
  /** The leader that was lost last, until another is heard: it will not answer. */
  readonly lost: string | null
  readonly commit: number
  /** Handed to the machine. */
  readonly applied: number
  /** Of its own log on its own disk. */
  readonly stored: number
  /** When it campaigns, unless it hears of a leader before. */
  readonly deadlineMs: number
  /** No vote before: a leader may still rely on a promise of before now. */
  readonly promisedMs: number
  readonly votes: Readonly<Record<string, boolean>>
  /** Somebody whose log is older asked for this one's vote, and no leader was heard since. */
  readonly isAsked: boolean
  readonly progress: Readonly<Record<string, Progress>>
  /** Its term and vote are known to be on its disk, so that what a leader sends may overtake its entries. */
  readonly isSure: boolean
  /** Index of the leader's first entry in its term. */
  readonly began: number
  readonly heartbeatMs: number
  readonly quorumMs: number
  readonly round: number
  /** When the rounds that a quorum has not answered yet were first sent. */
  readonly rounds: ReadonlyArray<{ readonly round: number; readonly sentMs: number }>
  /** Until when no other leader can be; 0 without a lease. */
  readonly leaseMs: number
  readonly reads: ReadonlyArray<Read>
  readonly uncommittedBytes: number
  readonly transfer: { readonly to: string; readonly deadlineMs: number } | null
  /** Somebody may campaign without regard for the lease, for as long as this term lasts. */
  readonly wasTransferred: boolean
}

export interface RaftContext extends Durable, Volatile {}

export const initialContext: RaftContext = {
  term: 0,
  vote: null,
  log: Log.after(0, 0),
  history: [{ index: 0, members: noMembers }],
  id: "",
  settings: null,
  leader: null,
  lost: null,
  commit: 0,
  applied: 0,
  stored: 0,
  deadlineMs: Number.POSITIVE_INFINITY,
  promisedMs: 0,
  votes: {},
  isAsked: false,
  progress: {},
  isSure: false,
  began: 0,
  heartbeatMs: 0,
  quorumMs: 0,
  round: 0,
  rounds: [],
  leaseMs: 0,
  reads: [],
  uncommittedBytes: 0,
  transfer: null,
  wasTransferred: false
}

/** Of a member of which nothing is known yet. */
export const fresh = (next: number): Progress => ({
  match: 0,
  next,
  state: "probe",
  waits: false,
  inflightBytes: 0,
  active: false,
  round: 0,
  toldCommit: 0,
  partedRound: 0,
  partedAt: 0,
  window: Number.MAX_SAFE_INTEGER,
  snapshot: null
})

type KeptFact = Extract<
  RaftFact,
  { readonly type: "raft.formed" | "raft.voted" | "raft.appended" | "raft.compacted" | "raft.installed" }
>

/** What a fact makes of what is kept; the same live, on replay and within a step. */
export function keep(before: Durable, fact: KeptFact): Durable {
  const { term, vote, log, history } = before
  switch (fact.type) {
    case "raft.formed":
      return { term, vote, log, history: [{ index: 0, members: fact.members }] }
    case "raft.voted":
      return { term: fact.term, vote: fact.vote, log, history }
    case "raft.appended": {
      const from = fact.entries[0]?.index ?? Number.POSITIVE_INFINITY
      return { term, vote, log: log.append(fact.entries), history: historyWith(before, from, fact.entries) }
    }
    case "raft.compacted": {
      const base = history.findLast(({ index }) => index <= fact.index)
      const later = history.filter(({ index }) => index > fact.index)
      return {
        term,
        vote,
        log: log.compact(fact.index),
        history: base === undefined ? later : [base, ...later]
      }
    }
    case "raft.installed":
      return {
        term,
        vote,
        log: Log.after(fact.index, fact.term),
        history: [{ index: fact.index, members: fact.members }]
      }
  }
}

/** Few facts that stand for all that were kept: folded from the beginning they give the same. */
export function keptAs({ term, vote, log, history }: Durable): ReadonlyArray<KeptFact> {
  const members = history[0]?.members ?? noMembers
  const entries = log.slice(log.base + 1)
  return [
    { type: "raft.installed", index: log.base, term: log.baseTerm, members },
    { type: "raft.voted", term, vote },
    ...(entries.length === 0 ? [] : [{ type: "raft.appended" as const, entries }])
  ]
}

/** Most entries change nothing about the members, and cut off none that did. */
function historyWith(before: Durable, from: number, entries: ReadonlyArray<Entry>): Durable["history"] {
  const isLater = (before.history.at(-1)?.index ?? 0) < from
  if (isLater && entries.every(({ members }) => members === null)) return before.history
  const kept = before.history.filter(({ index }) => index < from)
  return [...kept, ...entries.flatMap(({ index, members }) => (members === null ? [] : [{ index, members }]))]
}

type Draft<T> = { -readonly [Key in keyof T]: T[Key] }

/** Field by field, here and below: a spread of so many costs as much as the rest of a step. */
const volatileOf = (context: Volatile): Draft<Volatile> => ({
  id: context.id,
  settings: context.settings,
  leader: context.leader,
  lost: context.lost,
  commit: context.commit,
  applied: context.applied,
  stored: context.stored,
  deadlineMs: context.deadlineMs,
  promisedMs: context.promisedMs,
  votes: context.votes,
  isAsked: context.isAsked,
  progress: context.progress,
  isSure: context.isSure,
  began: context.began,
  heartbeatMs: context.heartbeatMs,
  quorumMs: context.quorumMs,
  round: context.round,
  rounds: context.rounds,
  leaseMs: context.leaseMs,
  reads: context.reads,
  uncommittedBytes: context.uncommittedBytes,
  transfer: context.transfer,
  wasTransferred: context.wasTransferred
})

/** All that a member knows, from what survives a restart and what does not. */
export const contextOf = (kept: Durable, now: Volatile): RaftContext => ({
  term: kept.term,
  vote: kept.vote,
  log: kept.log,
  history: kept.history,
  id: now.id,
  settings: now.settings,
  leader: now.leader,
  lost: now.lost,
  commit: now.commit,
  applied: now.applied,
  stored: now.stored,
  deadlineMs: now.deadlineMs,
  promisedMs: now.promisedMs,
  votes: now.votes,
  isAsked: now.isAsked,
  progress: now.progress,
  isSure: now.isSure,
  began: now.began,
  heartbeatMs: now.heartbeatMs,
  quorumMs: now.quorumMs,
  round: now.round,
  rounds: now.rounds,
  leaseMs: now.leaseMs,
  reads: now.reads,
  uncommittedBytes: now.uncommittedBytes,
  transfer: now.transfer,
  wasTransferred: now.wasTransferred
})

const factOf = {
  follower: "raft.followed",
  poller: "raft.polled",
  candidate: "raft.campaigned",
  leader: "raft.elected"
} as const

export class Step {
  readonly nowMs: number
  /** From 0 up to 1. */
  readonly chance: number
  readonly settings: RaftSettings
  kept: Durable
  role: Role
  /** The working copy. */
  readonly now: Draft<Volatile>
  /** What of `now.progress` is this step's own copy, which it may change. */
  #progress: Record<string, Progress> | null = null
  readonly #own: Array<Draft<Progress>> = []
  #others: ReadonlyArray<string> | null = null
  readonly #facts: Array<RaftFact> = []
  readonly #asks: Array<RaftRequest> = []
  #moved = false

  constructor(context: RaftContext, role: Role, nowMs: number, chance: number, settings = context.settings) {
    if (settings === null) throw new Error("raft: nothing may be said before raft.begin")
    this.kept = context
    this.now = volatileOf(context)
    this.role = role
    this.nowMs = nowMs
    this.chance = chance
    this.settings = settings
  }

  get term(): number {
    return this.kept.term
  }

  get log(): Log {
    return this.kept.log
  }

  get members(): Members {
    return this.kept.history.at(-1)?.members ?? noMembers
  }

  /** Index of the entry that made the members what they are. */
  get membersIndex(): number {
    return this.kept.history.at(-1)?.index ?? 0
  }

  get others(): ReadonlyArray<string> {
    return (this.#others ??= everyone(this.members).filter((id) => id !== this.now.id))
  }

  record(fact: KeptFact): void {
    const { history } = this.kept
    this.kept = keep(this.kept, fact)
    if (this.kept.history !== history) this.#others = null
    this.#facts.push(fact)
  }

  /** What is known of this member, copied once in a step. */
  ownProgress(id: string): Draft<Progress> {
    const held = this.now.progress[id] ?? fresh(this.log.last + 1)
    const known = this.#own.find((one) => one === held)
    if (known !== undefined) return known
    const own = { ...held }
    this.#own.push(own)
    if (this.#progress === null || this.#progress !== this.now.progress)
      this.now.progress = this.#progress = { ...this.now.progress }
    this.#progress[id] = own
    return own
  }

  become(role: Role): void {
    this.role = role
    this.#moved = true
  }

  ask(request: RaftRequest): void {
    this.#asks.push(request)
  }

  /** A leader's entries may go out before they are on its own disk (thesis, 10.2.1); nothing else may. */
  send(to: string, message: RaftMessage, early = false): void {
    this.#asks.push({ port: "peer", to, message, early })
  }

  decline(ticket: string, reason: Extract<RaftRequest, { op: "declined" }>["reason"]): void {
    this.#asks.push({ port: "caller", op: "declined", ticket, reason, leader: this.now.leader })
  }

  /**
   * A new time to ask for votes at, between one and one and a half election timeouts from now. Those who do it at once poll first,
   * and split votes are followed by a short wait, so they need not be drawn far apart.
   */
  postpone(): void {
    this.now.deadlineMs = this.nowMs + Math.floor(this.settings.electionMs * (1 + this.chance / 2))
  }

  /** The facts, those that are kept first. */
  facts(): Array<RaftFact> {
    const type = this.#moved ? factOf[this.role] : "raft.noted"
    this.#facts.push({ type, changes: this.now, asks: this.#asks })
    return this.#facts
  }
}
