/** Exactly-once commands: what was accepted is in the journal, once, however often it was sent; what was refused is not. */
import type { StoredFact } from "../world/event-store.ts"
import { Violation } from "./violation.ts"

export interface Command {
  readonly stream: string
  readonly id: string
  readonly answer: "accepted" | "refused" | null
  readonly positions: ReadonlyArray<number>
}

/** At the end; `facts` are the whole journal. */
export function happenedOnce(commands: ReadonlyArray<Command>, facts: ReadonlyArray<StoredFact>): void {
  const caused = Map.groupBy(facts, ({ stream, causation }) => `${stream} ${causation}`)
  for (const { stream, id, answer, positions } of commands) {
    const found = caused.get(`${stream} ${id}`) ?? []
    const times = found.filter((fact) => fact.id === `${id}#0`).length
    const revisions = found.map(({ revision }) => revision)
    const isTogether = revisions.every((revision, index) => revision === (revisions[0] ?? 0) + index)
    if (times > 1 || !isTogether)
      throw new Violation(
        "exactly-once",
        `${id} to ${stream} took effect at revisions ${revisions.join(", ")}`
      )
    if (answer === "accepted" && found.length === 0)
      throw new Violation("durability", `${id} to ${stream} was accepted and is not in the journal`)
    if (answer === "refused" && found.length > 0)
      throw new Violation("exactly-once", `${id} to ${stream} was refused and took effect`)
    for (const position of positions)
      if (facts[position - 1]?.causation !== id)
        throw new Violation("durability", `${id} was told of position ${position}, which is another's`)
  }
}
