/**
 * A host: what it offers, what of it is promised, and whether it takes part.
 *
 *   unknown ──register──▶ up ◀──activate── draining ◀──┐
 *                         ▲│ ──drain──────▶  │         │ register, when it was draining
 *                register ││                 │         │
 *                         │└──lose──▶ lost ◀─┘─────────┘
 *
 * A reservation is the only way to a host's room, and this actor is the only one to give it: two decisions made
 * from the same view can't both have the last gigabyte.
 */
import { assign, setup } from "xstate"
import { typesOf } from "../../events/envelope.ts"
import { HostCommand, HostFact } from "../../events/host.ts"
import type { HostFacts, Needs } from "../../events/host.ts"
import { recorder } from "../../kernel/actor.ts"
import type { ActorKind, Of, Stamped } from "../../kernel/actor.ts"

type Event = Stamped<HostCommand> | Stamped<HostFact>

export interface HostContext {
  readonly name: string
  readonly address: string
  readonly facts: HostFacts | null
  /** By reservation id. */
  readonly reservations: Readonly<Record<string, { readonly vm: string; readonly needs: Needs }>>
  readonly draining: boolean
}

/** Virtual CPUs promised per physical one; memory and disk are never promised twice. */
export const cpuOvercommit = 4

/** What all reservations of a host add up to. */
export function promised(reservations: HostContext["reservations"]): Needs {
  const sum = { cpus: 0, memoryMib: 0, diskMib: 0 }
  for (const { needs } of Object.values(reservations)) {
    sum.cpus += needs.cpus
    sum.memoryMib += needs.memoryMib
    sum.diskMib += needs.diskMib
  }
  return sum
}

function hasRoom(context: HostContext, event: Of<Event, "host.reserve">): boolean {
  if (context.reservations[event.reservation]) return true
  if (context.facts === null) return false
  const used = promised(context.reservations)
  return (
    used.cpus + event.needs.cpus <= context.facts.cpus * cpuOvercommit &&
    used.memoryMib + event.needs.memoryMib <= context.facts.memoryMib &&
    used.diskMib + event.needs.diskMib <= context.facts.diskMib
  )
}

const record = recorder<HostContext, Event, HostFact>()

const register = record("host.register", ({ event }) => ({
  type: "host.registered",
  name: event.stamp.self.slice("host/".length),
  address: event.address,
  facts: event.facts
}))
const stillDraining = record("host.register", () => ({
  type: "host.drained",
  reason: "it was draining before"
}))
const reserve = {
  guard: "hasRoom" as const,
  actions: record("host.reserve", ({ event }) => ({
    type: "host.reserved",
    reservation: event.reservation,
    vm: event.vm,
    needs: event.needs
  }))
}
const release = {
  actions: record("host.release", ({ event }) => ({
    type: "host.released",
    reservation: event.reservation,
    vm: event.vm
  }))
}
const lose = { actions: record("host.lose", ({ event }) => ({ type: "host.lost", reason: event.reason })) }

const chart = setup({
  types: { context: {} as HostContext, events: {} as Event, emitted: {} as HostFact },
  actions: {
    registered: assign(({ event }) => {
      const { name, address, facts } = event as Of<Event, "host.registered">
      return { name, address, facts }
    }),
    reserved: assign(({ context, event }) => {
      const { reservation, vm, needs } = event as Of<Event, "host.reserved">
      return { reservations: { ...context.reservations, [reservation]: { vm, needs } } }
    }),
    released: assign(({ context, event }) => {
      const { [(event as Of<Event, "host.released">).reservation]: _, ...reservations } = context.reservations
      return { reservations }
    })
  },
  guards: {
    hasRoom: ({ context, event }) => hasRoom(context, event as Of<Event, "host.reserve">),
    isDraining: ({ context }) => context.draining
  }
}).createMachine({
  id: "host",
  context: { name: "", address: "", facts: null, reservations: {}, draining: false },
  initial: "unknown",
  states: {
    unknown: {
      on: {
        "host.register": { actions: register },
        "host.registered": { target: "up", actions: "registered" }
      }
    },
    up: {
      on: {
        "host.register": { actions: register },
        "host.registered": { actions: "registered" },
        "host.reserve": reserve,
        "host.reserved": { actions: "reserved" },
        "host.release": release,
        "host.released": { actions: "released" },
        "host.drain": {
          actions: record("host.drain", ({ event }) => ({ type: "host.drained", reason: event.reason }))
        },
        "host.drained": { target: "draining", actions: assign({ draining: true }) },
        "host.lose": lose,
        "host.lost": { target: "lost" }
      }
    },
    draining: {
      on: {
        "host.register": { actions: register },
        "host.registered": { actions: "registered" },
        "host.release": release,
        "host.released": { actions: "released" },
        "host.activate": { actions: record("host.activate", () => ({ type: "host.activated" })) },
        "host.activated": { target: "up", actions: assign({ draining: false }) },
        "host.lose": lose,
        "host.lost": { target: "lost" }
      }
    },
    lost: {
      on: {
        "host.register": [{ guard: "isDraining", actions: [register, stillDraining] }, { actions: register }],
        "host.registered": { target: "up", actions: "registered" },
        "host.release": release,
        "host.released": { actions: "released" }
      }
    }
  }
})

export const hostActor: ActorKind = {
  kind: "host",
  chart,
  commands: typesOf(HostCommand),
  reports: [],
  facts: typesOf(HostFact),
  snapshotVersion: 1
}
