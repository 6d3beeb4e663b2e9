/** Three processes decide together: whoever is asked, whoever is killed, whoever is cut off. */
import assert from "node:assert/strict"
import { after, before, test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { Cluster } from "./cluster-processes.ts"
import { saidBy } from "./said.ts"
import { join } from "node:path"

const consensus = { heartbeat_interval: "100ms", election_timeout: "600ms" }
let cluster: Cluster
before(async () => {
  cluster = await Cluster.start(["n1", "n2", "n3"], consensus)
})
after(() => cluster.end())

const spec = { cpus: 1, memoryMib: 16, disks: [], boot: { kernel: "none" }, network: { mode: "none" } }
let made = 0

/** Machines that are only written down: their definition fails, since there is no such kernel. */
async function makeMachines(count: number, from = 0): Promise<ReadonlyArray<string>> {
  const names = Array.from({ length: count }, () => `m${made++}`)
  await Promise.all(
    names.map(async (name, at) => {
      const { answer } = await cluster.command("/v1/vms", { name, spec }, from + at)
      assert.ok([200, 202].includes(answer.status), JSON.stringify(answer.body))
    })
  )
  return names
}

const namesAt = async (node: string) =>
  (await cluster.call(node, "GET", "/v1/vms")).body.map(({ name }: { name: string }) => name)

test("every node takes commands, and a read at any of them sees what was answered before", async () => {
  const names = await makeMachines(12)
  for (const node of cluster.nodes.keys()) {
    const answer = await cluster.call(node, "GET", "/v1/vms")
    assert.equal(answer.headers.get("novacron-consistency"), "linearizable")
    const found = answer.body.map(({ name }: { name: string }) => name)
    for (const name of names) assert.ok(found.includes(name), `${name} at ${node}`)
  }
  const stale = await cluster.call("n2", "GET", "/v1/vms?consistency=stale")
  assert.equal(stale.headers.get("novacron-consistency"), "stale")
  const wrong = await cluster.call("n2", "GET", "/v1/vms?consistency=some")
  assert.equal(wrong.status, 400)
  // Each registers its host when it finds a leader.
  const hostsAt = async (node: string) =>
    (await cluster.call(node, "GET", "/v1/hosts")).body.map(
      ({ name, state }: { name: string; state: string }) => `${name} ${state}`
    )
  for (let tries = 0; tries < 200 && (await hostsAt("n3")).length < 3; tries++) await sleep(50)
  assert.deepEqual(await hostsAt("n3"), ["n1 up", "n2 up", "n3 up"])
  const history = await cluster.call("n1", "GET", "/v1/streams/cluster/voters/facts")
  const types = history.body.facts.map(({ type, data }: any) => `${type} ${data.op ?? data.node}`)
  assert.deepEqual(types, [
    "novacron.cluster.admissionAsked n2",
    "novacron.cluster.changed admit",
    "novacron.cluster.admissionAsked n3",
    "novacron.cluster.changed admit"
  ])
})

test("kill -9 of the leader under load: others go on, nothing is lost and nothing happens twice", async () => {
  for (let round = 0; round < 3; round++) {
    const leader = await cluster.leader()
    const busy = makeMachines(20, round)
    await sleep(5 * round)
    await cluster.kill(leader)
    const names = await busy
    const [other = ""] = cluster.nodes.keys()
    const found = await namesAt(other)
    for (const name of names) assert.equal(found.filter((one: string) => one === name).length, 1)
    await cluster.add(leader)
    await cluster.heads()
  }
})

test("a rolling restart, the leader last and relieved before, fails no command", async () => {
  const over = new AbortController()
  let failed = 0
  const working = (async () => {
    while (!over.signal.aborted) {
      await makeMachines(1).catch(() => failed++)
      await sleep(30)
    }
  })()
  const leader = await cluster.leader()
  const others = [...cluster.nodes.keys()].filter((name) => name !== leader)
  for (const name of [...others, leader]) {
    if (name === leader) {
      const [next = ""] = others
      const answer = await cluster.change(next, "lead", "restart")
      assert.equal(answer.body.state, "succeeded", JSON.stringify(answer.body))
      assert.equal(await cluster.leader(), next)
    }
    await cluster.stop(name)
    await cluster.add(name)
    await cluster.settled(3)
  }
  over.abort()
  await working
  assert.equal(failed, 0)
})

test("a minority refuses to decide and to read, says so, and reads what it has when that is asked for", async () => {
  const [one = "", two = "", three = ""] = cluster.nodes.keys()
  await cluster.kill(two)
  await cluster.kill(three)
  await sleep(1500)
  const refused = await cluster.call(one, "POST", "/v1/vms", { name: "alone", spec }, "alone-1")
  assert.equal(refused.status, 503)
  assert.equal(refused.body.type, "urn:novacron:problem:unavailable")
  const read = await cluster.call(one, "GET", "/v1/vms")
  assert.equal(read.status, 503)
  const stale = await cluster.call(one, "GET", "/v1/vms?consistency=stale")
  assert.equal(stale.status, 200)
  const access = [
    "--url",
    cluster.node(one).url ?? "",
    "--token-file",
    join(cluster.node(one).dataDir, "api-token")
  ]
  const listed = await saidBy("vm", "list", "--stale", "--json", ...access)
  assert.equal(listed.code, 0, listed.err)
  const { code, out, err } = await saidBy("cluster", "status", ...access)
  assert.equal(code, 0, err)
  assert.match(out, new RegExp(`${two}\\s+voter\\s+-?\\s+no`))
  await cluster.add(two)
  const { answer } = await cluster.command("/v1/vms", { name: "alone", spec })
  assert.ok([200, 202].includes(answer.status))
  await cluster.add(three)
  await cluster.heads()
})

test("a voter is replaced: a new one is taken in, the old one removed", async () => {
  await cluster.add("n4")
  await cluster.settled(4)
  // One that joined; that the founder goes too, and others let nodes in, is tried in authority.int.test.ts.
  const leader = "n2"
  await cluster.change(leader, "lead")
  const answer = await cluster.change(leader, "remove", "it is old")
  assert.equal(answer.body.state, "succeeded", JSON.stringify(answer.body))
  await cluster.kill(leader)
  await cluster.settled(3)
  await makeMachines(5)
  const gone = await cluster.change(leader, "remove")
  assert.equal(gone.body.state, "succeeded", "what is so already is done")
  const never = await cluster.change("nobody", "lead")
  assert.equal(never.body.state, "failed")
  assert.match(never.body.reason, /nobody is no voter/)
})

test("each start of a node is in the journal, how it ended, and when it ended without a word", async () => {
  const told = async (node: string) => {
    const { body } = await cluster.call("n4", "GET", `/v1/streams/node/${node}/facts`)
    return (body.facts ?? []).map(({ type }: { type: string }) => type.slice("novacron.node.".length))
  }
  // Each was stopped once in good order; some were killed as well, and came back.
  const all: Array<string> = []
  for (const node of ["n1", "n2", "n3"]) {
    const facts = await told(node)
    all.push(...facts)
    assert.match(facts.join(" "), /^reported( (stopReported|crashed) reported)*$/)
    assert.ok(facts.includes("stopReported"), facts.join(" "))
  }
  assert.ok(all.includes("crashed"), all.join(" "))
  const { body } = await cluster.call("n4", "GET", "/v1/streams/node/n4/facts")
  const [{ data, principal }] = body.facts
  assert.deepEqual(principal, { kind: "node", name: "n4" })
  assert.ok(data.bootMs > 0 && data.version !== "" && data.leftOut.length === 0, JSON.stringify(data))
  assert.deepEqual(
    data.phases.map(({ phase }: { phase: string }) => phase),
    ["pre-init", "core", "service", "post-init"]
  )
  // A host without a kernel tells of itself, too.
  await cluster.add("h1", false)
  for (let tries = 0; tries < 200 && (await told("h1")).length === 0; tries++) await sleep(50)
  await cluster.stop("h1")
  assert.deepEqual(await told("h1"), ["reported", "stopReported"])
})

test("in the end all have the same journal", async () => {
  await cluster.heads()
  const heads = await cluster.journals()
  assert.equal(heads.length, 3)
  assert.deepEqual(
    heads,
    heads.map(() => heads[0])
  )
})
