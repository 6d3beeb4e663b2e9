/** Three voters that are hosts too: the one that leads is killed, and its machine, with nobody who set anything up for it, starts elsewhere. */
import assert from "node:assert/strict"
import { readdirSync, readFileSync, symlinkSync } from "node:fs"
import { join } from "node:path"
import { after, before, test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { buildLabGuest } from "../../src/live/lab-guest.ts"
import { machineSpec, until } from "../live/cluster.ts"
import { LAB_CACHE } from "../live/qemu-hosts.ts"
import { Cluster } from "./cluster-processes.ts"

const names = ["n1", "n2", "n3"]
let cluster: Cluster

before(async () => {
  await buildLabGuest({ cacheDir: LAB_CACHE })
  const settings = { lost_after: "1s", unreachable_timeout: "4s", host_lease: "4s" }
  cluster = await Cluster.start(names, { election_timeout: "1s" }, {}, settings)
  for (const name of ["lab-vmlinuz", "lab-initrd"])
    symlinkSync(join(LAB_CACHE, name), join(cluster.folder, "images", name))
})
after(() => cluster.end())

/** Where a QEMU of this machine runs, by the processes there are. */
function hostsOf(vm: string): ReadonlyArray<string> {
  return readdirSync("/proc").flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return []
    let command = ""
    try {
      command = readFileSync(`/proc/${pid}/cmdline`, "utf8")
    } catch {
      // It has ended.
    }
    const host = new RegExp(`${cluster.folder}/(\\w+)/vms/${vm}/`).exec(command)?.[1]
    return host !== undefined && /^\S*qemu-system/.test(command) ? [host] : []
  })
}

const read = async (from: string, path: string) => (await cluster.call(from, "GET", path)).body

test("the voter that leads is killed: its watcher ends its machine, the next one fences it, and the machine starts elsewhere, once", async () => {
  const leader = await cluster.leader()
  const leased = () => read(leader, `/v1/hosts/${leader}`)
  await until("the host of the leader has a lease", leased, ({ facts }) => facts.lease !== undefined)
  const spec = { ...machineSpec, disks: [] }
  const made = await cluster.command("/v1/vms?wait=60s", { name: "web", host: leader, start: true, spec })
  assert.ok(made.answer.status < 300, JSON.stringify(made.answer.body))
  assert.deepEqual(hostsOf("web"), [leader])

  const over = new AbortController()
  const twice: Array<string> = []
  const looking = (async () => {
    for (; !over.signal.aborted; await sleep(20))
      if (hostsOf("web").length > 1) twice.push(hostsOf("web").join(" and "))
  })()
  await cluster.kill(leader)
  assert.deepEqual(hostsOf("web"), [leader], "a guest outlives the node's process")
  const [other = ""] = names.filter((name) => name !== leader)
  const vm = () => read(other, "/v1/vms/web")
  const moved = await until(
    "it runs elsewhere",
    vm,
    ({ state, host }) => state === "running" && host !== leader
  )
  over.abort()
  await looking
  assert.deepEqual(twice, [])
  assert.deepEqual(hostsOf("web"), [moved.host])
  const { facts } = await read(other, `/v1/streams/host/${leader}/facts?limit=1000`)
  const fenced = facts.find(({ type }: { type: string }) => type === "novacron.host.fenced")
  assert.equal(fenced.data.evidence.by, "lease")
  assert.notEqual(fenced.data.evidence.node, leader)
  assert.match(JSON.stringify(await read(other, "/v1/vms/web/why")), /it is fenced/)

  // It comes back, takes part again, and starts nothing of what is elsewhere.
  await cluster.add(leader)
  await until(
    "it takes part again",
    () => read(other, `/v1/hosts/${leader}`),
    ({ state }) => state === "up"
  )
  await cluster.heads()
  assert.deepEqual(hostsOf("web"), [moved.host])
  const [first, ...others] = await cluster.journals()
  for (const one of others) assert.deepEqual(one, first)
})
