/** What a node's member of the gossip counts, for Prometheus: read when somebody asks. */
import { Counter, Gauge } from "prom-client"
import type { Registry } from "prom-client"
import type { Dropped, GossipCounts, GossipMember } from "./member.ts"

const drops: ReadonlyArray<Dropped> = [
  "malformed",
  "unknown-key",
  "forged",
  "stale",
  "replayed",
  "undecodable"
]
const statuses = ["alive", "suspect", "dead", "left"] as const

/** A counter that follows one that is kept elsewhere and only grows, from 0 with each new source. */
class Following {
  #last = 0

  next(value: number): number {
    const grown = value - this.#last
    this.#last = value
    return Math.max(0, grown)
  }
}

type Kept = ReadonlyArray<readonly [label: string, key: keyof GossipCounts]>

/** Register them; until there is a member they have no values. */
export function gossipGauges(registry: Registry, member: () => GossipMember | null): void {
  const members = new Gauge({
    name: "novacron_gossip_members",
    help: "Members of the gossip by status, as this node knows them",
    labelNames: ["status"],
    registers: [],
    collect() {
      const peers = member()?.peers()
      if (peers === undefined) return
      for (const status of statuses) this.set({ status }, peers.filter((one) => one.status === status).length)
    }
  })
  registry.registerMetric(members)
  const counter = (name: string, help: string, label: string, of: Kept) => {
    const seen = new Map(of.map(([value]) => [value, new Following()]))
    const metric = new Counter({
      name,
      help,
      labelNames: [label],
      registers: [],
      collect() {
        const counts = member()?.counts
        if (counts === undefined) return
        for (const [value, key] of of) this.inc({ [label]: value }, seen.get(value)?.next(counts[key]) ?? 0)
      }
    })
    registry.registerMetric(metric)
  }
  counter("novacron_gossip_datagrams_total", "Datagrams of the gossip, by what became of them", "way", [
    ["received", "received"],
    ["sent", "sent"],
    ["unsent", "unsent"]
  ])
  counter(
    "novacron_gossip_dropped_total",
    "Datagrams that came and were not taken, by the cause",
    "cause",
    drops.map((one) => [one, one] as const)
  )
  counter("novacron_gossip_probes_total", "Pings sent, for others too, and asked of others", "kind", [
    ["ping", "probes"],
    ["relay", "relayed"]
  ])
  counter(
    "novacron_gossip_suspicions_total",
    "Members that were suspected, and what came of it: refuted is a false alarm",
    "end",
    [
      ["suspected", "suspected"],
      ["refuted", "refuted"],
      ["failed", "failed"]
    ]
  )
}
