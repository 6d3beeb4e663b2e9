/** The HTTP API as one value: the server, the client and the OpenAPI document are made from it. */
import { Schema } from "effect"
import { HttpApi, HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { Name, Stream } from "../../events/fields.ts"
import { RebalancePolicy } from "../../events/rebalancer.ts"
import { strict } from "../config/issues.ts"
import {
  AuditRow,
  AuthorityStatus,
  CloneVm,
  commandHeaders,
  commandQuery,
  CreateVm,
  DecisionRow,
  DryRun,
  Facts,
  Health,
  HostRow,
  consistencyQuery,
  ClusterStatus,
  Kind,
  listQuery,
  MakeToken,
  MigrateVm,
  MigrationRow,
  NameRow,
  OpenConsole,
  Operation,
  OperationId,
  pageQuery,
  PeerRow,
  Readiness,
  Reason,
  RebalancerStatus,
  Replay,
  SnapshotName,
  StateAt,
  StreamName,
  TokenRow,
  Verification,
  VmRow
} from "./bodies.ts"
import { everywhere, NotFound, onCommand, UpgradeRequired } from "./problems.ts"

const accepted = Operation.pipe(HttpApiSchema.status(202))
/** 202 while the operation runs, 200 when it has ended or when nothing was to be done. */
const command = { success: [accepted, Operation, DryRun], error: onCommand, headers: commandHeaders }
const vm = { name: Name }
const listed = { error: everywhere }
const found = { error: [...everywhere, NotFound] }

/** A command on one machine, without a body. */
const act = <const Id extends string>(id: Id) =>
  HttpApiEndpoint.post(id, `/v1/vms/:name/${id}`, { ...command, params: vm, query: commandQuery })

const vms = HttpApiGroup.make("vms").add(
  HttpApiEndpoint.get("list", "/v1/vms", { query: listQuery, success: Schema.Array(VmRow), ...listed }),
  HttpApiEndpoint.post("create", "/v1/vms", { ...command, query: commandQuery, payload: CreateVm }),
  HttpApiEndpoint.get("show", "/v1/vms/:name", {
    params: vm,
    query: consistencyQuery,
    success: VmRow,
    ...found
  }),
  HttpApiEndpoint.delete("delete", "/v1/vms/:name", { ...command, params: vm, query: commandQuery }),
  act("start"),
  HttpApiEndpoint.post("stop", "/v1/vms/:name/stop", {
    ...command,
    params: vm,
    query: { ...commandQuery, force: Schema.optionalKey(Schema.Literals(["true", "false"])) }
  }),
  act("pause"),
  act("resume"),
  act("reboot"),
  HttpApiEndpoint.post("clone", "/v1/vms/:name/clone", {
    ...command,
    params: vm,
    query: commandQuery,
    payload: CloneVm
  }),
  HttpApiEndpoint.post("snapshot", "/v1/vms/:name/snapshots", {
    ...command,
    params: vm,
    query: commandQuery,
    payload: SnapshotName
  }),
  HttpApiEndpoint.post("restore", "/v1/vms/:name/restore", {
    ...command,
    params: vm,
    query: commandQuery,
    payload: SnapshotName
  }),
  HttpApiEndpoint.post("migrate", "/v1/vms/:name/migrate", {
    ...command,
    params: vm,
    query: commandQuery,
    payload: [Schema.Null, MigrateVm]
  }),
  /** Ask for the console; the operation's id is the session's. */
  HttpApiEndpoint.post("console", "/v1/vms/:name/console", {
    ...command,
    params: vm,
    query: commandQuery,
    payload: [Schema.Null, OpenConsole]
  }),
  /** The session's connection, upgraded to `novacron-console/1`; within 30 s, and once. */
  HttpApiEndpoint.get("attach", "/v1/vms/:name/console/:session", {
    params: { ...vm, session: OperationId },
    success: HttpApiSchema.Empty(101),
    error: [...everywhere, NotFound, UpgradeRequired]
  }),
  HttpApiEndpoint.get("why", "/v1/vms/:name/why", {
    params: vm,
    query: consistencyQuery,
    success: Schema.Array(DecisionRow),
    ...found
  })
)

const hosts = HttpApiGroup.make("hosts").add(
  HttpApiEndpoint.get("list", "/v1/hosts", { query: listQuery, success: Schema.Array(HostRow), ...listed }),
  HttpApiEndpoint.get("show", "/v1/hosts/:name", {
    params: vm,
    query: consistencyQuery,
    success: HostRow,
    ...found
  }),
  HttpApiEndpoint.post("drain", "/v1/hosts/:name/drain", {
    ...command,
    params: vm,
    query: commandQuery,
    payload: [Schema.Null, Reason]
  }),
  HttpApiEndpoint.post("activate", "/v1/hosts/:name/activate", {
    ...command,
    params: vm,
    query: commandQuery
  }),
  /** Somebody has seen to it that this lost host is off: its machines may start elsewhere. */
  HttpApiEndpoint.post("confirmOff", "/v1/hosts/:name/confirm-off", {
    ...command,
    params: vm,
    query: commandQuery,
    payload: [Schema.Null, Reason]
  })
)

const rebalancer = HttpApiGroup.make("rebalancer").add(
  HttpApiEndpoint.get("show", "/v1/rebalancer", {
    query: consistencyQuery,
    success: RebalancerStatus,
    ...listed
  }),
  /** One that runs goes on with this policy. */
  HttpApiEndpoint.post("start", "/v1/rebalancer/start", {
    ...command,
    query: commandQuery,
    payload: RebalancePolicy
  }),
  HttpApiEndpoint.post("stop", "/v1/rebalancer/stop", {
    ...command,
    query: commandQuery,
    payload: [Schema.Null, Reason]
  })
)

const migrations = HttpApiGroup.make("migrations").add(
  HttpApiEndpoint.get("list", "/v1/migrations", {
    query: {
      ...listQuery,
      vm: Schema.optionalKey(Name),
      state: Schema.optionalKey(Schema.Literals(["active", "completed", "cancelled", "failed"]))
    },
    success: Schema.Array(MigrationRow),
    ...listed
  }),
  HttpApiEndpoint.get("show", "/v1/migrations/:id", {
    params: { id: Name },
    query: consistencyQuery,
    success: MigrationRow,
    ...found
  }),
  HttpApiEndpoint.post("cancel", "/v1/migrations/:id/cancel", {
    ...command,
    params: { id: Name },
    query: { ...commandQuery, force: Schema.optionalKey(Schema.Literals(["true", "false"])) },
    payload: [Schema.Null, Reason]
  })
)

const journal = HttpApiGroup.make("journal").add(
  HttpApiEndpoint.get("facts", "/v1/streams/:kind/:name/facts", {
    params: { kind: Kind, name: StreamName },
    query: {
      ...pageQuery,
      ...consistencyQuery,
      direction: Schema.optionalKey(Schema.Literals(["forwards", "backwards"])),
      /** A position, or a time as in RFC 3339: the state then instead of the facts. */
      at: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(64)))
    },
    success: Schema.Union([Facts, StateAt]),
    ...found
  }),
  HttpApiEndpoint.get("replay", "/v1/replay", {
    query: {
      /** A position, or a time as in RFC 3339; the head unless told. */
      at: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(64))),
      after: Schema.optionalKey(Stream),
      limit: pageQuery.limit,
      ...consistencyQuery
    },
    success: Replay,
    error: everywhere
  }),
  HttpApiEndpoint.get("events", "/v1/events", {
    query: {
      after: Schema.optionalKey(pageQuery.from.schema),
      /** Only this stream, `vm/web-1`, or only this kind, `vm/`. */
      stream: Schema.optionalKey(
        Schema.String.check(
          Schema.isPattern(/^[a-z]{1,32}\/([a-z0-9]([a-z0-9.-]{0,126}[a-z0-9])?)?$/, {
            expected: "a stream, vm/web-1, or a kind, vm/"
          })
        )
      )
    },
    headers: { "last-event-id": Schema.optionalKey(Schema.String.check(Schema.isMaxLength(32))) },
    success: HttpApiSchema.StreamUint8Array({ contentType: "text/event-stream" }),
    error: everywhere
  }),
  HttpApiEndpoint.get("operation", "/v1/operations/:id", {
    params: { id: OperationId },
    query: { wait: commandQuery.wait },
    success: Operation,
    ...found
  }),
  HttpApiEndpoint.get("audit", "/v1/audit", {
    query: {
      ...pageQuery,
      ...consistencyQuery,
      principal: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(256))),
      stream: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(160)))
    },
    success: Schema.Array(AuditRow),
    ...listed
  }),
  HttpApiEndpoint.post("verify", "/v1/audit/verify", { success: Verification, ...listed })
)

