/** The way to a node's API: where it is, with which token, and its problems as ends of a command. */
import { existsSync, readFileSync } from "node:fs"
import { homedir } from "node:os"
import { join, resolve } from "node:path"
import { Effect } from "effect"
import type { Loaded } from "../live/config.ts"
import type { ApiCalls, ApiClient } from "../live/api/client.ts"
import type { Target } from "../live/api/roaming.ts"
import { CliFailure, failure } from "./exit.ts"
import type { ExitName } from "./exit.ts"
import { Authority, ConfigFile, Stale, TokenFile, Url } from "./global.ts"
import { Surroundings } from "./output.ts"

/** `--config`, NOVACRON_CONFIG, or the standard file when it is there; null for none. */
export const configFile = Effect.gen(function* () {
  const { environment } = yield* Surroundings
  const named = (yield* ConfigFile) || environment["NOVACRON_CONFIG"] || ""
  if (named !== "") return resolve(named)
  const home = environment["HOME"] ?? homedir()
  const standard = join(environment["XDG_CONFIG_HOME"] || join(home, ".config"), "novacron", "config.yaml")
  return existsSync(standard) ? standard : null
})

/** The configuration as `up` would see it; what is in `overrides` goes before the environment. */
export const loadedConfigWith = Effect.fnUntraced(function* (overrides: Readonly<Record<string, string>>) {
  const surroundings = yield* Surroundings
  const environment = { ...surroundings.environment, ...overrides }
  const file = yield* configFile
  const { loadConfig } = yield* Effect.promise(() => import("../live/config.ts"))
  return yield* loadConfig(file, environment).pipe(
    Effect.mapError((error) =>
      failure("usage", error.message, "novacron config generate writes a good one", {
        file: error.file,
        issues: error.issues
      })
    )
  )
})

export const loadedConfig = loadedConfigWith({})

const readFile = (path: string, what: string) =>
  Effect.try({
    try: () => readFileSync(path, "utf8"),
    catch: (cause) => failure("usage", `${what} ${path} can't be read: ${(cause as Error).message}`)
  })

/** Nodes that a command may be sent to. */
const targets_max = 16

type Place = Pick<Target, "url" | "socket">

const placeOf = (named: string): Effect.Effect<Place, CliFailure> =>
  Effect.suspend(() => {
    if (named.startsWith("unix:")) {
      return Effect.succeed({ url: "http://localhost", socket: resolve(named.slice("unix:".length)) })
    }
    if (URL.canParse(named) && /^https?:$/.test(new URL(named).protocol)) {
      return Effect.succeed({ url: named.replace(/\/+$/, "") })
    }
    return Effect.fail(
      failure(
        "usage",
        `${JSON.stringify(named)} is no address; allowed: http://…, https:// or unix:/path, several with commas between`
      )
    )
  })

const partsOf = (text: string): ReadonlyArray<string> => text.split(",").map((part) => part.trim())

/** One for all, or one for each, in their order. */
const forEach = (all: ReadonlyArray<string>, count: number, what: string) =>
  all.length === 1 || all.length === count
    ? Effect.succeed((at: number) => all[all.length === 1 ? 0 : at] ?? "")
    : Effect.fail(
        failure(
          "usage",
          `${all.length} ${what} for ${count} addresses; allowed: one for all, or one for each`
        )
      )

function placeOfConfig({ config, resolved }: Loaded): Place {
  if (resolved.socket !== null) return { url: "http://localhost", socket: resolved.socket }
  const { listen_address: host, port } = config.api
  const shown = host.includes(":") ? `[${host}]` : host
  return { url: `${resolved.tls === null ? "http" : "https"}://${shown}:${port}` }
}

const tokenOf = Effect.fnUntraced(function* (path: string) {
  const { readToken } = yield* Effect.promise(() => import("../live/api/authentication.ts"))
  return yield* readToken(path).pipe(
    Effect.mapError((error) =>
      failure(
        "unauthorised",
        error.message,
        "the node makes this file at its first start; name another with --token-file, or give NOVACRON_TOKEN"
      )
    )
  )
})

/** Where the nodes are that flags, environment and configuration name, and the token for each. */
const targetsOf = Effect.gen(function* () {
  const { environment } = yield* Surroundings
  const url = (yield* Url) || environment["NOVACRON_URL"] || ""
  const tokenFile = (yield* TokenFile) || environment["NOVACRON_TOKEN_FILE"] || ""
  const secret = environment["NOVACRON_TOKEN"] ?? ""
  const named = url === "" ? [] : partsOf(url)
  if (named.length > targets_max)
    return yield* failure("usage", `${named.length} addresses; allowed: at most ${targets_max}`)
  const places = url === "" ? [placeOfConfig(yield* loadedConfig)] : yield* Effect.forEach(named, placeOf)
  const count = places.length
  if (secret !== "") {
    const given = yield* forEach(partsOf(secret), count, "tokens")
    return places.map((place, at): Target => ({ ...place, token: given(at) }))
  }
  const files = tokenFile === "" ? [(yield* loadedConfig).resolved.tokenFile] : partsOf(tokenFile)
  const fileOf = yield* forEach(files, count, "token files")
  return yield* Effect.forEach(places, (place, at) =>
    Effect.map(tokenOf(fileOf(at)), (token): Target => ({ ...place, token }))
  )
})

