/** What is done to a large fleet in a week, and what happens to it: arrivals, departures, failures, a rolling upgrade. */
import { Effect, Exit, Schema } from "effect"
import { Fencer } from "../../src/kernel/fencing.ts"
import type { HostFacts } from "../../src/events/host.ts"
import type { HostContext } from "../../src/actors/host/chart.ts"
import type { Message } from "../../src/events/envelope.ts"
import { rebalancerStream } from "../../src/events/rebalancer.ts"
import { VmSpec } from "../../src/events/vm.ts"
import type { Kernel } from "../../src/kernel/kernel.ts"
import { commandOf, reconcile } from "../../src/kernel/membership.ts"
import { describe } from "../../src/kernel/statechart.ts"
import { simFacts } from "../world/hypervisor.ts"
import type { Random } from "../world/random.ts"
import type { Runtime } from "../world/runtime.ts"
import { memoryOf } from "./hosts.ts"
import type { LightHost, LightHosts } from "./hosts.ts"
import type { ScaleOptions } from "./options.ts"

const minuteMs = 60_000
const hourMs = 60 * minuteMs
const dayMs = 24 * hourMs
const lostAfterMs = 30_000
const rebootMs = 5 * minuteMs
const lookMs = 10_000
const fenceEveryMs = 30_000
/** A machine that is busy, or a host that does not get empty, is tried again so often. */
const tries_max = 400
const movesAtOnce = 4

const policy = {
  downtimeBudgetMs: 300,
  bandwidthBytesPerSecond: 0,
  postCopy: false,
  throttle: true,
  timeoutMs: hourMs
}
const specOf = Schema.decodeUnknownSync(VmSpec)

export class Work {
  readonly #kernel: Kernel["Service"]
  readonly #runtime: Runtime
  readonly #random: Random
  readonly #light: LightHosts
  readonly #options: ScaleOptions
  readonly #specs = new Map<string, VmSpec>()
  readonly #fencer: Fencer
  readonly #hosts: ReadonlyArray<LightHost>
  /** Names of the machines that there are, any of which may depart. */
  readonly #machines: Array<string> = []
  #created = 0
  #moves = 0
  #commands = 0
  /** Hosts that have no power. */
  #away = 0
  readonly counts = {
    arrivals: 0,
    departures: 0,
    hostFailures: 0,
    rackFailures: 0,
    siteFailures: 0,
    hostsUpgraded: 0,
    refused: 0,
    givenUp: 0
  }

