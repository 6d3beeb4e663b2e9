/**
 * Every key of the configuration: its type, its default, what it is for, and whether what it turns on is built.
 * Files, the environment, `config generate`, the JSON Schema and the reference are all read off this table.
 */
import { Schema } from "effect"
import { int, Name } from "../../events/fields.ts"
import { Duration } from "./duration.ts"

export type Kind = "text" | "number" | "boolean" | "labels"

export interface Key<A> {
  readonly schema: Schema.Codec<A, any>
  readonly kind: Kind
  /** As it is written in the file. */
  readonly default: string | number | boolean | Readonly<Record<string, string>>
  readonly about: string
  /** What may be written, for people. */
  readonly allowed: string
  /** False: only the default is allowed, because nothing would heed another value yet. */
  readonly built: boolean
  /** Other environment variables that set it, beside the one made from its path. */
  readonly variables: ReadonlyArray<string>
}

type Extra = { readonly built?: boolean; readonly variables?: ReadonlyArray<string> }

const make = <A>(
  schema: Schema.Codec<A, any>,
  kind: Kind,
  standard: Key<A>["default"],
  allowed: string,
  about: string,
  { built = true, variables = [] }: Extra = {}
): Key<A> => ({ schema, kind, default: standard, about, allowed, built, variables })

const number = (minimum: number, maximum: number, standard: number, about: string, extra?: Extra) =>
  make(int(minimum, maximum), "number", standard, `${minimum} to ${maximum}`, about, extra)
const boolean = (standard: boolean, about: string, extra?: Extra) =>
  make(Schema.Boolean, "boolean", standard, "true or false", about, extra)
const choice = <const Of extends ReadonlyArray<string>>(
  of: Of,
  standard: Of[number],
  about: string,
  extra?: Extra
) =>
  make(
    Schema.Literals(of),
    "text",
    standard,
    of.map((one) => (one === "" ? '""' : one)).join(" | "),
    about,
    extra
  )
const duration = (
  [minimumMs, maximumMs]: readonly [number, number],
  standard: string,
  about: string,
  extra?: Extra
) => make(Duration(minimumMs, maximumMs), "text", standard, "a duration: 500ms, 30s, 5m, 2h", about, extra)

const matching = (pattern: RegExp, expected: string) =>
  Schema.String.check(Schema.isMaxLength(4096), Schema.isPattern(pattern, { expected }))
const path = (standard: string, about: string, extra?: Extra) =>
  make(matching(/^[^\0]*$/, "a path"), "text", standard, "a path", about, extra)

const hostPattern = /^([A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45})$/
const address = (standard: string, about: string, extra?: Extra) =>
  make(
    matching(hostPattern, "an IP address or a host name"),
    "text",
    standard,
    "an IP address or a host name",
    about,
    extra
  )
const addressOrNone = (about: string, extra?: Extra) => {
  const expected = 'an IP address, a host name, or ""'
  const pattern = new RegExp(`^$|${hostPattern.source}`)
  return make(matching(pattern, expected), "text", "", expected, about, extra)
}
const endpoint = (about: string, extra?: Extra) => {
  const expected = 'an address with a port, 10.0.0.1:9090, or ""'
  return make(matching(/^$|^\S{1,253}:\d{1,5}$/, expected), "text", "", expected, about, extra)
}

const endpoints = (about: string, extra?: Extra) => {
  const expected = 'addresses with ports and commas between, 10.0.0.1:9090,nodes.example:9090, or ""'
  const pattern = /^$|^[^\s,]{1,253}:\d{1,5}(,[^\s,]{1,253}:\d{1,5}){0,63}$/
  return make(matching(pattern, expected), "text", "", expected, about, extra)
}

const labelsExpected = "labels: names a-z 0-9 - with texts of up to 128 characters"
const labels = Schema.Record(Schema.String, Schema.String).check(
  Schema.makeFilter(
    (all: Readonly<Record<string, string>>) =>
      Object.entries(all).every(([name, value]) => Schema.is(Name)(name) && value.length <= 128),
    { expected: labelsExpected }
  )
)

