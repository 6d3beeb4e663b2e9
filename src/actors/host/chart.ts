/**
 * A host: what it offers, what of it is promised, and whether it takes part.
 *
 *   unknown ──register──▶ up ◀──activate── draining ◀──┐
 *                         ▲│ ──drain──────▶  │         │ register, when it was draining
 *                register ││                 │         │
 *                         │└──lose──▶ lost ◀─┘─────────┘
 *                         └─register── fenced ◀─fence, confirmOff── lost
 *
 * A lost host may still run its machines. It is fenced when that can't be: when its lease has run out, or an operator says
 * that it is off. Only then do its machines start elsewhere. Until it registers again nothing is asked of it, and what was asked
 * before it was fenced is asked no more.
 *
 * A leftover is a machine that should have been removed from here when the host could not be asked. It is removed
 * when it is noted and, where that fails, at every registration; until then its name gets no room here.
 *
 * A reservation is the only way to a host's room, and this actor is the only one to give it: two decisions made
 * from the same view can't both have the last gigabyte.
 */
import { assign, setup } from "xstate"
import { typesOf } from "../../events/envelope.ts"
import type { Report, Request } from "../../events/requests.ts"
import { cpuOvercommit, HostCommand, HostFact } from "../../events/host.ts"
import type { HostFacts, Needs } from "../../events/host.ts"
import { recorder } from "../../kernel/actor.ts"
import type { ActorKind, Of, Stamped } from "../../kernel/actor.ts"

type Event = Stamped<HostCommand> | Stamped<Report> | Stamped<HostFact>

export interface HostContext {
  readonly name: string
  readonly address: string
  readonly facts: HostFacts | null
  /** By reservation id. */
  readonly reservations: Readonly<Record<string, { readonly vm: string; readonly needs: Needs }>>
  readonly draining: boolean
  /** What could not be removed when it should have been, by machine. */
  readonly leftovers: Readonly<Record<string, string>>
  /** The leftover that is being removed; one at a time. */
  readonly removing: string | null
  /** How often it was lost. */
  readonly losses: number
  /** Why it is not fenced, as it was last recorded; null when that was not asked yet. */
  readonly held: string | null
  /** When it was last fenced, in ms since the Unix epoch: what was asked of it until then is not asked again. */
  readonly fencedMs: number | null
}

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

/** Noted here is what was left behind, unless the machine has come back in the meantime. */
function leavesBehind(
  context: HostContext,
  { vm, reservation, leftover }: Of<Event, "host.release">
): boolean {
  const returned = Object.entries(context.reservations).some(
    ([id, one]) => id !== reservation && one.vm === vm
  )
  return leftover !== "" && !returned
}

/** The leftover to remove next, when `vm` is not one any more. */
const nextLeftover = ({ leftovers }: HostContext, vm: string | null): string | null =>
  Object.keys(leftovers).find((one) => one !== vm) ?? null

const mayRemove = (context: HostContext): boolean =>
  context.removing === null && nextLeftover(context, null) !== null

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
const removeLeftovers = record("host.register", ({ context }) => ({
  type: "host.leftoverRemoving",
  vm: nextLeftover(context, null) as string
}))
const registers = [
  { guard: "mayRemove" as const, actions: [register, removeLeftovers] },
  { actions: register }
]
const returns = [
  { guard: "isDrainingAndMayRemove" as const, actions: [register, stillDraining, removeLeftovers] },
  { guard: "isDraining" as const, actions: [register, stillDraining] },
  ...registers
]
const reserve = {
  guard: "hasRoomAndNoLeftover" as const,
  actions: record("host.reserve", ({ event }) => ({
    type: "host.reserved",
    reservation: event.reservation,
    vm: event.vm,
    needs: event.needs
  }))
}
const released = record("host.release", ({ event }) => ({
  type: "host.released",
  reservation: event.reservation,
  vm: event.vm
}))
const leftoverFound = record("host.release", ({ event }) => ({
  type: "host.leftoverFound",
  vm: event.vm,
  reason: event.leftover
}))
const leftoverRemoving = record("host.release", ({ event }) => ({
  type: "host.leftoverRemoving",
  vm: event.vm
}))
const release = [
  { guard: "leavesBehindWhileRemoving" as const, actions: [released, leftoverFound] },
  { guard: "leavesBehind" as const, actions: [released, leftoverFound, leftoverRemoving] },
  { actions: released }
]
const removed = record("hypervisor.removed", ({ context }) => ({
  type: "host.leftoverRemoved",
  vm: context.removing as string
}))
const removesNext = record("hypervisor.removed", ({ context }) => ({
  type: "host.leftoverRemoving",
  vm: nextLeftover(context, context.removing) as string
}))
/** In every state of a host that is known. */
const leftovers = {
  "host.release": release,
  "host.released": { actions: "released" as const },
  "host.leftoverFound": { actions: "leftoverFound" as const },
  "host.leftoverRemoving": {
    actions: [
      "leftoverRemoving" as const,
      {
        type: "request" as const,
        params: ({ context, event }: { context: HostContext; event: { vm: string } }): Request => ({
          port: "hypervisor",
          op: "remove",
          host: context.name,
          vm: event.vm,
          keepShared: true
        })
      }
    ]
  },
  "hypervisor.removed": [
    { guard: "moreLeftovers" as const, actions: [removed, removesNext] },
    { guard: "isRemoving" as const, actions: removed }
  ],
  "hypervisor.failed": {
    guard: "isRemoving" as const,
    actions: record("hypervisor.failed", ({ context, event }) => ({
      type: "host.leftoverKept",
      vm: context.removing as string,
      reason: event.reason
    }))
  },
  "host.leftoverRemoved": { actions: "leftoverRemoved" as const },
  "host.leftoverKept": { actions: "leftoverKept" as const }
}
const lose = { actions: record("host.lose", ({ event }) => ({ type: "host.lost", reason: event.reason })) }
const reportsLeaseEnd = {
  "host.reportLeaseEnd": {
    actions: record("host.reportLeaseEnd", ({ event }) => ({ type: "host.leaseRanOut", vms: event.vms }))
  },
  "host.leaseRanOut": {}
}
const fencing = {
  "host.fence": {
    guard: "isOfThisLoss" as const,
    actions: record("host.fence", ({ event }) => ({
      type: "host.fenced",
      reason: event.reason,
      evidence: event.evidence
    }))
  },
  "host.confirmOff": {
    actions: record("host.confirmOff", ({ event }) => ({
      type: "host.fenced",
      reason: event.reason,
      evidence: { by: "operator" }
    }))
  },
  "host.fenced": { target: "fenced" as const, actions: "fenced" as const },
  "host.holdFencing": {
    guard: "isNewReason" as const,
    actions: record("host.holdFencing", ({ event }) => ({ type: "host.fencingHeld", reason: event.reason }))
  },
  "host.fencingHeld": { actions: "held" as const }
}

