/** What stands before every route: who asks, how many at once, and every failure as a problem. */
import { Cause, Context, Effect } from "effect"
import type { Schema } from "effect"
import { HttpServerError, HttpServerRequest, HttpServerResponse } from "effect/http"
import type { Scope } from "effect"
import { HttpApiError } from "effect/http-api"
import type { Principal } from "../../events/envelope.ts"
import type { Unavailable as Unordered } from "../../kernel/ports/consensus.ts"
import { issuesOf } from "../config/issues.ts"
import type { Authenticate } from "./authentication.ts"
import { BodyTooLarge, Internal, InvalidRequest, NotFound, Overloaded, Unavailable } from "./problems.ts"
import { isProblem, Unauthenticated, UnsupportedMediaType, UpgradeRequired } from "./problems.ts"
import { sendAgainHeader } from "./problems.ts"
import type { Problem } from "./problems.ts"
import { routeOf } from "./routes.ts"

/** Who sent the request; set before every route that needs to know. */
export const Caller = Context.Reference<Principal>("novacron/live/api/Caller", {
  defaultValue: () => ({ kind: "system", name: "nobody" })
})

export interface GateLimits {
  readonly slots: Slots
  readonly bodyBytes_max: number
}

class Slot {
  readonly #slots: Slots
  #isIn = true

  constructor(slots: Slots) {
    this.#slots = slots
    slots.taken += 1
  }

  /** Once; a second call does nothing. */
  leave(): void {
    if (this.#isIn) this.#slots.taken -= 1
    this.#isIn = false
  }
}
export type { Slot }

/** Requests that are answered at the same time, those that wait for an operation included. */
export class Slots {
  readonly max: number
  /** Told by the slots themselves. */
  taken = 0

  constructor(max: number) {
    this.max = max
  }

