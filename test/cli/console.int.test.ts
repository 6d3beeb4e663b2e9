/** `novacron vm console` against a node in a process of its own that simulates its hosts. */
import assert from "node:assert/strict"
import { randomUUID } from "node:crypto"
import { mkdirSync, mkdtempSync, readFileSync } from "node:fs"
import { request } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Duplex } from "node:stream"
import { after, before, test } from "node:test"
import { Effect } from "effect"
import { clear, startNode } from "../../src/cli/lab-nodes.ts"
import type { LabNode } from "../../src/cli/lab-nodes.ts"
import { attachConsole } from "../../src/live/console/client.ts"
import type { ConsoleItem } from "../../src/live/console/inbox.ts"
import { sessions_max } from "../../src/live/console/hub.ts"
import { consoleProtocol } from "../../src/live/console/protocol.ts"
import { encodeFrame, frameType } from "../../src/live/link/frames.ts"
import { openConsole, waitFor } from "./console-world.ts"
import { exitCodes } from "../../src/cli/exit.ts"

let folder: string
let node: LabNode
let token: string
let environment: Record<string, string>

const call = async (
  method: string,
  path: string,
  body?: unknown,
  key: string = randomUUID()
): Promise<{ readonly status: number; readonly body: any }> => {
  const answer = await fetch(`${node.url}${path}`, {
    method,
    headers: {
      authorization: `Bearer ${token}`,
      "content-type": "application/json",
      "idempotency-key": key
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) })
  })
  return { status: answer.status, body: await answer.json() }
}

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "nvcon-"))
  mkdirSync(join(folder, "images"))
  node = await startNode({ name: "node-1", folder, imageDir: join(folder, "images"), simulatedHosts: 2 })
  token = readFileSync(join(node.dataDir, "api-token"), "utf8").trim()
  environment = { NOVACRON_URL: node.url as string, NOVACRON_TOKEN: token }
  await waitFor("both hosts are up", async () => (await call("GET", "/v1/hosts")).body.length === 2)
})
after(async () => {
  await clear(folder)
})

let made = 0
async function machine(): Promise<string> {
  const name = `tty-${++made}`
  const vm = { name, spec: {}, host: "sim-1", start: true }
  assert.equal((await call("POST", "/v1/vms?wait=10s", vm)).body.state, "succeeded")
  return name
}

const facts = async (vm: string) => {
  const { body } = await call("GET", `/v1/streams/vm/${vm}/facts`)
  return body.facts.filter((fact: any) => fact.type === "novacron.vm.consoleOpened") as ReadonlyArray<any>
}

test("what is typed comes back, the guest's count is shown, and who opened it is in the journal", async () => {
  const vm = await machine()
  const console = openConsole(environment, [vm, "--linger", "300ms"])
  await waitFor("the first line", () => console.text().includes("[simulated] console of"))
  console.type("hello there\n")
  await waitFor("the echo", () => console.text().includes("hello there\n"))
  await waitFor("a tick", () => /\[simulated\] tick \d+\r\n/.test(console.text()))
  console.end()
  assert.equal(await console.code, 0)
  assert.match(console.notes(), new RegExp(`connected to the simulated console of ${vm} on sim-1\n`))
  const [opened] = await facts(vm)
  assert.deepEqual(opened.data, { mode: "write" })
  assert.match(opened.principal.name, /^token-/)
  const again = openConsole(environment, [vm, "--linger", "1ms"])
  again.end()
  assert.equal(await again.code, 0)
})

