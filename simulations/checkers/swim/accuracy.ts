/** Who lives and can be reached is, while all is calm, neither suspected nor taken for dead. */
import type { SwimRequest } from "../../../src/events/swim.ts"
import type { Member } from "../../swim/member.ts"
import { Violation } from "../violation.ts"

export class Accuracy {
  readonly #members: ReadonlyMap<string, Member>
  #isCalm = false
  /** Deaths of living members that anyone has declared, calm or not. */
  falseDeaths = 0
  suspicions = 0
  deaths = 0

  constructor(members: ReadonlyMap<string, Member>) {
    this.#members = members
  }

  calm(): void {
    this.#isCalm = true
  }

  stepped({ id, context }: Member, asked: ReadonlyArray<SwimRequest>): void {
    for (const request of asked) {
      if (request.port !== "peers" || request.op !== "changed") continue
      const { peer, by } = request
      if (peer.status !== "suspect" && peer.status !== "dead") continue
      if (peer.status === "suspect") this.suspicions++
      if (by === context.id && peer.status === "dead") this.deaths++
      const accused = this.#members.get(peer.id)
      if (accused === undefined || !accused.isUp) continue
      if (peer.status === "dead") this.falseDeaths++
      if (this.#isCalm)
        throw new Violation("accuracy", `${id} says that ${peer.id} is ${peer.status}, by ${by}; it lives`)
    }
  }
}
