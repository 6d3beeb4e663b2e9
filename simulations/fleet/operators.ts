/**
 * Who works with a simulated fleet: each has one command under way, sends it again under the same id until somebody
 * answers, and now and then once more after that, as a client does that lost its answer.
 */
import { Cause, Effect, Exit, Schema } from "effect"
import { VmSpec } from "../../src/events/vm.ts"
import type { Message } from "../../src/events/envelope.ts"
import { describe } from "../../src/kernel/statechart.ts"
import type { Accepted, SubmitError } from "../../src/kernel/refusals.ts"
import type { ActorState } from "../../src/kernel/turn.ts"
import type { Random } from "../world/random.ts"
import type { Runtime } from "../world/runtime.ts"
import { commandNames } from "./options.ts"
import type { CommandName, RunOptions } from "./options.ts"

/** A command and what became of it. */
export interface Issued {
  readonly stream: string
  readonly id: string
  readonly message: Message
  sent: number
  /** Null while nobody has answered. */
  answer: "accepted" | "refused" | null
  /** Of the facts that the accepting answer told. */
  positions: ReadonlyArray<number>
}

/** Whom they work with. */
export interface Operated {
  /** Null while it is down. */
  readonly kernel: { readonly resident: () => ReadonlyMap<string, ActorState> } | null
  readonly hosts: ReadonlyMap<string, unknown>
  /** One try, which may never be answered. */
  readonly submit: (command: Issued) => Effect.Effect<Accepted, SubmitError | { readonly _tag: string }>
}

type Asked = Pick<Issued, "stream" | "message">

const specOf = Schema.decodeUnknownSync(VmSpec)

export class Operators {
  readonly issued: Array<Issued> = []
  readonly #runtime: Runtime
  readonly #random: Random
  readonly #hostFailures: Random
  readonly #node: Operated
  readonly #options: Pick<RunOptions, "operators" | "postCopy" | "fencing">
  #isOpen = true
  #busy = 0
  #count = 0
  repeated = 0
  overloaded = 0
  readonly done: Record<CommandName, number>

  constructor(
    world: { readonly runtime: Runtime; readonly random: Random },
    node: Operated,
    options: Pick<RunOptions, "operators" | "postCopy" | "fencing">
  ) {
    this.#runtime = world.runtime
    this.#random = world.random.split("operators")
    this.#hostFailures = world.random.split("host failures")
    this.#node = node
    this.#options = options
    this.done = Object.fromEntries(commandNames.map((name) => [name, 0])) as Record<CommandName, number>
  }

