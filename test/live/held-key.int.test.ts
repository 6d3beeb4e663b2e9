/** What lies in the authority's folder: the key, and what earlier releases kept beside it. */
import assert from "node:assert/strict"
import { X509Certificate } from "node:crypto"
import { existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import test from "node:test"
import { Effect } from "effect"
import type { Scope } from "effect"
import { caInit, issueIdentity } from "../../src/live/ca.ts"
import { generateKeys, signingRequest, spkiHash } from "../../src/live/ca/certificate.ts"
import { HeldKey } from "../../src/live/ca/held-key.ts"
import { readLegacy, setLegacyAside } from "../../src/live/ca/legacy.ts"
import { newSecret, tokenHash } from "../../src/live/ca/tokens.ts"
import { newAuthority, scratchFolder } from "./link-nodes.ts"
import { registerOver } from "./register-world.ts"

const run = (effect: Effect.Effect<unknown, unknown, Scope.Scope>) => async () => {
  await Effect.runPromise(Effect.scoped(effect))
}

const request = (node: string) => signingRequest(generateKeys(), node)

test(
  "the folder of an earlier release is taken over once, and nothing of it is lost",
  run(
    Effect.gen(function* () {
      const folder = join(yield* scratchFolder, "ca")
      const ca = yield* caInit(folder)
      const secrets = { open: newSecret(), used: newSecret() }
      const write = (path: string, value: object) => {
        mkdirSync(join(folder, dirname(path)), { recursive: true })
        writeFileSync(join(folder, path), JSON.stringify(value))
      }
      const expiresMs = Date.now() + 600_000
      write(`tokens/open/${tokenHash(secrets.open)}.json`, { expiresMs, node: null })
      write(`tokens/used/${tokenHash(secrets.used)}.json`, { expiresMs, node: "node-a", votes: true })
      write("tokens/open/nonsense.json", { some: "thing" })
      const identity = yield* issueIdentity(ca, "node-a")
      const leaf = new X509Certificate(identity.certificate)
      const old = {
        serial: leaf.serialNumber,
        spki: spkiHash(leaf.publicKey),
        notAfterMs: expiresMs,
        votes: true
      }
      write("nodes/node-a.json", old)
      const { register, state, store } = yield* registerOver(ca)
      const legacy = yield* readLegacy(folder)
      assert.deepEqual(legacy?.unreadable, [join(folder, "tokens/open/nonsense.json")])
      const own = yield* issueIdentity(ca, "node-ca")
      yield* register.prepare(own, legacy)
      const { position } = yield* store.head
      // The process was ended before the folder was put aside.
      yield* register.prepare(own, legacy)
      assert.equal((yield* store.head).position, position)
      yield* setLegacyAside(folder)
      assert.equal(yield* readLegacy(folder), null)
      assert.deepEqual(readdirSync(join(folder, "nodes.taken-over")), ["node-a.json"])
      assert.deepEqual(Object.keys((yield* state).names), ["node-ca", "node-a"])
      const used = yield* Effect.flip(register.join(secrets.used, "node-a", request("node-a")))
      assert.match(used.reason, /used already/)
      const taken = yield* Effect.flip(register.join(secrets.open, "node-a", request("node-a")))
      assert.equal(taken.code, "name-taken")
      yield* register.join(secrets.open, "node-b", request("node-b"))
      yield* register.renew("node-a", leaf.serialNumber, request("node-a"))
    })
  )
)

test(
  "a key that a voter gave is kept privately, and only when it is this authority's",
  run(
    Effect.gen(function* () {
      const ca = yield* newAuthority
      const folder = join(yield* scratchFolder, "ca")
      const held = yield* HeldKey.open(folder)
      assert.equal(held.authority, null)
      const other = yield* newAuthority
      for (const bad of [other.exportKey(), "no key"]) {
        const error = yield* Effect.flip(held.take(bad, ca.certificate))
        assert.equal(error.code, "invalid")
        assert.doesNotMatch(JSON.stringify(error), /PRIVATE|no key at all/)
      }
      assert.equal(existsSync(join(folder, "ca.key")), false)
      yield* held.take(ca.exportKey(), ca.certificate)
      assert.equal(statSync(join(folder, "ca.key")).mode & 0o777, 0o600)
      assert.equal((yield* HeldKey.open(folder)).authority?.hash, ca.hash)
      yield* held.forget
      assert.equal(held.authority, null)
      assert.equal(existsSync(join(folder, "ca.key")), false)
    })
  )
)
