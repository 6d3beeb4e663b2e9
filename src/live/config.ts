/** The configuration: defaults, one YAML file and the environment, checked together; every error at once. */
import { readFileSync, statSync } from "node:fs"
import { homedir, hostname } from "node:os"
import { isIP } from "node:net"
import { join, resolve } from "node:path"
import { Effect, Schema } from "effect"
import { LineCounter, parseDocument } from "yaml"
import { describeIssue, Issue, issuesOf, strict } from "./config/issues.ts"
import { keyAt, keyPaths, reservedVariables, variablesOf } from "./config/keys.ts"
import type { Config, Key, KeyPath } from "./config/keys.ts"

export type { Config } from "./config/keys.ts"

export type Environment = Readonly<Record<string, string | undefined>>

/** What is wrong with the configuration, all of it. `path` of an issue is a key, or a variable's name. */
export class ConfigError extends Schema.TaggedError<ConfigError>()("ConfigError", {
  file: Schema.NullOr(Schema.String),
  issues: Schema.Array(Issue)
}) {
  override get message(): string {
    const where = this.file === null ? "the configuration" : this.file
    return [`${where} is not valid:`, ...this.issues.map((issue) => `  ${describeIssue(issue)}`)].join("\n")
  }
}

export type Source = "default" | "file" | "environment"

export interface Setting {
  readonly path: KeyPath
  /** As it would be written in the file. */
  readonly value: unknown
  readonly source: Source
  /** The variable, when the environment set it. */
  readonly variable: string | null
}

/** Paths and names with their defaults filled in, absolute. */
export interface Resolved {
  readonly nodeId: string
  readonly dataDir: string
  readonly imageDir: string
  readonly sharedDir: string | null
  readonly tokenFile: string
  readonly socket: string | null
  readonly tls: { readonly certificate: string; readonly key: string } | null
}

export interface Loaded {
  readonly config: Config
  readonly resolved: Resolved
  readonly settings: ReadonlyArray<Setting>
  readonly file: string | null
}

const fileBytes_max = 1024 * 1024

/**
 * Read and check. `file` null: there is no file. The environment wins over the file, the file over the defaults.
 */
export const loadConfig = (
  file: string | null,
  environment: Environment
): Effect.Effect<Loaded, ConfigError> =>
  file === null
    ? configOf(null, "", environment)
    : Effect.try({
        try: () => {
          const { size } = statSync(file)
          if (size > fileBytes_max) throw new Error(`it has ${size} bytes, allowed are ${fileBytes_max}`)
          return readFileSync(file, "utf8")
        },
        catch: (cause) => {
          const allowed = `a file that can be read (${cause instanceof Error ? cause.message : String(cause)})`
          return new ConfigError({ file, issues: [{ path: "", allowed }] })
        }
      }).pipe(Effect.flatMap((text) => configOf(file, text, environment)))

/** `loadConfig` on a text. */
export const configOf = (
  file: string | null,
  text: string,
  environment: Environment
): Effect.Effect<Loaded, ConfigError> =>
  Effect.suspend(() => {
    const issues: Array<Issue> = []
    const written = flatten(parse(text, issues), issues)
    const set = fromEnvironment(environment, issues)
    const values = new Map<KeyPath, unknown>()
    const settings: Array<Setting> = []
    for (const at of keyPaths) {
      const variable = set.get(at)
      const source: Source = variable ? "environment" : written.has(at) ? "file" : "default"
      const raw = variable ? variable.value : written.has(at) ? written.get(at) : keyAt(at).default
      settings.push({ path: at, value: raw, source, variable: variable?.name ?? null })
      const decoded = check(keyAt(at), raw)
      if (decoded.issues.length === 0) values.set(at, decoded.value)
      for (const issue of decoded.issues) {
        const path = [variable?.name ?? at, issue.path].filter((part) => part !== "").join(".")
        issues.push({ ...issue, path })
      }
    }
    if (issues.length > 0) return Effect.fail(new ConfigError({ file, issues }))
    const config = nest(values)
    const resolved = resolvePaths(config, environment)
    const together = checkTogether(config, resolved)
    if (together.length > 0) return Effect.fail(new ConfigError({ file, issues: together }))
    return Effect.succeed({ config, resolved, settings, file })
  })

