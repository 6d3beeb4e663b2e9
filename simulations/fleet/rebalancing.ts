/** The rebalancer in a simulated fleet: started at a drawn moment and stopped when the faults are over, asked for as often as it takes. */
import { Cause, Effect, Exit } from "effect"
import type { Message } from "../../src/events/envelope.ts"
import { rebalancerStream } from "../../src/events/rebalancer.ts"
import type { RebalancePolicy } from "../../src/events/rebalancer.ts"
import type { Kernel } from "../../src/kernel/kernel.ts"
import type { Random } from "../world/random.ts"
import type { Runtime } from "../world/runtime.ts"

interface World {
  readonly runtime: Runtime
  readonly random: Random
  readonly node: { readonly kernel: Kernel["Service"] | null }
}

const againMs = 500

/** One that looks as often as operators act, and mostly moves for little; null in seven of ten seeds. */
export function drawRebalance(random: Random): RebalancePolicy | null {
  const pick = (some: ReadonlyArray<number>) => some[random.int(0, some.length - 1)] as number
  if (!random.chance(0.3)) return null
  return {
    shadow: random.chance(0.2),
    everyMs: random.int(1000, 8000),
    marginPercent: pick([1, 5, 20]),
    hold: random.int(1, 3),
    movesAtOnce: random.int(1, 4),
    cooldownMs: pick([0, 5000, 3_600_000]),
    moveTimeoutMs: 30_000
  }
}

export class Rebalancing {
  readonly #world: World
  #said = 0
  #isOver = false

  constructor(world: World) {
    this.#world = world
  }

  start(policy: RebalancePolicy, withinMs: number): void {
    const { runtime, random } = this.#world
    runtime.schedule.after(random.split("rebalance").next() * withinMs, () =>
      this.#say({ type: "rebalancer.start", policy })
    )
  }

  /** One that was never started refuses it, and is not started any more. */
  end(): void {
    this.#isOver = true
    this.#say({ type: "rebalancer.stop", reason: "the faults are over" })
  }

  /** Again until it is heard; what is asked for too late is not. */
  #say(message: Message, id = `rebalance-${++this.#said}`): void {
    const { node, runtime } = this.#world
    if (this.#isOver && message.type === "rebalancer.start") return
    const again = () => runtime.schedule.after(againMs, () => this.#say(message, id))
    if (node.kernel === null) return again()
    const principal = { kind: "operator", name: "somebody" } as const
    const said = node.kernel.submit({ stream: rebalancerStream, message, id, correlation: id, principal })
    runtime.start(Effect.timeout(said, 5000), (exit) => {
      const error = Exit.isFailure(exit) ? (Cause.squash(exit.cause) as { readonly _tag?: string }) : null
      if (error !== null && error._tag !== "CommandRefused") again()
    })
  }
}
