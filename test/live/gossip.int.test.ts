/** Members on real sockets: they find one another, notice who is gone, who answers and who leaves, and listen to nobody else. */
import assert from "node:assert/strict"
import { fork } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { createSocket } from "node:dgram"
import { once } from "node:events"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { Effect, Exit, Fiber, Scope } from "effect"
import { swimActor } from "../../src/actors/swim/chart.ts"
import { wakesAtMs } from "../../src/actors/swim/decide.ts"
import { lanSettings } from "../../src/events/swim.ts"
import type { PeerStatus, SwimRequest, SwimSettings } from "../../src/events/swim.ts"
import { encodeDatagram } from "../../src/events/swim-wire.ts"
import { discover } from "../../src/live/gossip/discovery.ts"
import { clusterKeys, secretBytes } from "../../src/live/gossip/keys.ts"
import type { ClusterKey } from "../../src/live/gossip/keys.ts"
import { Mdns } from "../../src/live/gossip/mdns.ts"
import { GossipMember } from "../../src/live/gossip/member.ts"
import { Sealing } from "../../src/live/gossip/sealing.ts"
import type { ChildOptions } from "./gossip-child.ts"

const secret = Buffer.alloc(secretBytes, 7)
const keys = clusterKeys("blue", [secret])
/** Five times as quick as a LAN; a suspicion lasts 4 s, so that a test has time to refute it. */
const settings = {
  ...lanSettings,
  periodMs: 200,
  timeoutMs: 100,
  gossipEveryMs: 40,
  suspicion: 20,
  suspicionMax: 1,
  compareEveryMs: 1000,
  reconnectEveryMs: 1000
}

type Changed = Extract<SwimRequest, { readonly op: "changed" }>

interface Opened {
  readonly member: GossipMember
  readonly changes: ReadonlyArray<Changed>
}

/** Members and files that are gone at the end. */
async function inWorld(use: (world: World) => Promise<void>): Promise<void> {
  const world = new World()
  try {
    await use(world)
  } finally {
    await world.end()
  }
}

class World {
  readonly folder = mkdtempSync(join(tmpdir(), "novacron-gossip-"))
  readonly #scope = Effect.runSync(Scope.make())
  readonly #children: Array<ChildProcess> = []

