/**
 * The hypervisor on one host. Every operation is idempotent: what is already so is a success. Machines outlive
 * the process that serves this port; a new one finds them again.
 */
import { Context, Schema } from "effect"
import type { Effect, Stream } from "effect"
import type { HostFacts } from "../../events/host.ts"
import type { Channel, HypervisorReport, MigrationPolicy } from "../../events/requests.ts"
import type { Platform, VmSpec, VmState } from "../../events/vm.ts"

export class HypervisorError extends Schema.TaggedError<HypervisorError>()("HypervisorError", {
  op: Schema.String,
  vm: Schema.String,
  code: Schema.Literals(["not-found", "wrong-state", "unsupported", "no-room", "timeout", "lost", "failed"]),
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.op} of ${this.vm}: ${this.code}: ${this.reason}`
  }
}

export interface VmObservation {
  readonly vm: string
  readonly state: VmState
}

/** The guest ended without being asked to. */
export interface VmEnded {
  readonly vm: string
  readonly cause: "guest-shutdown" | "crash"
  readonly reason: string
}

/** What sends a machine here. */
export interface Arrival {
  readonly migration: string
  /** The node that sends. */
  readonly from: string
  /** How long it may wait for the source, when its link is away. */
  readonly timeoutMs: number
  /** Whether the guest may go on here before all of its memory has come. */
  readonly postCopy: boolean
}

/** A machine that another host still sends: one that waits to arrive, or one that runs before all of its memory is here. */
export interface Arriving extends Arrival {
  readonly vm: string
  /** As `prepareIncoming` returned them. */
  readonly channels: ReadonlyArray<Channel>
}

export type MigrationReport = Extract<
  HypervisorReport,
  { type: "hypervisor.progressed" | "hypervisor.handedOver" | "hypervisor.migrated" }
>

export class Hypervisor extends Context.Service<
  Hypervisor,
  {
    readonly facts: Effect.Effect<HostFacts, HypervisorError>
    readonly list: Effect.Effect<ReadonlyArray<VmObservation>, HypervisorError>
    readonly observe: (vm: string) => Effect.Effect<VmState, HypervisorError>
    /** Make disks and configuration. `cloneOf` copies the disks of a machine on this host. */
    readonly define: (
      vm: string,
      spec: VmSpec,
      cloneOf?: { readonly vm: string; readonly snapshot?: string | undefined }
    ) => Effect.Effect<void, HypervisorError>
    readonly start: (vm: string) => Effect.Effect<Platform, HypervisorError>
    /** Ask the guest to power off; after the grace time, or with `force` at once, end it. */
    readonly stop: (vm: string, options: { readonly force: boolean }) => Effect.Effect<void, HypervisorError>
    readonly pause: (vm: string) => Effect.Effect<void, HypervisorError>
    /** Let it run: after `pause`, at the destination after the hand-over, at the source to roll one back. */
    readonly resume: (vm: string) => Effect.Effect<void, HypervisorError>
    readonly reboot: (vm: string) => Effect.Effect<void, HypervisorError>
    /**
     * End it if it runs and remove everything of it from this host; with `keepShared` all but disks that other hosts see, because it
     * may be on one of them.
     */
    readonly remove: (
      vm: string,
      options?: { readonly keepShared: boolean }
    ) => Effect.Effect<void, HypervisorError>
    /** A snapshot of the disks, of the stopped or the running machine (crash-consistent then). */
    readonly snapshot: (
      vm: string,
      snapshot: string
    ) => Effect.Effect<{ readonly bytes: number }, HypervisorError>
    /** Put the disks of the stopped machine back to the snapshot. */
    readonly restore: (vm: string, snapshot: string) => Effect.Effect<void, HypervisorError>
    /** Reasons why this host can't take the machine, which runs on `platform`; empty when it can. Changes nothing. */
    readonly checkIncoming: (
      vm: string,
      spec: VmSpec,
      platform?: Platform
    ) => Effect.Effect<ReadonlyArray<string>, HypervisorError>
    /**
     * Make the machine ready to arrive, paused. Returns the unix sockets that take the channels: `ram`, and one per
     * disk that has to move.
     */
    readonly prepareIncoming: (
      vm: string,
      spec: VmSpec,
      arrival: Arrival,
      platform?: Platform
    ) => Effect.Effect<ReadonlyArray<Channel>, HypervisorError>
    /** What was prepared and has not come whole, those of before a restart included: let it in again. */
    readonly arriving: Effect.Effect<ReadonlyArray<Arriving>, HypervisorError>
    /**
     * Send the running machine into `channels` (unix sockets that lead to the destination's). The last element is
     * `hypervisor.migrated`. `hypervisor.handedOver` comes exactly once before it: from then on the guest does not
     * run here. A failure before the hand-over leaves the guest running here. Asking again joins the one under way.
     */
    readonly migrate: (
      vm: string,
      migration: string,
      channels: ReadonlyArray<Channel>,
      policy: MigrationPolicy
    ) => Stream.Stream<MigrationReport, HypervisorError>
    /** Whether this migration is by post-copy now: the guest has left, and the rest of its memory is here only. */
    readonly isSending: (vm: string, migration: string) => Effect.Effect<boolean, HypervisorError>
    /** Before the hand-over: stop sending; the guest goes on here. After it: `wrong-state`. */
    readonly cancelMigration: (vm: string, migration: string) => Effect.Effect<void, HypervisorError>
    /**
     * By post-copy, when nothing more will be sent: true when all of the machine has come, and it goes on; false when
     * it has not, and its guest was ended.
     */
    readonly settleArrival: (vm: string, migration: string) => Effect.Effect<boolean, HypervisorError>
    /** End the waiting or arrived machine that was never resumed, with the disks that were made for it. */
    readonly abandonIncoming: (vm: string, migration: string) => Effect.Effect<void, HypervisorError>
    /** Unix socket of the first serial console. */
    readonly console: (vm: string) => Effect.Effect<string, HypervisorError>
    readonly ended: Stream.Stream<VmEnded>
  }
>()("novacron/kernel/ports/Hypervisor") {}
