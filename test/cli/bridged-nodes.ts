/**
 * Nodes in network namespaces of their own on one bridge, which is in a namespace too, so that nothing of the machine's own network is
 * touched; beside them a DNS server. All get other addresses when they are told to. What is made here is gone at the end.
 */
import { execFileSync, spawn } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { once } from "node:events"
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { saidBy } from "./said.ts"

const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url))
const dnsServer = fileURLToPath(new URL("./dns-server.ts", import.meta.url))
/** What lies here in a namespace's folder, its processes find in /etc (ip-netns(8)). */
const etcOf = "/etc/netns"
const resolver = "10.214.0.53"
const linkPort = 9090
const readyTries_max = 3000

const ip = (...args: ReadonlyArray<string>) => execFileSync("ip", args, { stdio: "pipe" })

export class BridgedNodes {
  readonly folder = mkdtempSync(join(tmpdir(), "novacron-bridged-"))
  readonly #prefix = `ncd${process.pid}`
  readonly #names: ReadonlyArray<string>
  readonly #hadEtc = existsSync(etcOf)
  readonly #running = new Map<string, ChildProcess>()
  readonly #children: Array<ChildProcess> = []
  #network = 1

  /** The first has the kernel, the others are hosts. */
  constructor(names: ReadonlyArray<string>) {
    this.#names = names
  }

  #namespace = (name: string) => `${this.#prefix}-${name}`

  hostOf = (name: string) => `10.214.${this.#network}.${this.#names.indexOf(name) + 1}`
  addressOf = (name: string) => `${this.hostOf(name)}:${linkPort}`
  logOf = (name: string) => readFileSync(join(this.folder, `${name}.log`), "utf8")

