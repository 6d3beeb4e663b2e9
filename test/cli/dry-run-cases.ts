/** Arguments for every command that changes something, of the API and of the command line. */
import * as fc from "fast-check"

export interface Names {
  readonly vms: ReadonlyArray<string>
  readonly hosts: ReadonlyArray<string>
  readonly migrations: ReadonlyArray<string>
}

export interface Asked {
  readonly path: string
  readonly body?: unknown
}

export const snapshots = ["first", "second"] as const

/** Names of what is there, of what is not, and now and then of what can't be. */
const nameOf = (known: ReadonlyArray<string>) =>
  fc.oneof(
    { weight: 12, arbitrary: fc.constantFrom(...known) },
    { weight: 2, arbitrary: fc.constantFrom("nobody", "a".repeat(63)) },
    { weight: 1, arbitrary: fc.constantFrom("No-Name", "-", "a".repeat(64)) }
  )

const maybe = <A>(arbitrary: fc.Arbitrary<A>) => fc.option(arbitrary, { nil: undefined })
const reason = fc.string({ maxLength: 40 })
const snapshot = fc.record({ snapshot: fc.constantFrom(...snapshots) })

/** Most of them can be placed; some need more than any host has, or a place beside a machine that is nowhere. */
export const specs = (names: Names) =>
  fc.record(
    {
      cpus: fc.oneof({ weight: 6, arbitrary: fc.integer({ min: 1, max: 4 }) }, fc.constantFrom(0, 70, 256)),
      memoryMib: fc.oneof({ weight: 6, arbitrary: fc.integer({ min: 64, max: 512 }) }, fc.constant(400_000)),
      machine: fc.constantFrom("pc", "q35"),
      disks: fc.oneof(
        fc.constant([]),
        fc.constant([{ name: "root", sizeMib: 16 }]),
        fc.constant([
          { name: "root", sizeMib: 16 },
          { name: "data", sizeMib: 32 }
        ])
      ),
      labels: fc.dictionary(fc.constantFrom("tier", "team"), fc.string({ maxLength: 8 })),
      antiAffinity: fc.subarray([...names.vms], { maxLength: 2 }),
      affinity: fc.subarray([...names.vms], { maxLength: 1 }),
      onCrash: fc.constantFrom("restart", "stop")
    },
    { requiredKeys: [] }
  )

const policies = fc.record(
  {
    downtimeBudgetMs: fc.integer({ min: 1, max: 600_000 }),
    bandwidthBytesPerSecond: fc.constantFrom(0, 100_000_000),
    throttle: fc.boolean(),
    timeoutMs: fc.integer({ min: 30_000, max: 600_000 })
  },
  { requiredKeys: [] }
)

const onVm = (names: Names, rest: string) =>
  nameOf(names.vms).map((name): Asked => ({ path: `/v1/vms/${name}/${rest}` }))
const withBody = (path: fc.Arbitrary<string>, body: fc.Arbitrary<unknown>) =>
  fc
    .record({ path, body: maybe(body) })
    .map((asked): Asked => (asked.body === undefined ? { path: asked.path } : asked))
const vmPath = (names: Names, rest: string) => nameOf(names.vms).map((name) => `/v1/vms/${name}/${rest}`)

type Case = (names: Names) => fc.Arbitrary<Asked>

const decider = (what: "remove" | "lead") =>
  fc.constantFrom("node-1", "nobody").map((name) => `/v1/cluster/nodes/${name}/${what}`)

