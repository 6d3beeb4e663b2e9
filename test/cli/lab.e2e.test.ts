import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { once } from "node:events"
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { endAndReplay } from "../live/cluster.ts"
import { Cluster } from "./cluster-processes.ts"

const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url))
let state = ""

before(() => {
  state = mkdtempSync(join(tmpdir(), "nvlab-"))
})
after(() => rmSync(state, { recursive: true, force: true }))

/** Processes whose command line names this lab's folder: its nodes and its machines. */
function left(): ReadonlyArray<string> {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map((pid) => {
      try {
        return `${pid} ${readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ")}`
      } catch {
        return ""
      }
    })
    .filter((line) => line.includes(state))
}

function startLab(...flags: ReadonlyArray<string>): { child: ChildProcess; text: () => string } {
  let text = ""
  const child = spawn(process.execPath, [main, "lab", ...flags], {
    env: { ...process.env, XDG_STATE_HOME: state },
    stdio: ["ignore", "pipe", "pipe"]
  })
  child.stdout?.on("data", (chunk: Buffer) => (text += chunk.toString()))
  child.stderr?.on("data", (chunk: Buffer) => (text += chunk.toString()))
  return { child, text: () => text }
}

async function until(text: () => string, pattern: RegExp, child: ChildProcess): Promise<void> {
  while (!pattern.test(text())) {
    assert.equal(child.exitCode, null, `the lab ended early:\n${text()}`)
    await sleep(50)
  }
}

test("the tour moves a counting guest and leaves nothing", async () => {
  const { child, text } = startLab("--once")
  const [code] = (await once(child, "exit")) as [number]
  assert.equal(code, 0, text())
  assert.match(text(), /demo moved from node-1 to node-2 while it counted/)
  assert.match(text(), /downtime, guest +\d+ ms between tick \d+ on node-1 and tick \d+ on node-2/)
  assert.match(text(), /→ node-2 +score/)
  assert.deepEqual(left(), [])
  assert.equal(existsSync(join(state, "novacron", "lab")), false)
  assert.equal(existsSync(join(state, "novacron", "lab.lock")), false)
})

test("after kill -9 the next lab ends what was left, and Ctrl-C ends that one", async () => {
  const first = startLab()
  await until(first.text, /The guest demo runs on node-1/, first.child)
  first.child.kill("SIGKILL")
  await once(first.child, "exit")
  assert.ok(left().length > 0, "nodes and the machine outlive the lab's own process")
  assert.ok((await endAndReplay(join(state, "novacron", "lab", "node-1"))) > 3, "node, hosts, machine")

  const second = startLab()
  await until(second.text, /Ctrl-C ends it/, second.child)
  assert.match(second.text(), /Ended what an earlier lab had left: 1 nodes, \d machines/)
  const third = startLab("--once")
  const [refused] = (await once(third.child, "exit")) as [number]
  assert.equal(refused, 1)
  assert.match(third.text(), /a lab runs already/)

  second.child.kill("SIGINT")
  const [code] = (await once(second.child, "exit")) as [number]
  assert.equal(code, 0, second.text())
  assert.deepEqual(left(), [])
})

test("three nodes decide together, each answers, and their journals are the same", async (t) => {
  const names = ["node-1", "node-2", "node-3"]
  // Played with, as `npm start -- --nodes 3` is: with --once the nodes are gone before they can be asked.
  const { child, text } = startLab("--nodes", "3")
  t.after(async () => {
    if (child.kill("SIGINT")) await once(child, "exit")
  })
  await until(text, /Ctrl-C ends it/, child)
  assert.match(text(), /node-1 is ready after .* s, node-2 and node-3 joined it/)
  assert.match(text(), /All 3 decide together: end any one of them, and the others go on/)
  assert.match(text(), /demo moved from node-1 to node-2 while it counted/)

  const cluster = await Cluster.running(join(state, "novacron", "lab"), names)
  const said = await Promise.all(names.map((name) => cluster.status(name)))
  for (const { voters } of said) assert.deepEqual(voters.toSorted(), names)
  assert.deepEqual(said.map(({ role }) => String(role)).toSorted(), ["follower", "follower", "leader"])
  await cluster.heads()
  const heads = await cluster.journals()
  assert.ok((heads[0]?.position ?? 0) > 0)
  assert.deepEqual(
    heads,
    names.map(() => heads[0])
  )

  child.kill("SIGINT")
  const [code] = (await once(child, "exit")) as [number]
  assert.equal(code, 0, text())
  assert.deepEqual(left(), [])
})
