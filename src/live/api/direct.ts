/**
 * The short way of a command: its endpoint's schemas and handler, looked up in a table that is made of the Api once,
 * without the router, the layers and the copies that every other request goes through; and without a fiber where the
 * request says its command by itself. It takes only what is plain, a known token, a path without query or escapes, a JSON
 * body of known length; the rest goes the long way, which answers the same (a property test holds one against the other).
 */
import type { IncomingMessage, Server, ServerResponse } from "node:http"
import type { Socket } from "node:net"
import { Cause, Context, Effect, Exit, Fiber, Schema, SchemaIssue, Scope } from "effect"
import type { HttpServerResponse } from "effect/http"
import type { HttpApiEndpoint } from "effect/http-api"
import type { Principal } from "../../events/envelope.ts"
import { Api, isCommand } from "./api.ts"
import type { Authenticate } from "./authentication.ts"
import { locationOf, statusOf } from "./commands.ts"
import type { Answered, makeCommands, Said } from "./commands.ts"
import { headersDecoder, payloadDecoder, strictly } from "./decoding.ts"
import type { Decode, PayloadDecoder } from "./decoding.ts"
import type { TakeHandlers } from "./handlers.ts"
import { answerJson, Request } from "./messages.ts"
import { Caller, invalidOf, problemOfFailure, render } from "./gate.ts"
import type { ObserveRequest, Slot, Slots } from "./gate.ts"
import { Internal } from "./problems.ts"
import { routeOf } from "./routes.ts"

type Response = HttpServerResponse.HttpServerResponse
type Offer = ReturnType<typeof makeCommands>["offer"]
type Handler = (request: object) => Effect.Effect<Response, unknown>

interface Entry {
  readonly params: ReadonlyArray<{ readonly name: string; readonly index: number }>
  readonly decodeParams: Decode | null
  readonly decodeHeaders: Decode | null
  /** What an absent query is decoded to. */
  readonly query: unknown
  readonly payload: PayloadDecoder | null
  readonly handler: Handler
  /** The same by calls alone, where the handler only submits what the request says; else null. */
  readonly offer:
    ((asked: Asked, principal: Principal, answered: Answered, connection: Connection) => void) | null
}

/** A request as its endpoint's schemas decode it. */
interface Asked {
  readonly params: unknown
  readonly headers: { readonly "idempotency-key"?: string }
  readonly query: unknown
  /** Known when the body has come to its end. */
  payload: unknown
}

/** `POST /v1/vms/:name/start` to its entry. */
export type Table = Map<string, Entry>

/** Adds the commands of a group to the table as its handlers are registered. */
export const addGroup =
  (table: Table, offer: Offer): TakeHandlers =>
  (group, handlers, sayings) => {
    const endpoints: Readonly<Record<string, HttpApiEndpoint.Top>> = (Api.groups as Record<string, any>)[
      group
    ].endpoints
    for (const [name, endpoint] of Object.entries(endpoints)) {
      if (!isCommand(endpoint)) continue
      const query = endpoint.query === undefined ? Exit.void : strictly(endpoint.query)({})
      // A query that has to be given goes the long way.
      if (Exit.isFailure(query)) continue
      const saying = sayings[name] as ((request: object) => Pick<Said, "stream" | "message">) | undefined
      table.set(`${endpoint.method} ${endpoint.path}`, {
        params: endpoint.path
          .split("/")
          .flatMap((segment, index) => (segment.startsWith(":") ? [{ name: segment.slice(1), index }] : [])),
        decodeParams: endpoint.params === undefined ? null : strictly(endpoint.params),
        decodeHeaders: headersDecoder(endpoint.headers),
        query: query.value,
        payload: payloadDecoder(endpoint),
        handler: handlers[name] as Handler,
        offer:
          saying === undefined
            ? null
            : (asked, principal, answered, connection) => {
                const { stream, message } = saying(asked)
                const said = { stream, message, principal, key: asked.headers["idempotency-key"] }
                offer(said, answered, connection)
              }
      })
    }
  }

export interface DirectOptions {
  readonly table: Table
  readonly authenticate: Authenticate
  readonly slots: Slots
  readonly bodyBytes_max: number
  readonly observe: ObserveRequest
  readonly context: Context.Context<never>
  /** Commands that are under way when it closes are no longer waited for. */
  readonly scope: Scope.Scope
}

/** Where a request goes, by its method and path. */
interface Destination {
  readonly entry: Entry
  readonly route: string
  readonly params: unknown
}

interface Direction extends DirectOptions {
  readonly destinationOf: (method: string, url: string) => Destination | null
  readonly connections: Connections
}

