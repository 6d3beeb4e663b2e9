/**
 * Fencing with real guests, node processes and watchers: a host is cut off and its node killed, its watcher ends what may start
 * elsewhere, and only then does that start there.
 */
import assert from "node:assert/strict"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { after, before, test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { FencingFolder } from "../../src/live/fencing/folder.ts"
import { Cluster, machineSpec, until } from "./cluster.ts"
import type { HostName } from "./cluster.ts"

const settings = { lost_after: "1s", unreachable_timeout: "4s", host_lease: "3s", fencing: "on" }

let cluster: Cluster
before(async () => {
  cluster = await Cluster.open(settings)
  void look()
})
after(() => cluster.close())

interface Row {
  readonly state: string
  readonly host: string | null
  readonly fencingHeld: string | null
  readonly facts: { readonly lease?: { readonly lengthMs: number } }
  readonly notRunning: { readonly reason: string } | null
  readonly leftovers: Readonly<Record<string, string>>
}
const vm = (name: string) => cluster.call<Row>("GET", `/v1/vms/${name}`)
const host = (name: string) => cluster.call<Row>("GET", `/v1/hosts/${name}`)

const spec = (more: Record<string, unknown>) => ({ ...machineSpec, memoryMib: 96, ...more })
const start = (name: string, at: HostName, more: Record<string, unknown>) =>
  cluster.call("POST", "/v1/vms?wait=60s", { name, host: at, start: true, spec: spec(more) })
const hostsOf = (name: string) =>
  cluster
    .machines()
    .filter(({ command }) => command.includes(`/vms/${name}/`))
    .map((one) => one.host)
const factsOf = async (stream: string) => (await cluster.facts(stream)) ?? []
const has = (type: string) => (facts: ReadonlyArray<{ readonly type: string }>) =>
  facts.some((fact) => fact.type === `novacron.${type}`)

/** Which machines have run on two hosts at once, looked at all the time. */
const twice: Array<string> = []
const looking = new AbortController()
async function look(): Promise<void> {
  while (!looking.signal.aborted) {
    for (const name of ["moves", "held", "alone"])
      if (hostsOf(name).length > 1) twice.push(`${name}: ${hostsOf(name).join(" and ")}`)
    await sleep(20)
  }
}

test("the node is killed and cut off: its watcher ends the guest, which starts elsewhere, and nothing runs twice", async () => {
  const { facts } = await until(
    "a takes part",
    () => host("a"),
    ({ facts }) => facts.lease !== undefined
  )
  assert.deepEqual(facts.lease, { lengthMs: 3000 })
  await start("moves", "a", { disks: [] })
  await start("stays", "a", {})
  await start("waits", "a", { disks: [], onHostFailure: "wait" })
  cluster.relays.a.cut()
  await cluster.kill("a")
  assert.deepEqual(hostsOf("moves"), ["a"], "a guest outlives the node's process")
  await until(
    "the watcher ends it",
    () => hostsOf("moves"),
    (on) => on.length === 0
  )
  assert.deepEqual([hostsOf("stays"), hostsOf("waits")], [["a"], ["a"]], "what can't start elsewhere goes on")
  assert.notEqual((await host("a")).state, "fenced")
  assert.equal((await vm("moves")).host, "a")
  await until(
    "it runs at b",
    () => vm("moves"),
    ({ state, host: on }) => state === "running" && on === "b"
  )
  assert.deepEqual(hostsOf("moves"), ["b"])
  const fenced = (await factsOf("host/a")).find(({ type }) => type === "novacron.host.fenced")
  assert.deepEqual(Object.keys(fenced?.data["evidence"] as object).sort(), [
    "by",
    "leaseMs",
    "node",
    "term",
    "waitedMs"
  ])
  assert.match(String(fenced?.data["reason"]), /its lease of 3 s has run out: it was given none for \d/)
  const stays = await until("it says why it waits", () => factsOf("vm/stays"), has("vm.waitsForHost"))
  assert.match(JSON.stringify(stays.at(-1)?.data), /its disk root lies on that host alone/)
  await until("it says why it waits", () => factsOf("vm/waits"), has("vm.waitsForHost"))
  const decisions = await cluster.call<ReadonlyArray<unknown>>("GET", "/v1/vms/moves/why")
  assert.match(JSON.stringify(decisions), /"recover"/)
  assert.match(JSON.stringify(decisions), /it is fenced/)
})

test("the host is back: what it has of a machine that is elsewhere is removed, and what waited goes on", async () => {
  cluster.relays.a.heal()
  await cluster.start("a")
  await until(
    "a is back",
    () => host("a"),
    ({ state }) => state === "up"
  )
  await until(
    "what was left there is removed",
    () => host("a"),
    ({ leftovers }) => Object.keys(leftovers).length === 0
  )
  await until(
    "the leftover is gone",
    () => existsSync(join(cluster.dataDir("a"), "vms", "moves")),
    (is) => !is
  )
  await until("the watcher's work is told", () => factsOf("host/a"), has("host.leaseRanOut"))
  const told = (await factsOf("host/a")).find(({ type }) => type === "novacron.host.leaseRanOut")
  assert.deepEqual(told?.data["vms"], ["moves"])
  await until(
    "what waited goes on",
    () => vm("stays"),
    ({ state, host: on }) => state === "running" && on === "a"
  )
  assert.deepEqual([hostsOf("stays"), hostsOf("waits"), hostsOf("moves")], [["a"], ["a"], ["b"]])
  assert.ok(new FencingFolder(cluster.dataDir("a")).watcher().runs)
})

test("a host whose node stands still ends its machines too, and starts none when it goes on", async () => {
  await start("held", "b", { disks: [] })
  const { pid } = cluster.node("b")
  process.kill(pid, "SIGSTOP")
  await until(
    "it is ended",
    () => hostsOf("held"),
    (on) => on.length === 0
  )
  await until(
    "it runs at a",
    () => vm("held"),
    ({ state, host: on }) => state === "running" && on !== "b"
  )
  process.kill(pid, "SIGCONT")
  await until(
    "b is back",
    () => host("b"),
    ({ state }) => state === "up"
  )
  await until(
    "nothing is left there",
    () => host("b"),
    ({ leftovers }) => Object.keys(leftovers).length === 0
  )
  await sleep(1000)
  assert.equal(hostsOf("held").length, 1)
  assert.ok(!hostsOf("held").includes("b"))
})

test("when most hosts are lost at once none is fenced, and their machines start again where they were", async () => {
  await start("alone", "b", { disks: [] })
  cluster.relays.k.cut()
  await until(
    "it is ended",
    () => hostsOf("alone"),
    (on) => on.length === 0
  )
  const { fencingHeld } = await until(
    "it says why",
    () => host("b"),
    (row) => row.fencingHeld !== null
  )
  assert.match(
    fencingHeld ?? "",
    /^2 of 3 hosts are lost, more than 50 %: it may be this side that is cut off/
  )
  await sleep(1000)
  assert.deepEqual([(await host("a")).state, (await host("b")).state], ["lost", "lost"])
  cluster.relays.k.heal()
  await until(
    "it runs again",
    () => hostsOf("alone"),
    (on) => on.length === 1
  )
  assert.deepEqual(hostsOf("alone"), ["b"])
  await until(
    "it is known to run",
    () => vm("alone"),
    ({ state }) => state === "running"
  )
  assert.ok(!has("vm.fenced")(await factsOf("vm/alone")))
})

test("a host without a watcher is not fenced until somebody confirms that it is off", async () => {
  await until(
    "b has a lease",
    () => host("b"),
    ({ facts }) => facts.lease !== undefined
  )
  await cluster.kill("b")
  await new FencingFolder(cluster.dataDir("b")).endWatcher()
  for (const { pid } of cluster.machines().filter((one) => one.host === "b")) process.kill(pid, "SIGKILL")
  await cluster.start("b", { fencing: "off" })
  await until(
    "b has none",
    () => host("b"),
    ({ facts, state }) => facts.lease === undefined && state === "up"
  )
  await start("lonely", "b", { disks: [] })
  await cluster.kill("b")
  const lost = await until(
    "it says why",
    () => host("b"),
    ({ fencingHeld }) => fencingHeld !== null
  )
  assert.equal(lost.state, "lost")
  assert.match(lost.fencingHeld ?? "", /confirm that it is off/)
  await sleep(6000)
  assert.deepEqual(hostsOf("lonely"), ["b"], "nobody ended it")
  assert.equal((await host("b")).state, "lost")
  for (const { pid } of cluster.machines().filter((one) => one.host === "b")) process.kill(pid, "SIGKILL")
  const asked = { reason: "its processes are gone" }
  await cluster.call("POST", "/v1/hosts/b/confirm-off", asked)
  await until(
    "it starts elsewhere",
    () => vm("lonely"),
    ({ state, host: on }) => state === "running" && on !== "b"
  )
  const fenced = (await factsOf("host/b")).findLast(({ type }) => type === "novacron.host.fenced")
  assert.deepEqual(fenced?.data, { ...asked, evidence: { by: "operator" } })
})

test("all the while nothing ran twice", () => {
  looking.abort()
  assert.deepEqual(twice, [])
})
