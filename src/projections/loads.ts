/** What hosts have promised of themselves, for who evens it out (`src/actors/rebalancer/`). */
import { capacity } from "../events/feasibility.ts"
import type { Needs } from "../events/host.ts"
import type { HostLoad, Loads } from "../events/rebalancer.ts"
import type { HostRow, Inventory, VmRow } from "./inventory.ts"

/** Of a host's machines, the largest. */
const machines_max = 64

/** In percent of the scarcer of both. */
function percentOf(host: HostRow, { cpus, memoryMib }: Needs): number {
  const share = (what: "cpus" | "memoryMib", used: number) => used / Math.max(1, capacity(what, host))
  return 100 * Math.max(share("cpus", cpus), share("memoryMib", memoryMib))
}

const without = (all: Needs, { cpus, memoryMib }: Pick<Needs, "cpus" | "memoryMib">): Needs => ({
  ...all,
  cpus: all.cpus - cpus,
  memoryMib: all.memoryMib - memoryMib
})

/** A machine that leaves has its room on both hosts until it has left; here it is counted where it goes. */
function staying(
  host: HostRow,
  { vms }: Inventory
): { readonly used: Needs; readonly rows: ReadonlyArray<VmRow> } {
  let { used } = host
  const rows: Array<VmRow> = []
  for (const name of host.vms) {
    const row = vms.get(name)
    if (row === undefined || row.host !== host.name) continue
    if (row.migration !== null) used = without(used, row.spec)
    else rows.push(row)
  }
  return { used, rows }
}

function loadOf(host: HostRow, inventory: Inventory): HostLoad {
  const { used, rows } = staying(host, inventory)
  const percent = percentOf(host, used)
  const machines = rows
    .filter(({ state, operation }) => state === "running" && operation === null)
    .map(({ name, spec }) => ({
      vm: name,
      percent: percent - percentOf(host, without(used, spec)),
      memoryMib: spec.memoryMib
    }))
    .sort((a, b) => b.memoryMib - a.memoryMib || (a.vm < b.vm ? -1 : 1))
  return { host: host.name, percent, machines: machines.slice(0, machines_max) }
}

/** The hosts that are up, and of them the `most` that have promised most; ties go to the name that sorts first. */
export function loadsOf(inventory: Inventory, most: number): Omit<Loads, "position"> {
  const shares: Array<{ readonly row: HostRow; readonly percent: number }> = []
  let sum = 0
  for (const row of inventory.hosts.values()) {
    if (row.state !== "up") continue
    const percent = percentOf(row, staying(row, inventory).used)
    sum += percent
    shares.push({ row, percent })
  }
  shares.sort((a, b) => b.percent - a.percent || (a.row.name < b.row.name ? -1 : 1))
  return {
    hosts: shares.length,
    meanPercent: sum / Math.max(1, shares.length),
    most: shares.slice(0, most).map(({ row }) => loadOf(row, inventory))
  }
}
