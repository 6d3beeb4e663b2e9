/**
 * Requests and streams of replies between nodes that know each other by certificate. Payloads are plain JSON; who
 * calls and who serves validate them with their own Schemas.
 */
import { Context, Schema } from "effect"
import type { Effect, Scope, Stream } from "effect"

/**
 * Why a call ended without its `END`. After `lost` and `timeout` the other side may have done the work; after
 * the other codes it did not begin it, except `failed`, which is the handler's own answer.
 */
export class LinkError extends Schema.TaggedError<LinkError>()("LinkError", {
  node: Schema.String,
  code: Schema.Literals([
    "unreachable",
    "refused",
    "lost",
    "timeout",
    "unknown-kind",
    "busy",
    "too-large",
    "protocol",
    "failed"
  ]),
  reason: Schema.String
}) {
  override get message(): string {
    return `the link to ${this.node}: ${this.code}: ${this.reason}`
  }
}

/** How a handler says that it failed. */
export class HandlerFailed extends Schema.TaggedError<HandlerFailed>()("HandlerFailed", {
  reason: Schema.String
}) {
  override get message(): string {
    return this.reason
  }
}

/**
 * `peer` is the name in the caller's certificate, `serial` the serial number of that one. Interrupted when the caller cancels or
 * the link breaks.
 */
export type LinkHandler = (
  peer: string,
  payload: unknown,
  serial: string
) => Stream.Stream<unknown, HandlerFailed>

/** What is known of a link from its heartbeats and transfers; null while nothing is. */
export interface LinkSample {
  /** One way: half of the heartbeat's mean round trip. */
  readonly latencyMs: number | null
  /** Mean difference between one latency and the next. */
  readonly jitterMs: number | null
  /** Heartbeats that were not answered before the next was due, of the last ones sent. */
  readonly lossPercent: number
  /** The best rate that a recent transfer or probe reached. */
  readonly bandwidthBitsPerSecond: number | null
}

export interface Peer {
  readonly node: string
  readonly state: "connected" | "connecting"
  /** Since when it is in that state, milliseconds since the Unix epoch. */
  readonly sinceMs: number
  /** Where this node dials it; null when only the peer dials. */
  readonly address: string | null
  readonly version: number | null
  readonly features: ReadonlyArray<string>
  readonly sample: LinkSample | null
  /** Why it is not connected, as far as it is known. */
  readonly lastError: string | null
}

export class Link extends Context.Service<
  Link,
  {
    /** This node's name. */
    readonly node: string
    /** Serve requests of this kind from any peer until the scope closes. A kind served twice is a bug and throws. */
    readonly serve: (kind: string, handler: LinkHandler) => Effect.Effect<void, never, Scope.Scope>
    /** Ask a connected peer. Interrupting the stream cancels the work there. No retries. */
    readonly call: (node: string, kind: string, payload: unknown) => Stream.Stream<unknown, LinkError>
    /** Keep a link to this node; dial again, with bounded back-off, whenever it is lost. */
    readonly connect: (node: string, address: string) => Effect.Effect<void, LinkError>
    /** Stop dialling and end the link. */
    readonly disconnect: (node: string) => Effect.Effect<void>
    readonly peers: Effect.Effect<ReadonlyArray<Peer>>
    /** Tell what a transfer to this peer reached, for the samples. */
    readonly recordTransfer: (node: string, bytes: number, durationMs: number) => Effect.Effect<void>
    /**
     * Somebody says that this peer may be gone: see now, and not with the next heartbeats. A link that does not answer soon is
     * ended and dialled again; one that is down is dialled at once. Gives whether it answers.
     */
    readonly look: (node: string) => Effect.Effect<boolean>
    /** Measure the bandwidth to a peer by sending it `bytes`, at most 8 MiB. Bits per second. */
    readonly probe: (node: string, bytes: number) => Effect.Effect<number, LinkError>
  }
>()("novacron/kernel/ports/Link") {}
