/** The start of a real node and its end: what fails is named, undone, and in the journal as soon as there is one. */
import assert from "node:assert/strict"
import { once } from "node:events"
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { createSocket } from "node:dgram"
import { createServer } from "node:net"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { after, afterEach, before, beforeEach, test } from "node:test"
import { Effect } from "effect"
import { issueIdentity } from "../../src/live/ca.ts"
import { newAuthority } from "../live/link-nodes.ts"
import { openNodeFolder, programsOnly } from "./up-world.ts"
import type { NodeFolder } from "./up-world.ts"

let node: NodeFolder
beforeEach(() => {
  node = openNodeFolder()
})
afterEach(() => node.remove())

const taken = createServer()
let port = 0
before(async () => {
  taken.listen(0, "127.0.0.1")
  await once(taken, "listening")
  port = (taken.address() as AddressInfo).port
})
after(() => taken.close())

const filesUnder = (folder: string): ReadonlyArray<string> =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((one) => one.isFile())
    .map((one) => one.name)

/** It ends with this code and this message, was never said to be ready, and leaves no half-written file. */
async function fails(
  { ended }: ReturnType<NodeFolder["start"]>,
  code: number,
  ...said: ReadonlyArray<RegExp>
): Promise<void> {
  const { code: actual, err } = await ended
  assert.equal(actual, code, err)
  const lines = err.trimEnd().split("\n")
  assert.equal(lines.length, 1, err)
  for (const pattern of said) assert.match(err, pattern)
  assert.doesNotMatch(err, /\n\s+at /)
  assert.deepEqual(node.notified(), [])
  assert.deepEqual(
    filesUnder(node.folder).filter((name) => name.endsWith(".tmp")),
    []
  )
}

const typesOf = async () => (await node.facts()).map(([type]) => type)

/** Once what was in the way is gone, the same folder serves, and nothing looks like a crash. */
async function startsNow(): Promise<void> {
  const { child, ready, ended } = node.start()
  await ready
  child.kill("SIGTERM")
  assert.deepEqual((await ended).code, 0)
  assert.ok(!(await typesOf()).includes("node.crashed"))
}

test("a start, a stop, a kill and the start after it are in the journal, and systemd is told", async () => {
  const first = node.start()
  await first.ready
  first.child.kill("SIGTERM")
  assert.equal((await first.ended).code, 0)
  assert.deepEqual(node.notified(), ["--ready", "--stopping"])
  const facts = await node.facts()
  assert.equal(facts[0]?.[0], "node.startBegan")
  assert.deepEqual(
    facts.slice(-3).map(([type, data]) => [type, data["reason"] ?? null]),
    [
      ["node.ready", null],
      ["node.stopping", "SIGTERM"],
      ["node.stopped", null]
    ]
  )
  const second = node.start()
  await second.ready
  second.child.kill("SIGKILL")
  await second.ended
  const third = node.start()
  await third.ready
  third.child.kill("SIGINT")
  assert.equal((await third.ended).code, 0)
  const crashed = (await node.facts()).find(([type]) => type === "node.crashed")
  assert.equal(crashed?.[1]["during"], "ready")
})

test("a port of the API that is taken: named, in the journal, and undone", async () => {
  await fails(
    node.start({ api: { port } }),
    8,
    /^novacron: api \(service\) did not start: api\.listen_address:port is "127\.0\.0\.1:\d+": /,
    /EADDRINUSE.*; allowed: .*a free port; port 0 takes any/
  )
  const [failed, startFailed, stopped] = (await node.facts()).slice(-3)
  assert.deepEqual([failed?.[0], failed?.[1]["component"]], ["node.componentFailed", "api"])
  assert.deepEqual([startFailed?.[0], startFailed?.[1]["phase"]], ["node.startFailed", "service"])
  assert.match(String(startFailed?.[1]["reason"]), /EADDRINUSE/)
  assert.equal(stopped?.[0], "node.stopped")
  await startsNow()
})

test("a port of the links that is taken: the same", async () => {
  await fails(
    node.start({ network: { listen_address: "127.0.0.1", bind_port: port } }),
    8,
    /^novacron: network \(core\) did not start: network\.listen_address:bind_port is "127\.0\.0\.1:\d+": .*EADDRINUSE/
  )
  assert.deepEqual((await typesOf()).slice(-2), ["node.startFailed", "node.stopped"])
  await startsNow()
})

for (const [what, dataDirOf, pattern] of [
  ["can't be made", () => "/proc/novacron/data", /ENOENT/],
  [
    "is a file",
    () => {
      writeFileSync(join(node.folder, "file"), "")
      return join(node.folder, "file")
    },
    /EEXIST/
  ]
] as const) {
  test(`a data folder that ${what} is named, and nothing is made`, async () => {
    const data_dir = dataDirOf()
    const before = filesUnder(node.folder)
    await fails(
      node.start({ system: { node_id: "n1", data_dir } }),
      8,
      /^novacron: environment \(pre-init\) did not start: system\.data_dir is "/,
      pattern,
      /allowed: a folder that this process can make and write in/
    )
    assert.deepEqual(
      filesUnder(node.folder).filter((name) => name !== "config.json"),
      before
    )
  })
}