/** The nodes that decide, and all that are noticed. */
const cluster = HttpApiGroup.make("cluster").add(
  HttpApiEndpoint.get("status", "/v1/cluster", { success: ClusterStatus, ...listed }),
  HttpApiEndpoint.get("peers", "/v1/cluster/peers", {
    query: { after: Schema.optionalKey(Name), limit: pageQuery.limit },
    success: Schema.Array(PeerRow),
    ...listed
  }),
  HttpApiEndpoint.post("rotateKey", "/v1/cluster/gossip-key/rotate", {
    ...command,
    query: commandQuery,
    payload: [Schema.Null, Reason]
  }),
  HttpApiEndpoint.post("remove", "/v1/cluster/nodes/:name/remove", {
    ...command,
    params: vm,
    query: commandQuery,
    payload: [Schema.Null, Reason]
  }),
  HttpApiEndpoint.post("lead", "/v1/cluster/nodes/:name/lead", {
    ...command,
    params: vm,
    query: commandQuery,
    payload: [Schema.Null, Reason]
  })
)

/** The certificates of the cluster's nodes. */
const authority = HttpApiGroup.make("authority").add(
  HttpApiEndpoint.get("status", "/v1/authority", {
    query: consistencyQuery,
    success: AuthorityStatus,
    ...found
  }),
  HttpApiEndpoint.get("names", "/v1/authority/names", {
    query: listQuery,
    success: Schema.Array(NameRow),
    ...listed
  }),
  HttpApiEndpoint.get("tokens", "/v1/authority/tokens", {
    query: consistencyQuery,
    success: Schema.Array(TokenRow),
    ...listed
  }),
  HttpApiEndpoint.post("makeToken", "/v1/authority/tokens", {
    ...command,
    query: commandQuery,
    payload: MakeToken
  }),
  HttpApiEndpoint.post("revoke", "/v1/authority/names/:name/revoke", {
    ...command,
    params: vm,
    query: commandQuery,
    payload: [Schema.Null, Reason]
  })
)

