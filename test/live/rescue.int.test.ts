/** The second monitor, with a QEMU's side of its FIFOs that says what the test wants. */
import assert from "node:assert/strict"
import { closeSync, constants, existsSync, openSync, readSync, writeSync } from "node:fs"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import type { TestContext } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { Effect, Queue, Schema, Scope, Semaphore } from "effect"
import { VmSpec } from "../../src/events/vm.ts"
import { machinePaths, makeFolders, writeRecord } from "../../src/live/hypervisor/folder.ts"
import { takeUpArrival } from "../../src/live/hypervisor/incoming.ts"
import { newRecord } from "../../src/live/hypervisor/lifecycle.ts"
import { fail } from "../../src/live/hypervisor/machine.ts"
import { arrival } from "../conformance/arrival.ts"
import { makeRescue, openRescue } from "../../src/live/hypervisor/rescue.ts"

/** QEMU opens both for reading and writing, so that it never sees an end. */
const BOTH = constants.O_RDWR | constants.O_NONBLOCK

async function pair(t: TestContext) {
  const dataDir = await mkdtemp(join(tmpdir(), "nv-rescue-"))
  const paths = await Effect.runPromise(machinePaths({ dataDir }, "r"))
  const at = { ...paths, rescue: join(dataDir, "rescue") }
  await Effect.runPromise(makeRescue(at, (reason) => fail("start", "r", "failed", reason)))
  const qemu = { in: openSync(`${at.rescue}.in`, BOTH), out: openSync(`${at.rescue}.out`, BOTH) }
  const say = (text: string) => writeSync(qemu.out, text)
  const event = (status: string) => say(`${JSON.stringify({ event: "MIGRATION", data: { status } })}\n`)
  let hasEnded = false
  const end = () => {
    if (hasEnded) return
    hasEnded = true
    closeSync(qemu.in)
    closeSync(qemu.out)
  }
  t.after(() => {
    end()
    return rm(dataDir, { recursive: true })
  })
  /** What was asked, once it has come. */
  const asked = async (): Promise<Readonly<Record<string, unknown>>> => {
    for (;;) {
      const buffer = Buffer.alloc(4096)
      try {
        const bytes = readSync(qemu.in, buffer)
        return JSON.parse(buffer.toString("utf8", 0, bytes)) as Readonly<Record<string, unknown>>
      } catch {
        await sleep(5)
      }
    }
  }
  return { at, say, event, end, asked }
}

const opened = async (at: Parameters<typeof openRescue>[0]) => {
  const scope = await Effect.runPromise(Scope.make())
  return (await Effect.runPromise(openRescue(at, scope)))?.rescue ?? null
}

test("what QEMU tells of its migration is kept; that it listens again does not mean that its link is there", async (t) => {
  const { at, say, event, end } = await pair(t)
  // The end of a line that somebody else began to read, and lines that are none of ours.
  say(`us": "active"}}\n{"event": "STOP"}\nnull\n[1]\n`)
  const rescue = await opened(at)
  assert.ok(rescue)
  assert.equal(rescue.status, null)
  for (const status of ["setup", "active", "postcopy-active", "postcopy-paused", "setup"]) event(status)
  const told = await Effect.runPromise(Effect.all([Queue.take(rescue.statuses), Queue.take(rescue.statuses)]))
  assert.deepEqual(told, ["postcopy-active", "postcopy-paused"])
  assert.equal(rescue.status, "postcopy-paused")
  end()
  while (!rescue.isClosed()) await sleep(5)
  assert.equal(rescue.status, null)
})

test("a command is done, refused or not answered; nothing waits for a QEMU that ended", async (t) => {
  const { at, say, asked, end } = await pair(t)
  const rescue = await opened(at)
  assert.ok(rescue)
  const recover = () => Effect.runPromise(rescue.execute("exec-oob", "migrate-recover", { uri: "unix:/in" }))
  const done = recover()
  const { id, ...message } = await asked()
  assert.deepEqual(message, { "exec-oob": "migrate-recover", arguments: { uri: "unix:/in" } })
  say(`${JSON.stringify({ return: {}, id: "another" })}\n${JSON.stringify({ return: {}, id })}\n`)
  assert.equal(await done, true)
  const refused = recover()
  const again = await asked()
  assert.notEqual(again["id"], id)
  say(`${JSON.stringify({ id: again["id"], error: { class: "GenericError", desc: "not paused" } })}\n`)
  assert.equal(await refused, false)
  assert.equal(await recover(), false, "no answer")
  end()
  while (!rescue.isClosed()) await sleep(5)
  assert.equal(await recover(), false)
  assert.equal(await opened(at), null, "nobody reads it any more")
})

test("what was told while no driver read does not end the new listening; what is told then does", async (t) => {
  const { at, say, event, asked } = await pair(t)
  const run = Effect.runPromise
  await run(makeFolders(at, "r"))
  const record = newRecord("r", Schema.decodeUnknownSync(VmSpec)({}))
  await run(writeRecord(at, { ...record, arriving: arrival("move-r") }))
  const machine = { vm: "r", paths: at, lock: Semaphore.makeUnsafe(1), connection: null, rescue: null }
  const folders = { dataDir: join(at.folder, "../..") }
  const scope = await run(Scope.make())
  const supervisor = { folders, machines: new Map(), ended: await run(Queue.bounded<string>(1)), scope }
  /** As QEMU does: the socket is there when it says so. */
  const listen = async () => {
    const { id, ...message } = await asked()
    assert.deepEqual(message, { "exec-oob": "migrate-recover", arguments: { uri: `unix:${at.incoming}` } })
    await writeFile(at.incoming, "")
    say(`${JSON.stringify({ return: {}, id })}\n`)
  }
  for (const status of ["postcopy-active", "postcopy-paused", "postcopy-recover", "postcopy-active"])
    event(status)
  event("postcopy-paused")
  const taken = run(takeUpArrival(supervisor, machine))
  await listen()
  // It is told to listen once more, which QEMU refuses, for what was told last.
  const { id } = await asked()
  say(`${JSON.stringify({ id, error: { class: "GenericError", desc: "listens" } })}\n`)
  await taken
  event("postcopy-recover")
  await sleep(50)
  assert.ok(existsSync(at.incoming), "the source can come")
  event("postcopy-active")
  while (existsSync(at.incoming)) await sleep(5)
  event("postcopy-paused")
  await listen()
  assert.ok(existsSync(at.incoming))
})
