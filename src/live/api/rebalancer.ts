/** The rebalancer as the API shows it, and what people may ask of it. */
import { Effect } from "effect"
import type { RebalancePolicy, RebalancerState } from "../../events/rebalancer.ts"
import { rebalancerStream } from "../../events/rebalancer.ts"
import type { Kernel } from "../../kernel/kernel.ts"
import { describe } from "../../kernel/statechart.ts"
import type { RebalancerStatus } from "./bodies.ts"
import { StoreUnavailable } from "./problems.ts"

export const rebalancerSayings = {
  start: ({ payload }: { readonly payload: RebalancePolicy }) => ({
    stream: rebalancerStream,
    message: { type: "rebalancer.start", policy: payload }
  }),
  stop: ({ payload }: { readonly payload: { readonly reason?: string } | null }) => ({
    stream: rebalancerStream,
    message: { type: "rebalancer.stop", reason: payload?.reason ?? "" }
  })
}

export const rebalancerStatus = (
  kernel: Kernel["Service"]
): Effect.Effect<RebalancerStatus, StoreUnavailable> =>
  Effect.suspend(() => kernel.state(rebalancerStream)).pipe(
    Effect.map(({ chart }) => {
      const { policy, moves, last } = chart.context as RebalancerState
      return { state: describe(chart) as RebalancerStatus["state"], policy, moves, last }
    }),
    Effect.mapError((error) => new StoreUnavailable({ detail: error.message }))
  )
