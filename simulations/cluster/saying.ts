/**
 * What hosts say to the nodes of a simulated cluster, each to whom it knows, and which of it nobody has answered yet. What lies on a
 * host has to be held against all that was known to anybody before it was told: a node that is behind may not know what has come there.
 */
import { Effect } from "effect"
import type { Kernel } from "../../src/kernel/kernel.ts"
import { hear, sayToAny } from "../../src/kernel/membership.ts"
import type { Machines, Said, Say } from "../../src/kernel/membership.ts"
import { Violation } from "../checkers/violation.ts"
import type { Noticed } from "../checkers/violation.ts"
import type { StoredFact } from "../world/event-store.ts"
import type { ClusterHost } from "./host.ts"
import type { ClusterNode } from "./node.ts"

interface World {
  readonly nodes: ReadonlyMap<string, ClusterNode>
  readonly faults: { readonly told: (host: string, node: ClusterNode) => void }
  readonly noticed: Noticed
  readonly journals: { readonly facts: ReadonlyArray<StoredFact> }
}

export class Saying {
  readonly #world: World
  readonly #open = new Set<string>()
  #said = 0
  readonly counts = {
    /** What lies on a host, told to a node that was behind what others knew by then. */
    toldBehind: 0
  }

  constructor(world: World) {
    this.#world = world
  }

  /** What hosts are saying, and nobody has answered yet. */
  get open(): ReadonlySet<string> {
    return this.#open
  }

  from(host: ClusterHost): Say {
    const { nodes } = this.#world
    const known = () =>
      [...nodes.values()]
        .filter(({ id, members }) => host.lineTo(id).isUp && members.includes(id))
        .map(({ id }) => id)
    const say = sayToAny(known, (id, said) => this.#sayTo(host, nodes.get(id) as ClusterNode, said))
    return (said) =>
      Effect.suspend(() => {
        const name = `${++this.#said} of ${host.name}: ${"machines" in said ? "machines" : said.message.type}`
        this.#open.add(name)
        return say(said).pipe(Effect.ensuring(Effect.sync(() => this.#open.delete(name))))
      })
  }

  #sayTo(host: ClusterHost, node: ClusterNode, said: Said | Machines): ReturnType<Say> {
    const ask = (work: (kernel: Kernel["Service"]) => ReturnType<Say>) =>
      host.lineTo(node.id).ask(node.serve(work))
    if (!("machines" in said)) return ask((kernel) => hear(kernel, host.name, said))
    return Effect.suspend(() => {
      const { journals, faults, noticed } = this.#world
      const known = journals.facts.length
      const { facts } = node.journal.memory
      if (facts.length < known) this.counts.toldBehind++
      return ask((kernel) => {
        faults.told(host.name, node)
        if (node.kernel !== kernel) return Effect.never
        const resident = () => {
          noticed.within(() => isLate(`${node.id} and ${host.name}`, known, facts.length))
          return kernel.resident()
        }
        return hear({ ...kernel, resident }, host.name, said)
      })
    })
  }
}

function isLate(who: string, known: number, facts: number): void {
  if (facts >= known) return
  const message = `${who}: what lies on the host is held against ${facts} facts, and ${known} were known when it was told`
  throw new Violation("linearizability", message)
}
