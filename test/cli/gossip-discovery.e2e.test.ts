/**
 * Nodes that all got other addresses find one another again: by a DNS name, and by multicast DNS. The address that a host was told to
 * join is nobody's any more, so no link hands it another; what `cluster peers` shows comes by gossip alone.
 */
import assert from "node:assert/strict"
import { after, before, test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import type { PeerRow } from "../../src/live/api/bodies.ts"
import { namespacesMissing } from "../live/partitions.ts"
import { BridgedNodes } from "./bridged-nodes.ts"

const missing = namespacesMissing()
const skip = missing ?? false

const dnsName = "nodes.test"
const period = "200ms"
const byName = { period, seeds: `${dnsName}:9090`, discovery_interval: "1s" }
const byMulticast = { period, mdns: true }
const byNothing = { period }
const nodes = new BridgedNodes(["k1", "h1", "h2"])

before(async () => {
  if (missing === null) await nodes.make(dnsName)
})
after(() => nodes.remove())

const peer = async (name: string): Promise<PeerRow | undefined> =>
  (JSON.parse(await nodes.cli("cluster", "peers", "--json")) as ReadonlyArray<PeerRow>).find(
    (one) => one.name === name
  )

/** Until an operator sees it there, with the address that it has now. */
async function isSeen(name: string): Promise<void> {
  const wanted = { state: "alive", address: nodes.addressOf(name) }
  for (let tries = 0; ; tries++) {
    const row = await peer(name)
    if (row?.state === wanted.state && row.address === wanted.address) return
    assert.ok(tries < 600, `${name}: ${JSON.stringify(row)}, wanted ${JSON.stringify(wanted)}`)
    await sleep(100)
  }
}

/** Nobody has heard of it where it is now. */
async function isNotSeen(name: string): Promise<void> {
  const row = await peer(name)
  assert.ok(row !== undefined && row.state !== "alive", JSON.stringify(row))
  assert.notEqual(row.address, nodes.addressOf(name))
}

/** Until the node's log has said so once more. */
async function logs(name: string, text: string): Promise<void> {
  const count = () => nodes.logOf(name).split(text).length
  const before = count()
  for (let tries = 0; count() <= before; tries++) {
    assert.ok(tries < 600, `${name} does not say: ${text}`)
    await sleep(100)
  }
}

const stopAll = async () => {
  for (const name of ["h2", "h1", "k1"]) await nodes.stop(name)
}

test("hosts that join are seen, at the addresses that they have", { skip }, async () => {
  await nodes.start("k1", byNothing)
  for (const name of ["h1", "h2"]) await nodes.start(name, byNothing)
  for (const name of ["k1", "h1", "h2"]) await isSeen(name)
})

test(
  "where all have moved they find one another by a DNS name, as soon as it has addresses",
  { skip },
  async () => {
    await stopAll()
    nodes.renumber()
    for (const name of ["k1", "h1"]) await nodes.start(name, byName)
    await nodes.start("h2", byNothing)
    await isSeen("k1")
    for (const name of ["k1", "h1"]) {
      await logs(name, `${dnsName} could not be resolved`)
      await logs(name, `${dnsName} could not be resolved`)
    }
    await isNotSeen("h1")
    nodes.resolve([nodes.hostOf("k1")])
    await isSeen("h1")
    await isNotSeen("h2")
    // The name stands for all its addresses: this one knows none, and is found by the others.
    nodes.resolve(["k1", "h1", "h2"].map(nodes.hostOf))
    await isSeen("h2")
  }
)

test(
  "where all have moved they find one another by multicast DNS, and who does not take part is not found",
  { skip },
  async () => {
    await stopAll()
    nodes.resolve([])
    nodes.renumber()
    for (const name of ["k1", "h1"]) await nodes.start(name, byMulticast)
    await nodes.start("h2", byNothing)
    await isSeen("h1")
    await isNotSeen("h2")
    await nodes.stop("h2")
    await nodes.start("h2", byMulticast)
    await isSeen("h2")
    assert.match(await nodes.cli("cluster", "peers"), new RegExp(`h1 +alive .*${nodes.addressOf("h1")}`))
  }
)
