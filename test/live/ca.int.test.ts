import assert from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { X509Certificate } from "node:crypto"
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import test from "node:test"
import { connect as tlsConnect } from "node:tls"
import { Effect } from "effect"
import type { Scope } from "effect"
import {
  acceptCertificate,
  caInit,
  caOpen,
  issueIdentity,
  loadIdentity,
  saveIdentity
} from "../../src/live/ca.ts"
import type { Authority, NodeIdentity } from "../../src/live/ca.ts"
import { generateKeys, mayVote, nodeOf, signingRequest } from "../../src/live/ca/certificate.ts"
import { joinCluster, renewHandler, renewIdentity, renewKind, serveJoins } from "../../src/live/ca/join.ts"
import type { Issuing } from "../../src/live/ca/join.ts"
import type { Register } from "../../src/live/ca/register.ts"
import { Link } from "../../src/kernel/ports/link.ts"
import { Endpoint, protocols } from "../../src/live/link/endpoint.ts"
import {
  isConnected,
  newAuthority,
  scratchFolder,
  startEndpoint,
  startNode,
  startNodeAs,
  until
} from "./link-nodes.ts"
import { startRegister } from "./register-world.ts"

const run = (effect: Effect.Effect<unknown, unknown, Scope.Scope>) => async () => {
  await Effect.runPromise(Effect.scoped(effect))
}

const request = (node: string) => signingRequest(generateKeys(), node)

test(
  "an authority's files are private, and it opens again as the same one",
  run(
    Effect.gen(function* () {
      const folder = join(yield* scratchFolder, "ca")
      const made = yield* caInit(folder)
      assert.equal(statSync(folder).mode & 0o777, 0o700)
      for (const file of ["ca.key", "ca.crt"]) {
        assert.equal(statSync(join(folder, file)).mode & 0o777, 0o600)
      }
      assert.equal((yield* caOpen(folder)).hash, made.hash)
      assert.equal((yield* Effect.flip(caInit(folder))).code, "exists")
      const key = readFileSync(join(folder, "ca.key"))
      rmSync(join(folder, "ca.key"))
      // The key was given up: another one in its place would be another authority's.
      assert.match((yield* Effect.flip(caInit(folder))).reason, /its key is elsewhere/)
      writeFileSync(join(folder, "ca.key"), key)
      writeFileSync(
        join(folder, "ca.key"),
        "-----BEGIN PRIVATE KEY-----\nsecret stuff\n-----END PRIVATE KEY-----"
      )
      const broken = yield* Effect.flip(caOpen(folder))
      assert.equal(broken.code, "invalid")
      assert.doesNotMatch(JSON.stringify(broken), /secret stuff/)
    })
  )
)

test(
  "OpenSSL takes a node's certificate under its strict rules, as server and as client",
  run(
    Effect.gen(function* () {
      const folder = yield* scratchFolder
      const ca = yield* caInit(join(folder, "ca"))
      const identity = yield* issueIdentity(ca, "node-a")
      const leaf = join(folder, "leaf.pem")
      writeFileSync(leaf, identity.certificate)
      for (const purpose of ["sslserver", "sslclient"]) {
        const root = join(folder, "ca", "ca.crt")
        const answer = execFileSync(
          "openssl",
          ["verify", "-x509_strict", "-purpose", purpose, "-CAfile", root, leaf],
          { encoding: "utf8" }
        )
        assert.match(answer, /OK/)
      }
      const certificate = new X509Certificate(identity.certificate)
      assert.equal(nodeOf(certificate), "node-a")
      assert.equal(certificate.subjectAltName, "URI:novacron://node/node-a, URI:novacron://role/voter")
      assert.equal(certificate.ca, false)
    })
  )
)

test(
  "an identity is kept privately and comes back; one whose parts don't fit does not",
  run(
    Effect.gen(function* () {
      const folder = join(yield* scratchFolder, "identity")
      const ca = yield* newAuthority
      const identity = yield* issueIdentity(ca, "node-a")
      yield* saveIdentity(folder, identity)
      assert.equal(statSync(folder).mode & 0o777, 0o700)
      for (const file of readdirSync(folder)) assert.equal(statSync(join(folder, file)).mode & 0o777, 0o600)
      assert.deepEqual(yield* loadIdentity(folder), identity)
      const other = yield* issueIdentity(yield* newAuthority, "node-a")
      yield* saveIdentity(folder, { ...identity, ca: other.ca })
      assert.equal((yield* Effect.flip(loadIdentity(folder))).code, "invalid")
      yield* saveIdentity(folder, { ...identity, key: other.key })
      assert.equal((yield* Effect.flip(loadIdentity(folder))).code, "invalid")
    })
  )
)

