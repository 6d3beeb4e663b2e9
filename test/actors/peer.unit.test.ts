/** A peer's actor, word by word: what is late or said again changes nothing. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { descriptionText, noDescription, noticeOf, readDescription } from "../../src/events/peer.ts"
import { given } from "./specification.ts"

const peer = "peer/n1"
const capacity = { cpus: 8, memoryMib: 16_384, diskMib: 100_000 }
const told = { address: "10.0.0.1:7946", description: { ...noDescription, capacity } }
const alive = (incarnation: number) => ({ type: "peer.noticeAlive", incarnation, by: "n1", ...told })
const say = (what: "Suspect" | "Failed" | "Left", incarnation: number, by = "n2") => ({
  type: `peer.notice${what}`,
  incarnation,
  by
})
const joined = { type: "peer.joined", incarnation: 1, by: "n1", ...told }
const suspected = { type: "peer.suspected", incarnation: 1, by: "n2" }
const failed = { type: "peer.failed", incarnation: 1, by: "n2" }
const left = { type: "peer.left", incarnation: 1, by: "n1" }

test("a peer is known when somebody says that it lives; nobody else is ever gone", () => {
  given(peer, []).when(alive(1)).thenRecords(joined).thenState("alive")
  for (const what of ["Suspect", "Failed", "Left"] as const)
    given(peer, []).when(say(what, 1)).thenRefused({ state: "unknown" })
})

test("it is suspected, and fails or answers, with who noticed and in which incarnation", () => {
  given(peer, [joined]).when(say("Suspect", 1)).thenRecords(suspected).thenState("suspect")
  given(peer, [joined, suspected]).when(say("Failed", 1)).thenRecords(failed).thenState("failed")
  given(peer, [joined, suspected])
    .when(alive(2))
    .thenRecords({ ...joined, type: "peer.refuted", incarnation: 2 })
    .thenState("alive")
  given(peer, [joined]).when(say("Failed", 1)).thenRecords(failed)
  given(peer, [joined])
    .when(say("Left", 1, "n1"))
    .thenRecords(left)
    .thenState("left")
})

test("what it tells of itself changes with its incarnation", () => {
  const description = { ...noDescription, mode: "internet" }
  given(peer, [joined])
    .when({ ...alive(2), description })
    .thenRecords({ type: "peer.described", incarnation: 2, by: "n1", address: told.address, description })
    .thenState("alive")
})

test("a late word, and the same word again, are refused", () => {
  const isStale = { unmet: ["isNewer"] }
  given(peer, [joined]).when(alive(1)).thenRefused(isStale)
  given(peer, [joined, suspected]).when(alive(1)).thenRefused(isStale)
  given(peer, [joined, suspected])
    .when(say("Suspect", 1, "n3"))
    .thenRefused(isStale)
  given(peer, [{ ...joined, incarnation: 5 }])
    .when(say("Failed", 4))
    .thenRefused({ unmet: ["isCurrent"] })
  given(peer, [joined, failed]).when(say("Failed", 1)).thenRefused({ state: "failed" })
  given(peer, [joined, failed]).when(alive(1)).thenRefused(isStale)
  given(peer, [joined, left]).when(say("Failed", 9)).thenRefused({ state: "left" })
})

test("one that failed or left comes back in a later incarnation only", () => {
  for (const gone of [failed, left])
    given(peer, [joined, gone])
      .when(alive(2))
      .thenRecords({ ...joined, incarnation: 2 })
      .thenState("alive")
  given(peer, [joined, failed])
    .when(say("Left", 1, "n1"))
    .thenRecords(left)
})

test("a description is carried as text of printable ASCII, and read again; anything else is nothing", () => {
  const sample = { latencyMs: 0.25, bandwidthBitsPerSecond: 940_000_000, lossPercent: 0, jitterMs: 0.1 }
  for (const one of [noDescription, { capacity, mode: "datacenter", sample } as const]) {
    const text = descriptionText(one)
    assert.match(text, /^[\x20-\x7e]{1,512}$/)
    assert.deepEqual(readDescription(text), one)
  }
  assert.deepEqual(readDescription(""), noDescription)
  for (const bad of ["{", "{}", "[1,2,3]", '[null,"wan",null]', "[[1],null,null]"])
    assert.equal(readDescription(bad), null, bad)
})

test("what a detector learns is a word for the actor", () => {
  const view = { id: "n1", incarnation: 3, address: told.address, meta: descriptionText(told.description) }
  assert.deepEqual(noticeOf({ ...view, status: "alive" }, "n1"), alive(3))
  assert.deepEqual(noticeOf({ ...view, status: "suspect" }, "n2"), say("Suspect", 3))
  assert.deepEqual(noticeOf({ ...view, status: "dead" }, "n2"), say("Failed", 3))
  assert.deepEqual(noticeOf({ ...view, status: "left" }, "n2"), say("Left", 3))
  assert.equal(noticeOf({ ...view, status: "alive", address: "" }, "n1"), null)
})
