/** Every migration ends in exactly one of completed, cancelled and failed. */
import type { StoredFact } from "../world/event-store.ts"
import { migrationsOf } from "./fleet.ts"
import type { Seen } from "./fleet.ts"
import { Violation } from "./violation.ts"

const ends = ["completed", "cancelled", "failed"]
const isEnd = ({ type }: StoredFact) => ends.some((end) => type === `novacron.migration.${end}`)

/** When all is quiet. */
export function endedOnce(seen: Seen): void {
  const endings = Map.groupBy(seen.facts.filter(isEnd), ({ stream }) => stream)
  for (const { id, state } of migrationsOf(seen)) {
    const said = endings.get(id) ?? []
    if (!ends.includes(state)) throw new Violation("liveness", `${id} stays ${state}`)
    if (said.length !== 1)
      throw new Violation("one-ending", `${id} ended ${said.map(({ type }) => type).join(" and ")}`)
  }
}
