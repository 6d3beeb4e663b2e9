/** All that live know one another as they are, also what they tell of themselves, and nobody else as living. */
import type { Member } from "../../swim/member.ts"

/** Where two differ about somebody; null when nobody differs. */
export function disagreement(members: ReadonlyMap<string, Member>): string | null {
  const up = [...members.values()].filter(({ isUp }) => isUp)
  for (const { id, context } of up) {
    const { table } = context
    for (const other of up) {
      const known = table.get(other.id)
      if (known?.status !== "alive") return `${id} knows ${other.id}, which lives, as ${known?.status}`
      if (known.incarnation !== other.context.incarnation)
        return `${id} knows ${other.id} as ${known.incarnation}, it is ${other.context.incarnation}`
      if (known.meta !== other.meta)
        return `${id} knows of ${other.id} "${known.meta}", it says "${other.meta}"`
    }
    for (let place = 0; place < table.length; place++) {
      const { status, id: name } = table.at(place)
      if ((status === "alive" || status === "suspect") && members.get(name)?.isUp !== true)
        return `${id} knows ${name}, which is gone, as ${status}`
    }
    if (table.present !== up.length) return `${id} counts ${table.present} members, there are ${up.length}`
  }
  return null
}
