/**
 * Raft as the textbook has it (Ongaro and Ototaro, figure 2; thesis 9.6 for polls, 6.2 for a leader that hears nobody): one
 * mutable object for each member, everything said at once. `raft-model.unit.test.ts` holds the actor against it.
 *
 * It leaves out: other members than those of the beginning, snapshots, reads and leases, leadership transfer, limits,
 * how long a member waits before it asks for votes, and when and from where a leader sends entries. Of that it only says what an append has to be when there is one, and that
 * a heartbeat goes to everyone.
 */
import type { Entry, RaftMessage, RaftMessageOf } from "../../src/events/raft.ts"

export interface Timing {
  readonly heartbeatMs: number
  readonly electionMs: number
}

/** What is on the disk. */
export interface Disk {
  readonly term: number
  readonly vote: string | null
  readonly entries: ReadonlyArray<Entry>
}

export interface Said {
  readonly to: string
  readonly message: RaftMessage
}

export class RaftModel {
  readonly id: string
  readonly voters: ReadonlyArray<string>
  readonly timing: Timing
  term: number
  vote: string | null
  /** Entry 1 is at 0. */
  entries: Array<Entry>
  role: "follower" | "poller" | "candidate" | "leader" = "follower"
  leader: string | null = null
  commit = 0
  stored: number
  votes = new Map<string, boolean>()
  match = new Map<string, number>()
  heard = new Set<string>()
  nowMs = 0
  chance = 0
  campaignAtMs = 0
  noVoteBeforeMs = 0
  heartbeatAtMs = 0
  countAtMs = 0
  said: Array<Said> = []
  /** A heartbeat is due: everyone is sent an append. */
  beats = false

  constructor(id: string, voters: ReadonlyArray<string>, timing: Timing, disk: Disk, nowMs: number) {
    this.id = id
    this.voters = voters
    this.timing = timing
    this.term = disk.term
    this.vote = disk.vote
    this.entries = [...disk.entries]
    this.stored = disk.entries.length
    this.at(nowMs, 0)
    this.resetTimer()
    this.noVoteBeforeMs = nowMs
  }

  /** Before each step: the time, and what the shell has drawn. */
  at(nowMs: number, chance: number): void {
    this.nowMs = nowMs
    this.chance = chance
    this.said = []
    this.beats = false
  }

  get disk(): Disk {
    return { term: this.term, vote: this.vote, entries: [...this.entries] }
  }

  get last(): number {
    return this.entries.length
  }

  termAt(index: number): number | null {
    return index === 0 ? 0 : (this.entries[index - 1]?.term ?? null)
  }

  resetTimer(): void {
    this.campaignAtMs = this.nowMs + Math.floor(this.timing.electionMs * (1 + this.chance))
  }

  isMajority(agrees: (id: string) => boolean): boolean {
    return this.voters.filter(agrees).length * 2 > this.voters.length
  }

  say(to: string, message: RaftMessage): void {
    this.said.push({ to, message })
  }

  follow(leader: string | null): void {
    this.role = "follower"
    this.leader = leader
    this.votes.clear()
    this.resetTimer()
  }

  tick(): void {
    if (this.role !== "leader") {
      if (this.nowMs >= this.campaignAtMs && this.voters.includes(this.id)) this.startPoll()
      return
    }
    if (this.nowMs >= this.countAtMs) {
      if (!this.isMajority((id) => id === this.id || this.heard.has(id))) return this.follow(null)
      this.heard.clear()
      this.countAtMs = this.nowMs + this.timing.electionMs
    }
    if (this.nowMs >= this.heartbeatAtMs) {
      this.heartbeatAtMs = this.nowMs + this.timing.heartbeatMs
      this.beats = true
    }
  }

  startPoll(): void {
    this.role = "poller"
    this.leader = null
    this.votes = new Map([[this.id, true]])
    this.resetTimer()
    if (this.isMajority((id) => this.votes.get(id) === true)) this.campaign()
    else this.askForVotes(this.term + 1, true)
  }

  campaign(): void {
    this.term += 1
    this.vote = this.id
    this.role = "candidate"
    this.leader = null
    this.votes = new Map([[this.id, true]])
    this.resetTimer()
    if (this.isMajority((id) => this.votes.get(id) === true)) this.lead()
    else this.askForVotes(this.term, false)
  }

  askForVotes(term: number, poll: boolean): void {
    const [lastIndex, lastTerm] = [this.last, this.termAt(this.last) ?? 0]
    for (const id of this.voters)
      if (id !== this.id)
        this.say(id, { type: "requestVote", term, lastIndex, lastTerm, poll, forced: false })
  }