function parse(text: string, issues: Array<Issue>): unknown {
  const lines = new LineCounter()
  try {
    const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true, prettyErrors: false })
    for (const error of document.errors) {
      const { line, col } = lines.linePos(error.pos[0])
      issues.push({ path: `line ${line}, column ${col}`, allowed: `YAML (${error.message})` })
    }
    if (document.errors.length > 0) return undefined
    return document.toJS({ maxAliasCount: 16 }) as unknown
  } catch (error) {
    // The parser's limits, on aliases for one, are thrown.
    issues.push({ path: "", allowed: `YAML (${error instanceof Error ? error.message : String(error)})` })
    return undefined
  }
}

const isMap = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const cut = (value: unknown): { value?: unknown } => {
  const text = JSON.stringify(value)
  if (text === undefined) return {}
  return { value: text.length > 200 ? `${text.slice(0, 200)}…` : value }
}

/** The file's keys by path; sections that are no maps and keys nobody knows become issues. */
function flatten(root: unknown, issues: Array<Issue>): Map<KeyPath, unknown> {
  const found = new Map<KeyPath, unknown>()
  const known = new Set<string>(keyPaths)
  const visit = (value: unknown, prefix: string) => {
    if (known.has(prefix)) {
      found.set(prefix as KeyPath, value)
      return
    }
    const inner = childrenOf(prefix)
    if (value === null || value === undefined) return
    if (!isMap(value)) {
      issues.push({ path: prefix, ...cut(value), allowed: `a section with the keys ${inner.join(", ")}` })
      return
    }
    for (const [name, one] of Object.entries(value)) {
      if (inner.includes(name)) visit(one, prefix === "" ? name : `${prefix}.${name}`)
      else {
        const path = prefix === "" ? name : `${prefix}.${name}`
        issues.push({ path, ...cut(one), allowed: `the keys ${inner.join(", ")}` })
      }
    }
  }
  visit(root, "")
  return found
}

/** Names that may stand directly in the section `prefix`. */
function childrenOf(prefix: string): ReadonlyArray<string> {
  const start = prefix === "" ? "" : `${prefix}.`
  const names = keyPaths
    .filter((at) => at.startsWith(start))
    .map((at) => at.slice(start.length).split(".")[0] ?? "")
  return [...new Set(names)]
}

interface Variable {
  readonly name: string
  readonly value: unknown
}

function fromEnvironment(environment: Environment, issues: Array<Issue>): Map<KeyPath, Variable> {
  const byName = new Map(keyPaths.flatMap((at) => variablesOf(at).map((name) => [name, at] as const)))
  const found = new Map<KeyPath, Variable>()
  for (const [name, text] of Object.entries(environment)) {
    if (!name.startsWith("NOVACRON_") || text === undefined || reservedVariables.has(name)) continue
    const at = byName.get(name)
    if (at === undefined) {
      issues.push({
        path: name,
        ...cut(text),
        allowed: "a variable made from a key, NOVACRON_SYSTEM_LOG_LEVEL"
      })
      continue
    }
    const value = coerce(keyAt(at), text)
    const before = found.get(at)
    if (before !== undefined && JSON.stringify(before.value) !== JSON.stringify(value)) {
      issues.push({ path: name, ...cut(text), allowed: `what ${before.name} says, or only one of the two` })
    }
    found.set(at, { name, value })
  }
  return found
}

/** What the text of a variable means for this key; a text that means nothing stays and is refused with it. */
function coerce(key: Key<unknown>, text: string): unknown {
  if (key.kind === "number" && /^-?\d{1,15}$/.test(text)) return Number(text)
  if (key.kind === "boolean" && (text === "true" || text === "false")) return text === "true"
  if (key.kind !== "labels") return text
  if (text === "") return {}
  const pairs = text.split(",").map((pair) => pair.split("=", 2))
  return pairs.every((pair) => pair.length === 2) ? Object.fromEntries(pairs) : text
}

function check(key: Key<unknown>, raw: unknown): { value: unknown; issues: ReadonlyArray<Issue> } {
  const decoded = Schema.decodeUnknownResult(key.schema, strict)(raw)
  if (decoded._tag === "Failure") {
    const bare = new Set(["number", "string", "boolean", "object"])
    const issues = issuesOf(decoded.failure.issue).map((issue) =>
      bare.has(issue.allowed) ? { ...issue, allowed: key.allowed } : issue
    )
    return { value: undefined, issues }
  }
  if (!key.built && JSON.stringify(raw) !== JSON.stringify(key.default)) {
    const allowed = `${JSON.stringify(key.default)} (another value is not built yet)`
    return { value: undefined, issues: [{ path: "", ...cut(raw), allowed }] }
  }
  return { value: decoded.success, issues: [] }
}

