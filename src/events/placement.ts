/** One decision about where a machine goes, whole: who was considered, who was left out and why, each score. */
import { Schema } from "effect"
import { Name, Stream, text } from "./fields.ts"
import { Needs } from "./host.ts"
import { Platform, VmSpec } from "./vm.ts"

/** A host as the placement view knew it at that moment. */
export const HostView = Schema.Struct({
  name: Name,
  /** Where its agent is reached by other nodes. */
  address: text(256),
  state: Schema.Literals(["up", "draining", "lost", "fenced"]),
  total: Needs,
  used: Needs,
  driver: Schema.String,
  accelerators: Schema.Array(Schema.String),
  capabilities: Schema.Array(Schema.String),
  machines: Schema.Array(Schema.String),
  cpuModels: Schema.Array(Schema.String),
  labels: Schema.Record(Schema.String, Schema.String),
  vms: Schema.Array(Name)
})
export type HostView = typeof HostView.Type

export const Candidate = Schema.Struct({
  host: Name,
  /** Why it is out; empty for a host that is in. */
  excluded: Schema.Array(Schema.Struct({ filter: Schema.String, reason: text(512) })),
  /** Each objective from 0 to 1, higher is better, and their weighted sum. */
  scores: Schema.Record(Schema.String, Schema.Number),
  total: Schema.Number
})
export type Candidate = typeof Candidate.Type

const Purpose = Schema.Literals(["create", "migrate", "recover"])

/** What a machine needs of a host, as the view of the hosts is asked. */
export const PlacementQuestion = Schema.Struct({
  vm: Name,
  spec: VmSpec,
  platform: Schema.NullOr(Platform),
  capabilities: Schema.Array(text(64)),
  purpose: Purpose,
  from: Schema.NullOr(Name),
  pinned: Schema.NullOr(Name)
})
export type PlacementQuestion = typeof PlacementQuestion.Type

/** Of many hosts, those that are not named one by one: how many, and why they are out. */
export const Others = Schema.Struct({
  /** All that the view knows. */
  hosts: Schema.Int,
  /** So many were looked at until enough could take it, those named among them. */
  looked: Schema.Int,
  /** Says in which order they were looked at: the same text, the same order. */
  draw: text(160),
  /** By the first filter that each did not pass. */
  out: Schema.Array(
    Schema.Struct({
      filter: Schema.String,
      hosts: Schema.Int,
      examples: Schema.Array(Schema.Struct({ host: Name, reason: text(512) })).check(Schema.isMaxLength(8))
    })
  )
})
export type Others = typeof Others.Type

const asked = {
  vm: Name,
  spec: VmSpec,
  /** Of a machine that runs and has to go on running. */
  platform: Schema.optionalKey(Platform),
  /** What the host has to be able to do: `post-copy`. */
  capabilities: Schema.optionalKey(Schema.Array(text(64))),
  purpose: Purpose,
  /** The host the machine is on now, never its own destination. */
  from: Schema.optionalKey(Name),
  /** Only this host will do. */
  pinned: Schema.optionalKey(Name),
  replyTo: Stream
}

export const PlacementCommand = Schema.Union([
  Schema.Struct({
    type: Schema.tag("placement.request"),
    ...asked
  })
])
export type PlacementCommand = typeof PlacementCommand.Type

export const PlacementReport = Schema.Union([
  Schema.Struct({
    type: Schema.tag("view.hosts"),
    hosts: Schema.Array(HostView),
    position: Schema.Int,
    others: Schema.optionalKey(Others)
  })
])
export type PlacementReport = typeof PlacementReport.Type

const decision = {
  attempt: Schema.Int,
  policy: Schema.String,
  weights: Schema.Record(Schema.String, Schema.Number),
  viewPosition: Schema.Int,
  candidates: Schema.Array(Candidate),
  /** Where there were too many hosts to name them all. */
  others: Schema.optionalKey(Others),
  reason: text(4096)
}

export const PlacementFact = Schema.Union([
  Schema.Struct({
    type: Schema.tag("placement.requested"),
    decision: Schema.String,
    ...asked
  }),
  Schema.Struct({ type: Schema.tag("placement.decided"), ...decision, chosen: Name, address: text(256) }),
  /** The same, when every host was filtered out: `reason` names each with its cause. */
  Schema.Struct({ type: Schema.tag("placement.noHost"), ...decision, chosen: Schema.Null }),
  /** The chosen host had given its room away meanwhile. */
  Schema.Struct({ type: Schema.tag("placement.contested"), host: Name, reason: text(2048) }),
  Schema.Struct({ type: Schema.tag("placement.settled"), host: Name }),
  Schema.Struct({ type: Schema.tag("placement.failed"), reason: text(4096) }),
  Schema.Struct({ type: Schema.tag("placement.replied") }),
  /** Whoever asked had no use for the place any more; its room is given back. */
  Schema.Struct({ type: Schema.tag("placement.withdrawn"), reason: text(2048) })
])
export type PlacementFact = typeof PlacementFact.Type
