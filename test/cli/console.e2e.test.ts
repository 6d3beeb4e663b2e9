/**
 * The console of a real machine on another node than the API's: typed at through the link between the nodes, kept
 * over its live migration in both directions, and at a real terminal.
 */
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { createHash } from "node:crypto"
import { once } from "node:events"
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, test } from "node:test"
import { fileURLToPath } from "node:url"
import { clear, joinToken, startNode } from "../../src/cli/lab-nodes.ts"
import type { LabNode } from "../../src/cli/lab-nodes.ts"
import { buildLabGuest } from "../../src/live/lab-guest.ts"
import { endAndReplay } from "../live/cluster.ts"
import { LAB_CACHE, labSpec } from "../live/qemu-hosts.ts"
import { openConsole, waitFor } from "./console-world.ts"
import type { Typed } from "./console-world.ts"
import { exitCodes } from "../../src/cli/exit.ts"

const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url))
let folder: string
let first: LabNode
let second: LabNode
let environment: Record<string, string>

const call = async (method: string, path: string, body?: unknown): Promise<any> => {
  const answer = await fetch(`${first.url}${path}`, {
    method,
    headers: {
      authorization: `Bearer ${environment["NOVACRON_TOKEN"]}`,
      "content-type": "application/json"
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) })
  })
  return answer.json()
}

before(async () => {
  await buildLabGuest({ cacheDir: LAB_CACHE })
  folder = mkdtempSync(join(tmpdir(), "nvcon-"))
  first = await startNode({ name: "node-1", folder, imageDir: LAB_CACHE })
  const token = await joinToken(first, "node-2")
  const address = `node-1@${first.linkAddress}`
  second = await startNode({ name: "node-2", folder, imageDir: LAB_CACHE, join: { address, token } })
  const tokenFile = join(first.dataDir, "api-token")
  environment = { NOVACRON_URL: first.url as string, NOVACRON_TOKEN: readFileSync(tokenFile, "utf8").trim() }
  await waitFor("both hosts are up", async () => (await call("GET", "/v1/hosts")).length === 2)
  const vm = { name: "web-1", host: "node-2", start: true, spec: labSpec({ disk: "none" }) }
  assert.equal((await call("POST", "/v1/vms?wait=60s", vm)).state, "succeeded")
})
after(async () => {
  try {
    await endAndReplay(join(folder, "node-1"))
  } finally {
    await clear(folder)
  }
})

/** The guest's shell, once it is there, does a sum that nobody typed the result of. Asked again once a second, `first` before it. */
async function answers(console: Typed, sum: number, first = ""): Promise<void> {
  let tries = 0
  await waitFor(`the shell answers ${sum}`, () => {
    if (console.text().includes(`answer-${sum}\r`)) return true
    if (tries++ % 50 === 0) console.type(`${first}echo answer-$((${sum} - 1 + 1))\n`)
    return false
  })
}

const linesOf = (console: Typed) =>
  [...console.text().matchAll(/^line-(\d+)\r$/gm)].map(([, line]) => Number(line))

test("a machine on the other node is typed at, and its console stays through both migrations without losing a line", async () => {
  const console = openConsole(environment, ["web-1"])
  await answers(console, 42)
  assert.match(console.notes(), /connected to the console of web-1 on node-2/)
  console.type("i=0; while true; do i=$((i+1)); echo line-$i; usleep 20000; done\n")
  await waitFor("it counts", () => linesOf(console).length > 20)
  for (const to of ["node-1", "node-2"]) {
    const moved = await call("POST", "/v1/vms/web-1/migrate?wait=120s", { to })
    assert.equal(moved.state, "succeeded", moved.reason)
    await waitFor("it is told", () => console.notes().includes(`moved to ${to}`))
    const seen = linesOf(console).length
    await waitFor("it counts there", () => linesOf(console).length > seen + 20)
  }
  const lines = linesOf(console)
  assert.deepEqual(
    lines,
    lines.map((_, at) => at + (lines[0] ?? 0))
  )
  // What is typed arrives on the new host too: the guest's terminal shows a Ctrl-C. Its shell (BusyBox) overlooks one of thirty, which
  // come while it starts a command, and goes on counting.
  const typed = console.text().length
  console.type("\u0003")
  await waitFor("the terminal has it", () => console.text().slice(typed).includes("^C"))
  await answers(console, 43, "\u0003")
  console.end()
  assert.equal(await console.code, 0)
})

