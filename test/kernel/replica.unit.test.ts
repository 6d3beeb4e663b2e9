/** A replica keeps what has to be kept, forgets the rest, and holds back what is asked until the disk has it. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { raftActor } from "../../src/actors/raft/chart.ts"
import type { RaftContext } from "../../src/actors/raft/step.ts"
import { noMembers } from "../../src/actors/raft/quorum.ts"
import type { RaftCommand, RaftMessage, RaftRequest, RaftSettings } from "../../src/events/raft.ts"
import { Replica } from "../../src/kernel/replica.ts"

const settings: RaftSettings = {
  heartbeatMs: 100,
  electionMs: 1000,
  messageBytesMax: 1024,
  inflightBytesMax: 4096,
  inflightEntriesMax: 16,
  uncommittedBytesMax: 4096,
  readsMax: 10,
  lagEntriesMax: 10,
  leaseDriftPercent: 0
}

function started(
  id: string,
  voters: ReadonlyArray<string>,
  learners: ReadonlyArray<string> = [],
  more: Partial<RaftSettings> = {}
) {
  const replica = new Replica<RaftRequest>(raftActor, `raft/${id}`)
  replica.restore([{ type: "raft.formed", members: { ...noMembers, voters, learners } }])
  take(replica, { type: "raft.begin", id, settings: { ...settings, ...more }, chance: 0 }, 0)
  return replica
}

const take = (replica: Replica<RaftRequest>, input: RaftCommand, timeMs: number) =>
  replica.take(input, timeMs)
const contextOf = (replica: Replica<RaftRequest>) => replica.state.context as RaftContext
const sent = (requests: ReadonlyArray<RaftRequest>) =>
  requests.flatMap((request) => (request.port === "peer" ? [`${request.message.type} to ${request.to}`] : []))
const receive = (from: string, message: RaftMessage): RaftCommand => ({
  type: "raft.receive",
  from,
  message,
  chance: 0
})

test("a vote is asked for when the own one is on the disk; a leader's entries go out at once", () => {
  const replica = started("a", ["a", "b", "c"])
  const polled = take(replica, { type: "raft.tick", chance: 0 }, 1000)
  assert.deepEqual(polled.facts, [])
  assert.deepEqual(sent(polled.now), ["requestVote to b", "requestVote to c"])
  const campaigned = take(replica, receive("b", { type: "vote", term: 1, poll: true, granted: true }), 1010)
  assert.deepEqual(campaigned.facts, [{ type: "raft.voted", term: 1, vote: "a" }])
  assert.deepEqual(campaigned.now, [], "nothing before the vote is on the disk")
  assert.deepEqual(sent(replica.stored(1)), ["requestVote to b", "requestVote to c"])
  const led = take(replica, receive("b", { type: "vote", term: 1, poll: false, granted: true }), 1020)
  assert.equal(replica.state.value, "leader")
  assert.deepEqual(sent(led.now), ["append to b", "append to c"], "beside the own disk")
  assert.equal(contextOf(replica).stored, 0, "the own copy counts when it is there")
  const appended = {
    type: "appended",
    term: 1,
    success: true,
    index: 1,
    hintIndex: 0,
    hintTerm: 0,
    round: 1
  } as const
  take(replica, receive("b", appended), 1030)
  assert.equal(contextOf(replica).commit, 0, "one copy is no majority")
  replica.stored(1)
  take(replica, { type: "raft.stored", index: 1, term: 1, chance: 0 }, 1040)
  assert.equal(contextOf(replica).commit, 1)
})

test("alone it leads at once, but says nothing to learners before its vote is on the disk", () => {
  const replica = started("a", ["a"], ["b"])
  const led = take(replica, { type: "raft.tick", chance: 0 }, 1000)
  assert.equal(replica.state.value, "leader")
  assert.deepEqual(led.now, [])
  assert.deepEqual(sent(replica.stored(1)), [], "the vote alone is not all that was recorded before")
  assert.deepEqual(sent(replica.stored(1)), ["append to b"])
})

test("a restart is a follower with what was kept; a heartbeat is answered after the entries before it", () => {
  const replica = started("b", ["a", "b", "c"])
  const entries = [{ index: 1, term: 2, data: "x", members: null }]
  const append = {
    type: "append",
    term: 2,
    previousIndex: 0,
    previousTerm: 0,
    entries,
    commit: 1,
    round: 1
  } as const
  const first = take(replica, receive("a", append), 10)
  assert.deepEqual(
    first.facts.map(({ type }) => type),
    ["raft.voted", "raft.appended"]
  )
  assert.deepEqual(first.now, [])
  const heartbeat = { ...append, previousIndex: 1, previousTerm: 2, entries: [], round: 2 } as const
  const second = take(replica, receive("a", heartbeat), 20)
  assert.deepEqual(second, { now: [], facts: [] }, "its answer would say that the entry is on the disk")
  assert.equal(replica.held, 3)
  const released = replica.stored(2)
  assert.deepEqual(
    released.map(({ port }) => port),
    ["machine", "peer", "peer"]
  )
  const again = new Replica<RaftRequest>(raftActor, "raft/b")
  again.restore([{ type: "raft.formed", members: { ...noMembers, voters: ["a", "b", "c"] } }, ...first.facts])
  const { term, vote, log, commit, leader } = contextOf(again)
  assert.deepEqual([term, vote, log.last, commit, leader], [2, null, 1, 0, null])
  assert.equal(again.state.value, "follower")
})

test("several inputs that are taken together do what they do one after the other, with one piece for the disk", () => {
  const append = (index: number): RaftCommand =>
    receive("a", {
      type: "append",
      term: 2,
      previousIndex: index - 1,
      previousTerm: index === 1 ? 0 : 2,
      entries: [{ index, term: 2, data: `d${index}`, members: null }],
      commit: index - 1,
      round: 1
    })
  const poll: RaftCommand = receive("c", {
    type: "requestVote",
    term: 1,
    lastIndex: 0,
    lastTerm: 0,
    poll: true,
    forced: false
  })
  const [one, together] = [started("b", ["a", "b", "c"]), started("b", ["a", "b", "c"])]
  const inputs = [poll, append(1), append(2)]
  const each = inputs.map((input) => take(one, input, 10))
  const all = together.takeAll(inputs, 10)
  assert.deepEqual(
    all.facts,
    each.flatMap(({ facts }) => facts)
  )
  assert.deepEqual(sent(all.now), ["vote to c"], "what was asked before anything was recorded does not wait")
  assert.deepEqual(contextOf(together), contextOf(one))
  assert.equal(together.held, one.held)
  assert.deepEqual(together.stored(2), one.stored(2))
  assert.deepEqual(together.stored(1), one.stored(1))
  assert.equal(together.pending, 0)
})

test("a group is formed once, and not over what a leader has sent", () => {
  const replica = new Replica<RaftRequest>(raftActor, "raft/a")
  assert.throws(
    () => take(replica, { type: "raft.tick", chance: 0 }, 0),
    /nothing may be said before raft.begin/
  )
  take(replica, { type: "raft.begin", id: "a", settings, chance: 0 }, 0)
  const members = { ...noMembers, voters: ["a"] }
  assert.deepEqual(take(replica, { type: "raft.form", members }, 0).facts, [{ type: "raft.formed", members }])
  assert.deepEqual(take(replica, { type: "raft.form", members: { ...members, voters: ["b"] } }, 0).facts, [])
})

test("a leader whose connection has ended is polled about soon, one after the other, and its promise is over", () => {
  const heartbeat = {
    type: "append",
    term: 1,
    previousIndex: 0,
    previousTerm: 0,
    entries: [],
    commit: 0,
    round: 1
  } as const
  const poll = receive("c", {
    type: "requestVote",
    term: 2,
    lastIndex: 0,
    lastTerm: 0,
    poll: true,
    forced: false
  })
  const following = (id: string, more: Partial<RaftSettings> = {}) => {
    const replica = started(id, ["a", "b", "c"], [], more)
    take(replica, receive("a", heartbeat), 1000)
    replica.stored(1)
    return replica
  }
  const b = following("b")
  assert.deepEqual(sent(take(b, poll, 1050).now), [], "it has promised the leader not to vote")
  const before = contextOf(b).deadlineMs
  take(b, { type: "raft.lost", peer: "c" }, 1055)
  assert.equal(contextOf(b).deadlineMs, before, "only the leader's end matters")
  take(b, { type: "raft.lost", peer: "a" }, 1060)
  assert.deepEqual(sent(take(b, poll, 1070).now), ["vote to c"])
  const { electionMs } = settings
  assert.equal(contextOf(b).deadlineMs, 1060 + electionMs * 0.05)
  assert.deepEqual(sent(take(b, { type: "raft.tick", chance: 0 }, 1060 + electionMs).now), [
    "requestVote to a",
    "requestVote to c"
  ])
  const c = following("c")
  take(c, { type: "raft.lost", peer: "a" }, 1060)
  assert.equal(contextOf(c).deadlineMs, 1060 + electionMs * 0.35, "after b")
  const leased = following("b", { leaseDriftPercent: 10 })
  const { promisedMs } = contextOf(leased)
  assert.equal(promisedMs, 1000 + electionMs)
  take(leased, { type: "raft.lost", peer: "a" }, 1060)
  assert.equal(contextOf(leased).promisedMs, promisedMs, "a lease may rely on it")
  assert.equal(contextOf(leased).deadlineMs, promisedMs, "and with it ends its wait")
})

test("a snapshot that was being written while the log came to its end takes nothing away that was acknowledged", () => {
  const follower = started("b", ["a", "b", "c"])
  const entry = (index: number) => ({ index, term: 1, data: "x", members: null })
  const part = { index: 2, indexTerm: 1, members: { ...noMembers, voters: ["a", "b", "c"] }, offset: 0 }
  const snapshot = { type: "snapshot", term: 1, ...part, data: "s", last: true, round: 1 } as const
  const asked = take(follower, receive("a", snapshot), 1000)
  follower.stored(asked.facts.length)
  const entries = [entry(1), entry(2), entry(3)]
  const append = { previousIndex: 0, previousTerm: 0, entries, commit: 0, round: 2 }
  const appended = take(follower, receive("a", { type: "append", term: 1, ...append }), 1010)
  assert.deepEqual(sent([...appended.now, ...follower.stored(appended.facts.length)]), ["appended to a"])
  const { members } = part
  const { facts } = take(
    follower,
    {
      ...{ type: "raft.snapshotWritten", from: "a", index: 2, indexTerm: 1, members },
      ...{ offset: 1, whole: true, round: 1 }
    },
    1020
  )
  assert.deepEqual(facts, [], "the log stays as it is")
  assert.deepEqual([contextOf(follower).log.last, contextOf(follower).commit], [3, 2])
})
