/** No host's room is promised twice, and every promise is kept for somebody. */
import { cpuOvercommit } from "../../src/events/host.ts"
import { hostsOf, vmsOf } from "./fleet.ts"
import type { Seen } from "./fleet.ts"
import { Violation } from "./violation.ts"

/** At any time. Summed up here once more: what is checked must not check itself. */
export function isNotOvercommitted(seen: Seen): void {
  for (const { name, facts, reservations } of hostsOf(seen)) {
    if (facts === null) continue
    const sum = { cpus: 0, memoryMib: 0, diskMib: 0 }
    for (const { needs } of Object.values(reservations)) {
      sum.cpus += needs.cpus
      sum.memoryMib += needs.memoryMib
      sum.diskMib += needs.diskMib
    }
    if (
      sum.cpus > facts.cpus * cpuOvercommit ||
      sum.memoryMib > facts.memoryMib ||
      sum.diskMib > facts.diskMib
    )
      throw new Violation("capacity", `${name} has promised ${JSON.stringify(sum)}, more than it has`)
  }
}

/** When all is quiet: each machine has the room that its decision reserved, and nobody else has any. */
export function holdsWhatIsUsed(seen: Seen): void {
  const held = new Map<string, string>()
  for (const { name, reservations } of hostsOf(seen))
    for (const [reservation, { vm }] of Object.entries(reservations)) held.set(`${name} ${reservation}`, vm)
  for (const { vm, context } of vmsOf(seen)) {
    if (context.host === null) continue
    const key = `${context.host} ${context.decision}`
    if (held.get(key) !== vm)
      throw new Violation("capacity", `${vm} is on ${context.host} without room there`)
    held.delete(key)
  }
  for (const [key, vm] of held)
    throw new Violation("capacity", `${key} is reserved for ${vm}, which is not there`)
}