test(
  "a token is good once, and its secret is recorded nowhere",
  run(
    Effect.gen(function* () {
      const { register, makeToken, store } = yield* startRegister(yield* newAuthority)
      const { secret } = yield* makeToken()
      yield* register.join(secret, "node-a", request("node-a"))
      const error = yield* Effect.flip(register.join(secret, "node-b", request("node-b")))
      assert.equal(error.code, "token-refused")
      const facts = yield* store.readAll({ from: 1, limit: 100 })
      assert.deepEqual(
        facts.map(({ type, principal }) => `${type} ${principal.kind} ${principal.name}`),
        [
          "novacron.authority.claimed node node-ca",
          "novacron.authority.tokenMade operator test",
          "novacron.authority.admitted node node-a"
        ]
      )
      assert.ok(!JSON.stringify(facts).includes(secret))
    })
  )
)

test(
  "of many that use one token at the same time, one gets in",
  run(
    Effect.gen(function* () {
      const { register, makeToken } = yield* startRegister(yield* newAuthority)
      const { secret } = yield* makeToken()
      const names = Array.from({ length: 20 }, (_, index) => `node-${index}`)
      const tries = names.map((name) =>
        Effect.match(register.join(secret, name, request(name)), {
          onSuccess: () => 1,
          onFailure: ({ code }) => (assert.equal(code, "token-refused"), 0)
        })
      )
      const wins = yield* Effect.all(tries, { concurrency: "unbounded" })
      assert.equal(
        wins.reduce<number>((sum, win) => sum + win, 0),
        1
      )
    })
  )
)

test(
  "who lost the answer and asks again with the same key gets the same certificate; with another key nothing",
  run(
    Effect.gen(function* () {
      const { register, makeToken } = yield* startRegister(yield* newAuthority)
      const { secret } = yield* makeToken()
      const asked = request("node-a")
      const first = new X509Certificate(yield* register.join(secret, "node-a", asked))
      const again = new X509Certificate(yield* register.join(secret, "node-a", asked))
      assert.equal(again.serialNumber, first.serialNumber)
      assert.equal(again.validTo, first.validTo)
      const other = yield* Effect.flip(register.join(secret, "node-a", request("node-a")))
      assert.equal(other.code, "token-refused")
    })
  )
)

test(
  "expired tokens, tokens for another node and made-up ones are refused with the reason, and nothing is recorded",
  run(
    Effect.gen(function* () {
      const { register, makeToken, store } = yield* startRegister(yield* newAuthority)
      const refused = (secret: string, node: string) =>
        Effect.flip(register.join(secret, node, request(node)))
      const expired = yield* makeToken({ lifetimeMs: 1 })
      yield* Effect.sleep(5)
      assert.match((yield* refused(expired.secret, "node-a")).reason, /expired/)
      const bound = yield* makeToken({ node: "node-b" })
      const { position } = yield* store.head
      assert.match((yield* refused(bound.secret, "node-a")).reason, /for the node node-b/)
      assert.match((yield* refused("A".repeat(43), "node-a")).reason, /not known/)
      assert.equal((yield* store.head).position, position)
      yield* register.join(bound.secret, "node-b", request("node-b"))
    })
  )
)

test(
  "a name stays with its key: another token does not take it, one made for that name does, and cuts who had it",
  run(
    Effect.gen(function* () {
      const { register, makeToken, state } = yield* startRegister(yield* newAuthority)
      const join = (secret: string) => register.join(secret, "node-a", request("node-a"))
      const before = new X509Certificate(yield* join((yield* makeToken()).secret))
      const taken = yield* Effect.flip(join((yield* makeToken()).secret))
      assert.equal(taken.code, "name-taken")
      yield* join((yield* makeToken({ node: "node-a" })).secret)
      assert.deepEqual(Object.keys((yield* state).revoked), [before.serialNumber])
      const late = yield* Effect.flip(register.renew("node-a", before.serialNumber, request("node-a")))
      assert.match(late.reason, /belongs to another certificate/)
    })
  )
)

test(
  "what was taken back is not renewed; the role of a voter comes from the token and stays over renewals",
  run(
    Effect.gen(function* () {
      const { register, makeToken, say, state } = yield* startRegister(yield* newAuthority)
      const { secret } = yield* makeToken({ votes: true })
      let shown = new X509Certificate(yield* register.join(secret, "node-a", request("node-a")))
      for (let round = 0; round < 3; round++) {
        const renewed = new X509Certificate(
          yield* register.renew("node-a", shown.serialNumber, request("node-a"))
        )
        assert.equal(mayVote(renewed), true)
        assert.notEqual(renewed.serialNumber, shown.serialNumber)
        shown = renewed
      }
      // Answers that are lost again and again leave the certificate that is in use good.
      for (let lost = 0; lost < 20; lost++)
        yield* register.renew("node-a", shown.serialNumber, request("node-a"))
      assert.ok(((yield* state).names["node-a"]?.serials.length ?? 0) <= 8)
      yield* say({ type: "authority.revoke", node: "node-a", reason: "it is lost" })
      const revoked = yield* state
      assert.ok(shown.serialNumber in revoked.revoked)
      const refused = yield* Effect.flip(register.renew("node-a", shown.serialNumber, request("node-a")))
      assert.match(refused.reason, /was taken back/)
    })
  )
)

