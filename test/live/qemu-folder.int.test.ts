import assert from "node:assert/strict"
import { mkdir, mkdtemp, rm, stat, writeFile } from "node:fs/promises"
import os from "node:os"
import path from "node:path"
import { after, before, test } from "node:test"
import { Effect, Result } from "effect"
import { commandLine, machineUuid } from "../../src/live/hypervisor/command-line.ts"
import { machinePaths, makeFolders, readRecord, writeRecord } from "../../src/live/hypervisor/folder.ts"
import { newRecord } from "../../src/live/hypervisor/lifecycle.ts"
import { findProcess } from "../../src/live/hypervisor/process.ts"
import { labSpec } from "./qemu-hosts.ts"

let root: string
before(async () => {
  root = await mkdtemp(path.join(os.tmpdir(), "novacron-folder-"))
})
after(() => rm(root, { recursive: true, force: true }))

const SPEC = labSpec({ disk: "local" })

test("sockets go to a short folder when the machine's own is too long; when none is short enough that is said", async () => {
  const long = path.join(root, "x".repeat(90))
  const near = await Effect.runPromise(machinePaths({ dataDir: root }, "web"))
  assert.equal(near.sockets, near.folder)
  const far = await Effect.runPromise(machinePaths({ dataDir: long, runDir: root }, "web"))
  assert.equal(path.dirname(far.sockets), root)
  const error = await Effect.runPromise(Effect.flip(machinePaths({ dataDir: long, runDir: long }, "web")))
  assert.equal(error.code, "unsupported")
  assert.match(error.reason, /107/)
})

test("a record is read as it was written; a damaged one is an error that names the file", async () => {
  const paths = await Effect.runPromise(machinePaths({ dataDir: root }, "db"))
  assert.equal(await Effect.runPromise(readRecord(paths, "db")), null)
  await Effect.runPromise(makeFolders(paths, "db"))
  assert.equal((await stat(paths.folder)).mode & 0o777, 0o700)
  const record = { ...newRecord("db", SPEC), wanted: "running" as const, accelerator: "tcg" }
  await Effect.runPromise(writeRecord(paths, record))
  assert.deepEqual(await Effect.runPromise(readRecord(paths, "db")), record)
  for (const text of ["{", '{"version":2}']) {
    await writeFile(path.join(paths.folder, "machine.json"), text)
    const result = await Effect.runPromise(Effect.result(readRecord(paths, "db")))
    assert.ok(Result.isFailure(result) && result.failure.reason.includes("machine.json"), text)
  }
})

test("a process id that belongs to someone else by now is not the machine's", async () => {
  const paths = await Effect.runPromise(machinePaths({ dataDir: root }, "old"))
  await mkdir(paths.folder, { recursive: true })
  await writeFile(paths.pidFile, `${process.pid}\n`)
  const recorded = { pid: process.pid, startTicks: "1" }
  assert.equal(await Effect.runPromise(findProcess(paths, recorded)), null)
  assert.equal(await Effect.runPromise(findProcess(paths, null)), null)
})

test("both ends of a migration get the same machine", async () => {
  const paths = await Effect.runPromise(machinePaths({ dataDir: path.join(root, "a,b") }, "web"))
  const line = {
    ...{ vm: "web", spec: SPEC, paths, accelerator: "tcg", machine: "pc-q35-7.2", sandbox: true },
    disks: [{ name: "data", path: path.join(paths.folder, "data.qcow2") }],
    boot: { kernel: "/images/kernel", initrd: null }
  }
  const source = commandLine({ ...line, incoming: false, rescue: false })
  const destination = commandLine({ ...line, incoming: true, rescue: false })
  assert.deepEqual(destination, [...source, "-S", "-incoming", "defer"])
  const rescued = commandLine({ ...line, incoming: true, rescue: true })
  // Another monitor is nothing that the guest sees.
  assert.deepEqual(
    rescued.filter((argument) => !destination.includes(argument)),
    [`pipe,id=rescue,path=${paths.rescue.replaceAll(",", ",,")}`, "chardev=rescue,mode=control"]
  )
  assert.equal(rescued.length, destination.length + 4)
  assert.ok(source.includes(machineUuid("web")))
  assert.match(machineUuid("web"), /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
  assert.notEqual(machineUuid("web"), machineUuid("db"))
  const qmp = source.find((argument) => argument.startsWith("socket,id=qmp"))
  assert.ok(qmp?.includes("a,,b"), "a comma in a path must not begin another option")
})