/** A request on the short way. */
interface Direct {
  readonly entry: Entry
  readonly route: string
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly principal: Principal
  readonly asked: Asked
  readonly startedMs: number
  readonly connection: Connection
  readonly slot: Slot
}

function destinationOf(table: Table, method: string, url: string): Destination | null {
  if (url.includes("?") || url.includes("%")) return null
  const route = routeOf(method, url)
  const entry = table.get(`${method} ${route}`)
  if (entry === undefined) return null
  const segments = url.split("/")
  const params: Record<string, string | undefined> = {}
  for (const { name, index } of entry.params) params[name] = segments[index]
  const decoded = entry.decodeParams?.(params)
  if (decoded !== undefined && Exit.isFailure(decoded)) return null
  return { entry, route, params: decoded?.value }
}

const destinations_max = 4096

/** `destinationOf`, which is asked again and again for the same actors. */
function destinations(table: Table): (method: string, url: string) => Destination | null {
  const known = new Map<string, Map<string, Destination>>()
  return (method, url) => {
    let ofMethod = known.get(method)
    let found = ofMethod?.get(url) ?? null
    if (found !== null) return found
    found = destinationOf(table, method, url)
    if (found === null) return null
    if (ofMethod === undefined) known.set(method, (ofMethod = new Map()))
    if (ofMethod.size >= destinations_max) ofMethod.clear()
    ofMethod.set(url, found)
    return found
  }
}

/** What is known of a connection, of which its next requests make use. */
class Connection {
  #authorization: string | undefined = undefined
  #principal: Principal | null = null
  /** Nearly always one, and more where a client does not wait. */
  readonly #unanswered: Array<Direct> = []
  /** Nobody waits any more for what was asked on it. */
  isGone = false

