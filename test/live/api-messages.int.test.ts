import assert from "node:assert/strict"
import { createServer } from "node:http"
import type { IncomingMessage, ServerResponse } from "node:http"
import { connect } from "node:net"
import type { AddressInfo } from "node:net"
import { test } from "node:test"
import * as fc from "fast-check"
import { answerJson, keepAliveMs, Request } from "../../src/live/api/messages.ts"

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31))
console.log(`SEED=${seed}`)

type Listener = (request: IncomingMessage, response: ServerResponse) => void

/** A server of these messages, for as long as `use` takes. */
async function serving<A>(listener: Listener, use: (port: number) => Promise<A>): Promise<A> {
  const server = createServer({ IncomingMessage: Request, keepAliveTimeout: keepAliveMs }, listener)
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve)
  })
  try {
    return await use((server.address() as AddressInfo).port)
  } finally {
    server.closeAllConnections()
    await new Promise<void>((resolve) => {
      server.close(() => resolve())
    })
  }
}

/** Sends the pieces one after the other, and gives what came back when it is whole or the connection has ended. */
function converse(port: number, pieces: ReadonlyArray<Buffer>, isWhole: (text: string) => boolean) {
  return new Promise<string>((resolve, reject) => {
    const received: Array<Buffer> = []
    const text = () => Buffer.concat(received).toString("latin1")
    const socket = connect({ port, host: "127.0.0.1", noDelay: true })
    socket.on("error", reject).on("close", () => resolve(text()))
    socket.on("data", (data) => {
      received.push(data)
      if (isWhole(text())) socket.destroy()
    })
    const sendFrom = (index: number): void => {
      const piece = pieces[index]
      // A turn of the event loop between them, so that they are read one by one.
      if (piece !== undefined) socket.write(piece, () => setImmediate(() => sendFrom(index + 1)))
    }
    sendFrom(0)
  })
}

const undated = (text: string) => text.replaceAll(/\r\nDate: [^\r]+/g, "\r\nDate: <date>")

test("an answer is, octet by octet, what node makes of it", async () => {
  const answers: Array<{ status: number; location: string; body: string }> = []
  for (const status of [200, 202])
    for (const body of ["{}", '{"name":"größer ✓"}', JSON.stringify("x".repeat(200_000))])
      answers.push({ status, location: `/v1/operations/${answers.length}`, body })
  const listener: Listener = (request, response) => {
    const [, way, index] = (request.url ?? "").split("/")
    const { status, location, body } = answers[Number(index)] as (typeof answers)[number]
    if (way === "short") {
      answerJson(response, status, location, body)
      return assert.equal(response.statusCode, status)
    }
    const headers = {
      location,
      "content-type": "application/json",
      "content-length": Buffer.byteLength(body)
    }
    response.writeHead(status, headers).end(body)
  }
  await serving(listener, async (port) => {
    const told = async (line: string, headers: string, end: string) =>
      undated(
        await converse(
          port,
          [Buffer.from(`${line}\r\nhost: x\r\n${headers}\r\n`)],
          (text) => text.includes("HTTP/1.1 2") && text.endsWith(`\r\n\r\n${end}`)
        )
      )
    for (const [index, { body, status }] of answers.entries())
      for (const method of ["POST", "GET", "HEAD"])
        for (const version of ["HTTP/1.1", "HTTP/1.0"])
          for (const connection of [
            "",
            "connection: close\r\n",
            "connection: keep-alive\r\n",
            "expect: 100-continue\r\n"
          ]) {
            const end = method === "HEAD" ? "" : Buffer.from(body).toString("latin1")
            const [short, long] = await Promise.all(
              ["short", "long"].map((way) =>
                told(`${method} /${way}/${index} ${version}`, `content-length: 0\r\n${connection}`, end)
              )
            )
            assert.equal(short, long, `${method} ${version} ${connection}`)
            assert.match(short as string, new RegExp(`^(HTTP/1.1 100 Continue\r\n\r\n)?HTTP/1.1 ${status} `))
            assert.ok((short as string).includes("\r\nDate: <date>\r\n"), short)
          }
  })
})

