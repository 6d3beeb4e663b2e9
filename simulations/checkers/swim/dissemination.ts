/** Completeness needs that whoever notices or hears something tells others, soon: while all is calm this is looked at. */
import type { PeerUpdate, SwimCommand, SwimDatagram } from "../../../src/events/swim.ts"
import type { SwimContext } from "../../../src/actors/swim/step.ts"
import type { Member } from "../../swim/member.ts"
import { Violation } from "../violation.ts"

const keyOf = ({ id, status, incarnation }: Pick<PeerUpdate, "id" | "status" | "incarnation">) =>
  `${id} ${status} ${incarnation}`

export class Dissemination {
  #isCalm = false
  /** By member: what it has to tell, and since when. */
  readonly #owed = new Map<string, Map<string, number>>()

  calm(): void {
    this.#isCalm = true
  }

  stepped(member: Member, input: SwimCommand, before: SwimContext, nowMs: number): void {
    if (!this.#isCalm) return
    const { context, id } = member
    if (
      context.table === before.table ||
      (input.type === "swim.receive" && input.datagram.head.type === "entries")
    )
      return
    for (let place = 0; place < context.table.length; place++) {
      const peer = context.table.at(place)
      const was = before.table.get(peer.id)
      if (was !== null && keyOf(was) === keyOf(peer)) continue
      const owed = this.#owed.get(id) ?? new Map<string, number>()
      owed.set(keyOf(peer), nowMs)
      this.#owed.set(id, owed)
    }
  }

  sent({ id }: Member, { updates }: SwimDatagram): void {
    if (!this.#isCalm) return
    for (const update of updates) this.#owed.get(id)?.delete(keyOf(update))
  }

  /** Of those that are up: nobody owes anybody anything that is still so after this time. */
  check(members: Iterable<Member>, nowMs: number): void {
    for (const { id, context, options } of [...members].filter((one) => one.isUp)) {
      // Whoever is alone has nobody to tell.
      if (context.table.present <= 1) continue
      const patienceMs = 3 * options.settings.gossipEveryMs + options.settings.periodMs / 2
      for (const [key, sinceMs] of this.#owed.get(id) ?? []) {
        const peer = context.table.get(key.split(" ")[0] ?? "")
        if (nowMs - sinceMs > patienceMs && peer !== null && keyOf(peer) === key)
          throw new Violation(
            "completeness",
            `${id} knows that ${key}, and has told nobody for ${nowMs - sinceMs} ms`
          )
      }
    }
  }
}
