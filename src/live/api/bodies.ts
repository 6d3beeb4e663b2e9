/** What goes over the wire besides facts: requests, operations, dry runs and the rows of the views. */
import { Schema } from "effect"
import { tokenLifetimeMs_max, TokenHash } from "../../events/authority.ts"
import { Recorded } from "../../events/envelope.ts"
import { int, Name, Stream, text, withDefault } from "../../events/fields.ts"
import { PeerDescription } from "../../events/peer.ts"
import { Candidate, Others } from "../../events/placement.ts"
import { RebalanceDecision, RebalancePolicy } from "../../events/rebalancer.ts"
import { MigrationPolicy } from "../../events/requests.ts"
import { VmSpec } from "../../events/vm.ts"
import { Duration } from "../config/duration.ts"

/** A row whose named fields are promised; a view may say more. */
const row = <const Fields extends Schema.Struct.Fields>(fields: Fields) =>
  Schema.StructWithRest(Schema.Struct(fields), [Schema.Record(Schema.String, Schema.Unknown)])

/** An operation's id: the command's idempotency key. */
export const OperationId = Schema.String.check(
  Schema.isPattern(/^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$/, {
    expected: "1 to 128 characters A-Z a-z 0-9 _ . : -, beginning with a letter or digit"
  })
)

export const wait_maxMs = 600_000

export const commandQuery = {
  /** Answer when the operation has ended, or after so long. */
  wait: Schema.optionalKey(Duration(0, wait_maxMs)),
  /** Say what would be recorded and asked; do nothing. */
  dryRun: Schema.optionalKey(Schema.Literals(["true", "false"]))
}
export const commandHeaders = { "idempotency-key": Schema.optionalKey(OperationId) }

export const CreateVm = Schema.Struct({
  name: Name,
  spec: VmSpec,
  host: Schema.optionalKey(Name),
  start: withDefault(Schema.Boolean, false)
})
export const CloneVm = Schema.Struct({
  name: Name,
  snapshot: Schema.optionalKey(Name),
  start: withDefault(Schema.Boolean, false)
})
export const SnapshotName = Schema.Struct({ snapshot: Name })
export const Reason = Schema.Struct({ reason: withDefault(text(256), "") })
export const MigrateVm = Schema.Struct({
  to: Schema.optionalKey(Name),
  policy: withDefault(MigrationPolicy, {}),
  reason: withDefault(text(4096), "")
})
export type MigrateVm = typeof MigrateVm.Type

export const OpenConsole = Schema.Struct({
  /** Only watch. One may type at a console at a time, any number may watch. */
  readOnly: withDefault(Schema.Boolean, false),
  /** Take the right to type from who has it. */
  force: withDefault(Schema.Boolean, false)
})

export const Operation = Schema.Struct({
  id: Schema.String,
  stream: Schema.String,
  /** The first fact that it recorded, `vm.startRequested`. */
  began: Schema.String,
  state: Schema.Literals(["running", "succeeded", "failed"]),
  /** Why it failed; null while it has not. */
  reason: Schema.NullOr(Schema.String),
  /** Positions of its first and, so far, its last fact on its own stream. */
  position: Schema.Int,
  lastPosition: Schema.Int,
  startedMs: Schema.Int,
  updatedMs: Schema.Int
})
export type Operation = typeof Operation.Type

export const PlacementPreview = Schema.Struct({
  chosen: Schema.NullOr(Schema.String),
  reason: Schema.String,
  candidates: Schema.Array(Candidate),
  others: Schema.optionalKey(Others)
})
export type PlacementPreview = typeof PlacementPreview.Type

export const DryRun = Schema.Struct({
  dryRun: Schema.tag(true),
  stream: Schema.String,
  stateBefore: Schema.String,
  stateAfter: Schema.String,
  wouldRecord: Schema.Array(row({ type: Schema.String })),
  wouldAsk: Schema.Array(row({ port: Schema.String })),
  /** Where the machine would go by what is known now; null when the command places nothing. */
  placement: Schema.NullOr(PlacementPreview),
  /** Why a migration can't be done; empty when nothing is in its way, null when it was not checked. */
  blockers: Schema.NullOr(Schema.Array(Schema.String))
})
export type DryRun = typeof DryRun.Type

export const pageQuery = {
  from: Schema.optionalKey(Schema.FiniteFromString.check(Schema.isInt(), Schema.isGreaterThanOrEqualTo(0))),
  limit: Schema.optionalKey(
    Schema.FiniteFromString.check(
      Schema.isInt(),
      Schema.isBetween({ minimum: 1, maximum: 1000 }, { expected: "a whole number from 1 to 1000" })
    )
  )
}
/** `stale` reads what this node has; `linearizable`, the default, is never older than the request. */
export const consistencyQuery = {
  consistency: Schema.optionalKey(Schema.Literals(["linearizable", "stale"]))
}

/** Of a list whose rows have names. */
export const listQuery = { after: Schema.optionalKey(Name), limit: pageQuery.limit, ...consistencyQuery }
/** How the group of nodes that decide stands, as this node knows it. */
export const ClusterStatus = Schema.Struct({
  node: Schema.String,
  /** `alone` where there is no group. */
  role: Schema.Literals(["alone", "follower", "poller", "candidate", "leader"]),
  term: Schema.Int,
  leader: Schema.NullOr(Schema.String),
  voters: Schema.Array(Schema.String),
  /** Voters of before, while a change of them is under way. */
  outgoing: Schema.Array(Schema.String),
  learners: Schema.Array(Schema.String),
  /** Members that this node has a connection with, itself included. */
  connected: Schema.Array(Schema.String),
  /** Of the group's log: known to be decided, its last entry, and the one before its first. */
  commit: Schema.Int,
  last: Schema.Int,
  base: Schema.Int,
  /** Why this node is no member any more, where it has learned that; null while it may be one. */
  removed: Schema.NullOr(Schema.String),
  /** The journal's last position here. */
  position: Schema.Int
})
export type ClusterStatus = typeof ClusterStatus.Type

