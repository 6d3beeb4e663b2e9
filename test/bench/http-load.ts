/**
 * The load on a server, in a process of its own: `connections` sockets that stay open, on each one request after the
 * other, the next when the answer is there. Bare sockets and the same bytes for every server, so that the client costs
 * each the same and little. Takes jobs and gives their results by the channel of `fork`.
 */
import { connect } from "node:net"
import type { Socket } from "node:net"
import { connect as tlsConnect } from "node:tls"
import { hashOf } from "./measure.ts"

export interface Job {
  readonly port: number
  readonly token: string
  /** PEM, of the authority whose certificate the server shows; without it nothing is encrypted. */
  readonly ca?: string
  /** `echo` sends the body that a command is answered with. */
  readonly what: "echo" | "commands"
  readonly connections: number
  /** Requests on a connection that are sent before the first of them is answered (RFC 9112, 9.3.2); 1 unless told. */
  readonly pipelined?: number
  /** All together. */
  readonly requests: number
  /** Part of the ids, so that no job repeats another's commands. */
  readonly job: string
}

export interface Load {
  readonly seconds: number
  /** Of each request, to the microsecond. */
  readonly tookMs: ReadonlyArray<number>
  /** Over what was answered, without what the time or the order of arrival decides. */
  readonly result: string
}

/** As large as the answer to a command. */
const echoed = (job: string, host: number, n: number) => ({
  id: `${job}.${host}.${n}`,
  stream: `host/h${host}`,
  began: "host.drained",
  state: "succeeded",
  reason: null,
  position: 123_456,
  lastPosition: 123_456,
  startedMs: 1_760_000_000_000,
  updatedMs: 1_760_000_000_000
})

function bytesOf({ token, what, job }: Job, host: number, n: number): string {
  const drains = n % 2 === 0
  const path = what === "echo" ? "/" : `/v1/hosts/h${host}/${drains ? "drain" : "activate"}`
  const body = what === "echo" ? JSON.stringify(echoed(job, host, n)) : drains ? '{"reason":"bench"}' : ""
  const type = body === "" ? "" : "content-type: application/json\r\n"
  return (
    `POST ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer ${token}\r\n` +
    `idempotency-key: ${job}.${host}.${n}\r\n${type}content-length: ${body.length}\r\n\r\n${body}`
  )
}

/** One answer at the beginning of `text`, or null while it is not all there. */
function answerIn(
  text: string
): { readonly status: number; readonly body: string; readonly end: number } | null {
  const headers = text.indexOf("\r\n\r\n")
  if (headers < 0) return null
  const length = /\r\ncontent-length: (\d+)/i.exec(text.slice(0, headers))?.[1]
  if (length === undefined) throw new Error(`an answer without content-length: ${text.slice(0, headers)}`)
  const end = headers + 4 + Number(length)
  if (text.length < end) return null
  return { status: Number(text.slice(9, 12)), body: text.slice(headers + 4, end), end }
}

/** What an answer says that is the same in every run. */
function essence(status: number, body: string): string {
  const { id, stream, began, state } = JSON.parse(body) as Record<string, unknown>
  return `${status} ${String(id)} ${String(stream)} ${String(began)} ${String(state)}`
}

/**
 * On one socket `count` requests for each of these hosts, one of each in flight, which are answered in the order of asking; what
 * came back and how long each took are added to the lists.
 */
function converse(
  socket: Socket,
  job: Job,
  hosts: ReadonlyArray<number>,
  count: number,
  tookMs: Array<number>,
  said: Array<string>
) {
  return new Promise<void>((resolve, reject) => {
    let text = ""
    const inFlight: Array<{ readonly host: number; readonly n: number; readonly sentMs: number }> = []
    const send = (all: ReadonlyArray<{ readonly host: number; readonly n: number }>) => {
      const sentMs = performance.now()
      inFlight.push(...all.map((one) => ({ ...one, sentMs })))
      socket.write(all.map(({ host, n }) => bytesOf(job, host, n)).join(""), "latin1")
    }
    socket.setEncoding("latin1")
    socket.on("error", reject)
    socket.on("close", () => reject(new Error(`host ${hosts[0]}: closed with ${inFlight.length} requests`)))
    socket.on("data", (chunk: string) => {
      text += chunk
      const next: Array<{ readonly host: number; readonly n: number }> = []
      for (let answer = answerIn(text); answer !== null; answer = answerIn(text)) {
        const asked = inFlight.shift()
        if (asked === undefined) return reject(new Error(`an answer that nobody asked for: ${answer.body}`))
        tookMs.push(performance.now() - asked.sentMs)
        if (answer.status >= 300) return reject(new Error(`${answer.status}: ${answer.body}`))
        said.push(`${answer.status} ${answer.body}`)
        text = text.slice(answer.end)
        if (asked.n + 1 < count) next.push({ host: asked.host, n: asked.n + 1 })
      }
      if (next.length > 0) return send(next)
      if (inFlight.length > 0) return
      socket.removeAllListeners("close")
      socket.end()
      resolve()
    })
    send(hosts.map((host) => ({ host, n: 0 })))
  })
}

const opened = ({ port, ca }: Job) =>
  new Promise<Socket>((resolve, reject) => {
    const to = { host: "127.0.0.1", port, noDelay: true }
    const socket: Socket =
      ca === undefined
        ? connect(to, () => resolve(socket))
        : // A node's certificate names the node, and not where it listens.
          tlsConnect({ ...to, ca, checkServerIdentity: () => undefined }, () => resolve(socket))
    socket.once("error", reject)
  })

async function run(job: Job): Promise<Load> {
  const sockets = await Promise.all(Array.from({ length: job.connections }, () => opened(job)))
  const tookMs: Array<number> = []
  const said: Array<string> = []
  const pipelined = job.pipelined ?? 1
  const each = job.requests / job.connections / pipelined
  const hostsOf = (at: number) => Array.from({ length: pipelined }, (_, n) => at * pipelined + n)
  const beganMs = performance.now()
  await Promise.all(sockets.map((socket, at) => converse(socket, job, hostsOf(at), each, tookMs, said)))
  const seconds = (performance.now() - beganMs) / 1000
  const lines = said.map((one) => essence(Number(one.slice(0, 3)), one.slice(4)))
  const ofJob = new RegExp(`\\b${job.job}\\.`, "g")
  return {
    seconds,
    tookMs: tookMs.map((ms) => Math.round(ms * 1000) / 1000),
    result: hashOf(lines.map((one) => one.replaceAll(ofJob, "")).sort())
  }
}

process.on("message", (job: Job) => {
  run(job).then(
    (load) => process.send?.(load),
    (error: unknown) => {
      console.error(error)
      process.exit(1)
    }
  )
})
// Whoever wants the load is gone.
process.on("disconnect", () => process.exit(0))
