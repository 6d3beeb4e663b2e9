/** A node's place in the gossip, put together: where it listens, how quick it is, whom it asks for keys, and what it tells. */
import { X509Certificate } from "node:crypto"
import { lookup } from "node:dns/promises"
import { isIP } from "node:net"
import { networkInterfaces } from "node:os"
import { join } from "node:path"
import { existsSync } from "node:fs"
import { Effect } from "effect"
import { chooseMode } from "../actors/mode/decide.ts"
import { swimActor } from "../actors/swim/chart.ts"
import { wakesAtMs } from "../actors/swim/decide.ts"
import { lanSettings } from "../events/swim.ts"
import type { SwimSettings } from "../events/swim.ts"
import { Hypervisor } from "../kernel/ports/hypervisor.ts"
import { Link } from "../kernel/ports/link.ts"
import { spkiHash } from "../live/ca/certificate.ts"
import type { Config } from "../live/config.ts"
import { describeNode } from "../live/gossip/describing.ts"
import { addressText } from "../live/gossip/member.ts"
import { GossipNode } from "../live/gossip/node.ts"
import { noticePeers } from "../live/gossip/noticing.ts"
import { turnOverKeys } from "../live/gossip/rotation.ts"
import { parseAddress } from "../live/link/address.ts"
import { Endpoint } from "../live/link/endpoint.ts"
import { Identity } from "./up-parts.ts"
import type { Parts } from "./up-parts.ts"
import { refusing } from "./up-settings.ts"

const leaveMsMax = 10_000

/** memberlist's proportions of a LAN, for another period. */
export function gossipSettings({ period, fanout }: Config["gossip"]): SwimSettings {
  const scaled = (ms: number) => Math.max(1, Math.round((ms * period) / lanSettings.periodMs))
  return {
    ...lanSettings,
    periodMs: period,
    timeoutMs: scaled(lanSettings.timeoutMs),
    gossipEveryMs: scaled(lanSettings.gossipEveryMs),
    gossipTo: fanout,
    compareEveryMs: scaled(lanSettings.compareEveryMs),
    reconnectEveryMs: scaled(lanSettings.reconnectEveryMs),
    gossipToDeadMs: scaled(lanSettings.gossipToDeadMs),
    leaveMs: Math.min(leaveMsMax, scaled(lanSettings.leaveMs))
  }
}

const gossipFolder = ({ resolved }: Parts) => join(resolved.dataDir, "gossip")

/** Of an address of this machine, that others can send to. */
function reachable(host: string): string {
  if (host !== "0.0.0.0" && host !== "::") return host
  const own = Object.values(networkInterfaces())
    .flat()
    .find((one) => one !== undefined && !one.internal && one.family === (host === "::" ? "IPv6" : "IPv4"))
  return own?.address ?? (host === "::" ? "::1" : "127.0.0.1")
}

/** Where others reach it, by the port that it has. */
export function gossipAddress(
  { config }: Pick<Parts, "config">,
  listening: string
): (port: number) => string {
  const { advertise_address: told } = config.gossip
  if (told !== "") return () => told
  const host = parseAddress(config.cluster.advertise_address)?.host ?? reachable(listening)
  return (port) => addressText(host, port)
}

const addressOf = (name: string) =>
  isIP(name) !== 0
    ? Effect.succeed(name)
    : Effect.map(
        Effect.tryPromise(() => lookup(name)),
        ({ address }) => address
      )

export interface GossipOptions {
  /** Who may be asked for keys. */
  readonly kernels: () => ReadonlyArray<string>
  /** Makes the first key where nobody has one. */
  readonly founds: boolean
  /** The only kernel there is, which nobody may have joined yet. */
  readonly isAlone: boolean
}

/** Take part, unless the configuration says not to; null then. The member may come later, with the keys. */
export const takePartInGossip = Effect.fnUntraced(function* (parts: Parts, options: GossipOptions) {
  const { config, resolved } = parts
  const { gossip } = config
  if (gossip.enable === "off") return null
  const link = yield* Link
  const endpoint = yield* Endpoint
  const { node } = yield* Identity
  const folder = gossipFolder(parts)
  const linkPort = parseAddress(endpoint.address)?.port ?? 0
  const name = gossip.listen_address || config.network.listen_address
  const port = gossip.bind_port || linkPort
  const listening = refusing({
    key: "gossip.listen_address:bind_port",
    value: `${name}:${port}`,
    allowed: "an address of this machine and a free UDP port"
  })
  const host = yield* listening(addressOf(name))
  const place = new GossipNode(
    {
      actor: swimActor,
      wakesAtMs: wakesAtMs as never,
      settings: gossipSettings(gossip),
      node: resolved.nodeId,
      folder,
      cluster: spkiHash(new X509Certificate(node.ca).publicKey),
      listen: { host, port },
      takesAnyPort: gossip.bind_port === 0 && config.network.bind_port === 0,
      advertised: gossipAddress(parts, host),
      discovery: {
        seeds: gossip.seeds === "" ? [] : gossip.seeds.split(","),
        mdns: gossip.mdns ? reachable(host) : null,
        refreshMs: gossip.discovery_interval
      },
      kernels: options.kernels,
      founds: options.founds,
      isLate: options.isAlone && gossip.enable === "auto" && !existsSync(join(folder, "keys.json"))
    },
    link,
    yield* Effect.scope
  )
  // What lies in its files names itself.
  yield* place.begin().pipe(Effect.catchTag("GossipError", (error) => listening(Effect.fail(error))))
  yield* Effect.forkScoped(place.run())
  yield* Effect.forkScoped(tellOfItself(parts, place, options.kernels))
  return place
})

const tellOfItself = Effect.fnUntraced(function* (
  { config, resolved }: Parts,
  place: GossipNode,
  kernels: () => ReadonlyArray<string>
) {
  const hypervisor = yield* Effect.serviceOption(Hypervisor)
  const facts = hypervisor._tag === "None" ? null : yield* Effect.option(hypervisor.value.facts)
  const { cpus, memoryMib, diskMib } = facts?._tag === "Some" ? facts.value : {}
  const { forced_mode, detection_interval: intervalMs, enable_auto_detection: detects } = config.dwcp
  yield* describeNode({
    capacity:
      cpus === undefined || memoryMib === undefined || diskMib === undefined
        ? null
        : { cpus, memoryMib, diskMib },
    kernels: () => kernels().filter((name) => name !== resolved.nodeId),
    detects,
    intervalMs,
    modeOf: chooseMode,
    forced: forced_mode === "" ? null : forced_mode,
    describe: (description) => place.describe(description)
  })
})

/** At a node with a kernel: hand out the keys, have the journal know what is noticed, and turn keys over. */
export const noticeOthers = Effect.fnUntraced(function* (parts: Parts, place: GossipNode) {
  const { nodeId } = parts.resolved
  yield* place.serve()
  yield* Effect.forkScoped(noticePeers(place, { node: nodeId, periodMs: place.options.settings.periodMs }))
  yield* Effect.forkScoped(turnOverKeys(place, nodeId))
})