test(
  "requests with another name, without the key, or that are no requests, get no certificate",
  run(
    Effect.gen(function* () {
      const ca = yield* newAuthority
      const issue = (der: Buffer) => {
        const issuedMs = Date.now()
        const grant = { serial: "41", issuedMs, notAfterMs: issuedMs + 1000, votes: false }
        return ca.sign("node-a", der, grant)
      }
      const sound = request("node-a")
      const forged = Buffer.from(sound)
      forged.writeUInt8(forged.readUInt8(60) ^ 1, 60)
      for (const bad of [
        request("node-b"),
        forged,
        sound.subarray(0, 50),
        Buffer.alloc(0),
        Buffer.alloc(200, 0x30)
      ]) {
        assert.equal((yield* Effect.flip(issue(bad))).code, "invalid")
      }
      for (let position = 0; position < sound.length; position++) {
        const mutated = Buffer.from(sound)
        mutated.writeUInt8(mutated.readUInt8(position) ^ 0x41, position)
        const answer = yield* Effect.exit(issue(mutated))
        assert.equal(answer._tag, "Failure", `a request changed at octet ${position} was taken`)
      }
    })
  )
)

const startAuthorityNode = Effect.gen(function* () {
  const ca = yield* newAuthority
  const { endpoint, context } = yield* startEndpoint(ca, "node-ca")
  const world = yield* startRegister(ca)
  yield* Effect.provide(serveJoins(world), context)
  return { ca, endpoint, ...world }
})

test(
  "a new node joins over the network with a token, once",
  { timeout: 20_000 },
  run(
    Effect.gen(function* () {
      const { ca, endpoint, makeToken } = yield* startAuthorityNode
      const token = (yield* makeToken()).text
      const identity = yield* joinCluster([endpoint.address], token, "node-a")
      assert.equal(identity.node, "node-a")
      assert.equal(identity.ca, ca.certificate)
      const again = yield* Effect.flip(joinCluster([endpoint.address], token, "node-b"))
      assert.equal(again.code, "token-refused")
      assert.equal((yield* Effect.flip(joinCluster(["127.0.0.1:1"], token, "node-b"))).code, "unreachable")
      assert.equal(
        (yield* Effect.flip(joinCluster([endpoint.address], "nct1.x.y", "node-b"))).code,
        "invalid"
      )
      assert.equal((yield* Effect.flip(joinCluster([endpoint.address], token, "Node B"))).code, "invalid")
    })
  )
)

test(
  "of several addresses the first is joined that has the authority's key; what was wrong at each is told",
  { timeout: 20_000 },
  run(
    Effect.gen(function* () {
      const { ca, endpoint, makeToken } = yield* startAuthorityNode
      // A host of the cluster that has no key, and nobody.
      const { endpoint: keyless, context } = yield* startEndpoint(ca, "node-keyless")
      const { register } = yield* startRegister(ca)
      yield* Effect.provide(serveJoins({ key: { authority: null }, register }), context)
      const before = ["127.0.0.1:1", keyless.address]
      const token = (yield* makeToken()).text
      const nowhere = yield* Effect.flip(joinCluster(before, token, "node-a"))
      assert.equal(nowhere.path, before.join())
      assert.match(nowhere.reason, /^127\.0\.0\.1:1: .*ECONNREFUSED.*; 127\.0\.0\.1:\d+: .*ask another voter/)
      const identity = yield* joinCluster([...before, endpoint.address], token, "node-a")
      assert.equal(identity.node, "node-a")
      // A token that is refused is shown to nobody else.
      const again = yield* Effect.flip(joinCluster([endpoint.address, "127.0.0.1:1"], token, "node-b"))
      assert.equal(again.code, "token-refused")
      assert.equal(again.path, endpoint.address)
    })
  )
)

