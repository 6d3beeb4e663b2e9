/** How a command ends at the kernel's door: accepted, or with one of these errors. */
import { Schema } from "effect"
import type { Recorded } from "../events/envelope.ts"
import type { Unavailable } from "./ports/consensus.ts"
import type { RevisionConflict, StoreFailure } from "./ports/event-store.ts"

/** The actor is not in a state for this command. `allowed` and `unmet` are read from its chart. */
export class CommandRefused extends Schema.TaggedError<CommandRefused>()("CommandRefused", {
  stream: Schema.String,
  command: Schema.String,
  state: Schema.String,
  allowed: Schema.Array(Schema.String),
  unmet: Schema.Array(Schema.String)
}) {
  override get message(): string {
    const why =
      this.unmet.length > 0
        ? `the condition ${this.unmet.join(" or ")} does not hold`
        : `allowed now: ${this.allowed.join(", ") || "nothing"}`
    return `${this.stream} is ${this.state}: ${this.command} is refused; ${why}`
  }
}

/** The line is full; nothing of the command was kept, and the same command may be sent again. */
export class Overloaded extends Schema.TaggedError<Overloaded>()("Overloaded", {
  waiting: Schema.Int,
  waiting_max: Schema.Int
}) {
  override get message(): string {
    return `${this.waiting} inputs wait already, ${this.waiting_max} at most; send it again later`
  }
}

/** No actor of this kind. */
export class UnknownKind extends Schema.TaggedError<UnknownKind>()("UnknownKind", {
  stream: Schema.String,
  allowed: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return `${this.stream} is no actor; kinds: ${this.allowed.join(", ")}`
  }
}

export interface Accepted {
  readonly stream: string
  readonly revision: number
  readonly position: number
  readonly facts: ReadonlyArray<Recorded>
  /** The same command had been accepted before; nothing was recorded this time. */
  readonly duplicate: boolean
}

export type SubmitError =
  CommandRefused | Overloaded | UnknownKind | Unavailable | StoreFailure | RevisionConflict
