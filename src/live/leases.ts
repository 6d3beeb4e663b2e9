/** Leases over links: a host asks every node that has a kernel, and the one that leads answers. */
import { Effect, Option, Schema, Stream } from "effect"
import { int, text } from "../events/fields.ts"
import { Kernel } from "../kernel/kernel.ts"
import { giveLease } from "../kernel/lease.ts"
import type { LeaseAnswer, LeaseKeeping } from "../kernel/lease.ts"
import { Consensus } from "../kernel/ports/consensus.ts"
import { Link } from "../kernel/ports/link.ts"

const kind = "host.lease"
const Answer = Schema.Union([
  Schema.Struct({ isGiven: Schema.Literal(true), lengthMs: int(1, 3_600_000) }),
  Schema.Struct({ isGiven: Schema.Literal(false), reason: text(2048) })
])
const decode = Schema.decodeUnknownEffect(Answer)

/** Gives the lease of a host, by name, if this node leads. */
const giver = Effect.gen(function* () {
  const kernel = yield* Kernel
  const order = Option.getOrNull(yield* Effect.serviceOption(Consensus))
  return (host: string): LeaseAnswer => giveLease(kernel, order === null || order.leadsNow(), host)
})

/** At a node with a kernel: give hosts their leases, each to the host itself. Gives how this node's own host is given one. */
export const serveLeases = Effect.fn("serveLeases")(function* () {
  const link = yield* Link
  const give = yield* giver
  yield* link.serve(kind, (peer) => Stream.sync(() => give(peer)))
  return give
})

/** Ask all of these at once, and `own`, which is this node's; the first that gives it is enough. */
export const askForLease = Effect.fn("askForLease")(function* (
  kernels: () => ReadonlyArray<string>,
  own: () => LeaseAnswer | null = () => null
) {
  const link = yield* Link
  const no = (reason: string) => Effect.fail({ message: reason })
  const given = (answer: LeaseAnswer) => (answer.isGiven ? Effect.succeed(answer) : no(answer.reason))
  const askAt = (node: string) =>
    link.call(node, kind, {}).pipe(
      Stream.runHead,
      Effect.mapError((error) => ({ message: `${node}: ${error.code}: ${error.reason}` })),
      Effect.flatMap((answer) =>
        Option.isNone(answer)
          ? no(`${node} gave no answer`)
          : decode(answer.value).pipe(
              Effect.mapError(({ message }) => ({ message })),
              Effect.flatMap(given)
            )
      )
    )
  const ask: LeaseKeeping["ask"] = Effect.suspend(() => {
    const here = own()
    if (here?.isGiven === true) return Effect.succeed(here)
    const nodes = kernels()
    return nodes.length === 0 ? no("no node with a kernel is known") : Effect.raceAll(nodes.map(askAt))
  })
  return ask
})
