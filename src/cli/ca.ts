/** The cluster's own authority: made by the first `up` or by hand, and the tokens that let nodes join. */
import { join } from "node:path"
import { Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { loadedConfig } from "./connection.ts"
import { failure } from "./exit.ts"
import { duration } from "./mutate.ts"
import { output } from "./output.ts"

const authorityFolder = Effect.map(loadedConfig, ({ resolved }) => join(resolved.dataDir, "ca"))

const init = Command.make(
  "init",
  {},
  Effect.fnUntraced(function* () {
    const { caInit } = yield* Effect.promise(() => import("../live/ca.ts"))
    const folder = yield* authorityFolder
    const authority = yield* caInit(folder).pipe(
      Effect.mapError((error) => failure("failure", `${error.path}: ${error.reason}`))
    )
    const to = yield* output
    to.either({ folder, hash: authority.hash }, () => {
      to.line(`made the authority in ${folder}; its key's hash is ${authority.hash}`)
    })
  })
).pipe(Command.withDescription("Make the authority that issues the nodes' certificates"))

const token = Command.make(
  "token",
  {
    node: Flag.String("node").pipe(Flag.withDescription("Only this node may use it"), Flag.optional),
    lifetime: duration("lifetime", "How long it may be used", "1h")
  },
  Effect.fnUntraced(function* ({ node, lifetime }) {
    const { caOpen } = yield* Effect.promise(() => import("../live/ca.ts"))
    const folder = yield* authorityFolder
    const made = yield* caOpen(folder).pipe(
      Effect.flatMap((authority) =>
        authority.createToken({
          lifetimeMs: lifetime,
          ...(Option.isSome(node) ? { node: node.value } : {})
        })
      ),
      Effect.mapError((error) =>
        failure("failure", `${error.path}: ${error.reason}`, "run this on the node that has the authority")
      )
    )
    const to = yield* output
    to.either(made, () => to.line(made.token))
  })
).pipe(Command.withDescription("Make a token with which one node can join, once"))

export const ca = Command.make("ca").pipe(
  Command.withDescription("The authority of the nodes' certificates"),
  Command.withSubcommands([init, token])
)
