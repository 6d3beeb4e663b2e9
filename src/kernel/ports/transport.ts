/**
 * Moves byte streams between two nodes' agents, authenticated and encrypted. A transfer has named channels; each
 * is one unix socket at either end. Half-closing one end half-closes the other; a broken link closes both.
 */
import { Context, Schema } from "effect"
import type { Effect } from "effect"
import type { Channel } from "../../events/requests.ts"

export class TransportError extends Schema.TaggedError<TransportError>()("TransportError", {
  transfer: Schema.String,
  code: Schema.Literals(["unreachable", "refused", "lost", "unknown", "failed"]),
  reason: Schema.String
}) {
  override get message(): string {
    return `transfer ${this.transfer}: ${this.code}: ${this.reason}`
  }
}

export interface TransferStatistics {
  readonly sentBytes: number
  readonly receivedBytes: number
}

export class Transport extends Context.Service<
  Transport,
  {
    /** Destination: let this transfer in from this node; connect each channel to the given socket on demand. */
    readonly accept: (
      transfer: string,
      from: string,
      channels: ReadonlyArray<Channel>
    ) => Effect.Effect<void, TransportError>
    /**
     * Source: listen on a new unix socket per channel; each connection is carried to the destination. A connection of a
     * channel that had one before waits for the destination, for minutes; with `isResumed` so does the first, which
     * takes up what an earlier process of this node began.
     */
    readonly open: (
      transfer: string,
      address: string,
      channels: ReadonlyArray<string>,
      isResumed?: boolean
    ) => Effect.Effect<ReadonlyArray<Channel>, TransportError>
    readonly statistics: (transfer: string) => Effect.Effect<TransferStatistics, TransportError>
    /** End the transfer at this side and remove its sockets. Closing an unknown one is a success. */
    readonly close: (transfer: string) => Effect.Effect<void, TransportError>
  }
>()("novacron/kernel/ports/Transport") {}
