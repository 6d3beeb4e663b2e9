import assert from "node:assert/strict"
import { test } from "node:test"
import * as fc from "fast-check"
import { authorityActor } from "../../src/actors/authority/chart.ts"
import type { AuthorityState } from "../../src/events/authority.ts"
import type { Message } from "../../src/events/envelope.ts"
import { decide, evolve, initialState } from "../../src/kernel/statechart.ts"
import { lintChart } from "../tidy/charts.ts"

const self = "authority/nodes"
const minuteMs = 60_000
const dayMs = 24 * 60 * minuteMs
const hash = (digit: number) => String(digit).repeat(64)
const keyOf = (letter: string) => letter.repeat(43)

/** A register, and a clock that stands still unless it is told. */
class Registered {
  timeMs = 1_000_000
  #state = initialState(authorityActor)

  get state(): AuthorityState {
    return this.#state.context as AuthorityState
  }

  /** What it recorded; nothing when it refused. */
  say(message: Message): ReadonlyArray<Message> {
    const stamp = { self, timeMs: this.timeMs }
    const facts = decide(authorityActor, this.#state, message, stamp)
    for (const fact of facts) this.#state = evolve(authorityActor, this.#state, { ...fact, stamp }).state
    return facts
  }

  makeToken(digit: number, more: { node?: string | null; votes?: boolean; lifetimeMs?: number } = {}) {
    const asked = { token: hash(digit), node: null, votes: false, lifetimeMs: minuteMs, reason: "", ...more }
    return this.say({ type: "authority.makeToken", ...asked })
  }

  admit(digit: number, node: string, serial: string, key = keyOf("a")) {
    const issued = { node, serial, spki: key, notAfterMs: this.timeMs + 90 * dayMs }
    return this.say({ type: "authority.admit", token: hash(digit), ...issued })
  }

  renew(node: string, present: string, serial: string, key = keyOf("b")) {
    const issued = { node, serial, spki: key, notAfterMs: this.timeMs + 90 * dayMs }
    return this.say({ type: "authority.renew", present, ...issued })
  }
}

test("the authority keeps the actor contract", () => {
  assert.deepEqual(lintChart(authorityActor), [])
})

test("a token lets one node in, with the role that it was made for, and not after its time", () => {
  const one = new Registered()
  assert.equal(one.makeToken(1, { votes: true }).length, 1)
  assert.deepEqual(one.makeToken(1), [], "the same again")
  const [fact] = one.admit(1, "n2", "A1")
  assert.equal(fact?.["votes"], true)
  assert.deepEqual(one.admit(1, "n3", "A2"), [])
  assert.deepEqual(one.state.tokens[hash(1)]?.usedBy, { node: "n2", spki: keyOf("a") })
  one.makeToken(2)
  one.timeMs += minuteMs
  assert.deepEqual(one.admit(2, "n3", "A2"), [])
  assert.deepEqual(one.admit(3, "n3", "A2"), [], "nobody made it")
})

test("a name moves to another key by a token for that very name only, or when its certificate has ended", () => {
  const one = new Registered()
  for (const digit of [1, 2, 3, 5]) one.makeToken(digit, { lifetimeMs: 30 * dayMs })
  one.makeToken(4, { node: "h" })
  one.admit(1, "h", "A1", keyOf("a"))
  assert.deepEqual(one.admit(2, "h", "A2", keyOf("x")), [])
  assert.equal(one.admit(2, "h", "A2", keyOf("a")).length, 1, "the same key again, with another token")
  assert.deepEqual(one.admit(4, "other", "A3"), [], "it is for h")
  assert.equal(one.admit(4, "h", "A4", keyOf("x")).length, 1)
  assert.deepEqual(Object.keys(one.state.revoked), ["A2"], "who had it is cut off")
  one.timeMs += 91 * dayMs
  one.makeToken(6)
  assert.equal(one.admit(6, "h", "A5", keyOf("y")).length, 1, "it had ended")
  assert.equal("A4" in one.state.revoked, false, "what has ended needs no refusal")
})

test("a renewal is for who shows a certificate that is good for the name", () => {
  const one = new Registered()
  one.makeToken(1)
  one.admit(1, "h", "A1")
  assert.deepEqual(one.renew("h", "FF", "B1"), [])
  assert.deepEqual(one.renew("nobody", "A1", "B1"), [])
  assert.equal(one.renew("h", "A1", "B1").length, 1)
  assert.equal(one.renew("h", "A1", "B2").length, 1, "the link is still that of the one before")
  assert.equal(one.renew("h", "B2", "B3").length, 1)
  assert.deepEqual(one.renew("h", "A1", "B4"), [], "it has shown a later one")
  one.say({ type: "authority.revoke", node: "h", reason: "" })
  assert.deepEqual(one.renew("h", "B3", "B5"), [])
  assert.deepEqual(Object.keys(one.state.revoked), ["B2", "B3"])
  assert.deepEqual(one.say({ type: "authority.revoke", node: "h", reason: "" }), [], "once")
})

test("the key goes to voters whose certificate is known and was not taken back", () => {
  const one = new Registered()
  one.makeToken(1, { votes: true })
  one.makeToken(2)
  one.admit(1, "n2", "A1")
  one.admit(2, "h", "A2")
  const hand = (to: string, serial: string) => one.say({ type: "authority.handKey", to, serial })
  assert.deepEqual(hand("h", "A2"), [])
  assert.deepEqual(hand("n2", "A2"), [])
  assert.equal(hand("n2", "A1").length, 1)
  assert.deepEqual(one.state.keyHolders, ["n2"])
  one.say({ type: "authority.revoke", node: "n2", reason: "" })
  assert.deepEqual(hand("n2", "A1"), [])
})

test("who has the key claims its own name, once, and not with a certificate that was taken back", () => {
  const one = new Registered()
  const claim = (serial: string) =>
    one.say({
      type: "authority.claim",
      node: "n1",
      serial,
      spki: keyOf(serial.toLowerCase()),
      notAfterMs: one.timeMs + dayMs,
      votes: true
    })
  assert.equal(claim("A").length, 1)
  assert.deepEqual(claim("A"), [])
  assert.equal(claim("B").length, 1, "its identity was lost, and it made another one")
  assert.deepEqual(claim("A"), [], "the one before counts as taken back")
})

test("what is taken over never stands before what is known", () => {
  const one = new Registered()
  one.makeToken(1)
  one.admit(1, "h", "A1")
  const old = { serial: "01", spki: keyOf("o"), notAfterMs: one.timeMs + dayMs, votes: true }
  const tokens = [1, 2].map((digit) => ({
    token: hash(digit),
    node: null,
    votes: true,
    expiresMs: one.timeMs + dayMs,
    isUsed: false
  }))
  const asked = { type: "authority.takeOver", names: ["h", "k"].map((node) => ({ node, ...old })), tokens }
  const [fact] = one.say(asked)
  assert.deepEqual(
    (fact as unknown as typeof asked).names.map(({ node }) => node),
    ["k"]
  )
  assert.equal(one.state.names["h"]?.serial, "A1")
  assert.notEqual(one.state.tokens[hash(1)]?.usedBy, null)
  assert.deepEqual(one.say(asked), [])
})

test("whatever is asked in whatever order: no token is used twice, and no name has two keys at a time", () => {
  const asked = fc.record({
    what: fc.constantFrom("make", "bound", "admit", "admit", "renew", "revoke", "wait"),
    digit: fc.nat(4),
    node: fc.constantFrom("a", "b"),
    key: fc.constantFrom("x", "y")
  })
  fc.assert(
    fc.property(fc.array(asked, { maxLength: 60 }), (all) => {
      const one = new Registered()
      const used = new Set<string>()
      let serials = 0
      for (const { what, digit, node, key } of all) {
        const before = one.state
        const serial = (++serials + 4096).toString(16).toUpperCase()
        if (what === "make") one.makeToken(digit, { lifetimeMs: 30 * dayMs })
        if (what === "bound") one.makeToken(digit, { node, lifetimeMs: 30 * dayMs })
        if (what === "wait") one.timeMs += 20 * dayMs
        if (what === "revoke") one.say({ type: "authority.revoke", node, reason: "" })
        if (what === "renew") one.renew(node, before.names[node]?.serial ?? "0", serial, keyOf(key))
        if (what !== "admit" || one.admit(digit, node, serial, keyOf(key)).length === 0) continue
        const madeMs = before.tokens[hash(digit)]?.expiresMs
        assert.ok(!used.has(`${digit} ${madeMs}`), "a token was used twice")
        used.add(`${digit} ${madeMs}`)
        const held = before.names[node]
        const isHeld = held !== undefined && held.notAfterMs > one.timeMs && held.spki !== keyOf(key)
        if (!isHeld) continue
        assert.equal(before.tokens[hash(digit)]?.node, node)
        for (const shown of held.serials) assert.ok(shown in one.state.revoked, `${shown} is not refused`)
      }
    })
  )
})
