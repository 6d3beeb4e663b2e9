/** The group of nodes that decide: who is taken in, who is removed, who leads; each with who asked and why. */
import { Schema } from "effect"
import { Name, text, withDefault } from "./fields.ts"

/** There is one. */
export const clusterStream = "cluster/voters"

/** Taken in as a voter; removed from voters and learners; made the leader. */
export const GroupOp = Schema.Literals(["admit", "remove", "lead"])
export type GroupOp = typeof GroupOp.Type

const change = { op: GroupOp, node: Name }

export const GroupRequest = Schema.Struct({ port: Schema.tag("group"), ...change })
export type GroupRequest = typeof GroupRequest.Type

export const GroupReport = Schema.Union([
  /** It is so now; `voters` are those of then. */
  Schema.Struct({ type: Schema.tag("group.changed"), ...change, voters: Schema.Array(Name) }),
  Schema.Struct({ type: Schema.tag("group.unchanged"), ...change, reason: text(2048) })
])
export type GroupReport = typeof GroupReport.Type

const asked = { node: Name, reason: withDefault(text(256), "") }

export const ClusterCommand = Schema.Union([
  /** Said by the node itself, which has a certificate with which it may vote. */
  Schema.Struct({ type: Schema.tag("cluster.admit"), ...asked }),
  Schema.Struct({ type: Schema.tag("cluster.remove"), ...asked }),
  Schema.Struct({ type: Schema.tag("cluster.lead"), ...asked })
])
export type ClusterCommand = typeof ClusterCommand.Type

export const ClusterFact = Schema.Union([
  Schema.Struct({ type: Schema.tag("cluster.admissionAsked"), node: Name, reason: text(256) }),
  Schema.Struct({ type: Schema.tag("cluster.removalAsked"), node: Name, reason: text(256) }),
  Schema.Struct({ type: Schema.tag("cluster.leadAsked"), node: Name, reason: text(256) }),
  Schema.Struct({ type: Schema.tag("cluster.changed"), ...change, voters: Schema.Array(Name) }),
  Schema.Struct({ type: Schema.tag("cluster.unchanged"), ...change, reason: text(2048) })
])
export type ClusterFact = typeof ClusterFact.Type
