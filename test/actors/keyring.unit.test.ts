/** The turning over of a key, word by word. */
import { test } from "node:test"
import { given } from "./specification.ts"

const keyring = "keyring/gossip"
const asked = { type: "keyring.rotationAsked", rotation: 1, reason: "n4 is gone" }
const rotated = { type: "keyring.rotated", rotation: 1, key: "0123abcd" }
const noticed = { ...rotated, type: "keyring.noticeRotated" }

test("one rotation at a time is asked for, each with a number of its own, and ends when all have the key", () => {
  given(keyring, [])
    .when({ type: "keyring.rotate", reason: "n4 is gone" })
    .thenRecords(asked)
    .thenState("rotating")
  given(keyring, [asked]).when({ type: "keyring.rotate" }).thenRefused({ state: "rotating" })
  given(keyring, [asked]).when(noticed).thenRecords(rotated).thenState("settled")
  given(keyring, [asked, rotated])
    .when({ type: "keyring.rotate", reason: "" })
    .thenRecords({ ...asked, rotation: 2, reason: "" })
})

test("the end of another rotation ends none", () => {
  given(keyring, []).when(noticed).thenRefused({ state: "settled" })
  given(keyring, [asked])
    .when({ ...noticed, rotation: 2 })
    .thenRefused({ unmet: ["isOfThisRotation"] })
})
