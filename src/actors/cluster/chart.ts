/**
 * The group of nodes that decide, as operators see it.
 *
 *     settled ──admit, remove, lead──▶ changing      one change at a time; what it came to is a fact
 *             ◀──changed, unchanged──
 *
 * Who really votes is in the group's own log (`src/actors/raft/`); here is who asked for it, why, and what came of it.
 */
import { assign, setup } from "xstate"
import { ClusterCommand, ClusterFact } from "../../events/cluster.ts"
import type { GroupReport, GroupRequest } from "../../events/cluster.ts"
import { typesOf } from "../../events/envelope.ts"
import { recorder } from "../../kernel/actor.ts"
import type { ActorKind, Of, Stamped } from "../../kernel/actor.ts"

type Event = Stamped<ClusterCommand> | Stamped<GroupReport> | Stamped<ClusterFact>

export interface ClusterContext {
  /** As of the last change; those of before the first one are in the group's own log only. */
  readonly voters: ReadonlyArray<string>
}

const record = recorder<ClusterContext, Event, ClusterFact>()

type Asked = "cluster.admissionAsked" | "cluster.removalAsked" | "cluster.leadAsked"

const ask = (command: ClusterCommand["type"], type: Asked) => ({
  actions: record(command, ({ event: { node, reason } }) => ({ type, node, reason }))
})

const begin = (op: GroupRequest["op"]) => ({
  target: "changing",
  actions: {
    type: "request" as const,
    params: ({ event }: { event: Event }): GroupRequest => ({
      port: "group",
      op,
      node: (event as Of<Event, Asked>).node
    })
  }
})

const chart = setup({
  types: { context: {} as ClusterContext, events: {} as Event, emitted: {} as ClusterFact },
  actions: {
    request: (_, _params: GroupRequest) => {},
    takeVoters: assign(({ event }) => ({ voters: (event as Of<Event, "cluster.changed">).voters }))
  }
}).createMachine({
  id: "cluster",
  context: { voters: [] },
  initial: "settled",
  states: {
    settled: {
      on: {
        "cluster.admit": ask("cluster.admit", "cluster.admissionAsked"),
        "cluster.remove": ask("cluster.remove", "cluster.removalAsked"),
        "cluster.lead": ask("cluster.lead", "cluster.leadAsked"),
        "cluster.admissionAsked": begin("admit"),
        "cluster.removalAsked": begin("remove"),
        "cluster.leadAsked": begin("lead")
      }
    },
    changing: {
      on: {
        "group.changed": {
          actions: record("group.changed", ({ event: { op, node, voters } }) => ({
            type: "cluster.changed",
            op,
            node,
            voters
          }))
        },
        "group.unchanged": {
          actions: record("group.unchanged", ({ event: { op, node, reason } }) => ({
            type: "cluster.unchanged",
            op,
            node,
            reason
          }))
        },
        "cluster.changed": { target: "settled", actions: "takeVoters" },
        "cluster.unchanged": { target: "settled" }
      }
    }
  }
})

export const clusterActor: ActorKind = {
  kind: "cluster",
  chart,
  commands: typesOf(ClusterCommand),
  reports: ["group.changed", "group.unchanged"],
  facts: typesOf(ClusterFact),
  snapshotVersion: 1
}
