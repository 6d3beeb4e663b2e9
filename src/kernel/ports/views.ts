/** What actors may ask of the projections; the answer is recorded with the decision made from it. */
import { Context } from "effect"
import type { Effect } from "effect"
import type { HostView, Others } from "../../events/placement.ts"
import type { Loads } from "../../events/rebalancer.ts"
import type { Request } from "../../events/requests.ts"

export type HostsRequest = Extract<Request, { readonly port: "view"; readonly op: "hosts" }>
export type LoadsRequest = Extract<Request, { readonly port: "view"; readonly op: "loads" }>

export interface Hosts {
  readonly hosts: ReadonlyArray<HostView>
  /** The position up to which the view has all facts. */
  readonly position: number
  /** Where not all hosts are named. */
  readonly others?: Others
}

export class Views extends Context.Service<
  Views,
  {
    /**
     * The hosts as they are known at `position` or later: all of them, or of very many those that could take the machine
     * of the question, as many as it takes for a choice.
     */
    readonly hosts: (position: number, asked?: HostsRequest) => Effect.Effect<Hosts>
    /** What the hosts have promised, as it is known at `position` or later. */
    readonly loads: (position: number, asked: LoadsRequest) => Effect.Effect<Loads>
  }
>()("novacron/kernel/ports/Views") {}
