/** Makes faults happen to a simulated cluster, and remembers which: the list is all it takes to have them happen again. */
import { Effect } from "effect"
import type { GroupMessage } from "../../src/kernel/group-node.ts"
import { killMachine } from "../world/hypervisor.ts"
import { noFaults } from "../world/hypervisor/machine.ts"
import type { Fleet } from "../world/hypervisor.ts"
import type { Runtime } from "../world/runtime.ts"
import type { Schedule } from "../world/schedule.ts"
import type { Wires } from "../world/wires.ts"
import type { Atlas } from "../raft/atlas.ts"
import { countedAs } from "../world/counted.ts"
import type { Counted } from "../world/counted.ts"
import { allCounted } from "./fault.ts"
import type { Fault, FaultKind, TimedFault } from "./fault.ts"
import type { ClusterHost } from "./host.ts"
import type { ClusterNode, Moment } from "./node.ts"

/** Before all else that is due at the same time. */
const first = -1

interface World {
  readonly schedule: Schedule
  readonly runtime: Runtime
  readonly fleet: Fleet
  readonly nodes: ReadonlyMap<string, ClusterNode>
  readonly hosts: ReadonlyMap<string, ClusterHost>
  readonly wires: Wires<GroupMessage>
  readonly atlas: Atlas
}

type Of<K extends FaultKind> = Extract<Fault, { readonly kind: K }>

/** After an end by itself, as the unit of a service has it. */
const restartMs = 100

export class Faults {
  readonly #world: World
  readonly list: Array<TimedFault> = []
  readonly #ambushes = new Map<string, Of<"ambush">>()
  readonly #snares = new Map<string, Of<"snare">>()
  readonly #cutLines = new Map<string, number>()
  readonly #down = new Set<ClusterHost>()
  #isOver = false
  readonly counts: Record<Counted<Fault>, number>
  restarts = 0

  constructor(world: World) {
    this.#world = world
    this.counts = Object.fromEntries(allCounted.map((name) => [name, 0])) as typeof this.counts
  }

  get isOver(): boolean {
    return this.#isOver
  }

  /** These, each at its time. */
  script(faults: ReadonlyArray<TimedFault>): void {
    for (const [place, { atMs, fault }] of faults.entries())
      this.#world.schedule.at(atMs, () => this.inject(fault), first + place * 1e-9)
  }

  /** Happens now, which is a whole microsecond when it is to happen again. */
  inject(fault: Fault): void {
    if (this.#isOver || !this.#happen(fault)) return
    if (fault.kind !== "ambush" && fault.kind !== "snare") this.counts[countedAs(fault)]++
    this.list.push({ atMs: this.#world.schedule.nowMs, fault })
  }

  #happen(fault: Fault): boolean {
    const { wires, schedule } = this.#world
    switch (fault.kind) {
      case "crash":
        return this.#crash(fault)
      case "ambush":
        this.#ambushes.set(fault.id, fault)
        return true
      case "snare":
        this.#snares.set(fault.id, fault)
        return true
      case "stop":
        return this.#stop(fault)
      case "pause":
        return this.#pause(fault)
      case "suspend":
        return this.#suspend(fault)
      case "partition": {
        const mend = wires.cut(fault.paths)
        schedule.after(fault.forMs, mend)
        return true
      }
      case "clog":
        for (const path of fault.paths) wires.clog(path, schedule.nowMs + fault.forMs)
        return true
      case "break":
        return wires.break(fault.one, fault.other)
      case "stall":
      case "lag":
      case "error":
      case "full":
      case "damage":
        return this.#disk(fault)
      case "step":
        this.#node(fault.id)?.process.clock.step(fault.byMs)
        return true
      case "hostCrash":
      case "agentCrash":
        return this.#crashHost(fault)
      case "lineBreak":
        return this.#breakLine(fault)
      case "machineKill":
        return this.#killMachine(fault)
    }
  }

  #node(id: string): ClusterNode | undefined {
    return this.#world.nodes.get(id)
  }

  #disk(fault: Of<"stall" | "lag" | "error" | "full" | "damage">): boolean {
    const node = this.#node(fault.id)
    const { nowMs } = this.#world.schedule
    if (node === undefined) return false
    if (fault.kind === "stall") node.disk.stall(nowMs + fault.forMs)
    else if (fault.kind === "lag") node.journal.stall(nowMs + fault.forMs)
    else if (fault.kind === "full") node.disk.fill(nowMs + fault.forMs)
    else if (fault.kind === "error") {
      if (fault.operation === "journal") node.journal.fail()
      else node.disk.fail(fault.operation)
    } else {
      const { atlas } = this.#world
      if (!atlas.mayDamage(fault.id) || !node.disk.damage(fault.how, fault.place)) return false
      atlas.damaged.add(fault.id)
    }
    return true
  }