/** The client for the nodes that flags, environment and configuration name. */
export const connect = Effect.gen(function* () {
  const [first, ...others] = yield* targetsOf
  if (first === undefined) return yield* failure("usage", "no address of a node is named")
  const authority = yield* Authority
  const trusted = authority === "" ? {} : { authority: yield* readFile(authority, "the authority's file") }
  const { ApiClient } = yield* Effect.promise(() => import("../live/api/client.ts"))
  const options = { ...first, others, ...trusted, stale: yield* Stale }
  const shown = [first, ...others].map(({ socket, url }) => socket ?? url).join(", ")
  return { ApiClient, layer: ApiClient.layer(options), options, shown }
})

const exitOf: Readonly<Record<string, ExitName>> = {
  "invalid-request": "usage",
  unauthenticated: "unauthorised",
  "not-found": "notFound",
  refused: "refused",
  "idempotency-key-reused": "refused",
  conflict: "refused"
}
const hintOf: Readonly<Record<string, string>> = {
  unauthenticated: "name the node's token file with --token-file, or give NOVACRON_TOKEN",
  overloaded: "try again in a moment",
  unavailable: "ask another node of the cluster, or see novacron cluster status; reads take --stale",
  internal: "the node's log has it"
}

interface Tried {
  readonly message: string
  readonly tried: ReadonlyArray<{ readonly url: string; readonly reason: string }>
}

/** That none of several nodes could be reached, as a transport error carries it. */
function noneReachedOf(error: unknown): Tried | null {
  const { cause } = (error as { reason?: { cause?: unknown } }).reason ?? {}
  return (cause as { _tag?: unknown } | undefined)?._tag === "NoNodeReached" ? (cause as Tried) : null
}

/** Any error of a call as the command's end. */
export function failureOf(error: unknown, shown: string): CliFailure {
  if (error instanceof CliFailure) return error
  const problem = error as {
    type?: unknown
    title?: unknown
    detail?: unknown
    _tag?: unknown
    errors?: unknown
  }
  if (typeof problem.type === "string" && problem.type.startsWith("urn:novacron:problem:")) {
    const name = problem.type.slice("urn:novacron:problem:".length)
    const reason = typeof problem.detail === "string" ? problem.detail : String(problem.title)
    const details = Object.fromEntries(Object.entries(problem))
    return failure(exitOf[name] ?? "failure", reason, hintOf[name], details)
  }
  const text = error instanceof Error ? error.message : String(error)
  const noneReached = noneReachedOf(error)
  if (noneReached !== null) {
    const hint = "name nodes that run with --url, several with commas between"
    return failure("unreachable", noneReached.message, hint, { tried: noneReached.tried })
  }
  if (problem._tag === "HttpClientError") {
    return failure(
      "unreachable",
      `${shown} can't be reached: ${text}`,
      "start a node with novacron up, or name one with --url"
    )
  }
  if (problem._tag === "ConsoleLost")
    return failure("unreachable", `the console of ${shown} is lost: ${text}`)
  if (problem._tag === "SchemaError") return failure("usage", text)
  if (problem._tag === "EventsLost") return failure("unreachable", text)
  return failure("failure", `${shown} answered what this version does not understand: ${text}`)
}

/** Rows of a page of the API's, at most. */
export const page_max = 1000

/** Every row of a list that the API gives in pages, by the key that its pages go on after. */
export const allPages = <Row, E, R>(
  ask: (query: {
    readonly after?: string
    readonly limit: number
  }) => Effect.Effect<ReadonlyArray<Row>, E, R>,
  keyOf: (row: Row) => string
) =>
  Effect.gen(function* () {
    const rows: Array<Row> = []
    for (;;) {
      const last = rows.at(-1)
      const page = yield* ask({ limit: page_max, ...(last === undefined ? {} : { after: keyOf(last) }) })
      rows.push(...page)
      if (page.length < page_max) return rows
    }
  })

/** Run calls against the node, with every error as a `CliFailure`. */
export const withApi = <A, E, R>(
  use: (calls: ApiCalls, client: ApiClient["Service"]) => Effect.Effect<A, E, R>
) =>
  Effect.gen(function* () {
    const { ApiClient, layer, shown } = yield* connect
    return yield* Effect.flatMap(ApiClient, (client) => use(client.calls, client)).pipe(
      Effect.provide(layer),
      Effect.mapError((error) => failureOf(error, shown))
    )
  })
