/**
 * The least that one TLS stream in Node costs a migration: two processes between bare QEMUs, the near one and the far one,
 * with `node:tls`, mutual TLS 1.3 and `stream.pipe`, and nothing else: no framing, no limits, no record of anything.
 */
import { fork } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { once } from "node:events"
import { mkdtemp, rm } from "node:fs/promises"
import { connect, createServer } from "node:net"
import type { AddressInfo, Server, Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { connect as connectTls, createServer as createTlsServer } from "node:tls"
import { fileURLToPath } from "node:url"
import { Effect } from "effect"
import { caInit, issueIdentity } from "../../src/live/ca.ts"
import type { NodeIdentity } from "../../src/live/ca.ts"
import { end, said } from "./children.ts"

type Ports = ReadonlyArray<number>
/** To a process: where its connections lead from now on. Its answer: the ports that lead there, in the same order. */
interface Lead {
  readonly identity: NodeIdentity
  readonly to: Ports
}

const host = "127.0.0.1"

export class Pipe {
  readonly #near: ChildProcess
  readonly #far: ChildProcess
  readonly #identity: NodeIdentity

  private constructor(identity: NodeIdentity) {
    const file = fileURLToPath(import.meta.url)
    this.#identity = identity
    this.#near = fork(file, ["near"])
    this.#far = fork(file, ["far"])
  }

  static async open(): Promise<Pipe> {
    const folder = await mkdtemp(join(tmpdir(), "nvpipe-"))
    try {
      const ca = await Effect.runPromise(caInit(join(folder, "ca")))
      return new Pipe(await Effect.runPromise(issueIdentity(ca, "pipe")))
    } finally {
      await rm(folder, { recursive: true })
    }
  }

  /** Ports that lead to `to`, through both processes. */
  async lead(to: Ports): Promise<Ports> {
    return this.#ask(this.#near, await this.#ask(this.#far, to))
  }

  async #ask(child: ChildProcess, to: Ports): Promise<Ports> {
    const lead: Lead = { identity: this.#identity, to }
    const answer = said<Ports>(child)
    child.send(lead)
    return answer
  }

  async end(): Promise<void> {
    await Promise.all([end(this.#near), end(this.#far)])
  }
}

function carry(one: Socket, other: Socket): void {
  for (const [from, into] of [
    [one, other],
    [other, one]
  ] as const) {
    from.on("error", () => into.destroy())
    from.pipe(into)
  }
}

/** Both show the same certificate: what is measured is the cost, and that needs one on each side. */
const credentials = ({ key, certificate, ca }: NodeIdentity) =>
  ({ key, cert: certificate, ca, minVersion: "TLSv1.3" }) as const

const opening: Readonly<Record<string, (lead: Lead, port: number) => Server>> = {
  near: ({ identity }, port) =>
    createServer((socket) => {
      const trusted = { ...credentials(identity), checkServerIdentity: () => undefined }
      carry(socket, connectTls({ host, port, ...trusted }).setNoDelay(true))
    }),
  far: ({ identity }, port) =>
    createTlsServer({ ...credentials(identity), requestCert: true }, (socket) => {
      carry(socket, connect({ host, port, noDelay: true }))
    })
}

let servers: Array<Server> = []

async function lead(role: string, asked: Lead): Promise<Ports> {
  for (const server of servers) server.close()
  servers = asked.to.flatMap((port) => opening[role]?.(asked, port) ?? [])
  for (const server of servers) {
    server.listen(0, host)
    await once(server, "listening")
  }
  return servers.map((server) => (server.address() as AddressInfo).port)
}

const role = process.argv[2] ?? ""
if (process.argv[1] === fileURLToPath(import.meta.url) && process.send !== undefined) {
  process.on("message", (asked: Lead) => void lead(role, asked).then((ports) => process.send?.(ports)))
  process.on("disconnect", () => process.exit(0))
}