test("a damaged journal has an exit code of its own and is not touched", async () => {
  await startsNow()
  const path = join(node.dataDir, "journal.db")
  const bytes = readFileSync(path)
  bytes.fill(0x58, 0, 64)
  writeFileSync(path, bytes)
  const { ended } = node.start()
  const { code, err } = await ended
  assert.equal(code, 9, err)
  assert.ok(err.startsWith(`novacron: database (core) did not start: ${path} `), err)
  assert.deepEqual(readFileSync(path), bytes)
  assert.deepEqual(node.notified(), ["--ready", "--stopping"])
})

test("the driver qemu where there is no QEMU: what is missing, and what else there is", async () => {
  await fails(
    node.start({ hypervisor: { driver: "qemu" } }, programsOnly(node)),
    8,
    /^novacron: hypervisor \(core\) did not start: hypervisor\.driver is "qemu": qemu-(system-x86_64|img): (spawn|No such file)/,
    /allowed: qemu where its programs are installed .*, sim$/m
  )
  assert.deepEqual((await typesOf()).slice(-2), ["node.startFailed", "node.stopped"])
  await startsNow()
})

async function pems(): Promise<{
  readonly certificate: string
  readonly key: string
  readonly other: string
}> {
  const folder = join(node.folder, "pem")
  mkdirSync(folder)
  const write = (name: string, text: string) => {
    writeFileSync(join(folder, name), text, { mode: 0o600 })
    return join(folder, name)
  }
  const both = Effect.flatMap(newAuthority, (ca) =>
    Effect.all([issueIdentity(ca, "a"), issueIdentity(ca, "b")])
  )
  const [one, two] = await Effect.runPromise(Effect.scoped(both))
  return {
    certificate: write("one.crt", one.certificate),
    key: write("one.key", one.key),
    other: write("two.key", two.key)
  }
}

test("a certificate of the API that is none, is not there, or is of another key", async () => {
  const { certificate, key, other } = await pems()
  const garbage = join(node.folder, "garbage.pem")
  writeFileSync(garbage, "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n")
  const api = (tls_certificate: string, tls_key: string) =>
    node.start({ api: { port: 0, tls_certificate, tls_key } })
  await fails(api(garbage, key), 8, /api\.tls_certificate is ".*garbage\.pem": .*allowed: a PEM file/)
  await fails(api(join(node.folder, "none"), key), 8, /api\.tls_certificate is ".*none": ENOENT/)
  const bad = api(certificate, garbage)
  await fails(bad, 8, /api\.tls_key is ".*garbage\.pem": .*allowed: a PEM file with a private key/)
  assert.doesNotMatch((await bad.ended).err, /c2VjcmV0/)
  await fails(api(certificate, other), 8, /api\.tls_key is .*it is not the key of .*one\.crt/)
  await startsNow()
})

test("a damaged identity of the node, and of its authority, is named and not replaced", async () => {
  await startsNow()
  for (const name of [join("identity", "node.pem"), join("ca", "ca.key")]) {
    const path = join(node.dataDir, name)
    const good = readFileSync(path)
    writeFileSync(path, "nothing of the kind")
    const { code, err } = await node.start().ended
    assert.equal(code, 8)
    assert.equal(err, `novacron: security (core) did not start: ${path}: not a readable PEM file\n`)
    assert.equal(readFileSync(path, "utf8"), "nothing of the kind")
    writeFileSync(path, good)
  }
  await startsNow()
})

test("a node alone takes part in the gossip when it is asked to, and a UDP port that is taken is named with its key", async () => {
  const socket = createSocket("udp4")
  socket.bind(0, "127.0.0.1")
  await once(socket, "listening")
  const { port: udpPort } = socket.address()
  const keysFile = join(node.dataDir, "gossip", "keys.json")
  const gossip = { enable: "on", bind_port: udpPort }
  const refused = async (said: RegExp) => {
    const { code, err } = await node.start({ gossip }).ended
    assert.equal(code, 8, err)
    assert.match(err, said)
  }
  try {
    await refused(/gossip\.listen_address:bind_port is .*EADDRINUSE.*allowed: .*a free UDP port/)
  } finally {
    socket.close()
    await once(socket, "close")
  }
  const { child, ready, ended } = node.start({ gossip })
  await ready
  assert.ok(existsSync(keysFile))
  child.kill("SIGTERM")
  assert.equal((await ended).code, 0)
  // Keys that can't be read are told of, and are not made anew: others may have them.
  writeFileSync(keysFile, "{}")
  await refused(/discovery \(post-init\) did not start: .*keys\.json: it is no keyring/)
  const off = node.start({ gossip: { enable: "off" } })
  await off.ready
  off.child.kill("SIGTERM")
  assert.equal((await off.ended).code, 0)
})
