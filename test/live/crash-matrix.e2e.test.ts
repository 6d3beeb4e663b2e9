/**
 * The crash matrix on real machines: one guest moves back and forth between two hosts, and each time something is
 * killed, or a link cut, as one of the migration's facts is recorded. The simulated matrix beside it
 * (test/simulations) takes every fact; here every kind of victim meets a sample of them.
 */
import assert from "node:assert/strict"
import { existsSync, readdirSync } from "node:fs"
import { join } from "node:path"
import { after, before, test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { assertReplays, Cluster, hostNames, machineSpec } from "./cluster.ts"
import type { Fact, HostName, NodeName, Pulse } from "./cluster.ts"

const settings = { unreachable_timeout: "4s", lost_after: "2s" }
/** So slow that the transfer takes about a second, and each of its facts can be met. */
const preCopy = { bandwidthBytesPerSecond: 48 * 1024 * 1024, downtimeBudgetMs: 500 }
/** A guest that rewrites more than that can only go by post-copy, some seconds of it. */
const postCopy = {
  bandwidthBytesPerSecond: 16 * 1024 * 1024,
  downtimeBudgetMs: 1,
  postCopy: true,
  timeoutMs: 20_000
}
const busyMibPerSecond = 24
const settleMs = 90_000
const crashesAllowed = 3
const shortCutMs = 1000
/** Longer than `unreachable_timeout`: what was asked is given up. */
const longCutMs = 6000

interface Roles {
  readonly source: HostName
  readonly destination: HostName
}
type Injure = (cluster: Cluster, roles: Roles, stream: string) => Promise<boolean>

const killNode =
  (of: (roles: Roles) => NodeName, downMs: number): Injure =>
  async (cluster, roles) => {
    await cluster.kill(of(roles))
    await sleep(downMs)
    await cluster.start(of(roles))
    return true
  }
/** False where there is none to kill at that moment. */
const killMachine =
  (of: (roles: Roles) => HostName): Injure =>
  async (cluster, roles) => {
    const pids = cluster.machines().filter(({ host }) => host === of(roles))
    for (const { pid } of pids) process.kill(pid, "SIGKILL")
    return pids.length > 0
  }
const cut =
  (of: (roles: Roles) => ReadonlyArray<NodeName>, ms: number): Injure =>
  async (cluster, roles) => {
    for (const name of of(roles)) cluster.relays[name].cut()
    await sleep(ms)
    for (const name of of(roles)) cluster.relays[name].heal()
    return true
  }

const phases = ["placed", "checked", "prepared", "progressed", "handedOver", "resumed", "sourceClearing"]
const cases: ReadonlyArray<readonly [what: string, injure: Injure, at: ReadonlyArray<string>]> = [
  ["the kernel's node is killed", killNode(() => "k", 0), ["requested", ...phases]],
  ["the source's node is killed", killNode(({ source }) => source, 0), phases],
  ["the destination's node is killed", killNode(({ destination }) => destination, 0), phases],
  ["the source's machine is killed", killMachine(({ source }) => source), phases],
  [
    "the destination's machine is killed",
    killMachine(({ destination }) => destination),
    ["prepared", "progressed", "handedOver", "resumed", "sourceClearing"]
  ],
  [
    "the link between the hosts is cut",
    cut(({ destination }) => [destination], shortCutMs),
    ["checked", "prepared", "progressed", "handedOver"]
  ],
  [
    "the links to the kernel's node are cut",
    cut(() => ["k"], shortCutMs),
    ["placed", "prepared", "progressed", "handedOver", "resumed"]
  ],
  [
    "the destination's node is gone for long",
    killNode(({ destination }) => destination, longCutMs),
    ["prepared", "handedOver"]
  ],
  [
    "the source's node is gone for long",
    killNode(({ source }) => source, longCutMs),
    ["progressed", "sourceClearing"]
  ],
  ["the links to the kernel's node are cut for long", cut(() => ["k"], longCutMs), ["progressed", "resumed"]]
]

interface VmRow {
  readonly state: string
  readonly host: HostName
  readonly decision: string
  readonly migration: string | null
  readonly crashes: number
}
interface HostRow {
  readonly name: string
  readonly state: string
  readonly facts: { readonly capabilities: ReadonlyArray<string> }
  readonly reservations: Readonly<Record<string, unknown>>
  readonly leftovers: Readonly<Record<string, string>>
}

const final = new Set([
  "novacron.migration.completed",
  "novacron.migration.cancelled",
  "novacron.migration.failed"
])

let cluster: Cluster
/** The one machine, and what its guest tells. */
let vm = ""
let pulse: Pulse
const counts = { cases: 0 }

before(async () => {
  cluster = await Cluster.open(settings)
  await until("the hosts are up", async () => {
    const hosts = await cluster.call<ReadonlyArray<HostRow>>("GET", "/v1/hosts")
    return hosts.filter(({ state }) => state === "up").length === 3
  })
  await boot("web", machineSpec)
})
after(async () => {
  await pulse.end()
  await cluster.close()
})

async function boot(name: string, spec: typeof machineSpec): Promise<void> {
  vm = name
  pulse = await cluster.pulse(vm)
  await cluster.call("POST", "/v1/vms", {
    ...{ name: vm, host: "a", start: true },
    spec: { ...spec, onCrash: "restart" }
  })
  await until("the guest counts", async () => pulse.beats.length > 20)
}

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + settleMs
  while (!(await holds())) {
    assert.ok(performance.now() < deadline, `not within ${settleMs / 1000} s: ${what}`)
    await sleep(10)
  }
}

