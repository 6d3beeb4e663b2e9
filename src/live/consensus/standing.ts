/**
 * A node that was removed is not told: its leader speaks with it no more. It asks the others, whose answer counts when it is as
 * new as the question.
 */
import { Effect, Schema, Stream } from "effect"
import { Name } from "../../events/fields.ts"
import type { Kernel } from "../../kernel/kernel.ts"
import type { Consensus } from "../../kernel/ports/consensus.ts"
import { HandlerFailed, Link } from "../../kernel/ports/link.ts"
import { Directory } from "./directory.ts"

const standingKind = "group.standing"
const Standing = Schema.Struct({
  isMember: Schema.Boolean,
  voters: Schema.Array(Name).check(Schema.isMaxLength(64))
})
const decodeStanding = Schema.decodeUnknownEffect(Standing)

const lookEveryMs = 1000
const answerTimeoutMs = 5000
/** So often in a row there was no leader before it asks. */
const looks_min = 2

const isIn = (
  { members: { voters, outgoing, learners } }: ReturnType<Consensus["Service"]["status"]>,
  node: string
) => voters.includes(node) || outgoing.includes(node) || learners.includes(node)

/** At every member: say whether who asks is one, by everything that was decided before it asked. */
export const serveStanding = Effect.fn("serveStanding")(function* (
  kernel: Kernel["Service"],
  order: Consensus["Service"]
) {
  const link = yield* Link
  yield* link.serve(standingKind, (peer) =>
    Stream.fromEffect(
      kernel.fresh.pipe(
        Effect.map((): typeof Standing.Type => {
          const status = order.status()
          return { isMember: isIn(status, peer), voters: status.members.voters }
        }),
        Effect.mapError((error) => new HandlerFailed({ reason: error.message.slice(0, 2000) }))
      )
    )
  )
})

/**
 * Whether this node may have been removed without being told. A learner may be taken in with an entry that is not decided yet,
 * and a leader knows; but who is a voter by its own log was a member by what is decided.
 */
function mayBeOut(order: Consensus["Service"]): boolean {
  const { members, leader } = order.status()
  if (members.voters.length === 0 || members.learners.includes(order.node)) return false
  return leader === null || !isIn(order.status(), order.node)
}

/** Ends when this node has learned that it is no member any more; it takes no part from then on. */
export const learnRemoval = Effect.fn("learnRemoval")(function* (order: Consensus["Service"]) {
  const directory = yield* Directory
  const link = yield* Link
  const ask = (node: string) =>
    link.call(node, standingKind, {}).pipe(
      Stream.take(1),
      Stream.runCollect,
      Effect.flatMap((replies) => decodeStanding(replies[0])),
      Effect.timeout(answerTimeoutMs),
      Effect.option
    )
  for (let looks = 0; ;) {
    yield* Effect.sleep(lookEveryMs)
    looks = mayBeOut(order) ? looks + 1 : 0
    if (looks < looks_min) continue
    for (const node of directory.members()) {
      if (node === order.node) continue
      const said = yield* ask(node)
      if (said._tag === "None" || said.value.isMember) continue
      const { voters } = said.value
      const reason = `this node was removed from the group, says ${node}; those who decide are ${voters.join(", ")}`
      directory.leave(reason)
      yield* Effect.logWarning(`${reason}; end it, and let it join anew under another name`)
      return reason
    }
  }
})
