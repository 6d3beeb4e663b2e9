/** A member of a group, told step by step of its disk and of the others; found by the simulated cluster. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { raftProtocol } from "../../src/actors/protocols.ts"
import type { RaftMessage } from "../../src/events/raft.ts"
import { GroupMember } from "../../src/kernel/group-member.ts"

const settings = {
  heartbeatMs: 50,
  electionMs: 300,
  messageBytesMax: 1024 * 1024,
  inflightBytesMax: 1024 * 1024,
  inflightEntriesMax: 1024,
  uncommittedBytesMax: 1024 * 1024,
  readsMax: 100,
  lagEntriesMax: 100,
  leaseDriftPercent: 0
}
const members = { voters: ["a", "b", "c"], outgoing: [], learners: [], learnersNext: [] }

test("who leads performs only when its first entry was handed over, which may wait for its own disk after the others have it", () => {
  let nowMs = 0
  const disk: Array<() => void> = []
  const happened: Array<string> = []
  const sent: Array<RaftMessage> = []
  const member = new GroupMember("a", settings, raftProtocol, {
    nowMs: () => nowMs,
    chance: () => 0,
    send: (_to, message) => void sent.push(message),
    keep: (_facts, stored) => void disk.push(stored),
    wake: () => {},
    decided: (entries) => void happened.push(`handed ${entries.map(({ index }) => index).join()}`),
    snapshot: () => null,
    install: () => {},
    offers: () => {},
    leads: (isLeading) => void happened.push(isLeading ? "leads" : "follows")
  })
  const stored = () => {
    for (const one of disk.splice(0)) one()
  }
  member.start([{ type: "raft.formed", members }])
  nowMs = 10_000
  member.tick()
  member.receive("b", { type: "vote", term: 1, poll: true, granted: true })
  stored()
  member.receive("b", { type: "vote", term: 1, poll: false, granted: true })
  assert.equal(member.role, "leader")
  const { began } = member.state
  const appended = {
    type: "appended",
    term: 1,
    success: true,
    index: began,
    hintIndex: 0,
    hintTerm: 0
  } as const
  member.receive("b", { ...appended, round: 1 })
  member.receive("c", { ...appended, round: 1 })
  assert.equal(member.state.applied, began, "a majority has it, and this one knows")
  assert.deepEqual(happened, [], "nothing is handed over before it is on the own disk, so nobody leads")
  stored()
  assert.deepEqual(happened, [`handed ${began}`, "leads"])
})