  async open(
    id: string,
    more: {
      readonly keys?: ReadonlyArray<ClusterKey>
      readonly file?: string
      readonly settings?: SwimSettings
    } = {}
  ): Promise<Opened> {
    const changes: Array<Changed> = []
    const opening = GossipMember.open({
      actor: swimActor,
      wakesAtMs: wakesAtMs as never,
      id,
      listen: { host: "127.0.0.1", port: 0 },
      advertised: null,
      meta: `I am ${id}`,
      settings: more.settings ?? settings,
      keys: more.keys ?? keys,
      incarnationFile: more.file ?? join(this.folder, id),
      changed: (one) => changes.push(one),
      failed: (error) => assert.fail(error.message)
    })
    const member = await Effect.runPromise(Scope.provide(opening, this.#scope))
    return { member, changes }
  }

  /** Three that know one another. */
  async three(): Promise<readonly [Opened, Opened, Opened]> {
    const [a, b, c] = [await this.open("a"), await this.open("b"), await this.open("c")]
    b.member.join([a.member.address])
    c.member.join([a.member.address])
    for (const { member } of [a, b, c])
      for (const id of ["a", "b", "c"])
        await eventually(() => statusOf(member, id) === "alive", `${id} is met`)
    return [a, b, c]
  }

  async child(id: string, seeds: ReadonlyArray<string>): Promise<ChildProcess> {
    const options: ChildOptions = {
      id,
      port: 0,
      seeds,
      settings,
      secret: secret.toString("hex"),
      incarnationFile: join(this.folder, id)
    }
    const child = fork(fileURLToPath(new URL("./gossip-child.ts", import.meta.url)), [
      JSON.stringify(options)
    ])
    this.#children.push(child)
    await once(child, "message")
    return child
  }

  async end(): Promise<void> {
    for (const child of this.#children)
      if (child.exitCode === null && child.signalCode === null) {
        child.kill("SIGKILL")
        await once(child, "exit")
      }
    await Effect.runPromise(Scope.close(this.#scope, Exit.void))
    rmSync(this.folder, { recursive: true, force: true })
  }
}

async function eventually(holds: () => boolean, what: string): Promise<void> {
  for (let tries = 0; tries < 1500; tries++) {
    if (holds()) return
    await sleep(20)
  }
  assert.fail(`never: ${what}`)
}

const peerOf = (member: GossipMember, id: string) => member.peers().find((one) => one.id === id)
const statusOf = (member: GossipMember, id: string): PeerStatus | undefined => peerOf(member, id)?.status

test("members meet by one seed, tell what they are and what changes, and one that leaves is not taken for dead", () =>
  inWorld(async (world) => {
    const [a, b, c] = await world.three()
    assert.equal(peerOf(c.member, "b")?.meta, "I am b")
    assert.equal(peerOf(c.member, "b")?.address, b.member.address)
    b.member.describe("I am b, and busy")
    for (const { member } of [a, c])
      await eventually(() => peerOf(member, "b")?.meta === "I am b, and busy", "what b tells is known")
    await b.member.leave()
    for (const { member, changes } of [a, c]) {
      await eventually(() => statusOf(member, "b") === "left", "b left")
      assert.deepEqual(
        changes.filter(({ peer }) => peer.status === "dead" || peer.status === "suspect"),
        []
      )
    }
    assert.equal(b.member.role, "left")
  }))

test("a process that is killed is noticed by all, and is another life when it comes back", () =>
  inWorld(async (world) => {
    const [a, b, c] = await world.three()
    const child = await world.child("d", [a.member.address])
    for (const { member } of [a, b, c]) await eventually(() => statusOf(member, "d") === "alive", "d is met")
    const first = peerOf(a.member, "d")?.incarnation ?? 0
    child.kill("SIGKILL")
    for (const { member } of [a, b, c]) await eventually(() => statusOf(member, "d") === "dead", "d is dead")
    await world.child("d", [b.member.address])
    for (const { member } of [a, b, c])
      await eventually(
        () => statusOf(member, "d") === "alive" && (peerOf(member, "d")?.incarnation ?? 0) > first,
        "d is back"
      )
    assert.equal(Number(readFileSync(join(world.folder, "d"), "utf8")) > first, true)
  }))

test("a process that stands still is suspected, and refutes that when it goes on", () =>
  inWorld(async (world) => {
    const [a, b, c] = await world.three()
    const child = await world.child("d", [a.member.address])
    for (const { member } of [a, b, c]) await eventually(() => statusOf(member, "d") === "alive", "d is met")
    const first = peerOf(a.member, "d")?.incarnation ?? 0
    child.kill("SIGSTOP")
    await eventually(() => statusOf(a.member, "d") === "suspect", "d is suspected")
    child.kill("SIGCONT")
    for (const { member, changes } of [a, b, c]) {
      await eventually(
        () => statusOf(member, "d") === "alive" && (peerOf(member, "d")?.incarnation ?? 0) > first,
        "d refutes"
      )
      assert.deepEqual(
        changes.filter(({ peer }) => peer.status === "dead"),
        []
      )
    }
  }))

test("who has another key is not heard, and hears nothing; a new key is taken by all without a loss", () =>
  inWorld(async (world) => {
    const all = await world.three()
    const [a] = all
    const newKey = Buffer.alloc(secretBytes, 8)
    const stranger = await world.open("x", { keys: clusterKeys("blue", [newKey]) })
    stranger.member.join([a.member.address])
    a.member.join([stranger.member.address])
    await eventually(() => a.member.counts["unknown-key"] > 0, "the stranger's datagrams are counted")
    assert.equal(statusOf(a.member, "x"), undefined)
    assert.equal(stranger.member.role, "alone")
    // All open with both, and then all seal with the new one.
    for (const { member } of all) member.replaceKeys(clusterKeys("blue", [secret, newKey]))
    for (const { member } of all) member.replaceKeys(clusterKeys("blue", [newKey, secret]))
    for (const { member, changes } of all) {
      await eventually(() => statusOf(member, "x") === "alive", "the stranger is heard with the new key")
      assert.deepEqual(
        changes.filter(({ peer }) => peer.status !== "alive"),
        []
      )
    }
  }))

test("replayed, forged and senseless datagrams are counted and change nothing", () =>
  inWorld(async (world) => {
    const { member } = await world.open("a")
    const sealing = new Sealing({ keys, ageMsMax: 60_000, sessionsMax: 8, wallClockMs: () => Date.now() })
    const socket = createSocket("udp4")
    const port = Number(member.address.split(":")[1])
    const send = (bytes: Uint8Array) =>
      new Promise<void>((resolve, reject) => {
        socket.send(bytes, port, "127.0.0.1", (error) => (error === null ? resolve() : reject(error)))
      })
    const update = {
      id: "b",
      status: "alive",
      incarnation: 1,
      by: "b",
      address: "127.0.0.1:9",
      meta: ""
    } as const
    const sealed = sealing.seal(encodeDatagram({ from: "b", head: { type: "gossip" }, updates: [update] }))
    const forged = Buffer.from(sealing.seal("{}"))
    forged[forged.length - 1] = (forged.at(-1) ?? 0) ^ 1
    try {
      await send(sealed)
      await eventually(() => statusOf(member, "b") !== undefined, "a good one is taken")
      for (const bytes of [
        sealed,
        forged,
        sealing.seal("no datagram"),
        Buffer.from("hello"),
        Buffer.alloc(2000, 1)
      ])
        await send(bytes)
      const { counts } = member
      await eventually(() => counts.received === 6, "all have come")
      assert.deepEqual([counts.replayed, counts.forged, counts.undecodable, counts.malformed], [1, 1, 1, 2])
      assert.equal(member.peers().length, 2)
    } finally {
      socket.close()
    }
  }))

test("settings that can't work, a file without an incarnation and a port that is taken are told with where", () =>
  inWorld(async (world) => {
    const file = join(world.folder, "broken")
    writeFileSync(file, "seven\n")
    await assert.rejects(world.open("a", { file }), /broken: a whole number/)
    const slow = { ...settings, timeoutMs: settings.periodMs }
    await assert.rejects(world.open("a", { settings: slow }), /a timeout that is shorter than the period/)
    const { member } = await world.open("b")
    const taken = Number(member.address.split(":")[1])
    const again = GossipMember.open({
      actor: swimActor,
      wakesAtMs: wakesAtMs as never,
      id: "c",
      listen: { host: "127.0.0.1", port: taken },
      advertised: null,
      meta: "",
      settings,
      keys,
      incarnationFile: join(world.folder, "c"),
      changed: () => {},
      failed: () => {}
    })
    await assert.rejects(Effect.runPromise(Effect.scoped(again)), /EADDRINUSE/)
  }))

test("a name stands for all its addresses, and is looked up again; what is no address is refused", async () => {
  const answers: Array<ReadonlyArray<string>> = [["127.0.0.1"], ["127.0.0.1", "::1"]]
  const found: Array<ReadonlyArray<string>> = []
  const options = {
    seeds: ["127.0.0.9:1", "nodes.test:7946"],
    refreshMs: 10,
    mdns: null,
    resolve: () => {
      const [first = [], ...rest] = answers
      if (rest.length > 0) answers.shift()
      return first.length === 1 && found.length > 1
        ? Promise.reject(new Error("gone"))
        : Promise.resolve(first)
    },
    found: (all: ReadonlyArray<string>) => found.push(all)
  }
  const running = Effect.runFork(discover(options))
  await eventually(() => found.length === 2, "both answers are told")
  await Effect.runPromise(Fiber.interrupt(running))
  assert.deepEqual(found, [
    ["127.0.0.9:1", "127.0.0.1:7946"],
    ["127.0.0.9:1", "127.0.0.1:7946", "[::1]:7946"]
  ])
  const bad = Effect.runPromise(discover({ ...options, seeds: ["nowhere"] }))
  await assert.rejects(bad, /gossip.seeds.0: nowhere: host:port is expected/)
})

const mdnsPort = 20_000 + (process.pid % 20_000)

const openMdns = (node: string, cluster: string, at: number, found: (all: ReadonlyArray<string>) => void) =>
  Mdns.open({
    cluster,
    node,
    announced: { host: "127.0.0.1", port: at },
    interface: "127.0.0.1",
    port: mdnsPort,
    found
  })

const multicast = await Effect.runPromiseExit(Effect.scoped(openMdns("try", "none", 1, () => {})))
const noMulticast = Exit.isFailure(multicast) ? "no multicast on the loopback interface" : false

test(
  "nodes of a cluster find one another by multicast, and those of another cluster do not",
  { skip: noMulticast },
  async () => {
    const found = new Map<string, ReadonlyArray<string>>()
    const scope = Effect.runSync(Scope.make())
    const open = (node: string, cluster: string, at: number) =>
      Effect.runPromise(
        Scope.provide(
          openMdns(node, cluster, at, (all) => found.set(node, all)),
          scope
        )
      )
    try {
      await open("a", "blue", 1001)
      await open("b", "blue", 1002)
      await open("x", "red", 1003)
      await eventually(() => found.has("a") && found.has("b"), "both are found")
      assert.deepEqual(found.get("a"), ["127.0.0.1:1002"])
      assert.deepEqual(found.get("b"), ["127.0.0.1:1001"])
      assert.equal(found.get("x"), undefined)
    } finally {
      await Effect.runPromise(Scope.close(scope, Exit.void))
    }
  }
)
