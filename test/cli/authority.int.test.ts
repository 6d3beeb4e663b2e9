/** Every voter lets nodes in and renews: also when the node that founded the cluster is gone. */
import assert from "node:assert/strict"
import { X509Certificate } from "node:crypto"
import { existsSync, readFileSync, statSync } from "node:fs"
import { mkdir, mkdtemp, readFile, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { Effect } from "effect"
import { clear, joinToken, startNode } from "../../src/cli/lab-nodes.ts"
import { caInit, caOpen, loadIdentity, saveIdentity } from "../../src/live/ca.ts"
import { keysFromPem, mayVote, signingRequest } from "../../src/live/ca/certificate.ts"
import { joinCluster } from "../../src/live/ca/join.ts"
import { newSecret, tokenHash, tokenText } from "../../src/live/ca/tokens.ts"
import { Cluster } from "./cluster-processes.ts"
import { saidBy } from "./said.ts"

const consensus = { heartbeat_interval: "100ms", election_timeout: "600ms" }
const dayMs = 24 * 3600 * 1000
const tries_max = 600
let cluster: Cluster
const founder = { url: "" }
before(async () => {
  cluster = await Cluster.start(["n1", "n2", "n3"], consensus)
  founder.url = cluster.node("n1").url ?? ""
})
after(() => cluster.end())

/** Until it is there; what it was last otherwise. */
async function eventually<A>(what: string, look: () => Promise<A>, isSo: (found: A) => boolean): Promise<A> {
  let found: A | undefined
  for (let tries = 0; tries < tries_max; tries++) {
    found = await look()
    if (isSo(found)) return found
    await sleep(50)
  }
  throw new Error(`${what} did not come to be: ${JSON.stringify(found)}`)
}

const keyFile = (node: string) => join(cluster.folder, node, "ca", "ca.key")
const logOf = (node: string) => readFileSync(join(cluster.folder, `${node}.log`), "utf8")
const authorityAt = async (node: string) => (await cluster.call(node, "GET", "/v1/authority")).body
const hasKey = (node: string) =>
  eventually(
    `the authority's key at ${node}`,
    () => authorityAt(node),
    (said) => said.hasKey === true
  )

const cli = (urls: string, tokens: string, ...argv: ReadonlyArray<string>) =>
  saidBy(...argv, "--url", urls, "--token-file", tokens)

const tokenFileOf = (node: string) => join(cluster.folder, node, "api-token")

test("every voter gets the authority's key, privately; a host gets none, and no key is in a log or a journal", async () => {
  await cluster.add("h1", false)
  const keys = []
  for (const node of ["n1", "n2", "n3"]) {
    await hasKey(node)
    assert.equal(statSync(keyFile(node)).mode & 0o777, 0o600)
    keys.push(readFileSync(keyFile(node), "utf8"))
  }
  assert.equal(new Set(keys).size, 1)
  assert.equal(existsSync(keyFile("h1")), false)
  const { body } = await cluster.call("n3", "GET", "/v1/streams/authority/nodes/facts?limit=1000")
  const told = body.facts.map(({ type, data }: any) => `${type.slice(19)} ${data.node ?? data.to}`)
  // The founder claims its own name beside taking requests: a token may come first.
  assert.deepEqual(told.slice(0, 2).toSorted(), ["claimed n1", "tokenMade n2"])
  for (const one of ["admitted n2", "admitted n3", "admitted h1", "keyHanded n2", "keyHanded n3"])
    assert.ok(told.includes(one), `${one} in ${told.join(", ")}`)
  const secret = (keys[0] ?? "").split("\n")[1] ?? ""
  assert.ok(secret.length > 40)
  for (const node of ["n1", "n2", "n3", "h1"]) assert.ok(!logOf(node).includes(secret))
  assert.ok(!JSON.stringify(body).includes(secret))
})

test("kill -9 of the founder: another voter joins by a token of the second node", async () => {
  await cluster.kill("n1")
  const { url } = cluster.node("n2")
  const said = await cli(
    url ?? "",
    tokenFileOf("n2"),
    "ca",
    "token",
    "--node",
    "n4",
    "--voter",
    "--reason",
    "n1 is gone"
  )
  assert.equal(said.code, 0, said.err)
  await cluster.add("n4", true, said.out.trim())
  await cluster.settled(4)
  await hasKey("n4")
  assert.equal(statSync(keyFile("n4")).mode & 0o777, 0o600)
  const { body } = await cluster.call("n4", "GET", "/v1/audit?stream=authority/nodes&limit=1000")
  assert.ok(JSON.stringify(body).includes("tokenMade"))
})

test("a token that is used at two voters at once lets one node in", async () => {
  for (let round = 0; round < 3; round++) {
    const token = await joinToken(cluster.node("n3"), `any-${round}`)
    const open = await tokenForAny("n2")
    const join = (node: string, name: string, text: string) =>
      Effect.runPromise(Effect.result(joinCluster([cluster.node(node).linkAddress], text, name)))
    const both = await Promise.all([join("n2", `a-${round}`, open), join("n4", `b-${round}`, open)])
    const reasons = both.map((one) => (one._tag === "Success" ? "in" : one.failure.reason)).sort()
    assert.equal(reasons[0], "in", reasons.join("; "))
    assert.match(reasons[1] ?? "", /not known, or it was used already/)
    // And one name is given to one holder, with two tokens at two voters.
    const tokens = await Promise.all([tokenForAny("n3"), tokenForAny("n4")])
    const same = await Promise.all([
      join("n3", `c-${round}`, tokens[0] ?? ""),
      join("n4", `c-${round}`, tokens[1] ?? "")
    ])
    assert.equal(same.filter(({ _tag }) => _tag === "Success").length, 1)
    const loser = same.find((one) => one._tag === "Failure")
    assert.match(loser?._tag === "Failure" ? loser.failure.reason : "", /name-taken/)
    assert.equal((await join("n2", `any-${round}`, token))._tag, "Success")
  }
})

async function tokenForAny(node: string): Promise<string> {
  const said = await cli(cluster.node(node).url ?? "", tokenFileOf(node), "ca", "token")
  assert.equal(said.code, 0, said.err)
  return said.out.trim()
}

test("a host's certificate that ends soon is renewed by whoever is there, and a voter's own too", async () => {
  const ca = await Effect.runPromise(caOpen(join(cluster.folder, "n2", "ca")))
  for (const node of ["h1", "n4"]) {
    await cluster.stop(node)
    const folder = join(cluster.folder, node, "identity")
    // What it has, as if it had been issued 70 days ago.
    const age = Effect.gen(function* () {
      const identity = yield* loadIdentity(folder)
      const { serialNumber } = new X509Certificate(identity.certificate)
      const issuedMs = Date.now() - 70 * dayMs
      const grant = {
        serial: serialNumber,
        issuedMs,
        notAfterMs: issuedMs + 90 * dayMs,
        votes: node === "n4"
      }
      const request = signingRequest(keysFromPem(identity.key), node)
      const certificate = yield* ca.sign(node, request, grant)
      yield* saveIdentity(folder, { ...identity, certificate })
      return certificate
    })
    const old = new X509Certificate(await Effect.runPromise(age))
    await cluster.add(node, node === "n4")
    const { certificate } = await eventually(
      `a new certificate of ${node}`,
      () => Effect.runPromise(loadIdentity(folder)),
      (found) => new X509Certificate(found.certificate).serialNumber !== old.serialNumber
    )
    const renewed = new X509Certificate(certificate)
    assert.ok(Date.parse(renewed.validTo) > Date.now() + 80 * dayMs)
    assert.equal(mayVote(renewed), node === "n4")
    assert.equal(existsSync(join(cluster.folder, node, "ca", "ca.key")), node === "n4")
  }
})

test("the command line goes on to the next address, and says of each why none could be asked", async () => {
  // That of the founder, which was killed.
  const urls = [founder.url, ...["n2", "n3"].map((node) => cluster.node(node).url)].join(",")
  const tokens = ["n1", "n2", "n3"].map(tokenFileOf).join(",")
  const create = (name: string) =>
    cli(urls, tokens, "vm", "create", name, "--cpus", "1", "--memory", "16", "--json")
  const first = await create("roams")
  assert.equal(first.code, 0, first.err)
  const listed = await cli(urls, tokens, "vm", "list", "--json")
  assert.equal(listed.code, 0, listed.err)
  assert.ok(listed.out.includes("roams"))
  const wrong = await cli(urls, `${tokenFileOf("n2")},${tokenFileOf("n3")}`, "vm", "list")
  assert.equal(wrong.code, 2)
  assert.match(wrong.err, /2 token files for 3 addresses/)
  const dead = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
  const none = await cli(dead.join(","), tokenFileOf("n2"), "vm", "list", "--json")
  assert.notEqual(none.code, 0)
  for (const url of dead)
    assert.match(none.err, new RegExp(`"url": ?"${url}",\\s*"reason": ?"[^"]*ECONNREFUSED`))
})

test("a voter that was removed learns of it, says so, decides nothing, and gives the key up", async () => {
  const answer = await cluster.change("n3", "remove", "it is old")
  assert.equal(answer.body.state, "succeeded", JSON.stringify(answer.body))
  const said = await eventually(
    "what n3 says of itself",
    () => cluster.status("n3"),
    ({ removed }) => removed !== null
  )
  assert.match(said.removed, /was removed from the group, says n[24]; those who decide are/)
  assert.match(logOf("n3"), /this node was removed from the group/)
  const status = await cli(cluster.node("n3").url ?? "", tokenFileOf("n3"), "cluster", "status")
  assert.match(status.err, /n3 is no member any more/)
  const spec = { cpus: 1, memoryMib: 16, disks: [], boot: { kernel: "none" }, network: { mode: "none" } }
  const refused = await cluster.call("n3", "POST", "/v1/vms", { name: "late", spec }, "late-1")
  assert.equal(refused.status, 503)
  assert.match(refused.body.detail, /was removed from the group/)
  assert.equal((await cluster.call("n3", "GET", "/v1/vms")).status, 503)
  await eventually(
    "an end of the key at n3",
    async () => existsSync(keyFile("n3")),
    (isThere) => !isThere
  )
  // Who was removed is asked first, and the command goes on to a member.
  const urls = ["n3", "n2"].map((node) => cluster.node(node).url).join(",")
  const created = await cli(urls, ["n3", "n2"].map(tokenFileOf).join(","), "vm", "create", "moves-on")
  assert.equal(created.code, 0, created.err)
  // Started again it learns it again, without a key.
  await cluster.kill("n3")
  await cluster.add("n3")
  await eventually(
    "what n3 says of itself after a restart",
    () => cluster.status("n3"),
    ({ removed }) => removed !== null
  )
  assert.equal(existsSync(keyFile("n3")), false)
})

test("a certificate that is taken back is cut off by every voter, and hosts hear of it", async () => {
  const url = cluster.node("n2").url ?? ""
  await cluster.add("h2", false)
  const said = await cli(url, tokenFileOf("n2"), "ca", "revoke", "h1", "--reason", "it was stolen", "--wait")
  assert.equal(said.code, 0, said.err)
  const names = await cli(url, tokenFileOf("n2"), "ca", "names", "--plain")
  assert.match(names.out, /^h1\trevoked\thost/m)
  const hosts = () => cluster.call("n2", "GET", "/v1/hosts").then(({ body }) => body)
  await eventually("the loss of h1", hosts, (all) =>
    all.some(({ name, state }: { name: string; state: string }) => name === "h1" && state === "lost")
  )
  const { certificate } = await Effect.runPromise(loadIdentity(join(cluster.folder, "h1", "identity")))
  const { serialNumber } = new X509Certificate(certificate)
  await eventually(
    "word of it at h2",
    () => readFile(join(cluster.folder, "h2", "revoked.json"), "utf8").catch(() => ""),
    (told) => told.includes(serialNumber)
  )
})

test("the founder comes back, is removed, and makes no other authority when it starts again", async () => {
  for (const node of ["h1", "n3"]) await cluster.kill(node)
  await cluster.add("n1")
  await cluster.settled(3)
  const answer = await cluster.change("n1", "remove", "it was enough")
  assert.equal(answer.body.state, "succeeded", JSON.stringify(answer.body))
  await eventually(
    "an end of the key at n1",
    async () => existsSync(keyFile("n1")),
    (isThere) => !isThere
  )
  await cluster.kill("n1")
  await cluster.add("n1")
  await eventually(
    "what n1 says of itself",
    () => cluster.status("n1"),
    ({ removed }) => removed !== null
  )
  assert.equal(existsSync(keyFile("n1")), false)
  const there = (await cluster.call("n1", "GET", "/v1/authority?consistency=stale")).body
  assert.equal(there.hasKey, false)
  assert.equal(there.hash, (await authorityAt("n2")).hash)
})

test("the folder of an earlier release: its tokens and names are taken over when it starts, and nothing is lost", async () => {
  const folder = await mkdtemp(join(tmpdir(), "novacron-old-"))
  try {
    await mkdir(join(folder, "images"))
    const old = join(folder, "old", "ca")
    await mkdir(join(folder, "old"))
    const ca = await Effect.runPromise(caInit(old))
    const secrets = [newSecret(), newSecret()]
    const expiresMs = Date.now() + 600_000
    for (const [at, state] of (["open", "used"] as const).entries()) {
      await mkdir(join(old, "tokens", state), { recursive: true })
      const path = join(old, "tokens", state, `${tokenHash(secrets[at] ?? "")}.json`)
      await writeFile(path, JSON.stringify({ expiresMs, node: null }))
    }
    await mkdir(join(old, "nodes"))
    const held = { serial: "4A".repeat(16), spki: "a".repeat(43), notAfterMs: expiresMs, votes: false }
    await writeFile(join(old, "nodes", "taken.json"), JSON.stringify(held))
    const node = await startNode({ name: "old", folder, imageDir: join(folder, "images") })
    const enter = (secret: string, name: string) =>
      Effect.runPromise(Effect.result(joinCluster([node.linkAddress], tokenText(secret, ca.hash), name)))
    const used = await enter(secrets[1] ?? "", "fresh")
    assert.match(used._tag === "Failure" ? used.failure.reason : "", /used already/)
    const taken = await enter(secrets[0] ?? "", "taken")
    assert.match(taken._tag === "Failure" ? taken.failure.reason : "", /name-taken/)
    assert.equal((await enter(secrets[0] ?? "", "fresh"))._tag, "Success")
    const token = await readFile(join(node.dataDir, "api-token"), "utf8")
    const listed = await fetch(`${node.url}/v1/authority/names`, {
      headers: { authorization: `Bearer ${token.trim()}` }
    })
    const names = (await listed.json()) as ReadonlyArray<{ readonly name: string }>
    assert.deepEqual(
      names.map(({ name }) => name),
      ["fresh", "old", "taken"]
    )
    assert.equal(existsSync(join(old, "tokens")), false)
    assert.ok(existsSync(join(old, "nodes.taken-over", "taken.json")))
  } finally {
    await clear(folder)
  }
})