/** A machine that crashes again and again is left stopped, unless an operator starts it. */
async function startAnew(): Promise<void> {
  await cluster.call("POST", `/v1/vms/${vm}/stop?force=true&wait=30s`)
  await cluster.call("POST", `/v1/vms/${vm}/start?wait=30s`)
  const before = pulse.highest
  await until("the guest counts again", async () => pulse.highest > before)
}

async function migrate(policy: object = preCopy): Promise<Roles & { readonly stream: string }> {
  const { host: source, crashes } = await cluster.call<VmRow>("GET", `/v1/vms/${vm}`)
  if (crashes >= crashesAllowed) await startAnew()
  const destination = source === "a" ? "b" : "a"
  const body = { to: destination, policy, reason: "the crash matrix" }
  const { stream } = await cluster.call<{ stream: string }>("POST", `/v1/vms/${vm}/migrate`, body)
  return { source, destination, stream }
}

const short = (facts: ReadonlyArray<Fact>) =>
  facts.map(({ type }) => type.replace(/^novacron\.(migration|kernel)\./, "")).join(" ")

/** The migration has ended, the machine runs and counts, nothing is asked for any more and no leftover is known. */
async function settled(stream: string): Promise<void> {
  let last = ""
  try {
    await until("settled", async () => {
      const facts = await cluster.facts(stream)
      const row = await cluster.call<VmRow>("GET", `/v1/vms/${vm}`).catch(() => null)
      const hosts = await cluster.call<ReadonlyArray<HostRow>>("GET", "/v1/hosts").catch(() => [])
      last = `${short(facts ?? [])}; ${JSON.stringify(row)}; ${JSON.stringify(hosts.map(({ name, state, leftovers }) => [name, state, leftovers]))}`
      return (
        facts !== null &&
        facts.some(({ type }) => final.has(type)) &&
        row?.state === "running" &&
        row.migration === null &&
        hosts.length === 3 &&
        hosts.every(({ state, leftovers }) => state === "up" && Object.keys(leftovers).length === 0) &&
        cluster.machines().length === 1
      )
    })
  } catch (error) {
    throw new Error(`${(error as Error).message}: ${last}; machines ${JSON.stringify(cluster.machines())}`, {
      cause: error
    })
  }
  const before = pulse.highest
  await until("the guest counts on", async () => pulse.highest > before + 3)
}

