/** The lab's processes: two nodes on loopback, started, found again after a crash, and ended without a trace. */
import { spawn } from "node:child_process"
import { randomUUID } from "node:crypto"
import { once } from "node:events"
import { closeSync, existsSync, fstatSync, openSync, readFileSync } from "node:fs"
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { setTimeout as sleep } from "node:timers/promises"
import { Effect } from "effect"
import { Hypervisor } from "../kernel/ports/hypervisor.ts"
import { ApiClient } from "../live/api/client.ts"
import { newSecret, tokenHash, tokenText } from "../live/ca/tokens.ts"
import { FencingFolder } from "../live/fencing/folder.ts"
import { qemuLayer } from "../live/hypervisor/qemu.ts"

/** Something the user can do about it; shown without a stack. */
export class LabError extends Error {}

export interface LabNode {
  readonly name: string
  readonly dataDir: string
  readonly pid: number
  /** Of the API; null where the node has none. */
  readonly url: string | null
  readonly linkAddress: string
  readonly readySeconds: number
}

const readyTimeoutMs = 30_000
const endTimeoutMs = 15_000
const main = fileURLToPath(new URL("../main.ts", import.meta.url))
/** In the published package the entry is the compiled one. */
const entry = existsSync(main) ? main : fileURLToPath(new URL("../main.js", import.meta.url))

/** When a process began, in clock ticks since boot: with the pid it names a process for good (proc(5), field 22). */
function beganAt(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? null
  } catch {
    return null
  }
}

const processFile = (dataDir: string) => `${dataDir}.process.json`

export interface NodeOptions {
  readonly name: string
  readonly folder: string
  readonly imageDir: string
  /** The node whose kernel this one joins, with the token for it. */
  readonly join?: { readonly address: string; readonly token: string }
  /** Simulate this many hosts, sim-1, sim-2, …, instead of running machines. */
  readonly simulatedHosts?: number
  /** More of the configuration's section `cluster`. */
  readonly cluster?: Readonly<Record<string, unknown>>
  /** Of the section `dwcp.consensus`. */
  readonly consensus?: Readonly<Record<string, unknown>>
  /** The section `gossip`. */
  readonly gossip?: Readonly<Record<string, unknown>>
  /** Of the section `network`: a free port unless told. */
  readonly port?: number
}

/** Start a node in the background and wait until it is ready. Its log is `<folder>/<name>.log`. */
export async function startNode(options: NodeOptions): Promise<LabNode> {
  const { name, folder } = options
  const dataDir = join(folder, name)
  const tokenFile = `${dataDir}.join-token`
  if (options.join) await writeFile(tokenFile, options.join.token, { mode: 0o600 })
  const config = {
    system: { node_id: name, data_dir: dataDir },
    hypervisor: {
      image_dir: options.imageDir,
      ...(options.simulatedHosts ? { driver: "sim", sim_hosts: options.simulatedHosts } : {})
    },
    api: { port: 0 },
    network: { bind_port: options.port ?? 0 },
    ...(options.consensus ? { dwcp: { consensus: options.consensus } } : {}),
    ...(options.gossip ? { gossip: options.gossip } : {}),
    cluster: {
      ...(options.join ? { join: options.join.address, join_token_file: tokenFile } : {}),
      ...options.cluster
    }
  }
  // JSON is YAML.
  const configFile = `${dataDir}.yaml`
  await writeFile(configFile, `${JSON.stringify(config, null, 2)}\n`, { mode: 0o600 })
  const logFile = `${dataDir}.log`
  const log = openSync(logFile, "a", 0o600)
  const { size: logged } = fstatSync(log)
  const child = spawn(process.execPath, [entry, "up", "--config", configFile], {
    stdio: ["ignore", log, log],
    detached: true
  })
  closeSync(log)
  await once(child, "spawn")
  child.unref()
  const pid = child.pid as number
  await writeFile(processFile(dataDir), JSON.stringify({ pid, began: beganAt(pid) }), { mode: 0o600 })
  const ready = await readyLine(logFile, logged, pid)
  return {
    name,
    dataDir,
    pid,
    url: ready.url,
    linkAddress: ready.linkAddress,
    readySeconds: ready.readySeconds
  }
}

type Ready = Pick<LabNode, "url" | "linkAddress" | "readySeconds">

