/** Real nodes notice one another: who is killed, who leaves, who has another key, and a key that is turned over. */
import assert from "node:assert/strict"
import { existsSync, readFileSync, statSync } from "node:fs"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { after, before, test } from "node:test"
import type { TestContext } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { Effect, Exit, Scope } from "effect"
import { swimActor } from "../../src/actors/swim/chart.ts"
import { wakesAtMs } from "../../src/actors/swim/decide.ts"
import { lanSettings } from "../../src/events/swim.ts"
import type { PeerRow } from "../../src/live/api/bodies.ts"
import { clusterKeys, secretBytes } from "../../src/live/gossip/keys.ts"
import { GossipMember } from "../../src/live/gossip/member.ts"
import { Cluster } from "./cluster-processes.ts"
import { saidBy } from "./said.ts"

const consensus = { heartbeat_interval: "100ms", election_timeout: "600ms" }
const periodMs = 200
const gossip = { period: `${periodMs}ms` }
let cluster: Cluster
before(async () => {
  cluster = await Cluster.start(["n1", "n2", "n3"], consensus, gossip)
})
after(() => cluster.end())

const peersAt = async (node: string): Promise<ReadonlyArray<PeerRow>> =>
  (await cluster.call(node, "GET", "/v1/cluster/peers")).body
const peerAt = async (node: string, name: string): Promise<PeerRow | undefined> =>
  (await peersAt(node)).find((one) => one.name === name)

/** Until a node says so of the peer; that one's row. */
async function becomes(node: string, name: string, state: PeerRow["state"]): Promise<PeerRow> {
  for (let tries = 0; tries < 1500; tries++) {
    const row = await peerAt(node, name).catch(() => undefined)
    if (row?.state === state) return row
    await sleep(20)
  }
  return assert.fail(`${name} did not become ${state} at ${node}: ${JSON.stringify(await peersAt(node))}`)
}

interface Told {
  readonly type: string
  readonly position: number
  readonly by: string
  readonly incarnation: number
}
async function historyOf(node: string, name: string): Promise<ReadonlyArray<Told>> {
  const { body } = await cluster.call(node, "GET", `/v1/streams/peer/${name}/facts`)
  return body.facts.map(({ type, position, data }: any) => ({
    type: type.slice("novacron.peer.".length),
    position,
    ...data
  }))
}

const lastPosition = async (node: string): Promise<number> => (await cluster.status(node)).position
const ringOf = (name: string) =>
  JSON.parse(readFileSync(join(cluster.folder, name, "gossip", "keys.json"), "utf8"))
const logOf = (name: string) => readFile(join(cluster.folder, `${name}.log`), "utf8")

async function metricAt(node: string, name: string): Promise<number> {
  const { url, dataDir } = cluster.node(node)
  const token = readFileSync(join(dataDir, "api-token"), "utf8").trim()
  const text = await (await fetch(`${url}/metrics`, { headers: { authorization: `Bearer ${token}` } })).text()
  const line = text.split("\n").find((one) => one.startsWith(`${name} `))
  return Number(line?.slice(name.length + 1) ?? Number.NaN)
}

async function cli(node: string, ...argv: ReadonlyArray<string>): Promise<string> {
  const { url, dataDir } = cluster.node(node)
  const access = ["--url", url ?? "", "--token-file", join(dataDir, "api-token")]
  const { code, out, err } = await saidBy(...argv, ...access)
  assert.equal(code, 0, out + err)
  return out
}

test("nodes that decide together know one another, with the founder's key and without a seed told", async () => {
  for (const node of cluster.nodes.keys())
    for (const name of ["n1", "n2", "n3"]) await becomes(node, name, "alive")
  const [secret = ""] = ringOf("n1").secrets
  for (const name of cluster.nodes.keys()) {
    assert.deepEqual(ringOf(name).secrets, [secret])
    const path = join(cluster.folder, name, "gossip", "keys.json")
    assert.equal(statSync(path).mode & 0o777, 0o600)
    assert.ok(!(await logOf(name)).includes(secret))
    // Its own detector may still doubt one that had much to do.
    for (let tries = 0; (await metricAt(name, 'novacron_gossip_members{status="alive"}')) !== 3; tries++) {
      assert.ok(tries < 500, `${name} does not know three`)
      await sleep(20)
    }
    assert.ok((await metricAt(name, 'novacron_gossip_probes_total{kind="ping"}')) > 0)
  }
  const shown = await cli("n2", "cluster", "status")
  for (const name of ["n1", "n2", "n3"]) assert.match(shown, new RegExp(`${name}\\s+voter`))
  for (const name of ["n1", "n2", "n3"]) assert.match(shown, new RegExp(`${name}\\s+alive\\s+\\d`))
})