async function check(stream: string, what: string): Promise<string> {
  const row = await cluster.call<VmRow>("GET", `/v1/vms/${vm}`)
  const machines = cluster.machines()
  assert.deepEqual(
    machines.map(({ host }) => host),
    [row.host],
    `${what}: the one machine is on its host`
  )
  assert.equal(pulse.beats.at(-1)?.host, row.host, `${what}: and there its guest counts`)
  pulse.check(what)
  assert.equal(await cluster.diskHash(row.host, vm), cluster.imageHash, `${what}: the disk`)
  for (const name of hostNames) {
    const here = name === row.host
    const folder = join(cluster.dataDir(name), "vms")
    assert.deepEqual(
      existsSync(folder) ? readdirSync(folder) : [],
      here ? [vm] : [],
      `${what}: folders on ${name}`
    )
    const host = await cluster.call<HostRow>("GET", `/v1/hosts/${name}`)
    assert.deepEqual(Object.keys(host.reservations), here ? [row.decision] : [], `${what}: room on ${name}`)
  }
  const ends = (await cluster.facts(stream))?.filter(({ type }) => final.has(type)) ?? []
  assert.equal(ends.length, 1, `${what}: ended ${short(ends)}`)
  return short(ends)
}

test("undisturbed, the guest moves there and back", async () => {
  for (let round = 0; round < 2; round++) {
    const { stream } = await migrate()
    await settled(stream)
    assert.equal(await check(stream, "undisturbed"), "completed")
  }
})

/** Injured at the fact of a phase; what the migration recorded in all. */
async function meet(
  what: string,
  injure: Injure,
  phase: string,
  policy: object
): Promise<ReadonlyArray<Fact>> {
  const { stream, ...roles } = await migrate(policy)
  let facts: ReadonlyArray<Fact> = []
  const reached = () => facts.some(({ type }) => type === `novacron.migration.${phase}` || final.has(type))
  await until(phase, async () => {
    facts = (await cluster.facts(stream)) ?? []
    return reached()
  })
  const injured = await injure(cluster, roles, stream)
  await settled(stream)
  const end = await check(stream, `${what} at ${phase}`)
  counts.cases += injured ? 1 : 0
  console.log(`  ${what} at ${phase} (${short(facts.slice(-1))}): ${injured ? end : "nothing to kill"}`)
  return (await cluster.facts(stream)) ?? []
}

for (const [what, injure, at] of cases) {
  for (const phase of at)
    test(`${what} at ${phase}`, async () => {
      await meet(what, injure, phase, preCopy)
    })
}

/** Whether the cancel was taken; it is refused when the machine has been handed over. */
async function cancel(stream: string, query = ""): Promise<boolean> {
  try {
    const path = `/v1/migrations/${stream.slice("migration/".length)}/cancel${query}`
    await cluster.call("POST", path, { reason: "no" })
    return true
  } catch (error) {
    assert.match((error as Error).message, /: 409 /)
    return false
  }
}

for (const phase of ["requested", "placed", "checked", "prepared", "progressed", "handedOver"]) {
  test(`it is cancelled at ${phase}`, async () => {
    const { stream, source, destination } = await migrate()
    await until(phase, async () => {
      const facts = (await cluster.facts(stream)) ?? []
      return facts.some(({ type }) => type === `novacron.migration.${phase}`)
    })
    const isTaken = await cancel(stream)
    await settled(stream)
    const what = `cancelled at ${phase}`
    const end = await check(stream, what)
    const { host } = await cluster.call<VmRow>("GET", `/v1/vms/${vm}`)
    // A cancel that was taken is kept; one that was refused left the move alone.
    assert.deepEqual([end, host], isTaken ? ["cancelled", source] : ["completed", destination], what)
    assert.equal(isTaken, phase !== "handedOver", what)
    console.log(`  ${what}: ${end}`)
  })
}

async function removeWithoutTrace(): Promise<void> {
  const { host } = await cluster.call<VmRow>("GET", `/v1/vms/${vm}`)
  await cluster.call("POST", `/v1/vms/${vm}/stop?force=true&wait=30s`)
  await cluster.call("DELETE", `/v1/vms/${vm}?wait=30s`)
  assert.deepEqual(cluster.machines(), [])
  assert.deepEqual(readdirSync(join(cluster.dataDir(host), "vms")), [])
  for (const name of [...hostNames, "k"] as const)
    assert.deepEqual(readdirSync(join(cluster.dataDir(name), "run")), [], `sockets of ${name}`)
  await pulse.end()
}

