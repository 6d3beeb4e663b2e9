/**
 * What was seen of the production's charts, by every turn that a kernel took, also those whose facts a crash lost: `state vm/running.idle`,
 * `move vm/stopped.idle vm/starting`, `input vm/running.idle vm.stop` and `fact vm.started`.
 */
import type { Draft } from "../../src/events/envelope.ts"
import { withoutPrefix } from "../../src/events/envelope.ts"
import type { ActorKind } from "../../src/kernel/actor.ts"
import { describe, evolve } from "../../src/kernel/statechart.ts"
import type { ChartState } from "../../src/kernel/statechart.ts"
import { answeredType, takeTurn } from "../../src/kernel/turn.ts"
import type { ActorState } from "../../src/kernel/turn.ts"

/** A place of a chart in which an actor was. */
interface Visited {
  readonly name: string
  readonly inputs: Set<string>
  /** By the fact that leads there: facts have no guards, so it is always the same. */
  readonly next: Map<string, Visited>
}

const nothing: ReadonlyArray<Draft> = []

export class Charts {
  readonly coverage = new Set<string>()
  readonly #visited = new Map<ChartState["place"], Visited>()

  /** For a kernel, in the place of its own: the turn is the same. */
  readonly takeTurn: typeof takeTurn = (kind, actor, input, timeMs, node) => {
    const turn = takeTurn(kind, actor, input, timeMs, node)
    if (turn.outcome !== "duplicate")
      this.#saw(kind, actor, input.message.type, turn.outcome === "record" ? turn.drafts : nothing)
    return turn
  }

  /** Nearly all turns are like one that was seen before, and cost a look for each fact. */
  #saw(kind: ActorKind, actor: ActorState, input: string, facts: ReadonlyArray<Draft>): void {
    const from = this.#at(kind, actor.chart)
    if (!from.inputs.has(input)) {
      from.inputs.add(input)
      this.coverage.add(`input ${from.name} ${input}`)
    }
    let at: Visited | undefined = from
    for (const { type } of facts) if ((at = at.next.get(type)) === undefined) break
    if (at === undefined) this.#follow(kind, actor, facts)
  }

  #at(kind: ActorKind, chart: ChartState): Visited {
    const known = this.#visited.get(chart.place)
    if (known !== undefined) return known
    const visited = { name: `${kind.kind}/${describe(chart)}`, inputs: new Set<string>(), next: new Map() }
    this.#visited.set(chart.place, visited)
    this.coverage.add(`state ${visited.name}`)
    return visited
  }

  #follow(kind: ActorKind, { stream, chart }: ActorState, facts: ReadonlyArray<Draft>): void {
    let state = chart
    for (const fact of facts) {
      const type = withoutPrefix(fact.type)
      const at = this.#at(kind, state)
      const stamp = { self: stream, timeMs: fact.timeMs }
      if (type !== answeredType) state = evolve(kind, state, { ...fact.data, type, stamp }).state
      const next = this.#at(kind, state)
      this.coverage.add(`fact ${type}`)
      if (next !== at) this.coverage.add(`move ${at.name} ${next.name}`)
      at.next.set(fact.type, next)
    }
  }
}
