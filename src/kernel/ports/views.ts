/** What actors may ask of the projections; the answer is recorded with the decision made from it. */
import { Context } from "effect"
import type { Effect } from "effect"
import type { HostView } from "../../events/placement.ts"

export class Views extends Context.Service<
  Views,
  {
    /** All hosts as they are known at `position` or later. */
    readonly hosts: (
      position: number
    ) => Effect.Effect<{ readonly hosts: ReadonlyArray<HostView>; readonly position: number }>
  }
>()("novacron/kernel/ports/Views") {}
