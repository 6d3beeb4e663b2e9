/** A large fleet for a week: how many hosts in which racks and sites, and what is done to them and happens to them. */
import type { RebalancePolicy } from "../../src/events/rebalancer.ts"

export interface ScaleOptions {
  readonly hosts: number
  readonly machines: number
  readonly hostsPerRack: number
  readonly sites: number
  readonly days: number
  /** In this time the machines of the beginning are created. */
  readonly fillHours: number
  /** Arrivals in the whole time after that, and as many departures. */
  readonly arrivals: number
  /** Hosts that fail once, each for itself. */
  readonly hostFailures: number
  readonly rackFailures: number
  readonly siteFailures: number
  /** So long is the lease that hosts are given; each has a watcher. */
  readonly leaseMs: number
  /** Machines that are on their way from fenced hosts to others at the same time. */
  readonly recovering_max: number
  /** Of machines, the share whose disk lies on one host alone; the others start elsewhere when theirs is fenced. */
  readonly localDisks: number
  /** From when all machines are there until an hour before the end. */
  readonly rebalance: RebalancePolicy
  /** Every host is drained, upgraded and activated once, so many at the same time. */
  readonly upgradesAtOnce: number
  readonly host: { readonly cpus: number; readonly memoryMib: number; readonly diskMib: number }
  /** Of a machine, in GiB, each as likely as the others. */
  readonly memoryGib: ReadonlyArray<number>
}

/** Ten machines to a host; each host sees one arrival and one departure a week and one upgrade, and 1 % of them fail. */
export const scaleOf = (hosts: number, days = 7): ScaleOptions => ({
  hosts,
  machines: hosts * 10,
  hostsPerRack: 40,
  sites: 10,
  days,
  fillHours: 12,
  arrivals: hosts,
  hostFailures: Math.max(1, Math.round(hosts / 100)),
  rackFailures: 2,
  siteFailures: 1,
  leaseMs: 15_000,
  recovering_max: 64,
  localDisks: 0.2,
  rebalance: {
    shadow: false,
    everyMs: 900_000,
    marginPercent: 15,
    hold: 2,
    movesAtOnce: 4,
    cooldownMs: 6 * 3_600_000,
    moveTimeoutMs: 1_800_000
  },
  upgradesAtOnce: Math.max(1, Math.round(hosts / 500)),
  host: { cpus: 64, memoryMib: 262_144, diskMib: 16_777_216 },
  memoryGib: [4, 8, 16, 16, 24, 32, 40]
})