test("one types at a time; others are told who does, watch, or take it over", async () => {
  const vm = await machine()
  const first = openConsole(environment, [vm])
  await waitFor("the first is in", () => first.text().includes("tick"))
  const second = openConsole(environment, [vm])
  assert.equal(await second.code, 3)
  assert.match(second.notes(), /operator token-\w+ types at the console of tty-\d+ since 2/)
  const viewers = [openConsole(environment, [vm, "-r"]), openConsole(environment, [vm, "--read-only"])]
  for (const viewer of viewers) await waitFor("the viewer sees", () => viewer.text().includes("tick"))
  first.type("from the first\n")
  for (const viewer of viewers)
    await waitFor("viewers see what is typed", () => viewer.text().includes("from the first\n"))
  const third = openConsole(environment, [vm, "--force"])
  assert.equal(await first.code, exitCodes.closed)
  assert.match(first.notes(), /has taken the console over/)
  third.type("from the third\n")
  for (const viewer of viewers)
    await waitFor("viewers stay", () => viewer.text().includes("from the third\n"))
  const recorded = (await facts(vm)).map(({ data }) => data)
  assert.deepEqual(recorded.slice(0, 3), [{ mode: "write" }, { mode: "read" }, { mode: "read" }])
  assert.match(recorded[3].takenFrom, /^operator token-/)
  assert.equal((await call("POST", `/v1/vms/${vm}/stop?wait=10s`)).body.state, "succeeded")
  for (const one of [third, ...viewers]) {
    assert.equal(await one.code, exitCodes.closed)
    assert.match(one.notes(), /has ended: vm\/tty-\d+ is stopp/)
  }
})

test("of many that ask in the same moment one may type, and only that one is in the journal", async () => {
  const vm = await machine()
  const answers = await Promise.all(
    Array.from({ length: 8 }, () => call("POST", `/v1/vms/${vm}/console`, {}))
  )
  assert.equal(answers.filter(({ status }) => status === 200).length, 1)
  assert.equal(answers.filter(({ status }) => status === 409).length, 7)
  assert.equal((await facts(vm)).length, 1)
})

test("there is no console of a machine that does not run, or is not there", async () => {
  const vm = await machine()
  await call("POST", `/v1/vms/${vm}/stop?wait=10s`)
  const stopped = openConsole(environment, [vm])
  assert.equal(await stopped.code, 3)
  assert.equal(await openConsole(environment, ["nobody-here"]).code, 4)
  // What was refused holds nothing.
  await call("POST", `/v1/vms/${vm}/start?wait=10s`)
  const started = openConsole(environment, [vm, "--linger", "1ms"])
  started.end()
  assert.equal(await started.code, 0)
})

test("it stays open while the machine moves, and what the guest counts goes on", async () => {
  const vm = await machine()
  const console = openConsole(environment, [vm])
  await waitFor("it counts at the source", () => console.text().includes("tick"))
  const moved = await call("POST", `/v1/vms/${vm}/migrate?wait=60s`, { to: "sim-2" })
  assert.equal(moved.body.state, "succeeded")
  await waitFor("it is told", () => console.notes().includes("moved to sim-2"))
  const at = console.text().length
  await waitFor("it counts at the destination", () => console.text().slice(at).includes("tick"))
  console.type("typed at the destination\n")
  await waitFor("it is typed there", () => console.text().includes("typed at the destination\n"))
  const counts = [...console.text().matchAll(/tick (\d+)\r\n/g)].map(([, count]) => Number(count))
  assert.ok(counts.every((count, index) => index === 0 || count > (counts[index - 1] ?? 0)))
  console.end()
  assert.equal(await console.code, 0)
})

test("at a terminal every key goes to the guest but Ctrl-], which ends it and gives the terminal back", async () => {
  const vm = await machine()
  const console = openConsole(environment, [vm], true)
  await waitFor("it is in", () => console.text().includes("tick"))
  assert.match(console.notes(), /Ctrl-\] ends it/)
  assert.deepEqual(console.raw, [true])
  console.type("\u0003\u0004kept")
  await waitFor("control characters go through", () => console.text().includes("\u0003\u0004kept"))
  console.type("last\u001dnever")
  assert.equal(await console.code, 0)
  assert.deepEqual(console.raw, [true, false])
  assert.ok(!console.text().includes("never"))
})

const upgrade = (path: string, headers: Record<string, string> = {}): Promise<number | Duplex> =>
  new Promise((resolve, reject) => {
    const asked = request(`${node.url}${path}`, {
      agent: false,
      headers: {
        authorization: `Bearer ${token}`,
        connection: "upgrade",
        upgrade: consoleProtocol,
        ...headers
      }
    })
    asked.on("error", reject)
    asked.on("response", (response) => {
      response.resume()
      resolve(response.statusCode ?? 0)
    })
    asked.on("upgrade", (_response, socket) => resolve(socket.on("error", () => {})))
    asked.end()
  })

