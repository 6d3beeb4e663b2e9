/** Who asks a node that goes on is answered within its patience, as that node's steady clock has it, whatever its time of day. */
import { Violation } from "./violation.ts"

interface Asked {
  readonly life: number
  sinceMs: number
}

interface Node {
  readonly id: string
  readonly life: number
  readonly isAwake: boolean
  /** Of its steady clock. */
  readonly nowMs: number
}

export class Patience {
  readonly #limitMs: number
  readonly #open = new Map<string, Set<Asked>>()
  looked = 0

  /** One that waits together with others, in one proposal, waits as long as the last of them. */
  constructor(patienceMs: number, slackMs: number) {
    this.#limitMs = 2 * patienceMs + slackMs
  }

  /** Call what is returned when it is answered. */
  asked({ id, life, nowMs }: Node): () => void {
    const open = this.#open.get(id) ?? new Set()
    this.#open.set(id, open)
    const one = { life, sinceMs: nowMs }
    open.add(one)
    return () => void open.delete(one)
  }

  /** What no patience helps against begins it anew: a node that stands still, and a journal whose disk does not answer. */
  look(node: Node, isStalled: boolean): void {
    const open = this.#open.get(node.id)
    for (const one of open ?? []) {
      this.looked++
      if (one.life !== node.life) open?.delete(one)
      else if (isStalled || !node.isAwake) one.sinceMs = node.nowMs
      else if (node.nowMs - one.sinceMs > this.#limitMs)
        throw new Violation(
          "liveness",
          `who asked ${node.id} waits for ${node.nowMs - one.sinceMs} ms, and ${this.#limitMs} is all that it may take`
        )
    }
  }
}