test("a long text typed through a pipe arrives whole", async () => {
  const parts = Array.from({ length: 40 }, (_, at) => `part-${at}-${at * 7}\n`).join("")
  const typed = Array.from({ length: 40 }, (_, at) => `echo part-${at}-$((${at} * 7)) >>/parts\n`).join("")
  const console = openConsole(environment, ["web-1", "--linger", "3s"])
  await answers(console, 44)
  // By what the guest has in the end: its terminal echoes what is typed ahead into the midst of what commands print.
  console.type(`${typed}echo sum-$(md5sum </parts)\n`)
  await waitFor("the last one is answered", () => /sum-[0-9a-f]{32}/.test(console.text()))
  const sum = createHash("md5").update(parts).digest("hex")
  assert.equal(/sum-([0-9a-f]{32})/.exec(console.text())?.[1], sum, console.text())
  console.end()
  assert.equal(await console.code, 0)
})

/** Run a shell's script at a terminal of its own (util-linux' script), and type at it. */
function atTerminal(lines: ReadonlyArray<string>) {
  const file = join(folder, "terminal.sh")
  writeFileSync(file, `${lines.join("\n")}\n`)
  const child = spawn("script", ["-qefc", `sh ${file}`, "/dev/null"], {
    env: { ...process.env, ...environment, TERM: "xterm" },
    stdio: ["pipe", "pipe", "ignore"]
  })
  let text = ""
  child.stdout.on("data", (chunk: Buffer) => (text += chunk.toString("latin1")))
  return { text: () => text, type: (typed: string) => void child.stdin.write(typed), child }
}

const command = `${process.execPath} ${main} vm console web-1`

test("at a terminal: raw while it is open, and as it was after every end", async () => {
  const ends: ReadonlyArray<readonly [string, (pid: number, type: (text: string) => void) => void, number]> =
    [
      ["escape", (_, type) => type("\u001d"), 0],
      ["SIGTERM", (pid) => void process.kill(pid, "SIGTERM"), 130],
      ["SIGHUP", (pid) => void process.kill(pid, "SIGHUP"), 129]
    ]
  for (const [name, end, code] of ends) {
    const before = `before=$(stty -g); `
    const after = `code=$?; [ "$before" = "$(stty -g)" ] && echo "same-terminal code-$code" || stty -a`
    const pidFile = join(folder, `pid-${name}`)
    const started = atTerminal([before, `sh -c 'echo $$ > ${pidFile}; exec ${command}'`, after])
    await waitFor("it is connected", () => started.text().includes("Ctrl-] ends it"))
    started.type("\u0003echo raw-$((50 + 1))\r")
    await waitFor("Ctrl-C goes to the guest, and the shell answers", () => started.text().includes("raw-51"))
    end(Number(readFileSync(pidFile, "utf8")), started.type)
    await waitFor(`it ends by ${name}`, () => started.text().includes("code-"))
    assert.match(started.text(), new RegExp(`same-terminal code-${code}`), `${name}: ${started.text()}`)
    if (started.child.exitCode === null) await once(started.child, "exit")
  }
})

test("who is at the console of a machine that dies, or whose node is lost, is told so", async () => {
  const console = openConsole(environment, ["web-1", "--read-only"])
  await waitFor("it is connected", () => console.notes().includes("watching the console"))
  const pid = Number(readFileSync(join(second.dataDir, "vms", "web-1", "qemu.pid"), "utf8"))
  process.kill(pid, "SIGKILL")
  assert.equal(await console.code, exitCodes.closed)
  assert.match(console.notes(), /has ended: vm\/web-1 is stopped/)

  assert.equal((await call("POST", "/v1/vms/web-1/start?wait=60s")).state, "succeeded")
  const left = openConsole(environment, ["web-1", "--read-only"])
  await waitFor("it is connected", () => left.notes().includes("watching the console"))
  process.kill(second.pid, "SIGKILL")
  assert.equal(await left.code, 5)
  assert.match(left.notes(), /is lost: /)
})

test("every opening is in the audit, with who and how", async () => {
  const { facts } = await call("GET", "/v1/streams/vm/web-1/facts?limit=1000")
  const opened = facts.filter(({ type }: { type: string }) => type === "novacron.vm.consoleOpened")
  assert.ok(opened.length >= 7)
  for (const { principal, data } of opened) {
    assert.equal(principal.kind, "operator")
    assert.ok(["read", "write"].includes(data.mode))
  }
})