const system = HttpApiGroup.make("system", { topLevel: true }).add(
  HttpApiEndpoint.get("health", "/health", { success: Health }),
  HttpApiEndpoint.get("ready", "/ready", {
    success: [Readiness, Readiness.pipe(HttpApiSchema.status(503))],
    ...listed
  }),
  HttpApiEndpoint.get("metrics", "/metrics", {
    success: Schema.String.pipe(
      HttpApiSchema.asText({ contentType: "text/plain; version=0.0.4; charset=utf-8" })
    ),
    ...listed
  })
)

/** Of headers: everyone may send more than is asked for. */
export const lenient = { errors: "all", reportInput: true } as const

export const Api = HttpApi.make("novacron")
  .add(vms, hosts, migrations, rebalancer, journal, cluster, authority, system)
  .annotate(HttpApi.ParamsParseOptions, strict)
  .annotate(HttpApi.QueryParseOptions, strict)
  .annotate(HttpApi.PayloadParseOptions, strict)
  .annotate(HttpApi.HeadersParseOptions, lenient)
  .annotateMerge(
    OpenApi.annotations({
      title: "NovaCron",
      version: "1",
      description: "Virtual machines, hosts and migrations, and the journal of what happened to them.",
      license: { name: "Apache-2.0", url: "https://www.apache.org/licenses/LICENSE-2.0" },
      transform: secured
    })
  )

/** Whether an endpoint asks something of an actor: it takes an idempotency key. */
export const isCommand = (endpoint: HttpApiEndpoint.Top): boolean =>
  endpoint.method !== "GET" && endpoint.headers !== undefined

/** Authentication stands before the router, so the document is told of it here. */
function secured(document: Record<string, any>): Record<string, any> {
  document["components"] = {
    ...document["components"],
    securitySchemes: { bearer: { type: "http", scheme: "bearer" } }
  }
  document["security"] = [{ bearer: [] }]
  for (const item of Object.values(document["paths"] as Record<string, Record<string, any>>)) {
    for (const operation of Object.values(item)) delete operation["security"]
  }
  document["paths"]["/health"].get.security = []
  return document
}
