import assert from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { X509Certificate } from "node:crypto"
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
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
import type { Authority } from "../../src/live/ca.ts"
import { generateKeys, nodeOf, signingRequest } from "../../src/live/ca/certificate.ts"
import { joinCluster, renewHandler, renewIdentity, renewKind, serveJoins } from "../../src/live/ca/join.ts"
import { parseToken } from "../../src/live/ca/tokens.ts"
import { Link } from "../../src/kernel/ports/link.ts"
import { Endpoint, protocols } from "../../src/live/link/endpoint.ts"
import { isConnected, newAuthority, scratchFolder, startEndpoint, startNode, until } from "./link-nodes.ts"

const run = (effect: Effect.Effect<unknown, unknown, Scope.Scope>) => async () => {
  await Effect.runPromise(Effect.scoped(effect))
}

const secretOf = (token: string) => parseToken(token)?.secret ?? assert.fail("not a token")
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
  "a token is good once, also across a restart, and its secret is stored nowhere",
  run(
    Effect.gen(function* () {
      const folder = join(yield* scratchFolder, "ca")
      const first = yield* caInit(folder)
      const { token } = yield* first.createToken()
      const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((file) =>
        file.isFile()
      )
      for (const file of files) {
        const text = file.name + readFileSync(join(file.parentPath, file.name), "utf8")
        assert.ok(!text.includes(secretOf(token)))
      }
      const again = yield* caOpen(folder)
      yield* again.join(secretOf(token), "node-a", request("node-a"))
      for (const ca of [first, again, yield* caOpen(folder)]) {
        const error = yield* Effect.flip(ca.join(secretOf(token), "node-b", request("node-b")))
        assert.equal(error.code, "token-refused")
      }
    })
  )
)

test(
  "of many that use one token at the same time, one gets in",
  run(
    Effect.gen(function* () {
      const ca = yield* newAuthority
      const { token } = yield* ca.createToken()
      const names = Array.from({ length: 20 }, (_, index) => `node-${index}`)
      const tries = names.map((name) =>
        Effect.match(ca.join(secretOf(token), name, request(name)), {
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
  "expired tokens, tokens for another node and made-up ones are refused with the reason",
  run(
    Effect.gen(function* () {
      const ca = yield* newAuthority
      const refused = (token: string, node: string) =>
        Effect.flip(ca.join(secretOf(token), node, request(node)))
      const expired = yield* ca.createToken({ lifetimeMs: -1 })
      assert.match((yield* refused(expired.token, "node-a")).reason, /expired/)
      const bound = yield* ca.createToken({ node: "node-b" })
      assert.match((yield* refused(bound.token, "node-a")).reason, /for the node node-b/)
      yield* ca.join(secretOf(bound.token), "node-b", request("node-b"))
      const made = `nct1.${"A".repeat(43)}.${ca.hash}`
      assert.match((yield* refused(made, "node-a")).reason, /not known/)
    })
  )
)

test(
  "a name stays with its key: another token does not take it, one made for that name does",
  run(
    Effect.gen(function* () {
      const ca = yield* newAuthority
      yield* issueIdentity(ca, "node-a")
      const any = yield* ca.createToken()
      const taken = yield* Effect.flip(ca.join(secretOf(any.token), "node-a", request("node-a")))
      assert.equal(taken.code, "name-taken")
      const bound = yield* ca.createToken({ node: "node-a" })
      yield* ca.join(secretOf(bound.token), "node-a", request("node-a"))
    })
  )
)

test(
  "requests with another name, without the key, or that are no requests, get no certificate",
  run(
    Effect.gen(function* () {
      const ca = yield* newAuthority
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
        assert.equal((yield* Effect.flip(ca.issue("node-a", bad))).code, "invalid")
      }
      for (let position = 0; position < sound.length; position++) {
        const mutated = Buffer.from(sound)
        mutated.writeUInt8(mutated.readUInt8(position) ^ 0x41, position)
        const answer = yield* Effect.exit(ca.issue("node-a", mutated))
        assert.equal(answer._tag, "Failure", `a request changed at octet ${position} was taken`)
      }
    })
  )
)

const startAuthorityNode = Effect.gen(function* () {
  const ca = yield* newAuthority
  const { endpoint, context } = yield* startEndpoint(ca, "node-ca")
  yield* Effect.provide(serveJoins(ca), context)
  return { ca, endpoint }
})

test(
  "a new node joins over the network with a token, once",
  { timeout: 20_000 },
  run(
    Effect.gen(function* () {
      const { ca, endpoint } = yield* startAuthorityNode
      const { token } = yield* ca.createToken()
      const identity = yield* joinCluster(endpoint.address, token, "node-a")
      assert.equal(identity.node, "node-a")
      assert.equal(identity.ca, ca.certificate)
      const again = yield* Effect.flip(joinCluster(endpoint.address, token, "node-b"))
      assert.equal(again.code, "token-refused")
      assert.equal((yield* Effect.flip(joinCluster("127.0.0.1:1", token, "node-b"))).code, "unreachable")
      assert.equal((yield* Effect.flip(joinCluster(endpoint.address, "nct1.x.y", "node-b"))).code, "invalid")
      assert.equal((yield* Effect.flip(joinCluster(endpoint.address, token, "Node B"))).code, "invalid")
    })
  )
)

test(
  "the token's secret is not shown to an authority that the token does not pin",
  { timeout: 20_000 },
  run(
    Effect.gen(function* () {
      const { ca } = yield* startAuthorityNode
      const other = yield* newAuthority
      let shown = 0
      const watching: Authority = {
        ...other,
        join: (secret, node, der) => ((shown += 1), other.join(secret, node, der))
      }
      // An impostor may know the true authority's certificate, but can't sign the session with its key.
      const impostors = { "node-x": watching, "node-y": { ...watching, certificate: ca.certificate } }
      for (const [name, impostor] of Object.entries(impostors)) {
        const { endpoint, context } = yield* startEndpoint(other, name)
        yield* Effect.provide(serveJoins(impostor), context)
        const { token } = yield* ca.createToken()
        const error = yield* Effect.flip(joinCluster(endpoint.address, token, "node-a"))
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

test(
  "a node renews its certificate over its link, with a new key, and shows it from then on",
  { timeout: 20_000 },
  run(
    Effect.gen(function* () {
      const ca = yield* newAuthority
      const home = yield* startNode(ca, "node-ca")
      yield* home.link.serve(renewKind, renewHandler(ca))
      const node = yield* startNode(ca, "node-a")
      yield* node.link.connect("node-ca", home.endpoint.address)
      yield* until(isConnected(node.link, "node-ca"))
      const renewed = yield* Effect.provideService(renewIdentity(node.identity, "node-ca"), Link, node.link)
      assert.notEqual(renewed.key, node.identity.key)
      assert.notEqual(renewed.certificate, node.identity.certificate)
      yield* node.endpoint.replaceIdentity(renewed)
      const seen = yield* home.endpoint.dial(node.endpoint.address, protocols.link, "node-a")
      assert.equal(seen.certificate.toString(), renewed.certificate)
      seen.socket.destroy()
      // The renewal is for who asks, not for who is named.
      const forged = Effect.provideService(
        renewIdentity({ ...node.identity, node: "node-ca" }, "node-ca"),
        Link,
        node.link
      )
      assert.match((yield* Effect.flip(forged)).reason, /subject is not CN=node-a/)
      const keys = generateKeys()
      const wrongKey = yield* Effect.flip(
        acceptCertificate("node-a", keys, renewed.certificate, ca.certificate)
      )
      assert.equal(wrongKey.code, "invalid")
    })
  )
)