const nodeId = Schema.String.check(
  Schema.isPattern(/^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$/, {
    expected: 'a name of 1 to 63 characters a-z, 0-9 and -, or "" for the name of this machine'
  })
)

const second = 1000
const hour = 3_600_000
const notBuilt = { built: false }

export const keys = {
  "system.node_id": make(
    nodeId,
    "text",
    "",
    'a name of a-z, 0-9 and -, or ""',
    'Name of this node and of its host; "" takes the name of the machine.',
    { variables: ["NOVACRON_NODE_ID"] }
  ),
  "system.data_dir": path(
    "",
    'Where the journal, certificates, machines and the token lie; "" is $XDG_STATE_HOME/novacron, for root /var/lib/novacron.',
    { variables: ["NOVACRON_DATA_DIR"] }
  ),
  "system.log_level": choice(["debug", "info", "warn", "error"], "info", "Least level that is logged.", {
    variables: ["NOVACRON_LOG_LEVEL"]
  }),
  "system.max_concurrency": number(1, 100_000, 1000, "Requests that the API answers at the same time."),
  "system.health_check_port": number(
    1,
    65_535,
    8080,
    "Port of the health check; GET /health of the API serves it, a port of its own is not built.",
    notBuilt
  ),
  "system.shutdown_timeout": duration([second, hour], "30s", "How long an orderly end may take."),

  "hypervisor.driver": choice(
    ["qemu", "sim"],
    "qemu",
    "What runs the machines; sim runs none and says so everywhere."
  ),
  "hypervisor.sim_hosts": number(1, 1000, 2, "How many hosts the driver sim simulates: sim-1, sim-2, …"),
  "hypervisor.image_dir": path("", 'Folder of base images, kernels and initrds; "" is images in data_dir.'),
  "hypervisor.shared_dir": path(
    "",
    'Folder that all hosts see, for disks with storage: shared; "" where there is none.'
  ),
  "hypervisor.labels": make(labels, "labels", {}, labelsExpected, "Labels of this host, for placement."),

  "api.enable": boolean(true, "Serve the HTTP API."),
  "api.listen_address": address("127.0.0.1", "Address of the API; beyond loopback only with TLS."),
  "api.port": number(0, 65_535, 7070, "Port of the API; 0 takes a free one."),
  "api.socket": path("", 'Unix socket for the API instead of an address; "" for none.'),
  "api.token_file": path("", 'File of the API\'s token, made at first start; "" is api-token in data_dir.'),
  "api.tls_certificate": path("", 'PEM file with the certificate chain of the API; "" for none.'),
  "api.tls_key": path("", 'PEM file with the key of that certificate; "" for none.'),

  "cluster.join": endpoints(
    'Nodes with a kernel by their links\' addresses, of which one that answers is joined; "" starts a cluster of its own.'
  ),
  "cluster.join_token_file": path("", "File with the join token that the other node gave out."),
  "cluster.voter": boolean(
    false,
    "Take part in deciding: a kernel, a journal and an API here too. Without a node to join it founds a cluster that others can join so."
  ),
  "cluster.advertise_address": endpoint(
    'Where others reach this node\'s link; "" is network.listen_address and bind_port.'
  ),

  "cluster.lost_after": duration(
    [second, hour],
    "10s",
    "A host whose link is down for so long is lost: it gets no machines until it registers again."
  ),
  "cluster.unreachable_timeout": duration(
    [second, hour],
    "30s",
    "A host out of reach for so long fails what it was asked to do; a migration is then rolled back or finished."
  ),
  "cluster.fencing": choice(
    ["auto", "on", "off"],
    "auto",
    "Hold a lease for this host: its machines that may be restarted elsewhere end when it runs out, and start elsewhere then; auto: where several nodes have a kernel."
  ),
  "cluster.host_lease": duration(
    [second, hour],
    "30s",
    "How long this host's machines go on when it can reach no node that leads; a lost host is fenced a little later."
  ),
  "cluster.recovery_concurrency": number(
    1,
    1000,
    8,
    "Machines of fenced hosts that are on their way to other hosts at the same time."
  ),
  "cluster.fencing_lost_max": number(
    1,
    100,
    50,
    "With more than this share of the hosts lost, in percent, none is fenced: then it may be this side that is cut off."
  ),

  "gossip.enable": choice(
    ["auto", "on", "off"],
    "auto",
    "Notice by gossip over UDP which nodes are there; auto: where the node is part of a cluster."
  ),
  "gossip.listen_address": addressOrNone('Address of the gossip; "" is that of network.listen_address.'),
  "gossip.bind_port": number(
    0,
    65_535,
    0,
    "UDP port of the gossip; 0 takes the number that the link's port has."
  ),
  "gossip.advertise_address": endpoint(
    'Where others reach this node\'s gossip; "" is the host of cluster.advertise_address, or where it listens.'
  ),
  "gossip.seeds": endpoints(
    "Where other members may be, beside those that the node joined tells; a DNS name stands for all its addresses."
  ),
  "gossip.mdns": boolean(
    false,
    "Look for members, and be found, by multicast DNS on the network of that address."
  ),
  "gossip.period": duration(
    [100, 60 * second],
    "1s",
    "One member is probed in each; what else takes time in the gossip takes it in proportion."
  ),
  "gossip.fanout": number(1, 64, 3, "News is told to so many members at a time."),
  "gossip.discovery_interval": duration(
    [second, hour],
    "5s",
    "How often names are looked up again, and the node joined is asked again while nobody is met."
  ),

  "dwcp.enable_auto_detection": boolean(
    true,
    "Choose the network mode of a link from what is measured on it."
  ),
  "dwcp.forced_mode": choice(
    ["", "datacenter", "internet", "hybrid"],
    "",
    'Use this network mode whatever is measured; "" for none.',
    { variables: ["NOVACRON_DWCP_MODE"] }
  ),
  "dwcp.detection_interval": duration([second, hour], "30s", "Time between two measurements of a link."),
  "dwcp.v3_rollout_percentage": number(0, 100, 0, "Share of the transfers that use DWCP v3.", notBuilt),
  "dwcp.enable_v3_transport": boolean(false, "Multi-stream transport (AMST).", notBuilt),
  "dwcp.enable_v3_compression": boolean(false, "Delta encoding and compression (HDE).", notBuilt),
  "dwcp.enable_v3_prediction": boolean(false, "Bandwidth prediction (PBA).", notBuilt),
  "dwcp.enable_v3_state_sync": boolean(false, "State synchronisation between sites (ASS).", notBuilt),
  "dwcp.enable_v3_consensus": boolean(false, "Adaptive consensus (ACP).", notBuilt),
  "dwcp.enable_v3_placement": boolean(false, "Learned placement (ITP).", notBuilt),
  "dwcp.transport.min_streams": number(1, 512, 4, "Fewest streams of a transfer.", notBuilt),
  "dwcp.transport.max_streams": number(1, 512, 256, "Most streams of a transfer.", notBuilt),
  "dwcp.transport.stream_timeout": duration([second, hour], "60s", "A silent stream is given up.", notBuilt),
  "dwcp.transport.enable_rdma": choice(["auto", "true", "false"], "auto", "Use RDMA where it is.", notBuilt),
  "dwcp.transport.congestion_algo": choice(
    ["bbr", "cubic", "adaptive"],
    "bbr",
    "Congestion control.",
    notBuilt
  ),
  "dwcp.compression.algorithm": choice(
    ["none", "lz4", "zstd", "zstd-max"],
    "zstd",
    "Compression of transfers.",
    notBuilt
  ),
  "dwcp.compression.level": number(1, 22, 3, "Level of zstd.", notBuilt),
  "dwcp.compression.enable_delta": boolean(true, "Send differences to what the other side has.", notBuilt),
  "dwcp.compression.enable_ml_model": boolean(
    true,
    "Choose the compression of a block by a model.",
    notBuilt
  ),
  "dwcp.consensus.protocol": choice(["raft", "epaxos", "pbft"], "raft", "Consensus of a cluster.", notBuilt),
  "dwcp.consensus.heartbeat_interval": duration([10, hour], "500ms", "Time between heartbeats."),
  "dwcp.consensus.election_timeout": duration(
    [50, hour],
    "5s",
    "Silence after which voters choose another leader; each waits up to twice as long."
  ),
  "dwcp.consensus.lease_drift": number(
    0,
    50,
    0,
    "By how much, in percent, voters' clocks may run apart; above 0 a leader answers reads by its lease, without asking the others. The same at all voters (ADR 12); 0 asks a majority for each read."
  ),
  "dwcp.consensus.byzantine_tolerance": boolean(false, "Tolerate nodes that lie.", notBuilt),

  "network.listen_address": address("127.0.0.1", "Address of the link that other nodes connect to."),
  "network.bind_port": number(0, 65_535, 9090, "Port of the link; 0 takes a free one."),
  "network.max_connections": number(1, 1_000_000, 10_000, "Connections that the API holds at the same time."),
  "network.enable_tls": boolean(true, "Mutual TLS between nodes; a link without it is not built.", notBuilt),

  "storage.backend": choice(["sqlite"], "sqlite", "Where the journal is kept."),
  "storage.max_connections": number(1, 10_000, 100, "Connections to a database server.", notBuilt),
  "storage.enable_cache": boolean(true, "Keep actors in memory.", notBuilt),

  "monitoring.enable_metrics": boolean(true, "Serve GET /metrics of the API.", notBuilt),
  "monitoring.metrics_port": number(
    1,
    65_535,
    9091,
    "Port of the metrics; GET /metrics of the API serves them, a port of its own is not built.",
    notBuilt
  ),
  "monitoring.enable_tracing": boolean(false, "Send OpenTelemetry traces.", notBuilt),

  "security.enable_auth": boolean(true, "Ask for a token at the API.", notBuilt),
  "security.auth_method": choice(["mtls"], "mtls", "How nodes prove who they are."),
  "security.enable_encryption": boolean(true, "Encrypt what goes between nodes.", notBuilt)
} as const satisfies Readonly<Record<string, Key<any>>>