/** A node as the failure detectors notice it, by what is recorded of it. */
export const PeerRow = Schema.Struct({
  name: Name,
  state: Schema.Literals(["alive", "suspect", "failed", "left"]),
  /** Which of its lives; it takes another for each change of what it says too. */
  incarnation: Schema.Int,
  address: Schema.String,
  description: PeerDescription,
  /** Who said the last of it: who accuses it, where it is suspected or failed. */
  by: Schema.String,
  /** Since when it is in its state. */
  sinceMs: Schema.Number
})
export type PeerRow = typeof PeerRow.Type
/** Who evens out what hosts have promised. */
export const RebalancerStatus = Schema.Struct({
  state: Schema.Literals(["off", "waiting", "looking"]),
  /** Null while it is off. */
  policy: Schema.NullOr(RebalancePolicy),
  /** All that were ever decided. */
  moves: Schema.Int,
  /** The last decision, also one that nothing is to be done. */
  last: Schema.NullOr(Schema.Struct({ ...RebalanceDecision.fields, timeMs: Schema.Int }))
})
export type RebalancerStatus = typeof RebalancerStatus.Type

/** The certificate authority of the cluster's nodes. */
export const AuthorityStatus = Schema.Struct({
  /** SHA-256 of its public key, base64url: the last part of a join token. */
  hash: Schema.String,
  /** PEM. */
  certificate: Schema.String,
  /** Whether the node that answers can sign. */
  hasKey: Schema.Boolean,
  /** Nodes that were given the key, ever. */
  keyHolders: Schema.Array(Schema.String),
  names: Schema.Int,
  openTokens: Schema.Int
})

/** To whom a name belongs. */
export const NameRow = Schema.Struct({
  name: Schema.String,
  state: Schema.Literals(["valid", "ended", "revoked"]),
  /** Of its last certificate, hexadecimal. */
  serial: Schema.String,
  votes: Schema.Boolean,
  issuedMs: Schema.Int,
  notAfterMs: Schema.Int,
  /** The token with which it joined, by its hash; null where there was none. */
  token: Schema.NullOr(Schema.String)
})

/** By the SHA-256 of its secret, hexadecimal. */
export const TokenRow = Schema.Struct({
  token: Schema.String,
  state: Schema.Literals(["open", "used", "ended"]),
  node: Schema.NullOr(Schema.String),
  votes: Schema.Boolean,
  expiresMs: Schema.Int,
  usedBy: Schema.NullOr(Schema.String)
})

/** The secret stays where it was drawn. */
export const MakeToken = Schema.Struct({
  token: TokenHash,
  node: Schema.optionalKey(Schema.NullOr(Name)),
  votes: withDefault(Schema.Boolean, false),
  lifetimeMs: withDefault(int(1, tokenLifetimeMs_max), 3_600_000),
  reason: withDefault(text(256), "")
})

export const Kind = Schema.String.check(
  Schema.isPattern(/^[a-z]{1,32}$/, { expected: "a kind of actor, vm" })
)
export const StreamName = Schema.String.check(
  Schema.isPattern(/^[a-z0-9]([a-z0-9.-]{0,126}[a-z0-9])?$/, { expected: "a name, web-1" })
)

export const Facts = Schema.Struct({
  facts: Schema.Array(Recorded),
  /** The `from` of the next page; null at the end. */
  next: Schema.NullOr(Schema.Int)
})

/** An actor's state as its facts made it. */
export const StateAt = Schema.Struct({
  stream: Stream,
  at: Schema.Struct({ position: Schema.Int, timeMs: Schema.NullOr(Schema.Int) }),
  revision: Schema.Int,
  state: Schema.String,
  context: Schema.Unknown,
  outstanding: int(0, Number.MAX_SAFE_INTEGER)
})

/** A whole replay: every actor as its facts up to then made it, folded again from the first. */
export const Replay = Schema.Struct({
  at: Schema.Struct({ position: Schema.Int, timeMs: Schema.NullOr(Schema.Int) }),
  /** Of all actors, those on other pages too: equal histories have equal ones. */
  sha256: Schema.String,
  count: Schema.Int,
  actors: Schema.Array(
    Schema.Struct({
      stream: Stream,
      revision: Schema.Int,
      position: Schema.Int,
      state: Schema.String,
      sha256: Schema.String
    })
  ),
  /** The `after` of the next page; null at the end. */
  next: Schema.NullOr(Stream)
})
export type Replay = typeof Replay.Type

export const Verification = Schema.Struct({
  valid: Schema.Boolean,
  /** The head that was verified; null when the store is damaged. */
  head: Schema.NullOr(Schema.Struct({ position: Schema.Int, hash: Schema.String })),
  damage: Schema.NullOr(Schema.Struct({ position: Schema.Int, reason: Schema.String }))
})

export const Readiness = Schema.Struct({
  ready: Schema.Boolean,
  node: Schema.String,
  version: Schema.String,
  position: Schema.Int
})
export const Health = Schema.Struct({ status: Schema.tag("ok") })

export const VmRow = row({ name: Schema.String, state: Schema.String })
export const HostRow = row({ name: Schema.String, state: Schema.String })
export const MigrationRow = row({ id: Schema.String, vm: Schema.String, state: Schema.String })
export const DecisionRow = row({ decision: Schema.String })
export const AuditRow = row({ position: Schema.Int })
