/** The cluster's own authority: made by the first `up` or by hand, and the tokens that let nodes join. */
import { join } from "node:path"
import { Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { loadedConfig } from "./connection.ts"
import { failure } from "./exit.ts"
import { dryRunFlag, duration, sayDryRun } from "./mutate.ts"
import { output } from "./output.ts"

const authorityFolder = Effect.map(loadedConfig, ({ resolved }) => join(resolved.dataDir, "ca"))

const init = Command.make(
  "init",
  { dryRun: dryRunFlag },
  Effect.fnUntraced(function* ({ dryRun }) {
    const { caCheck, caInit } = yield* Effect.promise(() => import("../live/ca.ts"))
    const to = yield* output
    const folder = yield* authorityFolder
    const told = Effect.mapError((error: { readonly path: string; readonly reason: string }) =>
      failure("failure", `${error.path}: ${error.reason}`)
    )
    if (dryRun) {
      yield* told(caCheck(folder))
      return sayDryRun(to, `make an authority in ${folder}`, { folder })
    }
    const authority = yield* told(caInit(folder))
    to.either({ folder, hash: authority.hash }, () => {
      to.line(`made the authority in ${folder}; its key's hash is ${authority.hash}`)
    })
  })
).pipe(Command.withDescription("Make the authority that issues the nodes' certificates"))

const token = Command.make(
  "token",
  {
    node: Flag.String("node").pipe(Flag.withDescription("Only this node may use it"), Flag.optional),
    voter: Flag.Boolean("voter").pipe(
      Flag.withDescription("Who joins with it may vote: it has a kernel of its own, with everything in it"),
      Flag.withoutNegation,
      Flag.withDefault(false)
    ),
    lifetime: duration("lifetime", "How long it may be used", "1h"),
    dryRun: dryRunFlag
  },
  Effect.fnUntraced(function* ({ node, voter, lifetime, dryRun }) {
    const { caOpen } = yield* Effect.promise(() => import("../live/ca.ts"))
    const to = yield* output
    const told = Effect.mapError((error: { readonly path: string; readonly reason: string }) =>
      failure("failure", `${error.path}: ${error.reason}`, "run this on the node that has the authority")
    )
    const authority = yield* told(caOpen(yield* authorityFolder))
    const only = Option.getOrNull(node)
    if (dryRun) {
      yield* told(authority.checkToken(only))
      const what = `make a token for ${only ?? "any new node"}${voter ? ", which may vote" : ""}`
      return sayDryRun(to, what, { node: only, votes: voter, lifetimeMs: lifetime })
    }
    const options = { lifetimeMs: lifetime, votes: voter, ...(only === null ? {} : { node: only }) }
    const made = yield* told(authority.createToken(options))
    to.either(made, () => to.line(made.token))
  })
).pipe(Command.withDescription("Make a token with which one node can join, once"))

export const ca = Command.make("ca").pipe(
  Command.withDescription("The authority of the nodes' certificates"),
  Command.withSubcommands([init, token])
)