  /** A connection that shows again what it was let in with is not asked to prove it again. */
  callerOf(authenticate: Authenticate, authorization: string | undefined): Principal | null {
    if (this.#principal !== null && this.#authorization === authorization) return this.#principal
    const principal = authenticate(authorization)
    if (principal !== null) {
      this.#authorization = authorization
      this.#principal = principal
    }
    return principal
  }

  get isWaiting(): boolean {
    return this.#unanswered.length > 0
  }

  asks(direct: Direct): void {
    this.#unanswered.push(direct)
  }

  /** Its slot is free again. */
  answered(direct: Direct): void {
    direct.slot.leave()
    const at = this.#unanswered.lastIndexOf(direct)
    if (at < 0) return
    if (at === this.#unanswered.length - 1) this.#unanswered.pop()
    else this.#unanswered.splice(at, 1)
  }

  closed(): void {
    this.isGone = true
    for (const direct of this.#unanswered.splice(0)) direct.slot.leave()
  }
}

/**
 * Those that are open. One listener for a connection's end, and none for each answer's: node takes a third of a microsecond
 * to make one and to call it.
 */
class Connections {
  readonly #open = new Map<Socket, Connection>()

  of(socket: Socket): Connection {
    const known = this.#open.get(socket)
    if (known !== undefined) return known
    const connection = new Connection()
    this.#open.set(socket, connection)
    socket.once("close", () => {
      this.#open.delete(socket)
      connection.closed()
    })
    return connection
  }

  /** Ends those whose requests nobody will answer any more. */
  destroyWaiting(): void {
    for (const [socket, connection] of this.#open) if (connection.isWaiting) socket.destroy()
  }
}

/** Only what the long way would pass too, up to the body. Null sends it there. */
function accept(config: Direction, request: IncomingMessage, response: ServerResponse): Direct | null {
  const { method = "", url = "", headers } = request
  const destination = config.destinationOf(method, url)
  if (destination === null || headers["transfer-encoding"] !== undefined) return null
  const { entry, route, params } = destination
  const type = headers["content-type"]
  if (entry.payload !== null && type !== undefined && type !== "application/json") return null
  if (!(Number(headers["content-length"] ?? 0) <= config.bodyBytes_max)) return null
  const connection = config.connections.of(request.socket)
  const principal = connection.callerOf(config.authenticate, headers.authorization)
  if (principal === null) return null
  const decodedHeaders = entry.decodeHeaders?.(headers)
  if (decodedHeaders !== undefined && Exit.isFailure(decodedHeaders)) return null
  const slot = config.slots.enter()
  if (slot === null) return null
  const direct: Direct = {
    entry,
    route,
    request,
    response,
    principal,
    asked: {
      params,
      headers: (decodedHeaders?.value ?? {}) as Asked["headers"],
      query: entry.query,
      payload: undefined
    },
    startedMs: performance.now(),
    connection,
    slot
  }
  connection.asks(direct)
  return direct
}

const notJson = new Schema.SchemaError(
  new SchemaIssue.InvalidValue({ message: "Expected a valid JSON body" })
)

function payload({ entry }: Direct, text: string): Exit.Exit<unknown, Schema.SchemaError> {
  if (entry.payload === null) return Exit.void
  if (text === "") return entry.payload.decode(entry.payload.absent)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return Exit.fail(notJson)
  }
  return entry.payload.decode(value)
}

/** Frees its slot and counts its answer. Says whether there is still somebody to be answered. */
function leave(config: DirectOptions, direct: Direct, status: number): boolean {
  const { connection, response, request, route, startedMs } = direct
  connection.answered(direct)
  config.observe(request.method ?? "", route, status, (performance.now() - startedMs) / 1000)
  return !response.destroyed && !response.headersSent
}

function send(config: DirectOptions, direct: Direct, answer: Response): void {
  const { body, status, headers } = answer
  // No command is answered with a stream; one that were would be a mistake of ours.
  if (body._tag !== "Uint8Array") return send(config, direct, render(new Internal({})))
  if (leave(config, direct, status)) direct.response.writeHead(status, headers).end(body.text ?? body.body)
}

/** The command and its answer by calls alone: a fiber's life costs more than all of an actor's turn. */
function say(config: DirectOptions, direct: Direct, offer: NonNullable<Entry["offer"]>): void {
  const answered: Answered = (exit) => {
    const { url = "" } = direct.request
    if (Exit.isFailure(exit)) return follow(config, direct, problemOfFailure(exit.cause, url))
    try {
      const body = JSON.stringify(exit.value)
      const status = statusOf(exit.value)
      if (leave(config, direct, status)) answerJson(direct.response, status, locationOf(exit.value), body)
    } catch (defect) {
      // This is called among the answers of others.
      follow(config, direct, problemOfFailure(Cause.die(defect), url))
    }
  }
  offer(direct.asked, direct.principal, answered, direct.connection)
}

/** Answers with what comes of it; an interrupted one is answered by nobody: the client, or the server, is gone. */
function follow(config: DirectOptions, direct: Direct, answer: Effect.Effect<Response>): void {
  const { principal, response } = direct
  const context = Context.add(config.context, Caller, principal)
  const fiber = Fiber.runIn(Effect.runForkWith(context)(answer), config.scope)
  response.on("close", () => {
    if (!response.writableEnded) fiber.interruptUnsafe()
  })
  fiber.addObserver((exit) => {
    if (Exit.isSuccess(exit)) send(config, direct, exit.value)
    else response.destroy()
  })
}

function run(config: DirectOptions, direct: Direct, text: string): void {
  const { entry, asked } = direct
  const body = payload(direct, text)
  if (Exit.isFailure(body))
    return send(config, direct, render(invalidOf("", Cause.squash(body.cause) as Schema.SchemaError)))
  asked.payload = body.value
  if (entry.offer !== null) return say(config, direct, entry.offer)
  const handled = Effect.matchCauseEffect(entry.handler(asked), {
    onFailure: (cause) => problemOfFailure(cause, direct.request.url ?? ""),
    onSuccess: Effect.succeed
  })
  follow(config, direct, handled)
}

/** Answers the request and says true, or leaves it untouched to the long way. */
export const makeDirect = Effect.fnUntraced(function* (options: DirectOptions) {
  const connections = new Connections()
  const config: Direction = { ...options, destinationOf: destinations(options.table), connections }
  // Of those that wait without a fiber nobody else would be told of the end.
  yield* Scope.addFinalizer(
    config.scope,
    Effect.sync(() => connections.destroyWaiting())
  )
  const take = (direct: Direct, body: string) => run(config, direct, body)
  return (request: IncomingMessage, response: ServerResponse): boolean => {
    if (!(request instanceof Request)) return false
    const direct = accept(config, request, response)
    if (direct === null) return false
    request.handOver(direct, take)
    return true
  }
})

/** From now on the server asks `direct` before those who listen already. */
export function goFirst(server: Server, direct: Effect.Success<ReturnType<typeof makeDirect>>): void {
  const others = server.listeners("request") as Array<unknown> as ReadonlyArray<
    (request: IncomingMessage, response: ServerResponse) => void
  >
  server.removeAllListeners("request")
  server.on("request", (request, response) => {
    if (!direct(request, response)) for (const other of others) other.call(server, request, response)
  })
}