function nest(values: ReadonlyMap<KeyPath, unknown>): Config {
  const root: Record<string, any> = {}
  for (const [at, value] of values) {
    const parts = at.split(".")
    const last = parts.pop() ?? at
    let section = root
    for (const part of parts) section = section[part] ??= {}
    section[last] = value
  }
  return root as Config
}

/** The machine's own name as a node's name: what does not belong there becomes `-`. */
export function nodeNameOf(host: string): string {
  const name = host
    .toLowerCase()
    .split(".")[0]
    ?.replaceAll(/[^a-z0-9-]/g, "-")
    .slice(0, 63)
    .replaceAll(/^-+|-+$/g, "")
  return name === undefined || name === "" ? "node" : name
}

function resolvePaths(config: Config, environment: Environment): Resolved {
  const home = environment["HOME"] ?? homedir()
  const state = environment["XDG_STATE_HOME"] || join(home, ".local", "state")
  const standard = process.getuid?.() === 0 ? "/var/lib/novacron" : join(state, "novacron")
  const dataDir = resolve(config.system.data_dir || standard)
  const { api } = config
  const hasTls = api.tls_certificate !== "" && api.tls_key !== ""
  return {
    nodeId: config.system.node_id || nodeNameOf(hostname()),
    dataDir,
    sharedDir: config.hypervisor.shared_dir === "" ? null : resolve(config.hypervisor.shared_dir),
    imageDir: resolve(config.hypervisor.image_dir || join(dataDir, "images")),
    tokenFile: resolve(api.token_file || join(dataDir, "api-token")),
    socket: api.socket === "" ? null : resolve(api.socket),
    tls: hasTls ? { certificate: resolve(api.tls_certificate), key: resolve(api.tls_key) } : null
  }
}

const isLoopback = (host: string) =>
  host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."))

/** What no key shows by itself. */
function checkTogether(config: Config, resolved: Resolved): ReadonlyArray<Issue> {
  const issues: Array<Issue> = []
  const { api, cluster } = config
  if ((api.tls_certificate === "") !== (api.tls_key === "")) {
    const missing = api.tls_key === "" ? "api.tls_key" : "api.tls_certificate"
    issues.push({ path: missing, value: "", allowed: "a file, when the other of the pair is given" })
  }
  if (api.enable && resolved.socket === null && resolved.tls === null && !isLoopback(api.listen_address)) {
    const allowed = "a loopback address, or any with api.tls_certificate and api.tls_key"
    issues.push({ path: "api.listen_address", value: api.listen_address, allowed })
  }
  // sockaddr_un's limit on Linux, with its closing zero.
  if (resolved.socket !== null && Buffer.byteLength(resolved.socket) > 107) {
    issues.push({ path: "api.socket", value: api.socket, allowed: "a path of at most 107 bytes" })
  }
  if ((cluster.join === "") !== (cluster.join_token_file === "")) {
    const missing = cluster.join === "" ? "cluster.join" : "cluster.join_token_file"
    issues.push({
      path: missing,
      value: "",
      allowed: "both of cluster.join and cluster.join_token_file, or none"
    })
  }
  const { voter, unreachable_timeout: unreachableMs } = config.cluster
  if (voter && unreachableMs <= 2 * config.dwcp.consensus.election_timeout) {
    const allowed =
      "more than twice dwcp.consensus.election_timeout: a leader that is cut off performs for as long"
    issues.push({ path: "cluster.unreachable_timeout", value: `${unreachableMs}ms`, allowed })
  }
  const { heartbeat_interval: heartbeatMs, election_timeout: electionMs } = config.dwcp.consensus
  if (electionMs < 2 * heartbeatMs) {
    const allowed = `at least twice dwcp.consensus.heartbeat_interval, ${2 * heartbeatMs}ms`
    issues.push({ path: "dwcp.consensus.election_timeout", value: `${electionMs}ms`, allowed })
  }
  if (!config.dwcp.enable_auto_detection && config.dwcp.forced_mode === "") {
    const allowed = "datacenter, internet or hybrid while dwcp.enable_auto_detection is false"
    issues.push({ path: "dwcp.forced_mode", value: "", allowed })
  }
  return issues
}
