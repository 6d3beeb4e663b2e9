/**
 * Leases, watchers and fencing in a simulated fleet: clocks that drift, answers that are looked at late, hosts without a watcher, a
 * kernel that does not know yet that it leads no more, and operators who confirm that a host is off. What decides is the production's.
 */
import { Effect } from "effect"
import { Fencer } from "../../src/kernel/fencing.ts"
import { giveLease, HeldLease } from "../../src/kernel/lease.ts"
import type { LeaseAnswer, LeaseKeeping } from "../../src/kernel/lease.ts"
import { commandOf } from "../../src/kernel/membership.ts"
import type { Kernel } from "../../src/kernel/kernel.ts"
import { Clock } from "../world/clock.ts"
import { endLeased, hostOf } from "../world/hypervisor.ts"
import type { Fleet } from "../world/hypervisor.ts"
import type { Line } from "../world/line.ts"
import type { Random } from "../world/random.ts"
import { epochMs } from "../world/runtime.ts"
import type { Runtime } from "../world/runtime.ts"

export interface FencingOptions {
  readonly leaseMs: number
  readonly marginMs: number
  /** So long a kernel that was replaced may still give leases. */
  readonly handOverMs: number
  readonly watcherEveryMs: number
  /** Share of the hosts that have none. */
  readonly withoutWatcher: number
  /** Share of the answers that a host looks at late, because its process stood still. */
  readonly lateAnswers: number
  /** Share of the asks that reach a kernel of before, while that one still answers. */
  readonly staleAnswers: number
  readonly driftPercentMax: number
  readonly recovering_max: number
  readonly lostPercentMax: number
  /** How often on average another kernel takes over that can't reach one of the hosts, which the one of before can. */
  readonly takeOverEveryMs: number
  /** Between two looks of an operator whether a lost host is off. */
  readonly confirmEveryMs: number
}

const pick = <A>(random: Random, some: ReadonlyArray<A>): A => some[random.int(0, some.length - 1)] as A

export const drawFencing = (random: Random): FencingOptions => ({
  leaseMs: pick(random, [1000, 3000, 8000]),
  marginMs: 200,
  handOverMs: pick(random, [0, 2000, 6000]),
  watcherEveryMs: 50,
  withoutWatcher: random.chance(0.5) ? 0 : 0.3,
  lateAnswers: random.next() * 0.6,
  staleAnswers: random.next(),
  driftPercentMax: 0.4,
  recovering_max: pick(random, [1, 2, 8]),
  lostPercentMax: pick(random, [50, 100]),
  takeOverEveryMs: pick(random, [10_000, 20_000, Number.POSITIVE_INFINITY]),
  confirmEveryMs: pick(random, [2000, 20_000])
})

export interface FencingCounts {
  leasesGiven: number
  leasesOfBefore: number
  leasesLate: number
  leasesEnded: number
  confirmed: number
}

/** Of these: leases of a kernel that leads no more, and those that are looked at late. */
export const fencingFaults: ReadonlyArray<keyof FencingCounts> = ["leasesOfBefore", "leasesLate"]

const drawClock = (random: Random, { driftPercentMax }: FencingOptions): Clock =>
  new Clock(random.int(0, 1_000_000), (random.next() * 2 - 1) * driftPercentMax, 0)

interface World {
  readonly runtime: Runtime
  readonly random: Random
  readonly fleet: Fleet
}

/** What a host has of it: its clock, what was stored for the watcher, and the watcher. */
export class HostFencing {
  readonly #name: string
  readonly #world: World
  readonly #options: FencingOptions
  readonly #counts: FencingCounts
  readonly #clock: Clock
  readonly hasWatcher: boolean
  #storedMs: number | null = null
  readonly #ended = new Set<string>()
  /** False while the whole host is down. */
  hasPower = true

  constructor(name: string, world: World, options: FencingOptions, counts: FencingCounts) {
    const random = world.random.split(`fencing ${name}`)
    this.#name = name
    this.#world = world
    this.#options = options
    this.#counts = counts
    this.#clock = drawClock(random, options)
    this.hasWatcher = !random.chance(options.withoutWatcher)
    if (this.hasWatcher) this.#watch()
  }

  #nowMs = (): number => this.#clock.shows(this.#world.runtime.schedule.nowMs)

