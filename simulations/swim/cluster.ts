/** Members that have known one another for a while, any number of them, for measuring: the same process, nothing checked. */
import type { SwimDatagram, SwimRequest, SwimSettings } from "../../src/events/swim.ts"
import { initialContext } from "../../src/actors/swim/step.ts"
import { Table } from "../../src/actors/swim/table.ts"
import { Clock } from "../world/clock.ts"
import { Network } from "../world/network.ts"
import type { NetworkOptions } from "../world/network.ts"
import { makeRandom } from "../world/random.ts"
import type { Random } from "../world/random.ts"
import { Schedule } from "../world/schedule.ts"
import { Member } from "./member.ts"

/** One datacenter: half a millisecond each way, nothing lost. */
export const lan: NetworkOptions = {
  delayMinMs: 0.2,
  delayMeanMs: 0.3,
  loss: 0,
  duplication: 0,
  capacity: 100_000
}

export type Changed = Extract<SwimRequest, { readonly op: "changed" }>

export interface ClusterOptions {
  readonly seed: number
  readonly members: number
  readonly settings: SwimSettings
  readonly network: NetworkOptions
  /** Datagrams that wait while a process stands still. */
  readonly bufferedMax: number
  /** Somebody learned something else of somebody. */
  readonly changed: (member: Member, changed: Changed) => void
}

export class Cluster {
  readonly random: Random
  readonly schedule: Schedule
  readonly network: Network<SwimDatagram>
  readonly members: ReadonlyArray<Member>

  constructor({ seed, members, settings, network, bufferedMax, changed }: ClusterOptions) {
    this.random = makeRandom(seed)
    const { random } = this
    this.schedule = new Schedule(random.split("schedule"), Number.POSITIVE_INFINITY)
    const { schedule } = this
    const byId = new Map<string, Member>()
    const deliver = (from: string, to: string, datagram: SwimDatagram) =>
      byId.get(to)?.receive(from, datagram)
    this.network = new Network(schedule, random.split("network"), network, deliver, true)
    const send = (from: string, to: string, datagram: SwimDatagram) => this.network.send(from, to, datagram)
    const watcher = {
      stepped: (member: Member, _input: unknown, _before: unknown, asked: ReadonlyArray<SwimRequest>) => {
        for (const one of asked) if (one.port === "peers" && one.op === "changed") changed(member, one)
      },
      sent: () => {}
    }
    for (let index = 0; index < members; index++) {
      const id = `n${index}`
      const own = random.split(`member ${index}`)
      const disk = { syncMinMs: 0.1, syncMeanMs: 0.1, stalls: 0, lostAtCrash: 0, hasRecords: false }
      const clock = new Clock(own.int(0, 1_000_000), 0, 0)
      const options = { id, meta: "", settings, seeds: ["n0"], disk, clock, bufferedMax }
      byId.set(id, new Member({ schedule, random: own, send, watcher }, options))
    }
    this.members = [...byId.values()]
  }

  /** All know all, and are anywhere in their periods. */
  start(): void {
    let table = Table.empty
    const incarnation = 1
    for (const { id } of this.members)
      table = table.set({
        id,
        status: "alive",
        incarnation,
        address: id,
        meta: "",
        sinceMs: 0,
        suspicion: null
      })
    for (const member of this.members) {
      const { settings, seeds, clock } = member.options
      const { incarnation: _, ...forgotten } = initialContext
      const soonMs = (leastMs: number, spreadMs: number) =>
        clock.shows(this.schedule.nowMs) + Math.ceil(leastMs + spreadMs * this.random.next())
      const changes = {
        ...forgotten,
        id: member.id,
        address: member.id,
        settings,
        seeds,
        table,
        sequence: this.random.int(0, 2 ** 31),
        periodAtMs: soonMs(0, settings.periodMs),
        compareAtMs: soonMs(0, 8 * settings.compareEveryMs),
        reconnectAtMs: soonMs(settings.reconnectEveryMs, settings.reconnectEveryMs)
      }
      member.resume([
        { type: "swim.incarnated", incarnation },
        { type: "swim.met", changes, asks: [] }
      ])
    }
  }

  run(forMs: number): void {
    this.schedule.runUntil(this.schedule.nowMs + forMs)
  }
}
