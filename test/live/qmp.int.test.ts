import assert from "node:assert/strict"
import { mkdtemp, rm } from "node:fs/promises"
import net from "node:net"
import os from "node:os"
import path from "node:path"
import { test } from "node:test"
import { Effect, PubSub } from "effect"
import { connectQmp } from "../../src/live/hypervisor/qmp.ts"
import type { QmpError } from "../../src/live/hypervisor/qmp.ts"

const GREETING = '{"QMP":{"version":{"qemu":{"major":7,"minor":2,"micro":0}},"capabilities":[]}}\n'

type Answer = (command: string, id: number, socket: net.Socket) => void

/** A server that says what no QEMU says; the right answers are tested with a real one. */
const withServer = async (greeting: string, answer: Answer, body: (file: string) => Promise<void>) => {
  const folder = await mkdtemp(path.join(os.tmpdir(), "novacron-qmp-"))
  const file = path.join(folder, "qmp.sock")
  const sockets = new Set<net.Socket>()
  const server = net.createServer((socket) => {
    sockets.add(socket)
    socket.on("error", () => undefined)
    socket.write(greeting)
    socket.on("data", (data) => {
      for (const line of data.toString().trim().split("\n")) {
        const { execute, id } = JSON.parse(line) as { execute: string; id: number }
        if (execute === "qmp_capabilities") socket.write(`{"return":{},"id":${id}}\n`)
        else answer(execute, id, socket)
      }
    })
  })
  await new Promise<void>((resolve) => {
    server.listen(file, resolve)
  })
  try {
    await body(file)
  } finally {
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => {
      server.close(resolve)
    })
    await rm(folder, { recursive: true, force: true })
  }
}

const execute = (file: string, command: string): Promise<unknown> =>
  Effect.runPromise(
    Effect.gen(function* () {
      const qmp = yield* connectQmp(file)
      return yield* qmp.execute(command, {}, 200)
    }).pipe(
      Effect.match({ onFailure: (cause: QmpError) => cause.code, onSuccess: (value) => value }),
      Effect.scoped
    )
  )

test("errors are typed: refused, timeout, malformed, closed", async () => {
  const answer: Answer = (command, id, socket) => {
    if (command === "good") socket.write(`{"return":{"x":1},"id":${id}}\n`)
    if (command === "bad") socket.write(`{"error":{"class":"GenericError","desc":"no"},"id":${id}}\n`)
    if (command === "noise") socket.write("?\n")
    if (command === "end") socket.end()
  }
  await withServer(GREETING, answer, async (file) => {
    assert.deepEqual(await execute(file, "good"), { x: 1 })
    assert.equal(await execute(file, "bad"), "refused")
    assert.equal(await execute(file, "silence"), "timeout")
    assert.equal(await execute(file, "noise"), "malformed")
    assert.equal(await execute(file, "end"), "closed")
  })
  await withServer("hello\n", answer, async (file) => {
    assert.equal(await execute(file, "good"), "malformed")
  })
  assert.equal(await execute("/nowhere/qmp.sock", "good"), "closed")
})

test("a subscriber that lags loses the oldest events, not the connection", async () => {
  const answer: Answer = (_, id, socket) => {
    const events = Array.from({ length: 1000 }, (_, n) => `{"event":"E","data":{"n":${n}}}\n`).join("")
    socket.write(`${events}{"return":{},"id":${id}}\n`)
  }
  await withServer(GREETING, answer, async (file) => {
    const first = await Effect.runPromise(
      Effect.gen(function* () {
        const qmp = yield* connectQmp(file)
        const events = yield* qmp.events
        yield* qmp.execute("burst")
        return (yield* PubSub.take(events)).data["n"]
      }).pipe(Effect.scoped)
    )
    assert.equal(first, 1000 - 256)
  })
})