  /** Every machine that was there is gone, and so is what the lease was for. */
  powerLost(): void {
    this.hasPower = false
    if (this.#storedMs !== null) this.#storedMs = 0
  }

  #watch(): void {
    const { runtime, fleet } = this.#world
    runtime.schedule.after(this.#options.watcherEveryMs, () => {
      if (this.hasPower && this.#storedMs !== null && this.#nowMs() >= this.#storedMs) {
        const worldMs = epochMs + Math.floor(runtime.schedule.nowMs)
        const ended = endLeased(fleet, hostOf(fleet, this.#name), worldMs)
        for (const vm of ended) this.#ended.add(vm)
        this.#counts.leasesEnded += ended.length
      }
      this.#watch()
    })
  }

  /** Of one life of the agent. */
  keeping(ask: LeaseKeeping["ask"]): LeaseKeeping {
    return {
      lease: new HeldLease(this.#nowMs, this.#storedMs),
      lengthMs: Effect.succeed(this.hasWatcher ? this.#options.leaseMs : null),
      ask,
      store: (untilMs) =>
        Effect.sync(() => {
          this.#storedMs = untilMs
        }),
      ended: Effect.sync(() => [...this.#ended].sort()),
      told: (vms) =>
        Effect.sync(() => {
          for (const vm of vms) this.#ended.delete(vm)
        })
    }
  }
}

/** One life of a kernel, as far as leases go. */
interface Giver {
  readonly kernel: Kernel["Service"]
  readonly fencer: Fencer
  /** Another one has taken over; at this moment, when that is known. */
  replacedMs: number | null
}

const lookEveryMs = 250

interface Host {
  readonly name: string
  readonly line: Line
  readonly fencing: HostFencing | null
}

/** What the kernel's side has of it. */
export class FleetFencing {
  readonly #world: World
  readonly #random: Random
  readonly #options: FencingOptions
  readonly #kernel: () => Kernel["Service"] | null
  readonly #hosts: ReadonlyMap<string, Host>
  readonly #clock: Clock
  #current: Giver | null = null
  #before: Giver | null = null
  #isOver = false
  readonly counts: FencingCounts = {
    leasesGiven: 0,
    leasesOfBefore: 0,
    leasesLate: 0,
    leasesEnded: 0,
    confirmed: 0
  }

  constructor(
    world: World,
    options: FencingOptions,
    hosts: ReadonlyMap<string, Host>,
    kernel: () => Kernel["Service"] | null
  ) {
    this.#world = world
    this.#random = world.random.split("fencing")
    this.#options = options
    this.#hosts = hosts
    this.#kernel = kernel
    this.#clock = drawClock(this.#random, options)
  }

  start(): void {
    this.#look()
    this.#confirm()
  }

  /** No kernel of before answers any more, and none late. */
  end(): void {
    this.#isOver = true
  }

  #giver(): Giver | null {
    const kernel = this.#kernel()
    if (kernel === null || this.#current?.kernel === kernel) return kernel === null ? null : this.#current
    const { nowMs } = this.#world.runtime.schedule
    if (this.#current !== null) this.#before = { ...this.#current, replacedMs: nowMs }
    const fencer = new Fencer({
      ...this.#options,
      node: "n",
      nowMs: () => this.#clock.shows(this.#world.runtime.schedule.nowMs)
    })
    this.#current = { kernel, fencer, replacedMs: null }
    return this.#current
  }

  /** Times are those of the world: this one's clock is within the drift that is allowed for. */
  get #answersStill(): Giver | null {
    if (this.#isOver) return null
    const { nowMs } = this.#world.runtime.schedule
    const before = this.#kernel() === null ? this.#current : this.#before
    const sinceMs = before?.replacedMs ?? nowMs
    return nowMs - sinceMs < this.#options.handOverMs * 0.98 ? before : null
  }

  ask(host: Host): LeaseKeeping["ask"] {
    const given = (giver: Giver | null): LeaseAnswer =>
      giver === null ? { isGiven: false, reason: "down" } : giveLease(giver.kernel, true, host.name)
    const asked = Effect.suspend(() => {
      const before = this.#answersStill
      if (before === null || !this.#random.chance(this.#options.staleAnswers))
        return host.line.ask(
          Effect.suspend(() =>
            this.#kernel() === null ? Effect.never : Effect.succeed(given(this.#giver()))
          )
        )
      this.counts.leasesOfBefore++
      return Effect.succeed(given(before))
    })
    return Effect.tap(asked, ({ isGiven }) => {
      if (isGiven) this.counts.leasesGiven++
      if (!isGiven || this.#isOver || !this.#random.chance(this.#options.lateAnswers)) return Effect.void
      this.counts.leasesLate++
      return Effect.sleep(this.#random.next() * this.#options.leaseMs)
    })
  }

  #look(): void {
    const giver = this.#giver()
    if (giver !== null)
      for (const said of giver.fencer.look(0, this.#hosts.keys(), giver.kernel.resident()))
        this.#world.runtime.fork(Effect.ignore(giver.kernel.submit(commandOf("n", said))))
    this.#world.runtime.schedule.after(lookEveryMs, () => this.#look())
  }

  /** Who confirms it has looked: the host is off. */
  #confirm(): void {
    this.#world.runtime.schedule.after(this.#options.confirmEveryMs, () => {
      const kernel = this.#kernel()
      for (const { name, fencing } of this.#hosts.values()) {
        const isLost = kernel?.resident().get(`host/${name}`)?.chart.value === "lost"
        if (kernel === null || fencing?.hasPower !== false || !isLost) continue
        this.counts.confirmed++
        const stream = `host/${name}`
        const id = `confirm-${this.counts.confirmed}`
        const principal = { kind: "operator", name: "somebody" } as const
        const message = { type: "host.confirmOff", reason: "its power is off" }
        this.#world.runtime.fork(
          Effect.ignore(kernel.submit({ stream, id, correlation: id, principal, message }))
        )
      }
      this.#confirm()
    })
  }
}
