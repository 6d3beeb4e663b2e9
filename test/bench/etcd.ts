/**
 * The yardstick of a group: etcd as Debian has it, three processes on loopback with TLS between them and to the client, its
 * defaults otherwise (each put is on the disk of a majority). The client is the official one, built when it is needed.
 */
import { execFile, spawn } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { once } from "node:events"
import { existsSync, openSync, closeSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { createInterface } from "node:readline"
import type { Interface } from "node:readline"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { end } from "./children.ts"
import { freePort } from "./cluster-nodes.ts"
import { goBuild, goMissing } from "./go.ts"

const exec = promisify(execFile)
const etcdPath = "/usr/bin/etcd"
const etcdctlPath = "/usr/bin/etcdctl"
const clientSource = fileURLToPath(new URL("./etcd-client", import.meta.url))
const startTimeoutMs = 30_000

export interface PutLoad {
  readonly seconds: number
  readonly tookMs: ReadonlyArray<number>
}

/** What is missing for a comparison; null when there is everything. */
function etcdMissing(): string | null {
  if (!existsSync(etcdPath) || !existsSync(etcdctlPath))
    return `${etcdPath} and ${etcdctlPath} are not there (Debian: apt-get install etcd-server etcd-client)`
  return goMissing()
}

/** The path of its client, or why there is none, as without a network when its modules were never fetched. */
export async function buildClient(
  folder: string
): Promise<{ readonly path: string } | { readonly missing: string }> {
  const missing = etcdMissing()
  if (missing !== null) return { missing }
  try {
    return { path: await goBuild(clientSource, join(folder, "etcd-client")) }
  } catch (error) {
    return { missing: `etcd's client can't be built: ${(error as Error).message.slice(0, 300)}` }
  }
}

/** An authority of its own, and one certificate for all three. */
async function makeCertificates(folder: string) {
  const at = (name: string) => join(folder, name)
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
  writeFileSync(at("san"), "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
  await exec("openssl", [
    ...["req", "-x509", ...curve, "-days", "2", "-subj", "/CN=bench"],
    ...["-keyout", at("ca.key"), "-out", at("ca.crt")]
  ])
  await exec("openssl", [
    ...["req", ...curve, "-subj", "/CN=etcd"],
    ...["-keyout", at("etcd.key"), "-out", at("etcd.csr")]
  ])
  await exec("openssl", [
    ...[
      "x509",
      "-req",
      "-in",
      at("etcd.csr"),
      "-CA",
      at("ca.crt"),
      "-CAkey",
      at("ca.key"),
      "-CAcreateserial"
    ],
    ...["-days", "2", "-extfile", at("san"), "-out", at("etcd.crt")]
  ])
  return { ca: at("ca.crt"), certificate: at("etcd.crt"), key: at("etcd.key") }
}

export class Etcd {
  readonly #members: ReadonlyArray<ChildProcess>
  readonly #client: ChildProcess
  readonly #lines: Interface

  private constructor(members: ReadonlyArray<ChildProcess>, client: ChildProcess, lines: Interface) {
    this.#members = members
    this.#client = client
    this.#lines = lines
  }

  /** With the client that `buildClient` made. */
  static async start(folder: string, binary: string): Promise<Etcd> {
    const files = await makeCertificates(folder)
    const names = ["e1", "e2", "e3"]
    const ports = await Promise.all(
      names.map(async (name) => ({ name, peer: await freePort(), client: await freePort() }))
    )
    const cluster = ports.map(({ name, peer }) => `${name}=https://127.0.0.1:${peer}`).join(",")
    const members: Array<ChildProcess> = []
    try {
      for (const { name, peer, client } of ports) {
        const log = openSync(join(folder, `${name}.log`), "w")
        const [peerUrl, clientUrl] = [`https://127.0.0.1:${peer}`, `https://127.0.0.1:${client}`]
        const { ca, certificate, key } = files
        const args = [
          ...["--name", name, "--data-dir", join(folder, name), "--log-level", "warn"],
          ...["--listen-peer-urls", peerUrl, "--initial-advertise-peer-urls", peerUrl],
          ...["--listen-client-urls", clientUrl, "--advertise-client-urls", clientUrl],
          ...["--initial-cluster", cluster, "--initial-cluster-state", "new"],
          ...["--peer-client-cert-auth", "--peer-trusted-ca-file", ca],
          ...["--peer-cert-file", certificate, "--peer-key-file", key],
          ...["--cert-file", certificate, "--key-file", key]
        ]
        members.push(spawn(etcdPath, args, { stdio: ["ignore", log, log] }))
        closeSync(log)
      }
      const urls = ports.map(({ client }) => `https://127.0.0.1:${client}`)
      const url = await leaderOf(urls, files.ca, folder)
      const client = spawn(binary, [url, files.ca], { stdio: ["pipe", "pipe", "inherit"] })
      members.push(client)
      if (client.stdout === null) throw new Error("etcd's client has no output")
      return new Etcd(members, client, createInterface({ input: client.stdout }))
    } catch (error) {
      await Promise.all(members.map(end))
      throw error
    }
  }

  async load(clients: number, connections: number, requests: number, job: string): Promise<PutLoad> {
    const over = new AbortController()
    const line = once(this.#lines, "line", { signal: over.signal })
    const failed = once(this.#client, "exit", { signal: over.signal }).then(([code]) => {
      throw new Error(`etcd's client ended with ${String(code)}`)
    })
    this.#client.stdin?.write(`${JSON.stringify({ clients, connections, requests, job })}\n`)
    try {
      const [text] = (await Promise.race([line, failed])) as [string]
      return JSON.parse(text) as PutLoad
    } finally {
      over.abort()
    }
  }

  async end(): Promise<void> {
    this.#lines.close()
    await Promise.all(this.#members.map(end))
  }
}

async function leaderOf(urls: ReadonlyArray<string>, ca: string, folder: string): Promise<string> {
  const args = ["--cacert", ca, "--endpoints", urls.join(","), "endpoint", "status", "-w", "json"]
  const deadline = performance.now() + startTimeoutMs
  while (performance.now() < deadline) {
    try {
      const { stdout } = await exec(etcdctlPath, args, { env: { ...process.env, ETCDCTL_API: "3" } })
      const all = JSON.parse(stdout) as ReadonlyArray<{
        readonly Endpoint: string
        readonly Status: { readonly header: { readonly member_id: number }; readonly leader?: number }
      }>
      const leader = all.find(({ Status }) => Status.leader === Status.header.member_id)
      if (all.length === urls.length && leader !== undefined) return leader.Endpoint
    } catch {
      // Not all of them listen yet.
    }
    await sleep(200)
  }
  const log = readFileSync(join(folder, "e1.log"), "utf8").trimEnd().split("\n").slice(-5).join("\n")
  throw new Error(`etcd has no leader within ${startTimeoutMs / 1000} s; the log of the first ends:\n${log}`)
}
