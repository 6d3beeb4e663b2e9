/**
 * A node whose start is in no journal of its own tells the cluster of it: how it went once it is there, and that it ends in good
 * order. Who does not hear of an end learns of it as a crash by the next start.
 */
import { Effect, Schedule } from "effect"
import type { NodeReport } from "../events/node.ts"
import type { Say } from "../kernel/membership.ts"

type StartReport = Omit<Extract<NodeReport, { readonly type: "node.report" }>, "type">

/** For an hour: a group may have no leader yet, and who joins is no member yet. */
const againAfter = Schedule.max([
  Schedule.min([Schedule.exponential("250 millis"), Schedule.spaced("10 seconds")]),
  Schedule.recurs(360)
])
const endTimeoutMs = 2000

const said = (node: string, message: NodeReport) => ({
  stream: `node/${node}`,
  id: `${message.type}/${message.start}`,
  message
})

export const tellStart = (say: Say, node: string, report: StartReport): Effect.Effect<void> =>
  say(said(node, { type: "node.report", ...report })).pipe(
    Effect.retry({ schedule: againAfter }),
    Effect.catch(({ message }) => Effect.logWarning(`the start of this node was not recorded: ${message}`))
  )

/** That nobody hears it does not keep a node from stopping. */
export const tellStop = (say: Say, node: string, start: string, reason: string): Effect.Effect<void> =>
  say(said(node, { type: "node.reportStop", start, reason: reason.slice(0, 256) })).pipe(
    Effect.timeout(endTimeoutMs),
    Effect.catch(({ message }) => Effect.logWarning(`the end of this node was not recorded: ${message}`))
  )
