/**
 * The load of the HTTP benches, in a process of its own: so many connections that each send one request after the
 * other. Run as `node http-load.ts <port> <connections> <requests> <token>`; prints one line of JSON.
 */
import { once } from "node:events"
import { connect } from "node:net"

export interface Load {
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  /** Bytes of the last answer's body. */
  readonly bodyBytes: number
  /** Requests that were not answered with 2xx. */
  readonly failed: number
}

const bodies = [
  { path: "drain", body: '{"reason":"bench"}' },
  { path: "activate", body: "" }
] as const

/** Alternates between two commands at a host of its own: each is accepted. */
async function one(port: number, host: number, requests: number, token: string, latencies: Array<number>) {
  const socket = connect(port, "127.0.0.1")
  socket.setNoDelay(true)
  await once(socket, "connect")
  const texts = bodies.map(
    ({ path, body }) =>
      `POST /v1/hosts/h${host}/${path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer ${token}\r\n` +
      (body === ""
        ? "content-length: 0\r\n"
        : `content-type: application/json\r\ncontent-length: ${body.length}\r\n`) +
      `\r\n${body}`
  )
  const result = { failed: 0, bodyBytes: 0 }
  let sent = 0
  let sentAt = 0
  let received = ""
  const send = () => {
    sentAt = performance.now()
    socket.write(texts[sent++ % 2] as string)
  }
  await new Promise<void>((resolve, reject) => {
    socket.on("error", reject)
    socket.on("close", () => resolve())
    socket.on("data", (chunk: Buffer) => {
      received += chunk.toString("latin1")
      const end = received.indexOf("\r\n\r\n")
      if (end < 0) return
      const length = Number(/content-length: (\d+)/i.exec(received)?.[1] ?? 0)
      if (received.length < end + 4 + length) return
      latencies.push(performance.now() - sentAt)
      if (received[9] !== "2") result.failed++
      result.bodyBytes = length
      received = ""
      if (sent < requests) send()
      else socket.end()
    })
    send()
  })
  return result
}

const [port = 0, connections = 1, requests = 1] = process.argv.slice(2, 5).map(Number)
const token = process.argv[5] ?? ""
const latencies: Array<number> = []
const began = performance.now()
const results = await Promise.all(
  Array.from({ length: connections }, (_, host) => one(port, host, requests / connections, token, latencies))
)
const seconds = (performance.now() - began) / 1000
latencies.sort((a, b) => a - b)
const load: Load = {
  perSecond: latencies.length / seconds,
  p50Ms: latencies[Math.floor(latencies.length * 0.5)] ?? 0,
  p99Ms: latencies[Math.floor(latencies.length * 0.99)] ?? 0,
  bodyBytes: results[0]?.bodyBytes ?? 0,
  failed: results.reduce((sum, { failed }) => sum + failed, 0)
}
console.log(JSON.stringify(load))
