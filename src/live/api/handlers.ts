/** The handlers of every endpoint: each turns a decoded request into a command, a view's answer or facts. */
import { createHash, randomUUID } from "node:crypto"
import { Effect, Layer, Schema, Semaphore } from "effect"
import type { Context } from "effect"
import { HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import type { Message } from "../../events/envelope.ts"
import { keyringStream } from "../../events/keyring.ts"
import { MigrationPolicy } from "../../events/requests.ts"
import type { Kernel } from "../../kernel/kernel.ts"
import type { EventStore } from "../../kernel/ports/event-store.ts"
import { describe } from "../../kernel/statechart.ts"
import { recordedPeers } from "../gossip/recorded-peers.ts"
import { Api } from "./api.ts"
import { authoritySayings, makeAuthorityReads } from "./authority.ts"
import type { AuthorityHere } from "./authority.ts"
import type { ClusterStatus, MigrateVm } from "./bodies.ts"
import type { Asked, CommandProblem, makeCommands, Said } from "./commands.ts"
import type { makeEvents } from "./events.ts"
import type { makeConsole } from "./console.ts"
import { Caller } from "./gate.ts"
import { factsOf, head, parseAt, stateAt, statesAt, unavailable } from "./history.ts"
import type { Operations } from "./operations.ts"
import { InvalidRequest, NotFound, Refused, StoreUnavailable } from "./problems.ts"
import { page, pageById, pageByName } from "./pages.ts"
import type { Reads } from "./reads.ts"
import { rebalancerSayings, rebalancerStatus } from "./rebalancer.ts"
import { clusterSayings, hostSayings, migrationSayings, vmSayings } from "./sayings.ts"

/** Sees the handlers of a group as they are registered, and those of them that only say a command. */
export type TakeHandlers = (
  group: string,
  handlers: Readonly<Record<string, unknown>>,
  sayings: Readonly<Record<string, unknown>>
) => void

export interface HandlerPorts {
  readonly kernel: Context.Service.Shape<typeof Kernel>
  readonly store: Context.Service.Shape<typeof EventStore>
  readonly reads: Context.Service.Shape<typeof Reads>
  readonly commands: ReturnType<typeof makeCommands>
  readonly operations: Operations
  readonly events: ReturnType<typeof makeEvents>
  readonly console: ReturnType<typeof makeConsole>
  readonly node: string
  readonly version: string
  /** Of the group that decides, as this node knows it. */
  readonly clusterStatus: () => Omit<ClusterStatus, "position">
  /** Whether this node takes part in the gossip. */
  readonly gossips: () => boolean
  /** Of the certificate authority; null where this node is in no cluster of its own. */
  readonly authority: AuthorityHere | null
  /** False while the node is starting or stopping. */
  readonly ready: Effect.Effect<boolean>
  /** Told of the handlers that commands are answered by. */
  readonly take: TakeHandlers
}

const taken =
  (ports: HandlerPorts, group: string, sayings: Readonly<Record<string, unknown>>) =>
  <const Handlers extends Readonly<Record<string, unknown>>>(handlers: Handlers): Handlers => {
    ports.take(group, handlers, sayings)
    return handlers
  }

const nothing = (resource: string) =>
  new NotFound({ resource, detail: `there is no ${resource.replace("/", " ")}` })

const found = <A>(value: A | null, resource: string): Effect.Effect<A, NotFound> =>
  value === null ? Effect.fail(nothing(resource)) : Effect.succeed(value)

interface CommandRequest {
  readonly query: Asked["query"]
  readonly headers: { readonly "idempotency-key"?: string }
}

/** `check` looks for slips in a new command; one that was taken is answered as it was, whatever is there now. */
const asking =
  (ports: HandlerPorts) =>
  <E = never>(stream: string, message: Message, request: CommandRequest, check?: Effect.Effect<unknown, E>) =>
    Effect.flatMap(Caller, (principal) => {
      const key = request.headers["idempotency-key"]
      const submitted = ports.commands.submit({ stream, message, principal, key, query: request.query })
      const isTaken = key !== undefined && check !== undefined && ports.operations.get(key) !== undefined
      return check === undefined || isTaken ? submitted : Effect.andThen(check, submitted)
    })

/** The command that a request says, when it needs to know nothing else for it. */
type Saying = (request: never) => Pick<Said, "stream" | "message">

/** Handlers that only submit what is said. */
const submitting = <Sayings extends Readonly<Record<string, Saying>>>(
  ports: HandlerPorts,
  sayings: Sayings
) => {
  const ask = asking(ports)
  type Handlers = {
    readonly [Name in keyof Sayings]: (
      request: Parameters<Sayings[Name]>[0] & CommandRequest
    ) => Effect.Effect<HttpServerResponse.HttpServerResponse, CommandProblem>
  }
  const handlers = Object.entries(sayings).map(([name, saying]) => {
    const handler = (request: CommandRequest) => {
      const { stream, message } = saying(request as never)
      return ask(stream, message, request)
    }
    return [name, handler] as const
  })
  return Object.fromEntries(handlers) as unknown as Handlers
}

const vms = (ports: HandlerPorts) => {
  const ask = asking(ports)
  const original = originalOf(ports)
  const ifHost = ifHostOf(ports)
  const ifSnapshot = ifSnapshotOf(ports)
  const take = taken(ports, "vms", vmSayings)
  return HttpApiBuilder.group(Api, "vms", (handlers) =>
    handlers.handleAll(
      take({
        ...submitting(ports, vmSayings),
        list: ({ query }) => Effect.map(ports.reads.vms, (rows) => pageByName("/v1/vms", query, rows)),
        show: ({ params }) =>
          Effect.flatMap(ports.reads.vm(params.name), (vm) => found(vm, `vm/${params.name}`)),
        why: ({ params }) =>
          Effect.flatMap(ports.reads.vm(params.name), (vm) => found(vm, `vm/${params.name}`)).pipe(
            Effect.andThen(ports.reads.decisions(params.name))
          ),
        console: ({ params, payload, headers, query }) => {
          const asked = payload ?? { readOnly: false, force: false }
          return ports.console.open({ vm: params.name, ...asked, key: headers["idempotency-key"], query })
        },
        attach: ({ params }) => ports.console.attach(params.name, params.session),
        create: (request) => {
          const { name, ...rest } = request.payload
          const check = ifHost("body.host", rest.host)
          return ask(`vm/${name}`, { type: "vm.create", ...rest }, request, check)
        },
        clone: (request) =>
          Effect.flatMap(original(request.params.name), ({ spec, host, state, snapshots }) => {
            const { name, snapshot, start } = request.payload
            const from = request.params.name
            if (snapshot === undefined && !state.startsWith("stopped")) return mustBeStopped(from, state)
            if (snapshot !== undefined && !snapshots.includes(snapshot)) {
              return nothing(`snapshot/${snapshot} of vm ${from}`)
            }
            const cloneOf = { vm: from, ...(snapshot === undefined ? {} : { snapshot }) }
            return ask(`vm/${name}`, { type: "vm.create", spec, ...host, start, cloneOf }, request)
          }),
        restore: (request) => {
          const { snapshot } = request.payload
          const message = { type: "vm.restore", snapshot }
          return ask(`vm/${request.params.name}`, message, request, ifSnapshot(request.params.name, snapshot))
        },
        migrate: movingOf(ports)
      })
    )
  )
}

/** A snapshot that the machine does not have is a slip, told before anything is recorded. */
const ifSnapshotOf = (ports: HandlerPorts) => {
  const original = originalOf(ports)
  return (vm: string, snapshot: string) =>
    original(vm).pipe(
      Effect.filterOrFail(
        ({ snapshots }) => snapshots.includes(snapshot),
        ({ snapshots }) => invalid("body.snapshot", snapshot, oneOf("a snapshot of it", snapshots))
      )
    )
}

const movingOf = (ports: HandlerPorts) => {
  const ask = asking(ports)
  const original = originalOf(ports)
  const ifHost = ifHostOf(ports)
  return (
    request: CommandRequest & {
      readonly params: { readonly name: string }
      readonly payload: MigrateVm | null
    }
  ) => {
    const { name } = request.params
    const key = request.headers["idempotency-key"]
    // The same key has to name the same migration, or the retry of a lost answer would begin a second one.
    const stream = `migration/${key === undefined ? randomUUID() : migrationName(key)}`
    const check = Effect.andThen(original(name), ifHost("body.to", request.payload?.to))
    return ask(stream, moveOf(name, request.payload), request, check)
  }
}

const moveOf = (vm: string, asked: MigrateVm | null) => ({
  type: "migration.request",
  vm,
  ...(asked?.to === undefined ? {} : { to: asked.to }),
  policy: asked?.policy ?? defaultPolicy,
  reason: asked?.reason ?? ""
})

interface Original {
  readonly spec: object | null
  readonly host: string | null
  readonly snapshots: ReadonlyArray<string>
}

/** What a copy, or a migration, needs to know of the machine: its specification, its snapshots, and its host. */
const originalOf = (ports: HandlerPorts) =>
  Effect.fnUntraced(function* (name: string) {
    const actor = yield* ports.kernel
      .state(`vm/${name}`)
      .pipe(Effect.mapError((error) => new StoreUnavailable({ detail: error.message })))
    const { spec, host, snapshots } = actor.chart.context as Original
    if (spec === null) return yield* nothing(`vm/${name}`)
    return { spec, snapshots, host: host === null ? {} : { host }, state: describe(actor.chart) }
  })

/** A host that a person names and that has never registered is a slip, told before anything is recorded. */
const ifHostOf = (ports: HandlerPorts) =>
  Effect.fnUntraced(function* (path: string, host: string | undefined) {
    if (host === undefined) return
    const { revision } = yield* ports.kernel
      .state(`host/${host}`)
      .pipe(Effect.mapError((error) => new StoreUnavailable({ detail: error.message })))
    if (revision >= 0) return
    const names = (yield* ports.reads.hosts).map(({ name }) => name)
    return yield* invalid(path, host, oneOf("a host", names))
  })

const named_max = 20

const oneOf = (what: string, names: ReadonlyArray<string>): string => {
  const more = names.length > named_max ? ", …" : ""
  return `${what}: ${names.length === 0 ? "there is none" : names.slice(0, named_max).join(", ") + more}`
}

const mustBeStopped = (vm: string, state: string) =>
  new Refused({
    stream: `vm/${vm}`,
    command: "vm.clone",
    state,
    allowed: [],
    unmet: [],
    detail: `vm/${vm} is ${state}: a copy is made of a stopped machine, or of a snapshot that is named`
  })

/** A stream's name from an idempotency key, which may have characters that a name may not. */
const migrationName = (key: string): string =>
  /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(key)
    ? key
    : `m-${createHash("sha256").update(key).digest("hex").slice(0, 32)}`

const defaultPolicy = Schema.decodeSync(MigrationPolicy)({})

const hosts = (ports: HandlerPorts) => {
  const take = taken(ports, "hosts", hostSayings)
  return HttpApiBuilder.group(Api, "hosts", (handlers) =>
    handlers.handleAll(
      take({
        list: ({ query }) => Effect.map(ports.reads.hosts, (rows) => pageByName("/v1/hosts", query, rows)),
        show: ({ params }) =>
          Effect.flatMap(ports.reads.host(params.name), (host) => found(host, `host/${params.name}`)),
        ...submitting(ports, hostSayings)
      })
    )
  )
}

const migrations = (ports: HandlerPorts) => {
  const take = taken(ports, "migrations", migrationSayings)
  return HttpApiBuilder.group(Api, "migrations", (handlers) =>
    handlers.handleAll(
      take({
        list: ({ query }) =>
          Effect.flatMap(ports.reads.migrations(query), (rows) => {
            const answer = pageById("/v1/migrations", query, rows)
            return answer instanceof InvalidRequest ? Effect.fail(answer) : Effect.succeed(answer)
          }),
        show: ({ params }) =>
          Effect.flatMap(ports.reads.migration(params.id), (row) => found(row, `migration/${params.id}`)),
        ...submitting(ports, migrationSayings)
      })
    )
  )
}

const rebalancer = (ports: HandlerPorts) => {
  const take = taken(ports, "rebalancer", rebalancerSayings)
  return HttpApiBuilder.group(Api, "rebalancer", (handlers) =>
    handlers.handleAll(
      take({
        show: () => rebalancerStatus(ports.kernel),
        ...submitting(ports, rebalancerSayings)
      })
    )
  )
}

const cluster = (ports: HandlerPorts) => {
  const ask = asking(ports)
  const take = taken(ports, "cluster", clusterSayings)
  return HttpApiBuilder.group(Api, "cluster", (handlers) =>
    handlers.handleAll(
      take({
        status: () =>
          Effect.map(ports.store.head.pipe(Effect.mapError(unavailable)), ({ position }) => ({
            ...ports.clusterStatus(),
            position
          })),
        peers: ({ query }) =>
          Effect.sync(() => pageByName("/v1/cluster/peers", query, recordedPeers(ports.kernel.resident()))),
        rotateKey: (request) => {
          const message = { type: "keyring.rotate", reason: request.payload?.reason ?? "" }
          return ask(keyringStream, message, request, ifGossips(ports))
        },
        ...submitting(ports, clusterSayings)
      })
    )
  )
}

/** Nobody would do it. */
const ifGossips = (ports: HandlerPorts) =>
  Effect.suspend(() =>
    ports.gossips()
      ? Effect.void
      : Effect.fail(
          new Refused({
            detail: `${ports.node} takes no part in the gossip: gossip.enable, and no other node has joined it`,
            stream: keyringStream,
            command: "keyring.rotate",
            state: "off",
            allowed: [],
            unmet: ["gossips"]
          })
        )
  )
const authority = (ports: HandlerPorts) => {
  const take = taken(ports, "authority", authoritySayings)
  const reads = makeAuthorityReads(ports.kernel, ports.authority)
  return HttpApiBuilder.group(Api, "authority", (handlers) =>
    handlers.handleAll(
      take({
        status: () => Effect.flatMap(reads.status, (status) => found(status, "authority/nodes")),
        names: ({ query }) =>
          Effect.map(reads.names, (rows) => pageByName("/v1/authority/names", query, rows)),
        tokens: () => reads.tokens,
        ...submitting(ports, authoritySayings)
      })
    )
  )
}

const invalid = (path: string, value: unknown, allowed: string) =>
  new InvalidRequest({ detail: `${path}: allowed: ${allowed}`, errors: [{ path, value, allowed }] })

const whenAllowed = "a position, 1234, or a time, 2026-05-01T12:00:00Z"
/** A replay folds everything again: one at a time. */
const replays = Semaphore.makeUnsafe(1)

const journal = (ports: HandlerPorts) =>
  HttpApiBuilder.group(Api, "journal", (handlers) =>
    handlers.handleAll({
      facts: Effect.fnUntraced(function* ({ params, query }) {
        const stream = `${params.kind}/${params.name}`
        const kind = ports.kernel.kinds.find((one) => one.kind === params.kind)
        if (kind === undefined) return yield* nothing(stream)
        if (query.at === undefined) return yield* factsOf(ports.store, stream, query)
        const at = parseAt(query.at)
        if (at === null) {
          return yield* invalid("query.at", query.at, whenAllowed)
        }
        const { actor, last, state } = yield* stateAt(ports.store, kind, stream, at)
        return {
          stream,
          at: last,
          revision: actor.revision,
          state,
          context: actor.chart.context as unknown,
          outstanding: actor.outstanding.length
        }
      }),
      events: Effect.fnUntraced(function* ({ query, headers }) {
        const resumed = headers["last-event-id"]
        if (resumed !== undefined && !/^\d{1,15}$/.test(resumed)) {
          return yield* invalid("header.last-event-id", resumed, "the id of an event: a position")
        }
        // A browser that comes back sends the header with the address it began with: the header is later.
        const after = resumed === undefined ? (query.after ?? null) : Number(resumed)
        return yield* ports.events({ after, stream: query.stream })
      }),
      operation: Effect.fnUntraced(function* ({ params, query }) {
        const waited =
          query.wait === undefined
            ? (ports.operations.get(params.id) ?? null)
            : yield* ports.operations.wait(params.id, query.wait)
        return yield* found(waited, `operation/${params.id}`)
      }),
      replay: Effect.fnUntraced(function* ({ query }) {
        const at = query.at === undefined ? head : parseAt(query.at)
        if (at === null) return yield* invalid("query.at", query.at, whenAllowed)
        return yield* replays.withPermit(statesAt(ports.store, ports.kernel.kinds, at, query))
      }),
      audit: ({ query }) =>
        Effect.map(ports.reads.audit(query), ({ rows, next }) =>
          page("/v1/audit", query, rows, next === null ? null : { from: next })
        ),
      verify: () =>
        ports.store.verify.pipe(
          Effect.map((head) => ({ valid: true, head, damage: null })),
          Effect.catchTags({
            StoreDamaged: ({ position, reason }) =>
              Effect.succeed({ valid: false, head: null, damage: { position, reason } }),
            StoreFailure: (error) => Effect.fail(unavailable(error))
          })
        )
    })
  )

const system = (ports: HandlerPorts) =>
  HttpApiBuilder.group(Api, "system", (handlers) =>
    handlers.handleAll({
      health: () => Effect.succeed({ status: "ok" as const }),
      ready: Effect.fnUntraced(function* () {
        const head = yield* ports.store.head.pipe(Effect.mapError(unavailable))
        const ready = yield* ports.ready
        const body = { ready, node: ports.node, version: ports.version, position: head.position }
        return ready ? body : HttpServerResponse.jsonUnsafe(body, { status: 503 })
      }),
      metrics: () => ports.reads.metrics
    })
  )

export const groups = (ports: HandlerPorts) =>
  Layer.mergeAll(
    vms(ports),
    hosts(ports),
    migrations(ports),
    rebalancer(ports),
    journal(ports),
    cluster(ports),
    authority(ports),
    system(ports)
  )