/** Of those that decide. */
const others = (name: string) =>
  [...cluster.nodes.keys()].filter((one) => one !== name && one.startsWith("n"))

/** Kill it, and say how many periods later its failure is a fact. */
async function killed(t: TestContext, name: string): Promise<void> {
  const before = (await historyOf(name, name)).length
  const beganMs = performance.now()
  await cluster.kill(name)
  const [witness = ""] = others(name)
  const row = await becomes(witness, name, "failed")
  const periods = (performance.now() - beganMs) / periodMs
  t.diagnostic(`${name}, killed, was recorded as failed after ${periods.toFixed(1)} periods, by ${row.by}`)
  assert.ok(others(name).includes(row.by), row.by)
  const told = (await historyOf(witness, name)).slice(before)
  assert.ok(told.some(({ type }) => type === "suspected"))
  assert.equal(told.at(-1)?.type, "failed")
  await cluster.add(name)
  const back = await becomes(witness, name, "alive")
  assert.ok(back.incarnation > row.incarnation)
  await cluster.settled(3)
}

test("kill -9 of a follower: its failure is a fact, with who noticed; it is another life when it comes back", async (t) => {
  const leader = await cluster.leader()
  await killed(t, others(leader)[0] ?? "")
})

test("kill -9 of the leader: whoever leads next says what became of it", async (t) => {
  await killed(t, await cluster.leader())
})

test("who is ended in order has left, and nobody accuses it, the leader neither", async () => {
  const leader = await cluster.leader()
  for (const name of [others(leader)[0] ?? "", leader]) {
    const [witness = ""] = others(name)
    const from = await lastPosition(witness)
    await cluster.stop(name)
    const row = await becomes(witness, name, "left")
    const since = (await historyOf(witness, name)).filter(({ position }) => position > from)
    // What it has to offer may be told meanwhile, some seconds after its start.
    const told = since.filter(({ type }) => type !== "described")
    assert.deepEqual(
      told.map(({ type, by }) => `${type} ${by}`),
      [`left ${name}`]
    )
    await cluster.add(name)
    assert.ok((await becomes(witness, name, "alive")).incarnation > row.incarnation)
    await cluster.settled(3)
  }
})

test("who has another key is not heard, and its datagrams are counted by the cause", async () => {
  const scope = Effect.runSync(Scope.make())
  try {
    const { address } = (await peerAt("n1", "n1")) as PeerRow
    const stranger = await Effect.runPromise(
      Scope.provide(
        GossipMember.open({
          actor: swimActor,
          wakesAtMs: wakesAtMs as never,
          id: "stranger",
          listen: { host: "127.0.0.1", port: 0 },
          advertised: null,
          meta: "",
          settings: { ...lanSettings, periodMs, timeoutMs: periodMs / 2 },
          keys: clusterKeys("blue", [Buffer.alloc(secretBytes, 1)]),
          incarnationFile: join(cluster.folder, "stranger"),
          changed: () => {},
          failed: (error) => assert.fail(error.message)
        }),
        scope
      )
    )
    stranger.join([address])
    const name = 'novacron_gossip_dropped_total{cause="unknown-key"}'
    for (let tries = 0; !((await metricAt("n1", name)) >= 3); tries++) {
      assert.ok(tries < 500, "nothing is counted")
      await sleep(20)
    }
    assert.equal(stranger.role, "alone")
    assert.equal(await peerAt("n1", "stranger"), undefined)
  } finally {
    await Effect.runPromise(Scope.close(scope, Exit.void))
  }
})

test("a host without a kernel is given the key where it joins, is noticed like any other, and leaves", async () => {
  await cluster.add("h1", false)
  const row = await becomes("n2", "h1", "alive")
  assert.ok(row.address.startsWith("127.0.0.1:"))
  assert.deepEqual(ringOf("h1").secrets, ringOf("n1").secrets)
})

test("the link of a host that is doubted is tried at once; that one refutes it, and nobody has lost it", async () => {
  const leader = await cluster.leader()
  const isUp = async () => (await cluster.call(leader, "GET", "/v1/hosts/h1")).body.state === "up"
  for (let tries = 0; !(await isUp()); tries++) {
    assert.ok(tries < 1500, "h1 does not register")
    await sleep(20)
  }
  const logged = (await logOf(leader)).length
  const { pid } = cluster.node("h1")
  process.kill(pid, "SIGSTOP")
  try {
    for (let tries = 0; !(await logOf(leader)).slice(logged).includes("h1 is doubted"); tries++) {
      assert.ok(tries < 500, "its link is not looked at")
      await sleep(20)
    }
  } finally {
    process.kill(pid, "SIGCONT")
  }
  await becomes(leader, "h1", "alive")
  assert.ok(await isUp())
  const { body } = await cluster.call(leader, "GET", "/v1/streams/host/h1/facts")
  assert.ok(!body.facts.some(({ type }: { type: string }) => type === "novacron.host.lost"))
})

