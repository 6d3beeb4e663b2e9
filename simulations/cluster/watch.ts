/** Lines between hosts and nodes: made where both ends are there, and who performs says which host is lost, as `watchHosts` does. */
import { Effect } from "effect"
import { commandOf, watchMs } from "../../src/kernel/membership.ts"
import type { Schedule } from "../world/schedule.ts"
import type { Faults } from "./faults.ts"
import type { ClusterHost } from "./host.ts"
import type { ClusterNode } from "./node.ts"

interface World {
  readonly schedule: Schedule
  readonly nodes: ReadonlyMap<string, ClusterNode>
  readonly hosts: ReadonlyMap<string, ClusterHost>
  readonly faults: Faults
  readonly options: { readonly faults: { readonly lostAfterMs: number } }
}

const backAfterMs = 2000

export class Watch {
  readonly #world: World
  /** By node and host, since when its line is down while the node performs; since when it is up, and the host lost. */
  readonly #downSince = new Map<string, number>()
  readonly #backSince = new Map<string, number>()
  losses = 0

  constructor(world: World) {
    this.#world = world
  }

  start(): void {
    const { schedule } = this.#world
    const look = () => {
      for (const node of this.#world.nodes.values())
        for (const host of this.#world.hosts.values()) this.#look(node, host)
      schedule.after(watchMs, look)
    }
    look()
  }

  #look(node: ClusterNode, host: ClusterHost): void {
    const { faults } = this.#world
    const line = host.lineTo(node.id)
    if (node.kernel !== null && host.agent !== null && !faults.isCut(host.name, node.id)) line.make()
    const key = `${node.id} ${host.name}`
    if (node.kernel?.isPerforming() !== true) {
      this.#downSince.delete(key)
      this.#backSince.delete(key)
    } else if (node.isAwake) this.#judge(key, node, host)
  }

  #judge(key: string, node: ClusterNode, host: ClusterHost): void {
    const { schedule, options } = this.#world
    const stream = `host/${host.name}`
    const actor = node.kernel?.resident().get(stream)
    if (actor === undefined) return
    const isLost = actor.chart.value === "lost"
    const { isUp } = host.lineTo(node.id)
    const { nowMs } = schedule
    if (!isLost || !isUp) this.#backSince.delete(key)
    else if (!this.#backSince.has(key)) this.#backSince.set(key, nowMs)
    else if (nowMs - (this.#backSince.get(key) ?? nowMs) >= backAfterMs) {
      this.#backSince.delete(key)
      host.askToRegister()
    }
    if (isLost || isUp) this.#downSince.delete(key)
    else if (!this.#downSince.has(key)) this.#downSince.set(key, nowMs)
    else if (nowMs - (this.#downSince.get(key) ?? nowMs) >= options.faults.lostAfterMs) {
      this.losses++
      const said = {
        stream,
        id: `lose/${host.name}/${this.#downSince.get(key)}`,
        message: { type: "host.lose" as const, reason: "no link" }
      }
      this.#downSince.delete(key)
      node.tell((kernel) => Effect.ignore(kernel.submit(commandOf(node.id, said))))
    }
  }
}