  /** The name is known to nobody until it is given addresses. */
  async make(dnsName: string): Promise<void> {
    process.once("SIGTERM", this.#terminated)
    const bridge = this.#namespace("bridge")
    ip("netns", "add", bridge)
    ip("-n", bridge, "link", "add", "br0", "type", "bridge")
    ip("-n", bridge, "link", "set", "br0", "up")
    for (const name of [...this.#names, "dns"]) {
      const namespace = this.#namespace(name)
      ip("netns", "add", namespace)
      ip("-n", bridge, "link", "add", name, "type", "veth", "peer", "name", "up0", "netns", namespace)
      ip("-n", bridge, "link", "set", name, "master", "br0", "up")
      ip("-n", namespace, "link", "set", "lo", "up")
      ip("-n", namespace, "link", "set", "up0", "up")
      const etc = join(etcOf, namespace)
      mkdirSync(etc, { recursive: true })
      writeFileSync(join(etc, "resolv.conf"), `nameserver ${resolver}\noptions timeout:1 attempts:1\n`)
      writeFileSync(join(etc, "hosts"), "127.0.0.1 localhost\n")
      writeFileSync(join(etc, "nsswitch.conf"), "hosts: files dns\n")
    }
    ip("-n", this.#namespace("dns"), "addr", "add", `${resolver}/16`, "dev", "up0")
    this.renumber()
    this.resolve([])
    const dns = this.#spawn("dns", [dnsServer, resolver, dnsName, this.#addressesFile], "dns.log", true)
    await once(dns, "message")
  }

  /** Addresses that nobody has had yet. Nodes have to be down. */
  renumber(): void {
    this.#network++
    for (const name of this.#names) {
      ip("-n", this.#namespace(name), "-4", "addr", "flush", "dev", "up0")
      ip("-n", this.#namespace(name), "addr", "add", `${this.hostOf(name)}/16`, "dev", "up0")
    }
  }

  get #addressesFile(): string {
    return join(this.folder, "addresses.json")
  }

  /** What DNS says from now on. */
  resolve(addresses: ReadonlyArray<string>): void {
    writeFileSync(`${this.#addressesFile}.new`, JSON.stringify(addresses))
    renameSync(`${this.#addressesFile}.new`, this.#addressesFile)
  }

  #spawn(name: string, args: ReadonlyArray<string>, log: string, isTold = false): ChildProcess {
    const file = openSync(join(this.folder, log), "a", 0o600)
    const inside = ["netns", "exec", this.#namespace(name), process.execPath, ...args]
    // It becomes the process that it starts: one pid.
    const child = spawn("ip", inside, {
      stdio: isTold ? ["ignore", file, file, "ipc"] : ["ignore", file, file]
    })
    closeSync(file)
    this.#children.push(child)
    return child
  }

  /** `up`, until it is ready; the first time with a token to join with. */
  async start(name: string, gossip: Readonly<Record<string, unknown>>): Promise<void> {
    const [kernel = ""] = this.#names
    const at = (what: string) => join(this.folder, `${name}.${what}`)
    const isFirst = !existsSync(at("data"))
    if (isFirst && name !== kernel) {
      const token = await this.cli("ca", "token", "--node", name)
      writeFileSync(at("token"), token.trim(), { mode: 0o600 })
      // It stays what it was: whoever moves has not told the others' configurations.
      writeFileSync(at("join"), `${kernel}@${this.addressOf(kernel)}`)
    }
    const config = {
      system: { node_id: name, data_dir: at("data") },
      hypervisor: { image_dir: this.folder },
      network: { listen_address: "0.0.0.0", bind_port: linkPort },
      api: { socket: at("socket") },
      gossip,
      cluster: name === kernel ? {} : { join: readFileSync(at("join"), "utf8"), join_token_file: at("token") }
    }
    writeFileSync(at("yaml"), JSON.stringify(config), { mode: 0o600 })
    const logged = existsSync(at("log")) ? this.logOf(name).length : 0
    const child = this.#spawn(name, [main, "up", "--config", at("yaml")], `${name}.log`)
    this.#running.set(name, child)
    for (let tries = 0; !this.logOf(name).slice(logged).includes('{"message":["ready",'); tries++) {
      if (child.exitCode !== null || tries > readyTries_max)
        throw new Error(`${name} is not ready: ${this.logOf(name).slice(logged)}`)
      await sleep(20)
    }
  }

  async stop(name: string): Promise<void> {
    const child = this.#running.get(name)
    this.#running.delete(name)
    if (child !== undefined) await ended(child, "SIGTERM")
  }

  /** A command to the node that has the kernel; what it printed. */
  async cli(...argv: ReadonlyArray<string>): Promise<string> {
    const [kernel = ""] = this.#names
    const at = (what: string) => join(this.folder, `${kernel}.${what}`)
    const told = ["--url", `unix:${at("socket")}`, "--token-file", join(at("data"), "api-token")]
    const { code, out, err } = await saidBy(...argv, ...told)
    if (code !== 0) throw new Error(`${argv.join(" ")}: ${code} ${err}`)
    return out
  }

  async remove(): Promise<void> {
    process.off("SIGTERM", this.#terminated)
    for (const child of this.#children) await ended(child, "SIGKILL")
    this.#clear()
  }

  /** As when the file's time is over. */
  readonly #terminated = (): void => {
    this.#clear()
    process.exit(143)
  }

  readonly #clear = (): void => {
    for (const child of this.#children) child.kill("SIGKILL")
    for (const name of [...this.#names, "dns", "bridge"]) {
      const namespace = this.#namespace(name)
      try {
        ip("netns", "del", namespace)
      } catch {
        // It was not made.
      }
      rmSync(join(etcOf, namespace), { recursive: true, force: true })
    }
    if (!this.#hadEtc && existsSync(etcOf) && readdirSync(etcOf).length === 0) rmdirSync(etcOf)
    rmSync(this.folder, { recursive: true, force: true })
  }
}

async function ended(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exit = once(child, "exit")
  child.kill(signal)
  await exit
}
