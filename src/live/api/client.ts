/** The API's client, typed from the same definition as the server, over TCP, TLS or a unix socket. */
import { NodeHttpClient } from "@effect/platform-node"
import { Context, Effect, Layer, Schema, Stream } from "effect"
import { HttpClient, HttpClientRequest } from "effect/http"
import { HttpApiClient } from "effect/http-api"
import { Recorded } from "../../events/envelope.ts"
import { Api } from "./api.ts"
import { makeRoaming } from "./roaming.ts"
import type { Target } from "./roaming.ts"

export interface ClientOptions extends Target {
  /** More nodes of the same cluster: asked when the first is gone, or can't decide. */
  readonly others?: ReadonlyArray<Target>
  /** PEM text of the authority that signed the server's certificate, when it is none of the system's. */
  readonly authority?: string
  /** Read what the node has, which may be old. */
  readonly stale?: boolean
}

/** The link to the server broke and did not come back within the limit. */
export class EventsLost extends Schema.TaggedError<EventsLost>()("EventsLost", {
  reason: Schema.String,
  attempts: Schema.Int
}) {
  override get message(): string {
    return `the events were lost after ${this.attempts} attempts: ${this.reason}`
  }
}

export interface EventsOptions {
  /** Begin after this position; at the present head when left out. */
  readonly after?: number
  readonly stream?: string
  /** Failures in a row before it gives up, 20 unless told. */
  readonly attempts_max?: number
  /** Silence after which the link counts as dead; the server says something every 15 s. */
  readonly silenceMs?: number
}

const pauseMs = (failures: number) => Math.min(5000, 100 * 2 ** failures)

const prepared = ({ url, token }: Target, isStale: boolean) =>
  HttpClient.mapRequest((request: HttpClientRequest.HttpClientRequest) => {
    const asked = request.pipe(HttpClientRequest.prependUrl(url), HttpClientRequest.bearerToken(token))
    const isRead = request.method === "GET" && /^\/v1\/(?!events|operations|cluster)/.test(request.url)
    return isStale && isRead ? HttpClientRequest.setUrlParam(asked, "consistency", "stale") : asked
  })

/** The server speaks another version of the API; an argument that the API does not take is a `SchemaError`. */
export class AnswerNotUnderstood extends Schema.TaggedError<AnswerNotUnderstood>()("AnswerNotUnderstood", {
  reason: Schema.String
}) {
  override get message(): string {
    return this.reason
  }
}

/** The typed client of every endpoint. */
const typed = (http: HttpClient.HttpClient) =>
  HttpApiClient.make(Api, {
    transformClient: () => http,
    transformResponse: Effect.mapError((error) =>
      Schema.isSchemaError(error) ? new AnswerNotUnderstood({ reason: error.message }) : error
    )
  })
export type ApiCalls = Effect.Success<ReturnType<typeof typed>>

export class ApiClient extends Context.Service<
  ApiClient,
  {
    readonly calls: ApiCalls
    /** Facts as they happen, each once and in order; comes back by position when the link breaks. */
    readonly events: (options?: EventsOptions) => Stream.Stream<Recorded, EventsLost>
    /** The node that answered last. */
    readonly target: () => Target
  }
>()("novacron/live/api/ApiClient") {
  static readonly layer = (options: ClientOptions): Layer.Layer<ApiClient> =>
    Layer.effect(
      ApiClient,
      Effect.gen(function* () {
        const { others = [], stale = false } = options
        const targets: ReadonlyArray<Target> = [options, ...others]
        const nodes = yield* Effect.forEach(targets, (target) =>
          Effect.map(Layer.build(connecting(target, options.authority)), (context) => ({
            target,
            http: Context.get(context, HttpClient.HttpClient)
          }))
        )
        const { client, target } = makeRoaming(nodes, (one, http) => prepared(one, stale)(http))
        const calls = yield* typed(client).pipe(Effect.provideService(HttpClient.HttpClient, client))
        return ApiClient.of({ calls, events: follow(client), target })
      })
    )
}

const connecting = ({ socket }: Target, authority: string | undefined) =>
  NodeHttpClient.layerNodeHttpOptions({
    keepAlive: true,
    ...(socket === undefined ? {} : { socketPath: socket }),
    ...(authority === undefined ? {} : { ca: authority })
  })

class Broken extends Schema.TaggedError<Broken>()("Broken", {
  reason: Schema.String,
  final: Schema.Boolean
}) {}

interface Place {
  after: number | undefined
  failures: number
}

const follow =
  (http: HttpClient.HttpClient) =>
  (options: EventsOptions = {}): Stream.Stream<Recorded, EventsLost> => {
    const attempts_max = options.attempts_max ?? 20
    const place: Place = { after: options.after, failures: 0 }
    const again = (broken: Broken): Stream.Stream<Recorded, EventsLost> => {
      place.failures += 1
      if (broken.final || place.failures >= attempts_max) {
        return Stream.fail(new EventsLost({ reason: broken.reason, attempts: place.failures }))
      }
      return Stream.unwrap(Effect.as(Effect.sleep(pauseMs(place.failures)), attempt()))
    }
    const ended = Stream.fail(new Broken({ reason: "the server ended the stream", final: false }))
    const attempt = (): Stream.Stream<Recorded, EventsLost> =>
      connect(http, place, options).pipe(
        Stream.concat(ended),
        Stream.catch((broken) => again(broken))
      )
    return Stream.suspend(attempt)
  }

const connect = (http: HttpClient.HttpClient, place: Place, options: EventsOptions) =>
  Stream.unwrap(
    Effect.gen(function* () {
      const query = {
        ...(place.after === undefined ? {} : { after: String(place.after) }),
        ...(options.stream === undefined ? {} : { stream: options.stream })
      }
      const request = HttpClientRequest.get("/v1/events").pipe(HttpClientRequest.setUrlParams(query))
      const response = yield* http
        .execute(request)
        .pipe(Effect.mapError((error) => new Broken({ reason: error.message, final: false })))
      if (response.status !== 200) {
        const reason = `status ${response.status}`
        return yield* new Broken({ reason, final: response.status < 500 && response.status !== 429 })
      }
      return response.stream.pipe(
        Stream.mapError((error) => new Broken({ reason: error.message, final: false })),
        Stream.timeout(options.silenceMs ?? 45_000),
        Stream.decodeText(),
        Stream.splitLines,
        factsOf(place)
      )
    })
  )

const decodeFact = Schema.decodeUnknownEffect(Schema.fromJsonString(Recorded))

/** Lines to facts. The first comment says where the stream begins, so that a break before any fact loses none. */
const factsOf =
  (place: Place) =>
  <E, R>(lines: Stream.Stream<string, E, R>): Stream.Stream<Recorded, E | Broken, R> =>
    lines.pipe(
      Stream.tap((line) =>
        Effect.sync(() => {
          const start = /^: facts after (\d+)$/.exec(line)?.[1]
          if (start === undefined) return
          place.after ??= Number(start)
          place.failures = 0
        })
      ),
      Stream.filter((line) => line.startsWith("data: ")),
      Stream.mapEffect((line) => decodeFact(line.slice("data: ".length))),
      Stream.mapError((error) =>
        Schema.isSchemaError(error) ? new Broken({ reason: error.message, final: true }) : error
      ),
      Stream.tap((fact) =>
        Effect.sync(() => {
          place.after = fact.position
        })
      )
    ) as Stream.Stream<Recorded, E | Broken, R>