test("only who opened a session may attach to it, with the right protocol, and once", async () => {
  const vm = await machine()
  const id = randomUUID()
  assert.equal((await call("POST", `/v1/vms/${vm}/console`, { readOnly: true }, id)).status, 200)
  const path = `/v1/vms/${vm}/console/${id}`
  assert.equal((await call("GET", path)).status, 426)
  assert.equal(await upgrade(path, { upgrade: "websocket" }), 426)
  assert.equal(await upgrade(path, { authorization: "Bearer wrong" }), 401)
  assert.equal(await upgrade(`/v1/vms/other/console/${id}`), 404)
  assert.equal(await upgrade(`/v1/vms/${vm}/console/${randomUUID()}`), 404)
  const socket = await upgrade(path)
  assert.ok(typeof socket === "object")
  assert.equal(await upgrade(path), 404)
  socket.destroy()
})

test("who sends what may not be sent is told so, and the console goes on for the others", async () => {
  const vm = await machine()
  const writer = openConsole(environment, [vm])
  await waitFor("the writer is in", () => writer.text().includes("tick"))
  const open = async (readOnly: boolean) => {
    const id = randomUUID()
    await call("POST", `/v1/vms/${vm}/console`, { readOnly }, id)
    const socket = await upgrade(`/v1/vms/${vm}/console/${id}`)
    assert.ok(typeof socket === "object")
    return socket
  }
  const closing = async (socket: Duplex): Promise<string> => {
    let text = ""
    for await (const chunk of socket) text += (chunk as Buffer).toString("latin1")
    return text
  }
  const typing = await open(true)
  typing.write(encodeFrame(frameType.data, 0, Buffer.from("a viewer types")))
  assert.match(await closing(typing), /"cause":"protocol","reason":"the session may only watch"/)
  const garbage = await open(true)
  garbage.write(Buffer.alloc(64, 0xff))
  assert.match(await closing(garbage), /"cause":"protocol","reason":"a frame of 4294967295 octets/)
  const other = await open(true)
  other.write(encodeFrame(frameType.request, 1))
  assert.match(await closing(other), /"cause":"protocol","reason":"frame 6 is none that a client sends"/)
  assert.ok(!writer.text().includes("a viewer types"))
  writer.type("still here\n")
  await waitFor("the writer goes on", () => writer.text().includes("still here\n"))
  writer.end()
  assert.equal(await writer.code, 0)
})

test("there is a limit to open consoles, and a client that goes away leaves its place", async () => {
  const vm = await machine()
  const sockets: Array<Duplex> = []
  const attached = async (): Promise<number> => {
    const id = randomUUID()
    const asked = await call("POST", `/v1/vms/${vm}/console`, { readOnly: true }, id)
    if (asked.status !== 200) return asked.status
    const socket = await upgrade(`/v1/vms/${vm}/console/${id}`)
    assert.ok(typeof socket === "object")
    sockets.push(socket)
    return 200
  }
  let status = 200
  while (status === 200 && sockets.length <= sessions_max) status = await attached()
  assert.equal(status, 503)
  // Sessions of earlier tests that nobody attached to may still hold their places.
  assert.ok(sockets.length <= sessions_max && sockets.length > sessions_max - 8)
  for (const socket of sockets) socket.destroy()
  await waitFor("the places are free", async () => (await attached()) === 200)
  for (const socket of sockets) socket.destroy()
})

test("when the node stops, who is at a console is told", async () => {
  const vm = await machine()
  const id = randomUUID()
  await call("POST", `/v1/vms/${vm}/console`, { readOnly: true }, id)
  const items: Array<ConsoleItem> = []
  const take = async (item: ConsoleItem) => void items.push(item)
  const client = { url: node.url as string, token }
  const reading = Effect.runPromise(
    Effect.scoped(Effect.flatMap(attachConsole(client, vm, id), (connection) => connection.receive(take)))
  )
  const typing = openConsole(environment, [vm])
  await waitFor("both are in", () => items.length > 1 && typing.text().includes("tick"))
  process.kill(node.pid, "SIGTERM")
  await reading
  assert.deepEqual(items.at(-1), { type: "closed", cause: "stopping", reason: "the node stops" })
  assert.equal(await typing.code, 5)
  assert.match(typing.notes(), /is lost: the node stops/)
})