  start(): void {
    for (let one = 0; one < this.#options.operators.operators; one++) this.#think()
  }

  /** No new commands; those under way are sent until they are answered. */
  close(): void {
    this.#isOpen = false
  }

  get waiting(): number {
    return this.#busy
  }

  #think(): void {
    const { thinkMeanMs } = this.#options.operators
    this.#runtime.schedule.after(-Math.log(1 - this.#random.next()) * thinkMeanMs, () => {
      if (!this.#isOpen) return
      const name = this.#drawName()
      const asked = this.#draw(name)
      if (asked === null) return this.#think()
      const command = { ...asked, id: `op-${this.#count++}`, sent: 0, answer: null, positions: [] }
      this.issued.push(command)
      this.#busy++
      this.#send(command, name)
    })
  }

  #drawName(): CommandName {
    const { weights } = this.#options.operators
    let left = this.#random.next() * Object.values(weights).reduce((sum, weight) => sum + weight, 0)
    for (const name of commandNames) {
      left -= weights[name]
      if (left <= 0) return name
    }
    return "create"
  }

  #any<A>(some: ReadonlyArray<A>): A | undefined {
    return some[this.#random.int(0, some.length - 1)]
  }

  #spec(): VmSpec {
    const { random, machines } = { random: this.#random, machines: this.#options.operators.machines }
    return specOf({
      memoryMib: this.#any([64, 128, 256]),
      disks: random.chance(0.2)
        ? []
        : [{ name: "root", sizeMib: 64, storage: random.chance(0.3) ? "shared" : "local" }],
      labels: { "dirty-mib-per-second": String(random.int(1, 40)) },
      antiAffinity: random.chance(0.1) ? [`vm-${random.int(0, machines - 1)}`] : [],
      onCrash: random.chance(0.8) ? "restart" : "stop",
      ...(this.#options.fencing === null ? {} : this.#ofFencing())
    })
  }

  /** Mostly machines that may start elsewhere. */
  #ofFencing() {
    const own = this.#hostFailures
    return {
      ...(own.chance(0.6) ? { disks: [{ name: "root", sizeMib: 64, storage: "shared" }] } : {}),
      onHostFailure: own.chance(0.8) ? "restart" : "wait"
    }
  }

  #draw(name: CommandName): Asked | null {
    const random = this.#random
    const vm = this.#vmFor(name)
    const host = this.#any([...this.#node.hosts.keys()]) ?? ""
    const stream = `vm/${vm}`
    switch (name) {
      case "create":
      case "clone": {
        const more = {
          ...(random.chance(0.2) ? { host } : {}),
          ...(name === "clone"
            ? { cloneOf: { vm: `vm-${random.int(0, this.#options.operators.machines - 1)}` } }
            : {})
        }
        return {
          stream,
          message: { type: "vm.create", spec: this.#spec(), start: random.chance(0.8), ...more }
        }
      }
      case "stop":
        return { stream, message: { type: "vm.stop", force: random.chance(0.5) } }
      case "snapshot":
      case "restore":
        return { stream, message: { type: `vm.${name}`, snapshot: `s-${random.int(0, 2)}` } }
      case "migrate":
        return this.#migration(vm, host)
      case "cancel":
        return this.#cancel()
      case "drain":
        return { stream: `host/${host}`, message: { type: "host.drain", reason: "" } }
      case "activate":
        return { stream: `host/${host}`, message: { type: "host.activate" } }
      default:
        return { stream, message: { type: `vm.${name}` } }
    }
  }

  /** Mostly one for which this makes sense; else any, as people do who have not looked. */
  #vmFor(name: CommandName): string {
    const all = Array.from({ length: this.#options.operators.machines }, (_, index) => `vm-${index}`)
    const wanted = suits[name]
    const actors = this.#node.kernel?.resident()
    if (wanted === undefined || actors === undefined || this.#random.chance(0.2)) return this.#any(all) ?? ""
    const fit = all.filter((vm) => {
      const actor = actors.get(`vm/${vm}`)
      return wanted.includes(actor === undefined ? "absent" : describe(actor.chart))
    })
    return this.#any(fit.length === 0 ? all : fit) ?? ""
  }

  #migration(vm: string, host: string): Asked {
    const policy = {
      downtimeBudgetMs: 300,
      bandwidthBytesPerSecond: 0,
      postCopy: this.#options.postCopy,
      throttle: true,
      timeoutMs: 60_000
    }
    const to = this.#random.chance(0.3) ? { to: host } : {}
    const message = { type: "migration.request", vm, ...to, policy, reason: "simulated" }
    return { stream: `migration/m-${this.#count}`, message }
  }

  #cancel(): Asked | null {
    const moving = [...(this.#node.kernel?.resident().values() ?? [])]
      .filter(({ stream, chart }) => stream.startsWith("migration/") && !isOver(describe(chart)))
      .map(({ stream }) => stream)
      .sort()
    const stream = this.#any(moving)
    return stream === undefined
      ? null
      : {
          stream,
          message: { type: "migration.cancel", reason: "simulated", force: this.#random.chance(0.2) }
        }
  }

  #submit(command: Issued): Effect.Effect<Accepted, SubmitError | { readonly _tag: string }> {
    return Effect.timeout(this.#node.submit(command), this.#options.operators.timeoutMs)
  }

  #send(command: Issued, name: CommandName): void {
    command.sent++
    this.#runtime.start(this.#submit(command), (exit) => {
      const again = () => {
        const pauseMs = 20 + this.#random.next() * 200
        this.#runtime.schedule.after(pauseMs, () => this.#send(command, name))
      }
      if (Exit.isSuccess(exit)) {
        command.answer = "accepted"
        command.positions = exit.value.facts.map(({ position }) => position)
        this.done[name]++
      } else {
        const error = Cause.squash(exit.cause) as { readonly _tag?: string }
        if (error._tag === "Overloaded") this.overloaded++
        if (error._tag !== "CommandRefused") return again()
        command.answer = "refused"
      }
      this.#busy--
      if (this.#random.chance(this.#options.operators.repeats)) this.#repeat(command)
      this.#think()
    })
  }

  /** Its answer is known: whatever this one says, nothing may happen twice. */
  #repeat(command: Issued): void {
    if (command.answer !== "accepted") return
    this.#runtime.schedule.after(this.#random.next() * 5000, () => {
      if (!this.#isOpen) return
      this.repeated++
      command.sent++
      this.#runtime.fork(Effect.ignore(this.#submit(command)))
    })
  }
}

const running = ["running.idle"]
const suits: Partial<Readonly<Record<CommandName, ReadonlyArray<string>>>> = {
  create: ["absent"],
  clone: ["absent"],
  start: ["stopped.idle", "unplaced"],
  stop: [...running, "paused.idle"],
  pause: running,
  resume: ["paused.idle"],
  reboot: running,
  snapshot: [...running, "stopped.idle"],
  restore: ["stopped.idle"],
  delete: ["stopped.idle", "unplaced"],
  migrate: running
}

export const isOver = (state: string): boolean => ["completed", "cancelled", "failed"].includes(state)
