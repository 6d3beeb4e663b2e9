/** What a checker of a simulated fleet looks at: what the actors say, what the hypervisors have, what was recorded. */
import type { HostContext } from "../../src/actors/host/chart.ts"
import type { VmContext } from "../../src/actors/vm/requests.ts"
import { describe } from "../../src/kernel/statechart.ts"
import type { ActorState, Outstanding } from "../../src/kernel/turn.ts"
import type { StoredFact } from "../world/event-store.ts"
import type { Fleet } from "../world/hypervisor.ts"

export interface Seen {
  readonly fleet: Fleet
  readonly facts: ReadonlyArray<StoredFact>
  /** The actors in the memory of the kernel; none while it is down. */
  readonly actors: ReadonlyMap<string, ActorState>
}

export interface VmSeen {
  readonly vm: string
  readonly state: string
  readonly context: VmContext
  readonly outstanding: ReadonlyArray<Outstanding>
}

function* ofKind({ actors }: Seen, kind: string): Generator<ActorState> {
  for (const actor of actors.values()) if (actor.stream.startsWith(kind)) yield actor
}

/** The machines that there are: neither deleted nor only asked about. */
export function vmsOf(seen: Seen): ReadonlyArray<VmSeen> {
  return [...ofKind(seen, "vm/")].map(({ stream, chart, outstanding }) => ({
    vm: stream.slice("vm/".length),
    state: describe(chart),
    context: chart.context as VmContext,
    outstanding
  }))
}

export const hostsOf = (seen: Seen): ReadonlyArray<HostContext> =>
  [...ofKind(seen, "host/")].map(({ chart }) => chart.context as HostContext)

export const migrationsOf = (seen: Seen): ReadonlyArray<{ readonly id: string; readonly state: string }> =>
  [...ofKind(seen, "migration/")].map(({ stream, chart }) => ({ id: stream, state: describe(chart) }))