  #crash({ id, forMs, isPower }: Pick<Of<"crash">, "id" | "forMs" | "isPower">): boolean {
    const node = this.#node(id)
    if (node === undefined || !node.isUp) return false
    node.crash(isPower)
    this.#restart(node, forMs)
    return true
  }

  #restart(node: ClusterNode, afterMs: number): void {
    this.#world.schedule.after(afterMs, () => {
      if (this.#isOver || node.isUp || node.isGone) return
      this.restarts++
      node.start()
    })
  }

  /** It ended by itself. */
  halted(node: ClusterNode): void {
    this.#world.schedule.after(restartMs, () => {
      if (!node.isUp && !node.isGone) node.start()
    })
  }

  /** Something happens at this node. */
  moment(node: ClusterNode, moment: Moment): void {
    const ambush = this.#ambushes.get(node.id)
    if (ambush?.moment !== moment || this.#isOver) return
    this.#ambushes.delete(node.id)
    node.process.endWithin(ambush.steps, () => {
      this.counts.ambush++
      this.#crash(ambush)
    })
  }

  /** A host tells this node of its machines. */
  told(host: string, node: ClusterNode): void {
    const snare = this.#snares.get(host)
    if (snare === undefined || this.#isOver) return
    this.#snares.delete(host)
    this.counts.snare++
    this.#crash({ id: node.id, forMs: snare.forMs, isPower: false })
  }

  #stop({ id, forMs }: Of<"stop">): boolean {
    const node = this.#node(id)
    if (node?.isAwake !== true || node.kernel === null) return false
    const { schedule } = this.#world
    const dueMs = schedule.nowMs + forMs
    node.stop(() => {
      if (schedule.nowMs >= dueMs || this.#isOver) node.start()
    })
    this.#restart(node, forMs)
    return true
  }

  #pause({ id, forMs }: { readonly id: string; readonly forMs: number }): boolean {
    const node = this.#node(id)
    if (node === undefined || !node.isUp) return false
    node.process.pausedMs = Math.max(node.process.pausedMs, this.#world.schedule.nowMs + forMs)
    return true
  }

  #suspend(fault: Of<"suspend">): boolean {
    const node = this.#node(fault.id)
    if (node === undefined || !this.#pause(fault)) return false
    node.process.clock.jump(-fault.forMs)
    node.process.run(() => node.consensus?.clockJumped())
    return true
  }

  #crashHost({ kind, id, forMs }: Of<"hostCrash" | "agentCrash">): boolean {
    const host = this.#world.hosts.get(id)
    if (host === undefined || this.#down.has(host)) return false
    this.#down.add(host)
    if (kind === "hostCrash") host.crash()
    else host.crashAgent()
    this.#world.schedule.after(forMs, () => {
      if (this.#isOver) return
      this.#down.delete(host)
      host.start()
    })
    return true
  }

  #breakLine({ id, node, forMs }: Of<"lineBreak">): boolean {
    const host = this.#world.hosts.get(id)
    if (host === undefined) return false
    this.#cutLines.set(`${id} ${node}`, this.#world.schedule.nowMs + forMs)
    host.lineTo(node).break()
    return true
  }

  isCut(host: string, node: string): boolean {
    return (this.#cutLines.get(`${host} ${node}`) ?? 0) > this.#world.schedule.nowMs
  }

  #killMachine({ id, place }: Of<"machineKill">): boolean {
    const { fleet, runtime } = this.#world
    const there = [...(fleet.hosts.get(id)?.machines.keys() ?? [])]
    const vm = there[Math.min(there.length - 1, Math.floor(place * there.length))]
    if (vm === undefined) return false
    runtime.fork(Effect.asVoid(killMachine(fleet, id, vm)))
    return true
  }

  /** All is healed, these nodes are gone for good, and all others come back. */
  end(dead: ReadonlySet<string>): void {
    this.#isOver = true
    const { fleet, wires, nodes, hosts } = this.#world
    fleet.faults = noFaults
    fleet.linkDown = false
    wires.heal()
    this.#cutLines.clear()
    for (const host of hosts.values()) if (!host.isUp) host.start()
    for (const node of nodes.values()) {
      node.process.pausedMs = 0
      node.process.letLive()
      node.disk.mend()
      node.journal.mend()
      if (dead.has(node.id)) {
        node.crash(true)
        node.isGone = true
      } else if (!node.isUp) node.start()
    }
  }
}