export type KeyPath = keyof typeof keys
export const keyPaths = Object.keys(keys) as ReadonlyArray<KeyPath>
export const keyAt = (at: KeyPath): Key<unknown> => keys[at] as Key<unknown>

type Flat = { readonly [P in KeyPath]: (typeof keys)[P] extends Key<infer A> ? A : never }
type Heads<T> = keyof T extends infer K ? (K extends `${infer H}.${string}` ? H : never) : never
type Tails<T, H extends string> = { readonly [K in keyof T as K extends `${H}.${infer R}` ? R : never]: T[K] }
type Nested<T> = { readonly [K in keyof T as K extends `${string}.${string}` ? never : K]: T[K] } & {
  readonly [H in Heads<T>]: Nested<Tails<T, H>>
}

/** The configuration as the program uses it: `config.system.node_id`; durations in milliseconds. */
export type Config = Nested<Flat>

/** Variables of the environment that belong to the commands and not to the configuration. */
export const reservedVariables: ReadonlySet<string> = new Set([
  "NOVACRON_CONFIG",
  "NOVACRON_URL",
  "NOVACRON_TOKEN",
  "NOVACRON_TOKEN_FILE",
  "NOVACRON_SETUP"
])

/** `NOVACRON_DWCP_FORCED_MODE`, and the short ones. */
export const variablesOf = (at: KeyPath): ReadonlyArray<string> => [
  `NOVACRON_${at.toUpperCase().replaceAll(".", "_")}`,
  ...keyAt(at).variables
]