/** What came before `logged` bytes was said by an earlier process. */
async function readyLine(logFile: string, logged: number, pid: number): Promise<Ready> {
  const deadline = performance.now() + readyTimeoutMs
  while (performance.now() < deadline) {
    const text = (await readFile(logFile)).subarray(logged).toString()
    for (const line of text.split("\n")) {
      if (!line.startsWith('{"message":["ready",')) continue
      return (JSON.parse(line) as { message: [string, Ready] }).message[1]
    }
    if (beganAt(pid) === null)
      throw new LabError(`a node did not start; its log ${logFile} ends:\n${tail(text)}`)
    await sleep(25)
  }
  throw new LabError(`a node was not ready within ${readyTimeoutMs / 1000} s; its log is ${logFile}`)
}

const tail = (text: string) => text.trimEnd().split("\n").slice(-8).join("\n")

/** A token that lets the node `name` join, and vote; made at `node`, which has a kernel. */
export const joinToken = (
  { dataDir, url }: Pick<LabNode, "dataDir" | "url">,
  name: string,
  votes = false
): Promise<string> =>
  Effect.runPromise(
    Effect.gen(function* () {
      const token = (yield* Effect.promise(() => readFile(join(dataDir, "api-token"), "utf8"))).trim()
      const secret = newSecret()
      const { authority } = (yield* ApiClient.pipe(
        Effect.provide(ApiClient.layer({ url: url ?? "", token }))
      )).calls
      yield* authority.makeToken({
        payload: { token: tokenHash(secret), node: name, votes, lifetimeMs: 3_600_000, reason: "" },
        query: {},
        headers: { "idempotency-key": randomUUID() }
      })
      return tokenText(secret, (yield* authority.status({ query: {} })).hash)
    })
  )

/** End every node and every machine that a lab in this folder has left, also after kill -9, and its files. */
export async function clear(folder: string): Promise<{ readonly nodes: number; readonly machines: number }> {
  const ended = { nodes: 0, machines: 0 }
  const names = await readdir(folder).catch(() => [])
  for (const file of names.filter((name) => name.endsWith(".process.json"))) {
    if (await endProcess(join(folder, file))) ended.nodes++
  }
  // Only now, when no agent is left that could start one again.
  for (const name of names) {
    const dataDir = join(folder, name)
    await new FencingFolder(dataDir).endWatcher()
    if (existsSync(join(dataDir, "vms"))) ended.machines += await removeMachines(dataDir)
  }
  await rm(folder, { recursive: true, force: true })
  return ended
}

async function endProcess(file: string): Promise<boolean> {
  const { pid, began } = JSON.parse(await readFile(file, "utf8")) as { pid: number; began: string | null }
  const runs = () => began !== null && beganAt(pid) === began
  if (!runs()) return false
  process.kill(pid, "SIGTERM")
  const deadline = performance.now() + endTimeoutMs
  while (runs() && performance.now() < deadline) await sleep(25)
  if (runs()) process.kill(pid, "SIGKILL")
  while (runs()) await sleep(10)
  return true
}

const removeMachines = (dataDir: string): Promise<number> =>
  Effect.runPromise(
    Effect.gen(function* () {
      const hypervisor = yield* Hypervisor
      const machines = yield* hypervisor.list
      for (const { vm } of machines) yield* hypervisor.remove(vm)
      return machines.length
    }).pipe(Effect.provide(qemuLayer({ dataDir, imageDir: dataDir, runDir: join(dataDir, "run") })))
  )

/** One lab at a time in a folder: the holder's process is named in a file beside it. */
export async function holdLab(folder: string): Promise<() => Promise<void>> {
  const file = `${folder}.lock`
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const mine = JSON.stringify({ pid: process.pid, began: beganAt(process.pid) })
  for (;;) {
    try {
      await writeFile(file, mine, { flag: "wx", mode: 0o600 })
      return () => rm(file, { force: true })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error
    }
    const { pid, began } = await holderOf(file)
    if (began !== null && beganAt(pid) === began) {
      throw new LabError(`a lab runs already (process ${pid}); end it with Ctrl-C there, or: kill ${pid}`)
    }
    await rm(file, { force: true })
  }
}

async function holderOf(file: string): Promise<{ pid: number; began: string | null }> {
  try {
    return JSON.parse(await readFile(file, "utf8")) as { pid: number; began: string | null }
  } catch {
    return { pid: 0, began: null }
  }
}