  lead(): void {
    this.role = "leader"
    this.leader = this.id
    this.votes.clear()
    this.match.clear()
    this.heard.clear()
    this.heartbeatAtMs = this.nowMs + this.timing.heartbeatMs
    this.countAtMs = this.nowMs + this.timing.electionMs
    this.beats = true
    this.append(null)
  }

  append(data: string | null): void {
    this.entries.push({ index: this.last + 1, term: this.term, data, members: null })
  }

  propose(all: ReadonlyArray<string>): void {
    if (this.role === "leader") for (const data of all) this.append(data)
  }

  /** The disk has this entry. */
  wrote(index: number, term: number): void {
    if (index > this.stored && this.termAt(index) === term) this.stored = index
    this.count()
  }

  /** The highest entry of this term that a majority has is committed, with all before it. */
  count(): void {
    if (this.role !== "leader") return
    const has = (id: string, index: number) =>
      (id === this.id ? this.stored : (this.match.get(id) ?? 0)) >= index
    for (let index = this.last; index > this.commit && this.termAt(index) === this.term; index--)
      if (this.isMajority((id) => has(id, index))) this.commit = index
  }

  receive(from: string, message: RaftMessage): void {
    const { term, type } = message
    const isRequest = type === "requestVote"
    const isPromised = this.role === "leader" || this.nowMs < this.noVoteBeforeMs
    if (term < this.term) return this.refuse(from, message)
    if (isRequest && isPromised && (term > this.term || message.poll)) return
    const isPoll = (isRequest && message.poll) || (type === "vote" && message.poll && message.granted)
    if (term > this.term && !isPoll) {
      this.term = term
      this.vote = null
      this.follow(null)
    }
    if (isRequest) this.onRequestVote(from, message)
    if (type === "vote") this.onVote(from, message)
    if (type === "append" && this.role !== "leader") this.onAppend(from, message)
    if (type === "appended" && this.role === "leader") this.onAppended(from, message)
  }

  /** A message of the past is told of the present. */
  refuse(from: string, message: RaftMessage): void {
    if (message.type === "requestVote")
      this.say(from, { type: "vote", term: this.term, poll: message.poll, granted: false })
    if (message.type === "append") this.answer(from, message, false, message.previousIndex, 0)
  }

  onRequestVote(from: string, message: RaftMessageOf<"requestVote">): void {
    const { poll, lastIndex, lastTerm } = message
    const own = this.termAt(this.last) ?? 0
    const isAsNew = lastTerm > own || (lastTerm === own && lastIndex >= this.last)
    const isFree = poll
      ? message.term > this.term
      : this.vote === from || (this.vote === null && this.leader === null)
    const granted = isAsNew && isFree
    if (granted && !poll) {
      this.vote = from
      this.resetTimer()
    }
    this.say(from, { type: "vote", term: granted ? message.term : this.term, poll, granted })
  }

  onVote(from: string, { poll, granted, term }: RaftMessageOf<"vote">): void {
    if (this.role !== (poll ? "poller" : "candidate")) return
    if (poll && granted && term !== this.term + 1) return
    this.votes.set(from, granted)
    if (this.isMajority((id) => this.votes.get(id) === true)) {
      if (poll) this.campaign()
      else this.lead()
    } else if (!this.isMajority((id) => this.votes.get(id) !== false)) this.follow(null)
  }

  answer(to: string, asked: RaftMessageOf<"append">, success: boolean, index: number, hint: number): void {
    const { term } = this
    const hintTerm = this.termAt(hint) ?? 0
    const { round } = asked
    this.say(to, { type: "appended", term, success, index, hintIndex: hint, hintTerm, round })
  }

  onAppend(from: string, message: RaftMessageOf<"append">): void {
    const { previousIndex, previousTerm, entries, commit } = message
    this.follow(from)
    this.noVoteBeforeMs = this.nowMs + this.timing.electionMs
    if (previousIndex < this.commit) return this.answer(from, message, true, this.commit, 0)
    if (this.termAt(previousIndex) !== previousTerm) {
      let hint = Math.min(previousIndex, this.last)
      while (hint > 0 && (this.termAt(hint) ?? 0) > previousTerm) hint--
      return this.answer(from, message, false, previousIndex, hint)
    }
    for (const entry of entries) {
      if (this.termAt(entry.index) === entry.term) continue
      this.entries = this.entries.slice(0, entry.index - 1)
      this.stored = Math.min(this.stored, entry.index - 1)
      this.entries.push(entry)
    }
    const verified = previousIndex + entries.length
    this.commit = Math.max(this.commit, Math.min(commit, verified))
    this.answer(from, message, true, verified, 0)
  }

  onAppended(from: string, { success, index }: RaftMessageOf<"appended">): void {
    this.heard.add(from)
    if (!success) return
    this.match.set(from, Math.max(this.match.get(from) ?? 0, index))
    this.count()
  }
}