/** By `group.endpoint`. An endpoint that changes something and is not here fails the test. */
export const apiCases: Readonly<Record<string, Case>> = {
  "vms.create": (names) =>
    fc
      .record(
        { name: nameOf(names.vms), spec: specs(names), host: nameOf(names.hosts), start: fc.boolean() },
        { requiredKeys: ["name", "spec"] }
      )
      .map((body) => ({ path: "/v1/vms", body })),
  "vms.delete": (names) => nameOf(names.vms).map((name) => ({ path: `/v1/vms/${name}` })),
  "vms.start": (names) => onVm(names, "start"),
  "vms.stop": (names) =>
    fc
      .tuple(onVm(names, "stop"), fc.constantFrom("", "?force=true", "?force=false", "?force=maybe"))
      .map(([asked, query]) => ({ path: asked.path + query })),
  "vms.pause": (names) => onVm(names, "pause"),
  "vms.resume": (names) => onVm(names, "resume"),
  "vms.reboot": (names) => onVm(names, "reboot"),
  "vms.clone": (names) =>
    withBody(
      vmPath(names, "clone"),
      fc.record(
        { name: nameOf(names.vms), snapshot: fc.constantFrom(...snapshots), start: fc.boolean() },
        { requiredKeys: ["name"] }
      )
    ),
  "vms.snapshot": (names) => withBody(vmPath(names, "snapshots"), snapshot),
  "vms.restore": (names) => withBody(vmPath(names, "restore"), snapshot),
  "vms.migrate": (names) =>
    withBody(
      vmPath(names, "migrate"),
      fc.record({ to: nameOf(names.hosts), policy: policies, reason }, { requiredKeys: [] })
    ),
  "vms.console": (names) =>
    withBody(
      vmPath(names, "console"),
      fc.record({ readOnly: fc.boolean(), force: fc.boolean() }, { requiredKeys: [] })
    ),
  "hosts.drain": (names) =>
    withBody(
      nameOf(names.hosts).map((name) => `/v1/hosts/${name}/drain`),
      fc.record({ reason }, { requiredKeys: [] })
    ),
  "hosts.activate": (names) => nameOf(names.hosts).map((name) => ({ path: `/v1/hosts/${name}/activate` })),
  "hosts.confirmOff": (names) =>
    withBody(
      nameOf(names.hosts).map((name) => `/v1/hosts/${name}/confirm-off`),
      fc.record({ reason }, { requiredKeys: [] })
    ),
  // It looks at the hosts, and says so, after so long: not while this is compared.
  "rebalancer.start": () =>
    withBody(
      fc.constant("/v1/rebalancer/start"),
      fc.record(
        {
          everyMs: fc.integer({ min: 3_600_000, max: 86_400_000 }),
          shadow: fc.boolean(),
          hold: fc.integer({ min: 1, max: 9 })
        },
        { requiredKeys: ["everyMs"] }
      )
    ),
  "rebalancer.stop": () =>
    withBody(fc.constant("/v1/rebalancer/stop"), fc.record({ reason }, { requiredKeys: [] })),
  "cluster.remove": () => withBody(decider("remove"), fc.record({ reason }, { requiredKeys: [] })),
  "cluster.rotateKey": () =>
    withBody(fc.constant("/v1/cluster/gossip-key/rotate"), fc.record({ reason }, { requiredKeys: [] })),
  "cluster.lead": () => withBody(decider("lead"), fc.record({ reason }, { requiredKeys: [] })),
  "authority.makeToken": () =>
    fc
      .record(
        {
          token: fc.oneof(fc.stringMatching(/^[0-9a-f]{64}$/), fc.constantFrom("no hash", "a".repeat(64))),
          node: fc.constantFrom(null, "node-7", "No-Name"),
          votes: fc.boolean(),
          lifetimeMs: fc.constantFrom(60_000, 3_600_000, 0),
          reason
        },
        { requiredKeys: ["token"] }
      )
      .map((body) => ({ path: "/v1/authority/tokens", body })),
  "authority.revoke": () =>
    withBody(
      fc.constantFrom("nobody", "No-Name").map((name) => `/v1/authority/names/${name}/revoke`),
      fc.record({ reason }, { requiredKeys: [] })
    ),
  "migrations.cancel": (names) =>
    withBody(
      nameOf(names.migrations).map((name) => `/v1/migrations/${name}/cancel`),
      fc.record({ reason }, { requiredKeys: [] })
    )
}

/** Endpoints that are asked by POST and change nothing: computing over the journal. */
export const apiReads: ReadonlyArray<string> = ["journal.verify"]

export interface CliNames extends Names {
  /** A configuration of the node, and one of a folder without an authority. */
  readonly config: string
  readonly emptyConfig: string
  readonly folder: string
}

type CliCase = (names: CliNames) => fc.Arbitrary<ReadonlyArray<string>>

const on = (names: Names, ...before: ReadonlyArray<string>) =>
  nameOf(names.vms)
    .filter((name) => !name.startsWith("-"))
    .map((name) => [...before, name])
const flag = (...words: ReadonlyArray<string>) => fc.constantFrom<ReadonlyArray<string>>([], words)
const joined = (...parts: ReadonlyArray<fc.Arbitrary<ReadonlyArray<string>>>) =>
  fc.tuple(...parts).map((all) => all.flat())
const wait = fc.constantFrom<ReadonlyArray<string>>([], ["--wait"], ["--wait", "--wait-timeout", "1s"])
const host = (names: Names) => fc.constantFrom(...names.hosts, "nobody")
const text = fc.constantFrom("", "maintenance", "two words", "\u001b[2J")

