/**
 * Changes of the group's members and of its leader, as the leader's kernel performs them. Asking again is asking once: what is
 * so already is done, so that a new leader may go on with what another has begun.
 */
import { Effect, Schedule } from "effect"
import type { GroupReport, GroupRequest } from "../events/cluster.ts"
import type { Members } from "../events/raft.ts"
import type { Consensus, Unavailable } from "./ports/consensus.ts"

type Order = Consensus["Service"]

const stepMs = 100
/** A new voter first fetches the journal: for so long it may take. */
const admitTries_max = 9000
const tries_max = 300

/** Null when it is so; else the next step towards it, or why it can't be. */
type Next = Effect.Effect<void, Unavailable> | { readonly impossible: string } | null

const without = (ids: ReadonlyArray<string>, node: string) => ids.filter((id) => id !== node)

function next(order: Order, { op, node }: GroupRequest): Next {
  const { members, leader } = order.status()
  const { voters, outgoing, learners } = members
  // What is under way is waited for.
  if (outgoing.length > 0) return Effect.void
  switch (op) {
    case "admit":
      if (voters.includes(node)) return null
      if (learners.includes(node)) return order.change([...voters, node], without(learners, node))
      return order.change(voters, [...learners, node])
    case "remove":
      if (!isMember(members, node)) return null
      if (voters.length === 1 && voters[0] === node)
        return { impossible: `${node} is the only voter: without it nobody decides` }
      return order.change(without(voters, node), without(learners, node))
    case "lead":
      if (leader === node) return null
      if (!voters.includes(node)) return { impossible: `${node} is no voter; those are ${voters.join(", ")}` }
      return order.transfer(node)
  }
}

const isMember = ({ voters, learners }: Members, node: string) =>
  voters.includes(node) || learners.includes(node)

class Impossible {
  readonly reason: string
  constructor(reason: string) {
    this.reason = reason
  }
}

/** Ends when it is so, or when it can't be or is not within a time. */
export const changeGroup = (order: Order | null, request: GroupRequest): Effect.Effect<GroupReport> => {
  const { op, node } = request
  const unchanged = (reason: string): GroupReport => ({
    type: "group.unchanged",
    op,
    node,
    reason: reason.slice(0, 2000)
  })
  if (order === null)
    return Effect.succeed(unchanged("this node decides alone: there is no group (cluster.voter is false)"))
  let last = "it is not so yet"
  const step = Effect.gen(function* () {
    // Whoever leads now does it; what this node takes for the members may be over.
    if (!order.leadsNow()) return yield* Effect.fail(null)
    const wanted = next(order, request)
    if (wanted === null) return
    if ("impossible" in wanted) return yield* Effect.fail(new Impossible(wanted.impossible))
    const said = yield* Effect.result(wanted)
    if (said._tag === "Failure") last = said.failure.reason
    return yield* Effect.fail(null)
  })
  return step.pipe(
    Effect.retry({
      schedule: Schedule.spaced(stepMs),
      times: op === "admit" ? admitTries_max : tries_max,
      while: (error) => error === null
    }),
    Effect.match({
      onSuccess: (): GroupReport => ({
        type: "group.changed",
        op,
        node,
        voters: order.status().members.voters
      }),
      onFailure: (error) => unchanged(error === null ? `given up after a while: ${last}` : error.reason)
    })
  )
}