test("a key is turned over everywhere, and nobody fails of it; who was away gets the new one with its link", async () => {
  const leader = await cluster.leader()
  const away = others(leader)[0] ?? ""
  await cluster.stop(away)
  await becomes(leader, away, "left")
  const from = await lastPosition(leader)
  const [old = ""] = ringOf(leader).secrets
  const out = await cli(leader, "cluster", "rotate-gossip-key", "--reason", "a test", "--wait")
  assert.match(out, /^done: /)
  const here = [...cluster.nodes.keys()]
  const [fresh = ""] = ringOf(leader).secrets
  assert.notEqual(fresh, old)
  for (const name of here) {
    assert.deepEqual(ringOf(name).secrets, [fresh], name)
    assert.equal(ringOf(name).stage, "settled")
    assert.ok(!(await logOf(name)).includes(fresh))
  }
  await cluster.add(away)
  await becomes(leader, away, "alive")
  assert.deepEqual(ringOf(away).secrets, [fresh])
  for (const name of [...here, away]) {
    const told = (await historyOf(leader, name)).filter(({ position }) => position > from)
    assert.deepEqual(
      told.filter(({ type }) => type === "failed"),
      []
    )
  }
  const { body } = await cluster.call(leader, "GET", "/v1/streams/keyring/gossip/facts")
  const types = body.facts.map(({ type, data }: any) => `${type.slice("novacron.".length)} ${data.rotation}`)
  assert.deepEqual(types, ["keyring.rotationAsked 1", "keyring.rotated 1"])
  assert.ok(!JSON.stringify(body).includes(fresh.slice(0, 12)))
})

test("a leader that is killed in the midst of it leaves a rotation to the next one; all have one key in the end", async () => {
  const leader = await cluster.leader()
  const [old = ""] = ringOf(leader).secrets
  const asked = await cluster.call(
    leader,
    "POST",
    "/v1/cluster/gossip-key/rotate",
    { reason: "again" },
    "again-1"
  )
  assert.equal(asked.status, 202)
  for (let tries = 0; ringOf(leader).stage === "settled"; tries++) {
    assert.ok(tries < 1000, "it does not begin")
    await sleep(5)
  }
  await cluster.kill(leader)
  const [witness = ""] = others(leader)
  const operation = await cluster.call(witness, "GET", "/v1/operations/again-1?wait=30s")
  assert.equal(operation.body.state, "succeeded")
  await cluster.add(leader)
  await becomes(witness, leader, "alive")
  const [fresh = ""] = ringOf(witness).secrets
  assert.notEqual(fresh, old)
  for (const name of cluster.nodes.keys()) {
    for (let tries = 0; ringOf(name).secrets.join() !== fresh; tries++) {
      assert.ok(tries < 500, `${name} has other keys`)
      await sleep(20)
    }
  }
})

test("all journals are one, with everything that was noticed", async () => {
  await cluster.stop("h1")
  await becomes("n1", "h1", "left")
  await cluster.heads()
  const heads = await cluster.journals()
  for (const head of heads) assert.deepEqual(head, heads[0])
})

test("a kernel alone opens nothing until the first host joins it; then the two notice each other, also after a restart", async () => {
  const pair = await Cluster.start([], consensus, gossip)
  const rows = async (): Promise<ReadonlyArray<PeerRow>> =>
    (await pair.call("k1", "GET", "/v1/cluster/peers")).body
  const are = async (wanted: Readonly<Record<string, string>>) => {
    for (let tries = 0; ; tries++) {
      const found = Object.fromEntries((await rows()).map(({ name, state }) => [name, state]))
      if (JSON.stringify(found) === JSON.stringify(wanted)) return
      assert.ok(tries < 1500, JSON.stringify(found))
      await sleep(20)
    }
  }
  try {
    await pair.add("k1", false)
    await sleep(1000)
    assert.ok(!existsSync(join(pair.folder, "k1", "gossip")))
    const early = await pair.call("k1", "POST", "/v1/cluster/gossip-key/rotate", {}, "early-1")
    assert.equal(early.status, 409)
    await pair.add("h1", false)
    await are({ h1: "alive", k1: "alive" })
    // What happens while the kernel is away is found out when it is back, from the journal's side.
    await pair.kill("k1")
    await pair.kill("h1")
    await pair.add("k1", false)
    await are({ h1: "failed", k1: "alive" })
    await pair.add("h1", false)
    await are({ h1: "alive", k1: "alive" })
  } finally {
    await pair.end()
  }
})
