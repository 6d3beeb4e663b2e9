/** Journals of machines that live: created, placed, started, then told this and that, drawn by seed. */
import { Effect, Schema } from "effect"
import { vmActor } from "../../src/actors/vm/chart.ts"
import type { Draft, Message } from "../../src/events/envelope.ts"
import type { HypervisorReport, Report, Request } from "../../src/events/requests.ts"
import { VmSpec } from "../../src/events/vm.ts"
import type { EventStore } from "../../src/kernel/ports/event-store.ts"
import { allowedCommands } from "../../src/kernel/statechart.ts"
import { emptyActor, takeTurn } from "../../src/kernel/turn.ts"
import type { ActorState, Input } from "../../src/kernel/turn.ts"
import { makeRandom } from "../../simulations/world/random.ts"
import type { Random } from "../../simulations/world/random.ts"

const bornMs = 1_760_000_000_000

const reports: Partial<Record<string, HypervisorReport>> = {
  define: { type: "hypervisor.defined" },
  start: { type: "hypervisor.started", accelerator: "kvm" },
  stop: { type: "hypervisor.stopped" },
  pause: { type: "hypervisor.paused" },
  resume: { type: "hypervisor.resumed" },
  reboot: { type: "hypervisor.rebooted" },
  snapshot: { type: "hypervisor.snapshotTaken", bytes: 4096 }
}

function answerTo(request: Request): Report {
  if (request.port === "actor")
    return { type: "actor.accepted", to: request.to, command: request.command.type }
  const report = request.port === "hypervisor" ? reports[request.op] : undefined
  if (report === undefined) throw new Error(`a machine of the bench asked for ${JSON.stringify(request)}`)
  return report
}

const decodeSpec = Schema.decodeUnknownSync(VmSpec)
const spec = (random: Random) =>
  decodeSpec({
    cpus: random.int(1, 8),
    memoryMib: 512 * random.int(1, 16),
    disks: [{ name: "root", sizeMib: 10_240 }],
    labels: { tier: random.chance(0.5) ? "web" : "data" }
  })

/** One machine; `next` gives the drafts of its next turn. */
class Life {
  readonly #random: Random
  readonly #node = "node-1"
  #actor: ActorState
  #turns = 0

  constructor(name: string, random: Random) {
    this.#random = random
    this.#actor = emptyActor(vmActor, `vm/${name}`)
  }

  get revision(): number {
    return this.#actor.revision
  }

  get stream(): string {
    return this.#actor.stream
  }

  next(): ReadonlyArray<Draft> {
    const turn = takeTurn(vmActor, this.#actor, this.#input(), bornMs + this.#turns * 1000, this.#node)
    if (turn.outcome !== "record") throw new Error(`${this.stream}: ${JSON.stringify(turn)}`)
    this.#turns += 1
    this.#actor = turn.next
    return turn.drafts
  }

  #input(): Input {
    const asked = this.#actor.outstanding[0]
    const correlation = asked?.correlation ?? `command-${this.stream}-${this.#turns}`
    if (asked !== undefined) {
      const message = answerTo(asked.request)
      const principal = { kind: "system" as const, name: asked.request.port }
      const answers = { key: asked.key, final: true }
      return { stream: this.stream, message, id: asked.key, correlation, principal, answers }
    }
    const principal = { kind: "operator" as const, name: "alice@example.com" }
    return {
      stream: this.stream,
      message: this.#command(),
      id: correlation,
      correlation,
      principal,
      answers: null
    }
  }

  #command(): Message {
    if (this.revision < 0) return { type: "vm.create", spec: spec(this.#random), start: true }
    const allowed = allowedCommands(vmActor, this.#actor.chart)
    if (allowed.includes("vm.place"))
      return {
        type: "vm.place",
        host: `host-${this.#random.int(1, 40)}`,
        decision: `${this.stream.slice(3)}.1`
      }
    if (this.#random.chance(0.05) && allowed.includes("vm.snapshot"))
      return { type: "vm.snapshot", snapshot: `at-${this.#turns}` }
    const types = allowed.filter((type) =>
      ["vm.start", "vm.stop", "vm.pause", "vm.resume", "vm.reboot"].includes(type)
    )
    const type = types[this.#random.int(0, types.length - 1)] as string
    return type === "vm.stop" ? { type, force: false } : { type }
  }
}

/** Turns until a machine runs: create, the answer of its placement, place, defined, started. */
export const turnsToRun = 5

/**
 * Write the journal of `machines` machines, `turns` turns each, mixed as in a fleet that works at the same time.
 * Returns the number of facts.
 */
export const writeLives = Effect.fn("bench.writeLives")(function* (
  store: EventStore["Service"],
  work: { readonly machines: number; readonly turns: number; readonly seed: number }
) {
  const random = makeRandom(work.seed)
  const lives = Array.from(
    { length: work.machines },
    (_, n) => new Life(`web-${n}`, random.split(`web-${n}`))
  )
  let facts = 0
  for (let turn = 0; turn < work.turns; turn++) {
    for (let from = 0; from < lives.length; from += 500) {
      const batch = lives.slice(from, from + 500).map((life) => {
        const expectedRevision = life.revision
        return { stream: life.stream, expectedRevision, facts: life.next() }
      })
      facts += (yield* store.append(batch)).length
    }
  }
  return facts
})
