/** What a machine remembers, and what it asks of the ports. */
import type { Request } from "../../events/requests.ts"
import type { Platform, VmFact, VmSpec } from "../../events/vm.ts"
import type { Of } from "../../kernel/actor.ts"

export interface VmContext {
  readonly name: string
  readonly spec: VmSpec | null
  readonly cloneOf: { readonly vm: string; readonly snapshot?: string } | null
  readonly pinned: string | null
  readonly host: string | null
  /** What it was last started with; null when that was not told. */
  readonly platform: Platform | null
  /** The decision whose reservation holds this machine's room on its host. */
  readonly decision: string | null
  readonly decisions: number
  /** Start as soon as it is defined. */
  readonly start: boolean
  readonly snapshots: ReadonlyArray<string>
  /** The snapshot being taken or restored. */
  readonly snapshot: string | null
  readonly migration: string | null
  /** Crashes in a row, none more than `crashWindowMs` after the one before. */
  readonly crashes: number
  readonly crashedMs: number
  readonly crashedWhileMigrating: boolean
  /** Whether it is to run: a start that failed leaves it so, a stop and a crash do not. */
  readonly wanted: boolean
  /** How often it was asked to run, or found running. */
  readonly runs: number
  /** Since its host was fenced: how often it was asked where it may start, 0 when that is over. */
  readonly recovering: number
  /** The fenced host, with the number of that loss, that it waits for. */
  readonly waitsFor: string
}

export const unborn: VmContext = {
  name: "",
  spec: null,
  cloneOf: null,
  pinned: null,
  host: null,
  platform: null,
  decision: null,
  decisions: 0,
  start: false,
  snapshots: [],
  snapshot: null,
  migration: null,
  crashes: 0,
  crashedMs: 0,
  crashedWhileMigrating: false,
  wanted: false,
  runs: 0,
  recovering: 0,
  waitsFor: ""
}

export const platformOf = ({ accelerator, machine }: Of<VmFact, "vm.started">): Platform | null =>
  machine === undefined ? null : { accelerator, machine }

const automaticRestarts_max = 5
const crashWindowMs = 600_000

/** A guest that crashes again and again is left stopped; one that ran for a while in between begins anew. */
const crashesBefore = ({ crashes, crashedMs }: VmContext, nowMs: number): number =>
  nowMs - crashedMs > crashWindowMs ? 0 : crashes

export const mayRestart = (context: VmContext, nowMs: number): boolean =>
  context.spec?.onCrash === "restart" && crashesBefore(context, nowMs) < automaticRestarts_max

export const crashCounted = (
  context: VmContext,
  nowMs: number
): Pick<VmContext, "crashes" | "crashedMs" | "crashedWhileMigrating" | "wanted"> => ({
  crashes: crashesBefore(context, nowMs) + 1,
  crashedMs: nowMs,
  crashedWhileMigrating: context.migration !== null,
  wanted: false
})

type Operation<R = Extract<Request, { port: "hypervisor" }>> = R extends unknown
  ? Omit<R, "port" | "host" | "vm"> & { readonly op: string }
  : never
export const atHost = (context: VmContext, operation: Operation): Request =>
  ({ port: "hypervisor", host: context.host, vm: context.name, ...operation }) as Request
export const tell = (to: string, command: { type: string; [key: string]: unknown }): Request => ({
  port: "actor",
  to,
  command
})

/** By post-copy its memory may still be coming: then that is over. */
export function tellCrash({ context, event }: { context: VmContext; event: { reason: string } }): Request {
  return tell(`migration/${context.migration}`, { type: "migration.reportCrash", reason: event.reason })
}

export function takeSnapshot({
  context,
  event
}: {
  context: VmContext
  event: { snapshot: string }
}): Request {
  return atHost(context, { op: "snapshot", snapshot: event.snapshot })
}

export function stopAtHost({ context, event }: { context: VmContext; event: { force: boolean } }): Request {
  return atHost(context, { op: "stop", force: event.force })
}

/** Give the room back; `leftover` says what may still lie there, for the host to remove. */
export function releaseRoom(context: VmContext, leftover = ""): Request {
  return tell(`host/${context.host}`, {
    type: "host.release",
    reservation: context.decision,
    vm: context.name,
    leftover
  })
}

export function askPlacement(context: VmContext): Request {
  return tell(`placement/${context.name}.${context.decisions}`, {
    type: "placement.request",
    vm: context.name,
    spec: context.spec,
    purpose: context.recovering > 0 ? "recover" : "create",
    replyTo: `vm/${context.name}`,
    ...(context.pinned === null ? {} : { pinned: context.pinned })
  })
}
