/**
 * Clients of a group, in a process of their own: each has a host that it drains and activates in turn, one command after the
 * other, under one key until it is answered; where a node is gone or can't order it the next one is asked. What was
 * acknowledged goes to a file, a line for each, with the moment of the monotonic clock that all processes share.
 */
import { appendFileSync } from "node:fs"
import { Agent, request } from "node:https"
import { setTimeout as sleep } from "node:timers/promises"

export interface ClientsOptions {
  readonly apis: ReadonlyArray<{ readonly host: string; readonly port: number }>
  readonly token: string
  readonly ca: string
  readonly clients: number
  readonly file: string
  /** An answer that does not come in this time is asked for at the next node. */
  readonly answerTimeoutMs: number
}

/** Milliseconds of the machine's monotonic clock. */
export const monotonicMs = () => Number(process.hrtime.bigint() / 1000n) / 1000

const againAfterMs = 10

export interface Answer {
  readonly status: number
  readonly body: string
}

export interface Api {
  readonly host: string
  readonly port: number
}

/** One request, on a connection that is kept; rejects when it is lost, or takes too long. */
export function ask(
  { token, ca }: { readonly token: string; readonly ca: string },
  agent: Agent,
  api: Api,
  {
    method,
    path,
    key,
    body,
    timeoutMs
  }: { method: string; path: string; key?: string; body?: string; timeoutMs: number }
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers = {
      authorization: `Bearer ${token}`,
      ...(key === undefined ? {} : { "idempotency-key": key }),
      ...(body === undefined
        ? {}
        : { "content-type": "application/json", "content-length": String(Buffer.byteLength(body)) })
    }
    const asked = request(
      {
        ...api,
        method,
        path,
        headers,
        agent,
        ca,
        checkServerIdentity: () => undefined,
        signal: AbortSignal.timeout(timeoutMs)
      },
      (response) => {
        let text = ""
        response.setEncoding("utf8")
        response.on("data", (chunk: string) => (text += chunk))
        response.on("error", reject)
        response.on("end", () => resolve({ status: response.statusCode ?? 0, body: text }))
      }
    )
    asked.on("error", reject)
    asked.end(body)
  })
}

async function client(options: ClientsOptions, host: number, isOver: () => boolean): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: 2 })
  const { apis } = options
  let at = host % apis.length
  for (let n = 0; !isOver(); n++) {
    const key = `f.${host}.${n}`
    const drains = n % 2 === 0
    const path = `/v1/hosts/h${host}/${drains ? "drain" : "activate"}`
    for (;;) {
      const body = drains ? '{"reason":"fail-over"}' : undefined
      const wanted = {
        method: "POST",
        path,
        key,
        timeoutMs: options.answerTimeoutMs,
        ...(body === undefined ? {} : { body })
      }
      const answer = await ask(options, agent, apis[at] as Api, wanted).catch(() => null)
      if (answer !== null && answer.status < 300) {
        appendFileSync(options.file, `${key} ${monotonicMs()}\n`)
        break
      }
      // A refusal would mean that an earlier command was lost, or took effect twice.
      if (answer !== null && answer.status !== 503) throw new Error(`${key}: ${answer.status} ${answer.body}`)
      at = (at + 1) % apis.length
      await sleep(againAfterMs)
    }
  }
  agent.destroy()
}

async function main(options: ClientsOptions): Promise<void> {
  let isOver = false
  process.on("message", () => (isOver = true))
  await Promise.all(Array.from({ length: options.clients }, (_, host) => client(options, host, () => isOver)))
  process.send?.({ done: true })
  process.disconnect()
}

if (import.meta.main) {
  process.on("disconnect", () => process.exit(0))
  main(JSON.parse(process.argv[2] ?? "{}") as ClientsOptions).catch((error: unknown) => {
    console.error(error)
    process.exit(1)
  })
}