const chart = setup({
  types: { context: {} as HostContext, events: {} as Event, emitted: {} as HostFact },
  actions: {
    request: (_, _params: Request) => {},
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
    }),
    leftoverFound: assign(({ context, event }) => {
      const { vm, reason } = event as Of<Event, "host.leftoverFound">
      return { leftovers: { ...context.leftovers, [vm]: reason } }
    }),
    leftoverRemoving: assign(({ event }) => ({ removing: (event as Of<Event, "host.leftoverRemoving">).vm })),
    leftoverRemoved: assign(({ context, event }) => {
      const { [(event as Of<Event, "host.leftoverRemoved">).vm]: _, ...rest } = context.leftovers
      return { leftovers: rest, removing: null }
    }),
    leftoverKept: assign(({ context, event }) => {
      const { vm, reason } = event as Of<Event, "host.leftoverKept">
      return { leftovers: { ...context.leftovers, [vm]: reason }, removing: null }
    }),
    lost: assign(({ context }) => ({ losses: context.losses + 1, held: null })),
    fenced: assign(({ event }) => ({ fencedMs: event.stamp.timeMs })),
    held: assign(({ event }) => ({ held: (event as Of<Event, "host.fencingHeld">).reason }))
  },
  guards: {
    hasRoomAndNoLeftover: ({ context, event }) => {
      const asked = event as Of<Event, "host.reserve">
      return context.leftovers[asked.vm] === undefined && hasRoom(context, asked)
    },
    isOfThisLoss: ({ context, event }) => (event as Of<Event, "host.fence">).loss === context.losses,
    isNewReason: ({ context, event }) => {
      const { loss, reason } = event as Of<Event, "host.holdFencing">
      return loss === context.losses && reason !== context.held
    },
    isDraining: ({ context }) => context.draining,
    isDrainingAndMayRemove: ({ context }) => context.draining && mayRemove(context),
    mayRemove: ({ context }) => mayRemove(context),
    isRemoving: ({ context }) => context.removing !== null,
    moreLeftovers: ({ context }) =>
      context.removing !== null && nextLeftover(context, context.removing) !== null,
    leavesBehindWhileRemoving: ({ context, event }) =>
      context.removing !== null && leavesBehind(context, event as Of<Event, "host.release">),
    leavesBehind: ({ context, event }) => leavesBehind(context, event as Of<Event, "host.release">)
  }
}).createMachine({
  id: "host",
  context: {
    ...{ name: "", address: "", facts: null, reservations: {}, draining: false },
    ...{ leftovers: {}, removing: null, losses: 0, held: null, fencedMs: null }
  },
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
        "host.register": registers,
        "host.registered": { actions: "registered" },
        "host.reserve": reserve,
        "host.reserved": { actions: "reserved" },
        ...leftovers,
        "host.drain": {
          actions: record("host.drain", ({ event }) => ({ type: "host.drained", reason: event.reason }))
        },
        "host.drained": { target: "draining", actions: assign({ draining: true }) },
        "host.lose": lose,
        "host.lost": { target: "lost", actions: "lost" },
        ...reportsLeaseEnd
      }
    },
    draining: {
      on: {
        "host.register": registers,
        "host.registered": { actions: "registered" },
        ...leftovers,
        "host.activate": { actions: record("host.activate", () => ({ type: "host.activated" })) },
        "host.activated": { target: "up", actions: assign({ draining: false }) },
        "host.lose": lose,
        "host.lost": { target: "lost", actions: "lost" },
        ...reportsLeaseEnd
      }
    },
    lost: {
      on: {
        "host.register": returns,
        "host.registered": { target: "up", actions: "registered" },
        ...leftovers,
        ...reportsLeaseEnd,
        ...fencing
      }
    },
    fenced: {
      on: {
        "host.register": returns,
        "host.registered": { target: "up", actions: "registered" },
        ...leftovers,
        ...reportsLeaseEnd
      }
    }
  }
})

export const hostActor: ActorKind = {
  kind: "host",
  chart,
  commands: typesOf(HostCommand),
  reports: ["hypervisor.removed", "hypervisor.failed"],
  facts: typesOf(HostFact),
  snapshotVersion: 3
}
