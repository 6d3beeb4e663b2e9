/** The serial consoles of machines, wherever their hosts are, as streams of octets both ways. */
import { Context, Schema } from "effect"
import type { Effect, Scope, Stream } from "effect"

export class ConsoleError extends Schema.TaggedError<ConsoleError>()("ConsoleError", {
  vm: Schema.String,
  host: Schema.String,
  code: Schema.Literals(["unreachable", "not-found", "wrong-state", "lost", "failed"]),
  reason: Schema.String
}) {
  override get message(): string {
    return `the console of ${this.vm} on ${this.host}: ${this.code}: ${this.reason}`
  }
}

/** One connection to a console. The hypervisor has one at a time: who connects second waits for the first to end. */
export interface ConsoleLink {
  /** What the guest says from now on. Read slowly, it is not lost; ends when the machine does. */
  readonly output: Stream.Stream<Uint8Array, ConsoleError>
  /** Succeeds when the octets are on their way; waits while the guest does not take any. */
  readonly write: (octets: Uint8Array) => Effect.Effect<void, ConsoleError>
}

export interface ConsolePlace {
  readonly vm: string
  readonly host: string
  /** Where the host's agent is to be reached. */
  readonly address: string
}

export class Consoles extends Context.Service<
  Consoles,
  {
    /** No machine is behind these consoles: what they say is computed. */
    readonly simulated: boolean
    /** Connected until the scope closes. Also a machine that is arriving by a migration can be asked. */
    readonly open: (place: ConsolePlace) => Effect.Effect<ConsoleLink, ConsoleError, Scope.Scope>
  }
>()("novacron/kernel/ports/Consoles") {}