  /** Null when all are taken. */
  enter(): Slot | null {
    return this.taken >= this.max ? null : new Slot(this)
  }
}

const openPath = "/health"

type Response = HttpServerResponse.HttpServerResponse
type App = Effect.Effect<Response, unknown, HttpServerRequest.HttpServerRequest | Scope.Scope>

/** Render a problem as it stands: its members are plain data. */
export const render = (problem: Problem): Response => {
  const { type, title, status, detail, ...rest } = Object.fromEntries(Object.entries(problem))
  const extra: Record<string, string> = {}
  if (problem instanceof Overloaded || problem instanceof Unavailable)
    extra["retry-after"] = String(problem.retryAfterSeconds)
  if (problem instanceof Unavailable) extra[sendAgainHeader] = "true"
  if (problem instanceof Unauthenticated) extra["www-authenticate"] = 'Bearer realm="novacron"'
  if (problem instanceof UpgradeRequired) extra["upgrade"] = problem.protocol
  const members = { type, title, status, ...(detail === undefined ? {} : { detail }), ...rest }
  return HttpServerResponse.text(JSON.stringify(members), {
    status: problem.status,
    contentType: "application/problem+json",
    headers: extra
  })
}

const parts = {
  Params: "path",
  Query: "query",
  Headers: "header",
  Payload: "",
  Body: "",
  ResponseHeaders: ""
} as const

/** What a schema refused in that part of the request; the body is the part without a name. */
export function invalidOf(slot: "path" | "query" | "header" | "", error: Schema.SchemaError): InvalidRequest {
  const errors = issuesOf(error.issue).map((issue) => ({
    ...issue,
    path: slot === "" ? issue.path : [slot, issue.path].filter((part) => part !== "").join(".")
  }))
  const isSecret = (path: string) => path === "header.authorization"
  return new InvalidRequest({
    detail: errors
      .map(({ path, allowed }) => `${path || "body"}: allowed: ${allowed}`)
      .join("; ")
      .slice(0, 2000),
    errors: errors.map((one) => (isSecret(one.path) ? { path: one.path, allowed: one.allowed } : one))
  })
}

function problemOfCause(cause: Cause.Cause<unknown>, limits: GateLimits, url: string): Problem | null {
  const error = Cause.squash(cause)
  if (HttpApiError.HttpApiSchemaError.is(error)) {
    return error.kind === "Body" || error.kind === "ResponseHeaders"
      ? null
      : invalidOf(parts[error.kind], error.cause)
  }
  if (HttpServerError.isHttpServerError(error)) {
    const { reason } = error
    if (reason._tag === "RouteNotFound") {
      return new NotFound({ resource: url, detail: `there is no ${url} for this method; see /openapi.json` })
    }
    if (reason._tag === "RequestParseError") {
      if (reason.reason === "BodyTooLarge") return new BodyTooLarge({ limitBytes: limits.bodyBytes_max })
      return new InvalidRequest({ errors: [{ path: "", allowed: "a request that can be read to its end" }] })
    }
  }
  return null
}

/** What a command failed with, as an answer. */
export function problemOfFailure(cause: Cause.Cause<unknown>, url: string): Effect.Effect<Response> {
  if (Cause.hasInterruptsOnly(cause)) return Effect.interrupt
  const error = Cause.squash(cause)
  return isProblem(error)
    ? Effect.succeed(render(error))
    : Effect.as(Effect.logError(`${url}: the request died`, cause), render(new Internal({})))
}

/** Told of every answer: the route's template and not its path, so that the values are few. */
export type ObserveRequest = (method: string, route: string, status: number, seconds: number) => void

export interface GateOptions extends GateLimits {
  readonly authenticate: Authenticate
  /** Ends when what is read here is not older than the moment of asking; null where it never is. */
  readonly fresh: Effect.Effect<void, Unordered> | null
  readonly observe: ObserveRequest
}

/** What happens, what a node took, and how its group stands are told as this node has them. */
const ownViews = /^\/v1\/(events|operations|cluster)(\/|$)/
const asksStale = /[?&]consistency=stale(&|$)/

/** A read of a node that decides with others: as new as the request, or declared as it is. */
const consistent =
  (fresh: Effect.Effect<void, Unordered>, isStale: boolean) =>
  (app: App): App => {
    const declared = (response: Response) =>
      HttpServerResponse.setHeader(response, "novacron-consistency", isStale ? "stale" : "linearizable")
    if (isStale) return Effect.map(app, declared)
    return Effect.matchEffect(fresh, {
      onFailure: ({ node, mayHappen, reason: detail }) =>
        Effect.succeed(render(new Unavailable({ node, mayHappen, retryAfterSeconds: 1, detail }))),
      onSuccess: () => Effect.map(app, declared)
    })
  }

/** Wrap the routes. Bodies are bounded here by their declared length and, by the server, by what really comes. */
export function gate(routes: App, { authenticate, fresh, observe, ...limits }: GateOptions): App {
  const onFailure = (cause: Cause.Cause<unknown>, url: string) => {
    if (Cause.hasInterruptsOnly(cause)) return Effect.failCause(cause)
    const problem = problemOfCause(cause, limits, url)
    if (problem !== null) return Effect.succeed(render(problem))
    return Effect.as(Effect.logError(`${url}: the request died`, cause), render(new Internal({})))
  }
  const onSuccess = (response: Response) =>
    response.status === 415
      ? Effect.succeed(render(new UnsupportedMediaType({ detail: "send content-type: application/json" })))
      : Effect.succeed(response)
  const answer = Effect.withFiber<Response, unknown, HttpServerRequest.HttpServerRequest | Scope.Scope>(
    (fiber) => {
      const request = Context.getUnsafe(fiber.context, HttpServerRequest.HttpServerRequest)
      const query = request.url.indexOf("?")
      const path = query < 0 ? request.url : request.url.slice(0, query)
      const principal = authenticate(request.headers["authorization"])
      if (principal === null && path !== openPath) {
        const detail = "send authorization: Bearer <token>; the token lies in the node's token file"
        return Effect.succeed(render(new Unauthenticated({ detail })))
      }
      if (Number(request.headers["content-length"] ?? 0) > limits.bodyBytes_max) {
        const detail = `${request.headers["content-length"]} bytes are announced`
        return Effect.succeed(render(new BodyTooLarge({ detail, limitBytes: limits.bodyBytes_max })))
      }
      const { slots } = limits
      const slot = slots.enter()
      if (slot === null) {
        const detail = `${slots.taken} requests are being answered, at most ${slots.max} may be`
        return Effect.succeed(render(new Overloaded({ detail, retryAfterSeconds: 1 })))
      }
      const isRead = request.method === "GET" && path.startsWith("/v1/") && !ownViews.test(path)
      return routes.pipe(
        fresh !== null && isRead ? consistent(fresh, asksStale.test(request.url)) : (app) => app,
        principal === null ? (app) => app : Effect.provideService(Caller, principal),
        Effect.matchCauseEffect({ onFailure: (cause) => onFailure(cause, path), onSuccess }),
        Effect.ensuring(Effect.sync(() => slot.leave()))
      )
    }
  )
  return Effect.withFiber<Response, unknown, HttpServerRequest.HttpServerRequest | Scope.Scope>((fiber) => {
    const { method, url } = Context.getUnsafe(fiber.context, HttpServerRequest.HttpServerRequest)
    const startedMs = performance.now()
    return Effect.tap(answer, ({ status }) =>
      Effect.sync(() => observe(method, routeOf(method, url), status, (performance.now() - startedMs) / 1000))
    )
  })
}