/** By the command's words. A command with `--dry-run` that is not here fails the test. */
export const cliCases: Readonly<Record<string, CliCase>> = {
  "vm create": (names) =>
    joined(
      on(names, "vm", "create"),
      fc.integer({ min: 1, max: 80 }).map((cpus) => ["--cpus", String(cpus)]),
      flag("--disk", "16"),
      flag("--machine", "q35"),
      flag("--start"),
      host(names).chain((name) => flag("--host", name)),
      wait
    ),
  "vm start": (names) => joined(on(names, "vm", "start"), wait),
  "vm stop": (names) => joined(on(names, "vm", "stop"), flag("--force"), wait),
  "vm pause": (names) => joined(on(names, "vm", "pause"), wait),
  "vm resume": (names) => joined(on(names, "vm", "resume"), wait),
  "vm reboot": (names) => joined(on(names, "vm", "reboot"), wait),
  "vm delete": (names) => joined(on(names, "vm", "delete"), flag("--yes"), wait),
  "vm clone": (names) => joined(on(names, "vm", "clone"), on(names), flag("--snapshot", "first"), wait),
  "vm console": (names) => joined(on(names, "vm", "console"), flag("--read-only"), flag("--force")),
  "vm snapshot": (names) => joined(on(names, "vm", "snapshot"), fc.constantFrom(["first"], ["third"]), wait),
  "vm restore": (names) => joined(on(names, "vm", "restore"), fc.constantFrom(["first"], ["third"]), wait),
  "host drain": (names) =>
    joined(
      host(names).map((name) => ["host", "drain", name]),
      text.chain((reason) => flag("--reason", reason)),
      wait
    ),
  "host confirm-off": (names) =>
    joined(
      host(names).map((name) => ["host", "confirm-off", name]),
      text.chain((reason) => flag("--reason", reason)),
      flag("--yes"),
      wait
    ),
  "host activate": (names) => host(names).map((name) => ["host", "activate", name]),
  "rebalance start": () =>
    joined(
      fc.constant(["rebalance", "start", "--every", "20h"]),
      flag("--shadow"),
      flag("--margin", "12"),
      flag("--cooldown", "2h"),
      wait
    ),
  "rebalance stop": () =>
    joined(
      fc.constant(["rebalance", "stop"]),
      text.chain((reason) => flag("--reason", reason)),
      wait
    ),
  "cluster remove": () =>
    joined(
      fc.constant(["cluster", "remove", "node-1"]),
      text.chain((reason) => flag("--reason", reason)),
      wait
    ),
  "cluster rotate-gossip-key": () =>
    joined(
      fc.constant(["cluster", "rotate-gossip-key"]),
      text.chain((reason) => flag("--reason", reason)),
      wait
    ),
  "cluster lead": () =>
    joined(fc.constantFrom(["cluster", "lead", "node-1"], ["cluster", "lead", "nobody"]), wait),
  migrate: (names) =>
    joined(
      on(names, "migrate"),
      host(names).chain((name) => flag("--to", name)),
      flag("--check"),
      flag("--post-copy"),
      flag("--no-throttle"),
      flag("--bandwidth", "100Mbit"),
      flag("--downtime-budget", "50ms"),
      wait
    ),
  "migration cancel": (names) =>
    joined(
      fc.constantFrom(...names.migrations, "nobody").map((id) => ["migration", "cancel", id]),
      fc.constantFrom([], ["--force"]),
      text.chain((reason) => flag("--reason", reason))
    ),
  "ca init": (names) =>
    fc.constantFrom(names.config, names.emptyConfig).map((config) => ["ca", "init", "--config", config]),
  "ca token": () =>
    joined(
      fc.constant(["ca", "token"]),
      flag("--voter"),
      text.chain((reason) => flag("--reason", reason)),
      fc.constantFrom("node-7", "No-Name").chain((name) => flag("--node", name)),
      flag("--lifetime", "5m")
    ),
  "ca revoke": () =>
    joined(
      fc.constantFrom(["ca", "revoke", "nobody"], ["ca", "revoke", "node-1"], ["ca", "revoke", "node-2"]),
      text.chain((reason) => flag("--reason", reason)),
      wait
    ),
  "config generate": (names) =>
    joined(
      fc
        .constantFrom(names.config, `${names.folder}/new.yaml`, `${names.folder}/none/new.yaml`, names.folder)
        .map((file) => ["config", "generate", file]),
      flag("--force")
    )
}

/** Commands without `--dry-run`: they are run as they are, and have to change as little. */
export const cliReads: Readonly<Record<string, (names: CliNames) => ReadonlyArray<string>>> = {
  "vm list": () => ["vm", "list"],
  "vm ls": () => ["vm", "ls"],
  "vm show": ({ vms }) => ["vm", "show", vms[0] ?? ""],
  "host list": () => ["host", "list"],
  "ca names": () => ["ca", "names"],
  "ca tokens": () => ["ca", "tokens"],
  "cluster status": () => ["cluster", "status"],
  "cluster peers": () => ["cluster", "peers"],
  "host ls": () => ["host", "ls"],
  "host show": ({ hosts }) => ["host", "show", hosts[0] ?? ""],
  "migration list": () => ["migration", "list"],
  "migration ls": () => ["migration", "ls"],
  "migration show": ({ migrations }) => ["migration", "show", migrations[0] ?? ""],
  "rebalance show": () => ["rebalance", "show"],
  "migration watch": ({ migrations }) => ["migration", "watch", migrations[0] ?? ""],
  simulate: () => ["simulate", "raft", "--seed", "2"],
  why: ({ vms }) => ["why", vms[0] ?? ""],
  history: ({ vms }) => ["history", vms[0] ?? ""],
  replay: ({ vms }) => ["replay", vms[0] ?? ""],
  "audit list": () => ["audit", "list"],
  "audit verify": () => ["audit", "verify"],
  "config validate": ({ config }) => ["config", "validate", config],
  "config show": ({ config }) => ["config", "show", "--config", config],
  doctor: ({ config }) => ["doctor", "--config", config],
  completion: () => ["completion", "bash"]
}