  constructor(
    world: { readonly runtime: Runtime; readonly random: Random; readonly light: LightHosts },
    kernel: Kernel["Service"],
    options: ScaleOptions
  ) {
    this.#kernel = kernel
    this.#runtime = world.runtime
    this.#random = world.random.split("work")
    this.#light = world.light
    this.#options = options
    this.#hosts = [...world.light.hosts.values()]
    for (const gib of options.memoryGib)
      for (const storage of ["shared", "local"]) {
        const disks = [{ name: "root", sizeMib: 10_240, storage }]
        this.#specs.set(
          `${gib} ${storage}`,
          specOf({ cpus: Math.max(1, gib >> 2), memoryMib: gib * 1024, disks })
        )
      }
    const { recovering_max } = options
    const nowMs = () => world.runtime.schedule.nowMs
    this.#fencer = new Fencer({
      node: "n",
      nowMs,
      handOverMs: 0,
      marginMs: 3000,
      recovering_max,
      lostPercentMax: 30
    })
  }

  start(): void {
    const { days, fillHours, machines, arrivals, hostFailures, rackFailures, siteFailures } = this.#options
    const endMs = days * dayMs
    const fillMs = fillHours * hourMs
    for (const host of this.#hosts) this.#register(host)
    this.#spread(machines, minuteMs, fillMs, () => this.#arrive())
    this.#spread(arrivals, fillMs, endMs, () => this.#arrive())
    this.#spread(arrivals, fillMs, endMs, () => this.#depart())
    this.#spread(hostFailures, fillMs, endMs, () => this.#failSome("hostFailures", () => true, 2 * hourMs, 1))
    this.#spread(rackFailures, fillMs, endMs, () => {
      const { rack } = this.#any()
      this.#failSome("rackFailures", (host) => host.rack === rack, 30 * minuteMs)
    })
    this.#spread(siteFailures, fillMs, endMs, () => {
      const { site } = this.#any()
      this.#failSome("siteFailures", (host) => host.site === site, hourMs)
    })
    this.#runtime.schedule.after(fillMs + hourMs, () => this.#upgradeAll())
    this.#fence()
    const { rebalance: policy } = this.#options
    const { schedule } = this.#runtime
    schedule.at(fillMs, () => this.#offer(rebalancerStream, { type: "rebalancer.start", policy }))
    schedule.at(endMs - hourMs, () => this.#offer(rebalancerStream, { type: "rebalancer.stop", reason: "" }))
  }

  /** As the node that performs does it. While every host is up there is nothing to see. */
  #fence(): void {
    const actors = this.#kernel.resident()
    if (this.#away > 0)
      for (const said of this.#fencer.look(0, this.#light.hosts.keys(), actors))
        this.#runtime.fork(Effect.ignore(this.#kernel.submit(commandOf("n", said))))
    this.#runtime.schedule.after(fenceEveryMs, () => this.#fence())
  }

  /** So many, at any times between these. */
  #spread(count: number, fromMs: number, toMs: number, happen: () => void): void {
    const { schedule } = this.#runtime
    for (let one = 0; one < count; one++) schedule.at(fromMs + this.#random.next() * (toMs - fromMs), happen)
  }

  #any(): LightHost {
    return this.#hosts[this.#random.int(0, this.#hosts.length - 1)] as LightHost
  }

  #offer(stream: string, message: Message, told: (isAccepted: boolean) => void = () => {}): void {
    const id = `work-${this.#commands++}`
    const principal = { kind: "operator", name: "work" } as const
    this.#kernel.offer({ stream, message, id, correlation: id, principal }, (exit) => {
      if (Exit.isFailure(exit)) this.counts.refused++
      told(Exit.isSuccess(exit))
    })
  }

  /** Until it is accepted, or it was refused too often. */
  #insist(stream: string, message: Message, done: () => void, tries = tries_max): void {
    this.#offer(stream, message, (isAccepted) => {
      if (isAccepted) return done()
      if (tries > 1)
        return this.#runtime.schedule.after(lookMs, () => this.#insist(stream, message, done, tries - 1))
      this.counts.givenUp++
    })
  }

  #register({ name, rack, site, version, machines }: LightHost): void {
    const { cpus, memoryMib, diskMib } = this.#options.host
    const { leaseMs: lengthMs } = this.#options
    const facts: HostFacts = {
      ...simFacts,
      cpus,
      memoryMib,
      diskMib,
      driverVersion: `${version}`,
      lease: { lengthMs }
    }
    const labels = { rack, site }
    const said = {
      stream: `host/${name}`,
      id: `register/${name}/${this.#runtime.schedule.nowMs}`,
      message: { type: "host.register" as const, address: name, facts: { ...facts, labels } }
    }
    const told = { host: name, machines: [...machines].map(([vm, state]) => ({ vm, state })) }
    this.#runtime.fork(
      this.#kernel
        .submit(commandOf(name, said))
        .pipe(Effect.andThen(reconcile(this.#kernel, name, told)), Effect.ignore)
    )
  }

  #arrive(): void {
    const sizes = this.#options.memoryGib
    const gib = sizes[this.#random.int(0, sizes.length - 1)] as number
    const storage = this.#random.chance(this.#options.localDisks) ? "local" : "shared"
    const vm = `vm-${this.#created++}-${gib}`
    this.counts.arrivals++
    this.#machines.push(vm)
    this.#offer(`vm/${vm}`, { type: "vm.create", spec: this.#specs.get(`${gib} ${storage}`), start: true })
  }

  #depart(): void {
    const index = this.#random.int(0, this.#machines.length - 1)
    const vm = this.#machines[index]
    const last = this.#machines.pop()
    if (vm === undefined || last === undefined) return
    if (last !== vm) this.#machines[index] = last
    this.counts.departures++
    this.#leave(`vm/${vm}`)
  }

  /** Stopped and deleted, as often as it takes: where its host fails meanwhile it runs again. */
  #leave(stream: string, tries = tries_max): void {
    this.#offer(stream, { type: "vm.stop", force: false }, () =>
      this.#offer(stream, { type: "vm.delete" }, (isAccepted) => {
        if (isAccepted) return
        if (tries > 1) return this.#runtime.schedule.after(lookMs, () => this.#leave(stream, tries - 1))
        this.counts.givenUp++
      })
    )
  }

  #failSome(
    what: "hostFailures" | "rackFailures" | "siteFailures",
    isMeant: (host: LightHost) => boolean,
    repairMeanMs: number,
    count = Number.POSITIVE_INFINITY
  ): void {
    this.counts[what]++
    const meant = count === 1 ? [this.#any()] : this.#hosts.filter(isMeant)
    const repairMs = repairMeanMs * (0.5 + this.#random.next())
    for (const host of meant.filter(({ isUp }) => isUp)) {
      this.#light.losePower(host)
      this.#afterwards(host, repairMs + this.#random.next() * minuteMs, () => {})
    }
  }

  /** It is said to be lost when it stays away, and registers when it is back. */
  #afterwards(host: LightHost, awayMs: number, back: () => void): void {
    const { schedule } = this.#runtime
    const { life } = host
    this.#away++
    if (awayMs > lostAfterMs)
      schedule.after(lostAfterMs, () => {
        if (host.life === life)
          this.#offer(`host/${host.name}`, { type: "host.lose", reason: "no link for 30 s" })
      })
    schedule.after(awayMs, () => {
      host.isUp = true
      this.#away--
      this.#register(host)
      back()
    })
  }

  #upgradeAll(): void {
    const left = [...this.#hosts]
    const next = (): void => {
      const host = left.shift()
      if (host !== undefined) this.#upgrade(host, next)
    }
    for (let one = 0; one < this.#options.upgradesAtOnce; one++) next()
  }

  /** Drain, move its machines away, upgrade, activate. */
  #upgrade(host: LightHost, next: () => void): void {
    // It may be away for hours.
    this.#insist(
      `host/${host.name}`,
      { type: "host.drain", reason: "upgrade" },
      () => this.#empty(host, next),
      Number.POSITIVE_INFINITY
    )
  }

  #empty(host: LightHost, next: () => void, tries = tries_max): void {
    const { schedule } = this.#runtime
    const actor = this.#kernel.resident().get(`host/${host.name}`)
    const { reservations = {} } = (actor?.chart.context ?? {}) as Partial<HostContext>
    const movable: Array<string> = []
    let moving = 0
    for (const { vm } of Object.values(reservations)) {
      const machine = this.#kernel.resident().get(`vm/${vm}`)
      if (machine === undefined) continue
      const state = describe(machine.chart)
      if (state === "running.idle") movable.push(vm)
      else if (!state.startsWith("stopped.idle")) moving++
    }
    if (movable.length + moving === 0 || tries === 0) {
      if (tries === 0) this.counts.givenUp++
      return this.#reboot(host, next)
    }
    for (const vm of movable.slice(0, Math.max(0, movesAtOnce - moving)))
      this.#offer(`migration/upgrade-${this.#moves++}`, {
        type: "migration.request",
        vm,
        policy,
        reason: `upgrade of ${host.name}`
      })
    schedule.after(lookMs, () => this.#empty(host, next, tries - 1))
  }

  #reboot(host: LightHost, next: () => void): void {
    if (!host.isUp) return this.#runtime.schedule.after(minuteMs, () => this.#reboot(host, next))
    this.#light.losePower(host)
    host.version++
    this.#afterwards(host, rebootMs, () => {
      this.counts.hostsUpgraded++
      this.#insist(`host/${host.name}`, { type: "host.activate" }, () => {}, Number.POSITIVE_INFINITY)
      next()
    })
  }
}

export const memoryMibOf = (vm: string): number => memoryOf(vm) * 1024