test(
  "the token's secret is not shown to an authority that the token does not pin",
  { timeout: 20_000 },
  run(
    Effect.gen(function* () {
      const { ca, makeToken } = yield* startAuthorityNode
      const other = yield* newAuthority
      const { register } = yield* startRegister(other)
      let shown = 0
      const watching: Issuing["register"] = {
        join: (secret, node, der) => ((shown += 1), register.join(secret, node, der)),
        renew: (node, present, der) => register.renew(node, present, der)
      }
      // An impostor may know the true authority's certificate, but can't sign the session with its key.
      const impostors = { "node-x": other, "node-y": { ...other, certificate: ca.certificate } }
      for (const [name, authority] of Object.entries(impostors)) {
        const { endpoint, context } = yield* startEndpoint(other, name)
        yield* Effect.provide(serveJoins({ key: { authority }, register: watching }), context)
        const { text } = yield* makeToken()
        const error = yield* Effect.flip(joinCluster([endpoint.address], text, "node-a"))
        assert.equal(error.code, "token-refused")
      }
      assert.equal(shown, 0)
    })
  )
)

test(
  "without a certificate nobody gets past the door but to join",
  { timeout: 20_000 },
  run(
    Effect.gen(function* () {
      const ca = yield* newAuthority
      const { endpoint, context } = yield* startEndpoint(ca, "node-a")
      let taken = 0
      yield* Effect.provide(
        Effect.flatMap(Endpoint, ({ route }) =>
          Effect.all([
            route({ protocol: protocols.link, take: () => (taken += 1) }),
            route({ protocol: protocols.stream, take: () => (taken += 1) })
          ])
        ),
        context
      )
      const [host, port] = endpoint.address.split(":")
      for (const protocol of [protocols.link, protocols.stream, protocols.join, "http/1.1"]) {
        yield* Effect.callback<void>((resume) => {
          const socket = tlsConnect({
            host: host ?? "",
            port: Number(port),
            ALPNProtocols: [protocol],
            rejectUnauthorized: false
          })
          socket.on("error", () => undefined)
          socket.on("close", () => resume(Effect.void))
          socket.resume()
        })
      }
      assert.equal(taken, 0)
    })
  )
)

const joinedAs = Effect.fnUntraced(function* (
  ca: Authority,
  register: Register,
  secret: string,
  node: string
) {
  const keys = generateKeys()
  const certificate = yield* register.join(secret, node, signingRequest(keys, node))
  return yield* acceptCertificate(node, keys, certificate, ca.certificate)
})

test(
  "who shows a certificate that was taken back is not spoken with, and what was open with it is cut",
  { timeout: 20_000 },
  run(
    Effect.gen(function* () {
      const ca = yield* newAuthority
      const home = yield* startNode(ca, "node-ca")
      const node = yield* startNode(ca, "node-a", { backoffMinMs: 10 })
      yield* node.link.connect("node-ca", home.endpoint.address)
      yield* until(isConnected(home.link, "node-a"))
      const { serialNumber } = new X509Certificate(node.identity.certificate)
      yield* home.endpoint.refuse(new Set([serialNumber]))
      yield* until(Effect.map(isConnected(home.link, "node-a"), (is) => !is))
      const refused = yield* Effect.flip(home.endpoint.dial(node.endpoint.address, protocols.link, "node-a"))
      assert.match(refused.reason, /was taken back/)
      yield* home.endpoint.refuse(new Set())
      yield* until(isConnected(home.link, "node-a"))
    })
  )
)

test(
  "a node renews its certificate over its link, with a new key, and shows it from then on",
  { timeout: 20_000 },
  run(
    Effect.gen(function* () {
      const ca = yield* newAuthority
      const { register, makeToken } = yield* startRegister(ca)
      const home = yield* startNode(ca, "node-ca")
      yield* home.link.serve(renewKind, renewHandler({ register }))
      const first = yield* joinedAs(ca, register, (yield* makeToken()).secret, "node-a")
      const node = yield* startNodeAs(first)
      yield* node.link.connect("node-ca", home.endpoint.address)
      yield* until(isConnected(node.link, "node-ca"))
      const renewal = (identity: NodeIdentity) =>
        Effect.provideService(renewIdentity(identity, ["nobody", "node-ca"]), Link, node.link)
      const renewed = yield* renewal(first)
      assert.notEqual(renewed.key, first.key)
      assert.notEqual(renewed.certificate, first.certificate)
      yield* node.endpoint.replaceIdentity(renewed)
      const seen = yield* home.endpoint.dial(node.endpoint.address, protocols.link, "node-a")
      assert.equal(seen.certificate.toString(), renewed.certificate)
      seen.socket.destroy()
      // The renewal is for who asks, not for who is named.
      const forged = yield* Effect.flip(renewal({ ...first, node: "node-ca" }))
      assert.match(forged.reason, /nobody: no such peer is known; node-ca: .*subject is not CN=node-a/)
      const keys = generateKeys()
      const wrongKey = yield* Effect.flip(
        acceptCertificate("node-a", keys, renewed.certificate, ca.certificate)
      )
      assert.equal(wrongKey.code, "invalid")
    })
  )
)
