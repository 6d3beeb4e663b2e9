/** `novacron cluster …`: the nodes that decide. */
import { Effect } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { withApi } from "./connection.ts"
import { mutate, mutationFlags } from "./mutate.ts"
import { output } from "./output.ts"

const nodeArgument = Argument.String("node").pipe(Argument.withDescription("Name of the node"))
const reasonFlag = Flag.String("reason").pipe(
  Flag.withDescription("Why, for the journal"),
  Flag.withMetavar("TEXT"),
  Flag.withDefault("")
)

const placeOf = (node: string, voters: ReadonlyArray<string>, learners: ReadonlyArray<string>): string =>
  voters.includes(node) ? "voter" : learners.includes(node) ? "learner" : "leaving"

const status = Command.make(
  "status",
  {},
  Effect.fnUntraced(function* () {
    const to = yield* output
    const found = yield* withApi((calls) => calls.cluster.status({}))
    to.either(found, () => {
      const { node, role, term, leader, voters, outgoing, learners, connected } = found
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
    })
  })
).pipe(Command.withDescription("Show who decides, as the node that is asked knows it"))

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
  Command.withDescription("See and change the nodes that decide"),
  Command.withSubcommands([status, remove, lead])
)
