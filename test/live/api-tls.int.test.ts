/** The API's own TLS listener: TLS 1.3 or nothing, and the token on top of it. */
import assert from "node:assert/strict"
import { request as plainRequest } from "node:http"
import { request } from "node:https"
import type { IncomingMessage, RequestOptions } from "node:http"
import { after, before, test } from "node:test"
import { connect } from "node:tls"
import { Effect } from "effect"
import { issueIdentity } from "../../src/live/ca.ts"
import { openWorld, token } from "./api-world.ts"
import type { World } from "./api-world.ts"
import { newAuthority } from "./link-nodes.ts"

let world: World
let port: number
let authority: string
before(async () => {
  const identity = await Effect.runPromise(
    Effect.scoped(Effect.flatMap(newAuthority, (ca) => issueIdentity(ca, "api")))
  )
  authority = identity.ca
  world = await openWorld({ tls: { certificate: identity.certificate, key: identity.key } })
  port = Number(new URL(world.url).port)
})
after(() => world.close())

interface Said {
  readonly status: number | undefined
  readonly type: string | undefined
  readonly body: string
}

const asked = (method: string, path: string, more: RequestOptions & { maxVersion?: "TLSv1.2" } = {}) =>
  new Promise<Said>((resolve, reject) => {
    const options = { host: "127.0.0.1", port, method, path, ca: authority, agent: false, ...more }
    // The certificate names a node and no host; who issued it is what counts here.
    const sent = request(
      { ...options, checkServerIdentity: () => undefined },
      (response: IncomingMessage) => {
        let body = ""
        response.setEncoding("utf8")
        response.on("data", (chunk: string) => (body += chunk))
        response.on("end", () =>
          resolve({ status: response.statusCode, type: response.headers["content-type"], body })
        )
      }
    )
    sent.on("error", reject)
    sent.end()
  })
const bearer = { headers: { authorization: `Bearer ${token}` } }

test("over TLS 1.3, with the token, it answers reads and commands", async () => {
  const hosts = await asked("GET", "/v1/hosts", bearer)
  assert.equal(hosts.status, 200)
  assert.equal(JSON.parse(hosts.body).length, 2)
  const drained = await asked("POST", "/v1/hosts/a/drain", bearer)
  assert.equal(drained.status, 200)
  assert.equal(JSON.parse(drained.body).began, "host.drained")
})

test("without the token, or with another, it says only that one is needed", async () => {
  for (const headers of [{}, { authorization: "Bearer nct_nobody" }]) {
    for (const [method, path] of [
      ["GET", "/v1/vms"],
      ["POST", "/v1/hosts/b/drain"],
      ["GET", "/openapi.json"]
    ] as const) {
      const { status, type, body } = await asked(method, path, { headers })
      assert.equal(status, 401, `${method} ${path}`)
      assert.equal(type, "application/problem+json")
      assert.equal(JSON.parse(body).type, "urn:novacron:problem:unauthenticated")
    }
  }
})

test("TLS 1.2, no TLS, and a server that the authority does not know are refused", async () => {
  await assert.rejects(asked("GET", "/health", { maxVersion: "TLSv1.2" }), {
    code: /PROTOCOL_VERSION|EPROTO/
  })
  await assert.rejects(asked("GET", "/health", { ca: [] } as RequestOptions), {
    code: /SELF_SIGNED|UNABLE_TO_VERIFY|DEPTH_ZERO/
  })
  const plain = new Promise((resolve, reject) => {
    const sent = plainRequest({ host: "127.0.0.1", port, path: "/health", ...bearer }, resolve)
    sent.on("error", reject)
    sent.end()
  })
  await assert.rejects(plain, { code: /ECONNRESET|HPE_/ })
})

test("what is spoken is TLS 1.3 with an authenticated cipher", async () => {
  const { protocol, cipher } = await new Promise<{ protocol: string | null; cipher: string }>(
    (resolve, reject) => {
      const socket = connect(
        { host: "127.0.0.1", port, ca: authority, checkServerIdentity: () => undefined },
        () => {
          resolve({ protocol: socket.getProtocol(), cipher: socket.getCipher().name })
          socket.destroy()
        }
      )
      socket.on("error", reject)
    }
  )
  assert.equal(protocol, "TLSv1.3")
  assert.match(cipher, /GCM|POLY1305/)
})
