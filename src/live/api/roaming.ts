/**
 * One HTTP client for several nodes of a cluster: whoever answered last is asked first, and when it is gone, or can't decide,
 * the next one is. Only what may be sent again goes on so: reads, and commands under their keys.
 */
import { Effect, Schema } from "effect"
import { HttpClient, HttpClientError } from "effect/http"
import type { HttpClientRequest, HttpClientResponse } from "effect/http"
import { sendAgainHeader } from "./problems.ts"

/** Where a node's API is, and what lets one in there. */
export interface Target {
  /** `http://127.0.0.1:7070`; with a socket only its path matters. */
  readonly url: string
  readonly socket?: string
  readonly token: string
}

/** While a leader is chosen nobody decides: everybody is asked again for some twenty seconds. */
const againTimes_max = 20
const againAfterMs = 1000
/** A node that is there and says nothing, where there are others; longer than any node lets a command wait. */
const silenceMs = 15_000
/** Computed over the whole journal, however long that takes. */
const isLong = (url: string) => /\/v1\/replay(\?|$)/.test(url)

const shownOf = ({ socket, url }: Pick<Target, "socket" | "url">): string => socket ?? url

/** Of several nodes none could be reached. */
export class NoNodeReached extends Schema.TaggedError<NoNodeReached>()("NoNodeReached", {
  tried: Schema.Array(Schema.Struct({ url: Schema.String, reason: Schema.String }))
}) {
  override get message(): string {
    return `none of the nodes can be reached: ${this.tried.map(({ url, reason }) => `${url}: ${reason}`).join("; ")}`
  }
}

type Request = HttpClientRequest.HttpClientRequest
type Sent = Effect.Effect<HttpClientResponse.HttpClientResponse, HttpClientError.HttpClientError>

const failed = (request: Request, cause: unknown) =>
  new HttpClientError.HttpClientError({
    reason: new HttpClientError.TransportError({
      request,
      cause,
      description: cause instanceof Error ? cause.message : String(cause)
    })
  })

/** What the system said of the connection, as far as it said something. */
const reasonOf = (error: HttpClientError.HttpClientError): string => {
  const { cause } = error.reason
  return cause instanceof Error && cause.message !== "" ? cause.message : error.message
}

export interface Roaming {
  readonly client: HttpClient.HttpClient
  /** Who answered last; the first before anybody has. */
  readonly target: () => Target
}

/** `nodes`: at least one, each with a client that connects to it and knows nothing of addresses; `prepare` makes it ask there. */
export const makeRoaming = (
  connected: ReadonlyArray<{ readonly target: Target; readonly http: HttpClient.HttpClient }>,
  prepare: (target: Target, http: HttpClient.HttpClient) => HttpClient.HttpClient
): Roaming => {
  const nodes = connected.map(({ target, http }) => ({ target, http, client: prepare(target, http) }))
  const [first] = nodes
  if (first === undefined) throw new Error("a client without a node")
  const isAlone = nodes.length === 1
  let at = 0
  const attempt = (client: HttpClient.HttpClient, request: Request): Sent => {
    const sent = client.execute(request)
    if (isAlone || isLong(request.url)) return sent
    const orElse = () => Effect.fail(failed(request, new Error(`no answer within ${silenceMs} ms`)))
    return Effect.timeoutOrElse(sent, { duration: silenceMs, orElse })
  }
  const roam = Effect.fnUntraced(function* (request: Request) {
    const maySendAgain = request.method === "GET" || request.headers["idempotency-key"] !== undefined
    for (let round = 0; ; round++) {
      const tried: Array<{ readonly url: string; readonly reason: string }> = []
      let declined: HttpClientResponse.HttpClientResponse | null = null
      for (const index of nodes.keys()) {
        const place = (at + index) % nodes.length
        const { client, target } = nodes[place] ?? first
        const said = yield* Effect.result(attempt(client, request))
        if (said._tag === "Failure") {
          if (isAlone || !maySendAgain) return yield* said.failure
          tried.push({ url: shownOf(target), reason: reasonOf(said.failure) })
          continue
        }
        if (!maySendAgain || said.success.headers[sendAgainHeader] === undefined) {
          at = place
          return said.success
        }
        declined = said.success
      }
      if (declined === null) return yield* failed(request, new NoNodeReached({ tried }))
      if (round >= againTimes_max) return declined
      yield* Effect.sleep(againAfterMs)
    }
  })
  return {
    client: HttpClient.transform(first.http, (_sending, request) => roam(request)),
    target: () => (nodes[at] ?? first).target
  }
}