test("no case was idle, and the machine can be removed without a trace", async () => {
  await removeWithoutTrace()
  console.log(`  ${counts.cases} cases; the guest counted to ${pulse.highest}`)
  assert.ok(counts.cases >= 30, `${counts.cases} cases`)
})

/** The link stays away, and an operator does not wait for the time-out. */
const giveUp: Injure = async (_, { destination }, stream) => {
  cluster.relays[destination].cut()
  await sleep(shortCutMs)
  assert.ok(!(await cancel(stream)), "a cancel without force came too late")
  const isTaken = await cancel(stream, "?force=true")
  // All may have been sent before the cut: then it completes, and who called judges that.
  await until("it is given up", async () => {
    const facts = (await cluster.facts(stream)) ?? []
    return facts.some(({ type }) => type === "novacron.migration.guestLost" || final.has(type))
  })
  cluster.relays[destination].heal()
  return isTaken
}

/** The guest runs at the destination, and half of its memory is still at the source. */
const postCopyCases: ReadonlyArray<readonly [what: string, injure: Injure, end: "completed" | "failed"]> = [
  ["the kernel's node is killed", killNode(() => "k", 0), "completed"],
  ["the source's node is killed", killNode(({ source }) => source, 0), "completed"],
  ["the destination's node is killed", killNode(({ destination }) => destination, 0), "completed"],
  [
    "the destination's node is gone for long",
    killNode(({ destination }) => destination, longCutMs),
    "completed"
  ],
  ["the link between the hosts is cut", cut(({ destination }) => [destination], shortCutMs), "completed"],
  // Its memory is lost then: it starts again from its disk.
  ["the destination's machine is killed", killMachine(({ destination }) => destination), "failed"],
  ["the source's machine is killed", killMachine(({ source }) => source), "failed"],
  ["its link is cut and it is given up", giveUp, "failed"]
]

const attemptsMax = 3

/**
 * On a busy machine all may have been sent before it was injured: then it is whole, or lost, whatever happens. `measured`
 * is told by a source whose QEMU has the destination's word for it.
 */
const isTooLate = (facts: ReadonlyArray<Fact>, end: "completed" | "failed") =>
  facts.some(({ type, data }) =>
    type === "novacron.migration.guestLost"
      ? /: all was sent, /.test(String(data["reason"]))
      : type === "novacron.migration.arrivalConfirmed" ||
        (end === "failed" && type === "novacron.migration.measured")
  )

async function meetByPostCopy(
  what: string,
  injure: Injure,
  end: "completed" | "failed"
): Promise<ReadonlyArray<Fact>> {
  for (let attempt = 1; ; attempt++) {
    const facts = await meet(`post-copy: ${what}`, injure, "resumed", postCopy)
    if (!isTooLate(facts, end) || attempt === attemptsMax) return facts
    console.log(`  post-copy: ${what}: too late, nothing was left to send; again`)
  }
}

test("by post-copy, injured while the guest's memory is on both sides", async (t) => {
  const { facts } = await cluster.call<HostRow>("GET", "/v1/hosts/a")
  const isAble = facts.capabilities.includes("post-copy")
  const skip = isAble ? false : "the kernel here keeps userfaultfd for the privileged"
  const commandLine = `${machineSpec.boot.commandLine} novacron.dirty=${busyMibPerSecond}`
  if (isAble) await boot("busy", { ...machineSpec, boot: { ...machineSpec.boot, commandLine } })
  for (const [what, injure, end] of postCopyCases)
    await t.test(`post-copy: ${what}`, { skip }, async () => {
      const facts = await meetByPostCopy(what, injure, end)
      const has = (type: string) => facts.find((fact) => fact.type === `novacron.migration.${type}`)
      assert.deepEqual(has("handedOver")?.data, { postCopy: true })
      const isLost = has("guestLost") !== undefined
      assert.ok(has(isLost ? "failed" : "completed"), short(facts))
      assert.equal(isLost, end === "failed", short(facts))
    })
  if (isAble) await removeWithoutTrace()
})

test("the journal of all this, folded again, gives the same states byte for byte", async () => {
  await cluster.stop()
  const actors = await assertReplays(cluster.dataDir("k"))
  assert.ok(actors > counts.cases, `${actors} actors`)
})
