/**
 * The Agents port over ten thousand hosts: of each machine only its state, of each operation only how long it takes and what
 * comes of it. The faults of single operations are the small fleet's (`simulations/fleet/`); here hosts lose their power.
 */
import { Effect, Stream } from "effect"
import type { HypervisorReport, HypervisorRequest } from "../../src/events/requests.ts"
import type { VmState } from "../../src/events/vm.ts"
import { Agents, AgentUnreachable } from "../../src/kernel/ports/agents.ts"

export interface LightHost {
  readonly name: string
  readonly rack: string
  readonly site: string
  readonly machines: Map<string, VmState>
  /** Counts the times it lost its power; what was under way then is not done. */
  life: number
  isUp: boolean
  version: number
}

const gib = 1024 * 1024 * 1024
/** 10 Gbit/s, and pages that are used. */
const transferBytesPerMs = 1_250_000
const usedShare = 0.5

const tookMs: Readonly<Record<HypervisorRequest["op"], number>> = {
  define: 2000,
  start: 3000,
  stop: 5000,
  pause: 50,
  resume: 50,
  reboot: 8000,
  remove: 500,
  snapshot: 1000,
  restore: 1000,
  observe: 20,
  checkIncoming: 20,
  prepareIncoming: 500,
  migrate: 0,
  cancelMigration: 50,
  settleArrival: 50,
  abandonIncoming: 50
}

const failed = (
  op: string,
  code: "not-found" | "wrong-state" | "lost",
  reason: string
): HypervisorReport => ({
  type: "hypervisor.failed",
  op,
  code,
  reason
})

export class LightHosts {
  readonly hosts = new Map<string, LightHost>()
  operations = 0
  readonly agents: Agents["Service"] = Agents.of({
    perform: (_, request) =>
      Stream.suspend(() => {
        const host = this.hosts.get(request.host)
        if (host === undefined || !host.isUp) return Stream.fail(unreachable(request.host))
        this.operations++
        return request.op === "migrate" ? this.#migrate(host, request) : this.#operate(host, request)
      })
  })

  #after(host: LightHost, ms: number, work: () => HypervisorReport) {
    const { life } = host
    return Effect.flatMap(Effect.sleep(ms), () =>
      host.life === life && host.isUp ? Effect.sync(work) : Effect.fail(unreachable(host.name))
    )
  }

  #operate(host: LightHost, request: HypervisorRequest) {
    return Stream.fromEffect(this.#after(host, tookMs[request.op], () => done(host, request)))
  }

  #migrate(host: LightHost, request: Extract<HypervisorRequest, { op: "migrate" }>) {
    const { vm } = request
    const to = this.hosts.get(request.address)
    const bytes = memoryOf(vm) * gib * usedShare
    const totalMs = bytes / transferBytesPerMs
    const handOver = this.#after(host, totalMs, () => {
      if (host.machines.get(vm) !== "running" || to?.machines.get(vm) !== "incoming")
        return failed("migrate", "lost", "one of both sides is gone")
      host.machines.set(vm, "handed-over")
      return { type: "hypervisor.handedOver" }
    })
    const end = this.#after(host, 10, () => ({
      type: "hypervisor.migrated",
      totalMs,
      downtimeMs: 10,
      transferredBytes: Math.round(bytes)
    }))
    return Stream.fromEffect(handOver).pipe(
      Stream.flatMap((report) =>
        report.type === "hypervisor.failed"
          ? Stream.make(report)
          : Stream.concat(Stream.make(report), Stream.fromEffect(end))
      )
    )
  }

  /** The host has no power: what ran there does not, and what only waited is gone. */
  losePower(host: LightHost): void {
    host.isUp = false
    host.life++
    for (const [vm, state] of host.machines)
      if (state === "incoming") host.machines.delete(vm)
      else host.machines.set(vm, "defined")
  }
}

const unreachable = (host: string) => new AgentUnreachable({ host, reason: "it does not answer" })

/** In GiB: its name says it. */
export const memoryOf = (vm: string): number => Number(vm.slice(vm.lastIndexOf("-") + 1))

/** What comes of an operation that is done at this host. */
function done({ machines }: LightHost, request: HypervisorRequest): HypervisorReport {
  const { vm, op } = request
  const state = machines.get(vm)
  switch (op) {
    case "define":
      if (state === undefined) machines.set(vm, "defined")
      return { type: "hypervisor.defined" }
    case "start":
      if (state === undefined) return failed(op, "not-found", "there is no such machine here")
      machines.set(vm, "running")
      return { type: "hypervisor.started", accelerator: "sim", machine: "q35" }
    case "stop":
      if (state !== undefined) machines.set(vm, "defined")
      return { type: "hypervisor.stopped" }
    case "remove":
      machines.delete(vm)
      return { type: "hypervisor.removed" }
    case "observe":
      return { type: "hypervisor.observed", state: state ?? "absent" }
    case "checkIncoming":
      return { type: "hypervisor.checked", blockers: state === undefined ? [] : ["it is here already"] }
    case "prepareIncoming":
      machines.set(vm, "incoming")
      return { type: "hypervisor.incomingPrepared", channels: ["ram"] }
    case "resume":
      if (state === undefined) return failed(op, "not-found", "there is no such machine here")
      if (state === "defined") return failed(op, "wrong-state", "it is defined")
      machines.set(vm, "running")
      return { type: "hypervisor.resumed" }
    case "cancelMigration":
      return state === "handed-over"
        ? failed(op, "wrong-state", "it was handed over")
        : { type: "hypervisor.migrationCancelled" }
    case "abandonIncoming":
      if (state === "incoming") machines.delete(vm)
      return { type: "hypervisor.incomingAbandoned" }
    default:
      return failed(op, "wrong-state", "nobody asks for that here")
  }
}
