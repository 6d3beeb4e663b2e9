/** The agents of the hosts: each performs the requests for the machines on its own host, and only those. */
import { Context, Schema } from "effect"
import type { Stream } from "effect"
import type { HypervisorReport, HypervisorRequest } from "../../events/requests.ts"

/** The host's agent can't be asked now. What it was asked before may or may not have been done. */
export class AgentUnreachable extends Schema.TaggedError<AgentUnreachable>()("AgentUnreachable", {
  host: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `the agent of ${this.host} is out of reach: ${this.reason}`
  }
}

export class Agents extends Context.Service<
  Agents,
  {
    /** Reports of the request, the last of which concludes it. The same key is never performed twice at once. */
    readonly perform: (
      key: string,
      request: HypervisorRequest
    ) => Stream.Stream<HypervisorReport, AgentUnreachable>
  }
>()("novacron/kernel/ports/Agents") {}