test("an answer tells the time in the form that HTTP wants, and later another", async (t) => {
  const times = [1_795_305_599_999, 1_795_305_600_000, 1_795_305_600_999, 1_795_305_601_000]
  const dates: Array<string | undefined> = []
  await serving(
    (_request, response) => answerJson(response, 200, "/", "{}"),
    async (port) => {
      for (const timeMs of times) {
        t.mock.method(Date, "now", () => timeMs)
        const asked = Buffer.from("GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        const text = await converse(port, [asked], (text) => text.endsWith("{}"))
        dates.push(/\r\nDate: ([^\r]+)\r\n/.exec(text)?.[1])
      }
    }
  )
  assert.deepEqual(dates, [
    "Sat, 21 Nov 2026 23:59:59 GMT",
    "Sun, 22 Nov 2026 00:00:00 GMT",
    "Sun, 22 Nov 2026 00:00:00 GMT",
    "Sun, 22 Nov 2026 00:00:01 GMT"
  ])
})

test("a location that would begin another header is refused before anything is sent", async () => {
  const codes: Array<unknown> = []
  const listener: Listener = (_request, response) => {
    try {
      answerJson(response, 200, "/\r\nset-cookie: x", "{}")
    } catch (error) {
      codes.push((error as NodeJS.ErrnoException).code)
      response.writeHead(500, { "content-length": 0 }).end()
    }
  }
  await serving(listener, async (port) => {
    const text = await converse(port, [Buffer.from("GET / HTTP/1.1\r\nhost: x\r\n\r\n")], (text) =>
      text.endsWith("\r\n\r\n")
    )
    assert.match(text, /^HTTP\/1\.1 500 /)
    assert.ok(!text.includes("set-cookie"))
    assert.deepEqual(codes, ["ERR_INVALID_CHAR"])
  })
})

/** Of several requests on one connection some are handed over and some read as node's streams are. */
const requests = fc.array(
  fc.record({
    body: fc.oneof(
      fc.string({ unit: "grapheme", maxLength: 40 }),
      fc.constant(""),
      fc.string({ maxLength: 5 }).map((text) => text.padEnd(70_000, "ü"))
    ),
    isHandedOver: fc.boolean()
  }),
  { minLength: 1, maxLength: 6 }
)
const cuts = fc.array(fc.nat(), { maxLength: 8 })

test("a body that is handed over is what was sent, in whatever pieces it came", async () => {
  let said: Array<string> = []
  const listener: Listener = (request, response) => {
    const answer = (body: string) => {
      said.push(body)
      answerJson(response, 200, "/", "{}")
    }
    if (request.url === "/taken") return (request as Request).handOver(answer, (answer, body) => answer(body))
    const chunks: Array<Buffer> = []
    request.on("data", (chunk: Buffer) => chunks.push(chunk))
    request.on("end", () => answer(Buffer.concat(chunks).toString("utf8")))
  }
  await serving(listener, (port) =>
    fc.assert(
      fc.asyncProperty(requests, cuts, async (all, cuts) => {
        said = []
        const bytes = Buffer.concat(
          all.map(({ body, isHandedOver }) => {
            const path = isHandedOver ? "/taken" : "/read"
            const head = `POST ${path} HTTP/1.1\r\nhost: x\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n`
            return Buffer.from(head + body)
          })
        )
        const at = [0, ...cuts.map((cut) => cut % bytes.length), bytes.length].sort((a, b) => a - b)
        const pieces = at.slice(1).map((end, index) => bytes.subarray(at[index], end))
        const text = await converse(
          port,
          pieces.filter(({ length }) => length > 0),
          (text) => text.split("{}").length > all.length
        )
        assert.equal(text.split("HTTP/1.1 200 OK").length - 1, all.length)
        // Bodies end in the order in which they were sent; one that is a stream is told of it a little later.
        assert.deepEqual([...said].sort(), all.map(({ body }) => body.toWellFormed()).sort())
      }),
      { seed, numRuns: 150 }
    )
  )
})
