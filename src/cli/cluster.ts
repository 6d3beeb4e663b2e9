/** `novacron cluster …`: the nodes that decide. */
import { Clock, Effect } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import type { ApiCalls } from "../live/api/client.ts"
import type { PeerRow } from "../live/api/bodies.ts"
import { allPages, withApi } from "./connection.ts"
import { mutate, mutationFlags } from "./mutate.ts"
import { output } from "./output.ts"
import type { Output } from "./output.ts"

const nodeArgument = Argument.String("node").pipe(Argument.withDescription("Name of the node"))
const reasonFlag = Flag.String("reason").pipe(
  Flag.withDescription("Why, for the journal"),
  Flag.withMetavar("TEXT"),
  Flag.withDefault("")
)

const placeOf = (node: string, voters: ReadonlyArray<string>, learners: ReadonlyArray<string>): string =>
  voters.includes(node) ? "voter" : learners.includes(node) ? "learner" : "leaving"

const peersOf = (calls: ApiCalls) =>
  allPages(
    (query) => calls.cluster.peers({ query }),
    ({ name }) => name
  )

const unitsMs = [86_400_000, 3_600_000, 60_000, 1000]

/** In whole ones of the greatest unit of which there are two. */
const ago = (nowMs: number, sinceMs: number): string => {
  const ms = Math.max(0, Math.round(nowMs - sinceMs))
  const unitMs = unitsMs.find((one) => ms >= 2 * one) ?? (ms >= 1000 ? 1000 : 1)
  const count = Math.floor(ms / unitMs)
  return unitMs === 1 ? `${count}ms` : `${count}${["d", "h", "m", "s"][unitsMs.indexOf(unitMs)]}`
}

const isAccused = ({ state }: PeerRow): boolean => state === "suspect" || state === "failed"

const showPeers = (to: Output, peers: ReadonlyArray<PeerRow>, nowMs: number): void =>
  to.table(peers, [
    { head: "NODE", of: ({ name }) => name },
    { head: "STATE", of: ({ state }) => state },
    { head: "FOR", of: ({ sinceMs }) => ago(nowMs, sinceMs) },
    { head: "INCARNATION", of: ({ incarnation }) => incarnation },
    { head: "ACCUSED BY", of: (peer) => (isAccused(peer) ? peer.by : "") },
    { head: "MODE", of: ({ description }) => description.mode ?? "" },
    { head: "ADDRESS", of: ({ address }) => address }
  ])

const status = Command.make(
  "status",
  {},
  Effect.fnUntraced(function* () {
    const to = yield* output
    const { found, peers } = yield* withApi((calls) =>
      Effect.all({
        found: calls.cluster.status({}),
        // A node of an older release has none; who decides is told all the same.
        peers: Effect.orElseSucceed(peersOf(calls), (): ReadonlyArray<PeerRow> => [])
      })
    )
    const nowMs = yield* Clock.currentTimeMillis
    to.either({ ...found, peers }, () => {
      const { node, role, term, leader, voters, outgoing, learners, connected, removed } = found
      // To people on either output: what follows is what this node knew when it was a member.
      if (removed !== null) to.note(`${node} is no member any more: ${removed}`)
      if (!to.isPlain)
        to.note(
          `${node} is ${role} in term ${term}; the log is decided up to ${found.commit} of ${found.last}`
        )
      const nodes = [...new Set([...voters, ...outgoing, ...learners])]
      to.table(nodes, [
        { head: "NODE", of: (one) => one },
        { head: "PLACE", of: (one) => placeOf(one, voters, learners) },
        { head: "LEADS", of: (one) => (one === leader ? "yes" : "") },
        { head: "CONNECTED", of: (one) => (connected.includes(one) ? "yes" : "no") }
      ])
      if (peers.length === 0) return
      if (!to.isPlain) to.note("and who is there, as the nodes notice one another:")
      showPeers(to, peers, nowMs)
    })
  })
).pipe(Command.withDescription("Show who decides, as the node that is asked knows it, and who is there"))

const peers = Command.make(
  "peers",
  {},
  Effect.fnUntraced(function* () {
    const to = yield* output
    const found = yield* withApi(peersOf)
    const nowMs = yield* Clock.currentTimeMillis
    to.either(found, () => {
      if (found.length === 0 && !to.isPlain)
        return to.note("nobody is noticed: this node has no others, or gossip.enable is off")
      showPeers(to, found, nowMs)
    })
  })
).pipe(
  Command.withDescription("Show the nodes as they notice one another: who is there, suspected, failed, left")
)

const rotateKey = Command.make(
  "rotate-gossip-key",
  { reason: reasonFlag, ...mutationFlags },
  Effect.fnUntraced(function* ({ reason, ...flags }) {
    yield* mutate(flags, "give all nodes a new key for their gossip", (calls, request) =>
      calls.cluster.rotateKey({ ...request, payload: { reason } })
    )
  })
).pipe(Command.withDescription("Give all nodes a new key for their gossip, and forget the old one"))

const remove = Command.make(
  "remove",
  { node: nodeArgument, reason: reasonFlag, ...mutationFlags },
  Effect.fnUntraced(function* ({ node, reason, ...flags }) {
    yield* mutate(flags, `remove ${node} from those who decide`, (calls, request) =>
      calls.cluster.remove({ ...request, params: { name: node }, payload: { reason } })
    )
  })
).pipe(Command.withDescription("Remove a node from those who decide; end it afterwards"))

const lead = Command.make(
  "lead",
  { node: nodeArgument, reason: reasonFlag, ...mutationFlags },
  Effect.fnUntraced(function* ({ node, reason, ...flags }) {
    yield* mutate(flags, `have ${node} lead`, (calls, request) =>
      calls.cluster.lead({ ...request, params: { name: node }, payload: { reason } })
    )
  })
).pipe(Command.withDescription("Have this voter lead, before the one that does is ended"))

export const cluster = Command.make("cluster").pipe(
  Command.withDescription("See and change the nodes that decide; see which are there"),
  Command.withSubcommands([status, peers, remove, lead, rotateKey])
)
