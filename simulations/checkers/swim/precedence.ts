/**
 * A table only goes forward: after a datagram each member that it speaks of is known at least as it was before, and at
 * least as it says. And nobody but a member itself makes a new incarnation of it.
 */
import type { PeerUpdate, SwimCommand, SwimDatagram } from "../../../src/events/swim.ts"
import type { SwimContext } from "../../../src/actors/swim/step.ts"
import type { Member } from "../../swim/member.ts"
import { Violation } from "../violation.ts"

/** Of two words of the same incarnation the later one stands. */
const order = ["alive", "suspect", "dead", "left"]
const rankOf = (status: string) => order.indexOf(status)

type Said = Pick<PeerUpdate, "incarnation" | "status">

const isBehind = (one: Said, other: Said): boolean =>
  one.incarnation < other.incarnation ||
  (one.incarnation === other.incarnation && rankOf(one.status) < rankOf(other.status))

const text = ({ incarnation, status }: Said) => `${status} ${incarnation}`

export class Precedence {
  /** The highest that each member has made. */
  readonly #made = new Map<string, number>()
  /** The last that each has spoken in, in this life. */
  readonly #spoken = new Map<string, number>()

  stepped(member: Member, input: SwimCommand, before: SwimContext): void {
    const { context, id } = member
    this.#made.set(id, Math.max(this.#made.get(id) ?? 0, context.incarnation))
    if (context.incarnation < before.incarnation)
      throw new Violation(
        "monotone",
        `${id} went from incarnation ${before.incarnation} to ${context.incarnation}`
      )
    // Who has left listens to nobody.
    if (input.type !== "swim.receive" || input.datagram.from === id || member.role === "left") return
    const { head, updates } = input.datagram
    for (const update of updates) {
      if (update.id === id) continue
      const was = before.table.get(update.id)
      const is = context.table.get(update.id)
      if (was !== null && (is === null || isBehind(is, was)))
        throw new Violation(
          "monotone",
          `${id} knew ${update.id} as ${text(was)}, and then as ${is && text(is)}`
        )
      const isLost = is === null || isBehind(is, update)
      // Of strangers only that they live, or where they are, is worth knowing; and the dead of a table are forgotten.
      const isNothing =
        (was === null || was.address === "") && (update.address === "" || head.type === "entries")
      if (
        isLost &&
        !(isNothing && update.status !== "alive") &&
        context.table.length < member.options.settings.membersMax
      )
        throw new Violation(
          "monotone",
          `${id} heard that ${update.id} is ${text(update)}, and knows ${is && text(is)}`
        )
    }
  }

  sent({ id }: Member, { updates }: SwimDatagram): void {
    for (const update of updates) {
      if (update.incarnation > (this.#made.get(update.id) ?? 0))
        throw new Violation("monotone", `${id} speaks of ${update.id} ${text(update)}, which it never was`)
      if (update.id !== id || update.by !== id || update.status !== "alive") continue
      if (update.incarnation < (this.#spoken.get(id) ?? 0))
        throw new Violation(
          "monotone",
          `${id} spoke as ${this.#spoken.get(id)}, and then as ${update.incarnation}`
        )
      this.#spoken.set(id, update.incarnation)
    }
  }

  /** Its disk was lost: it begins anew. */
  wiped({ id }: Member): void {
    this.#spoken.delete(id)
  }
}
