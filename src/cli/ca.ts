/** The cluster's own authority: made by the first `up` or by hand, and the tokens that let nodes join. */
import { randomUUID } from "node:crypto"
import { join } from "node:path"
import { Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { allPages, loadedConfig, withApi } from "./connection.ts"
import { failure } from "./exit.ts"
import { dryRunFlag, duration, mutate, mutationFlags, sayDryRun } from "./mutate.ts"
import { output } from "./output.ts"

const authorityFolder = Effect.map(loadedConfig, ({ resolved }) => join(resolved.dataDir, "ca"))

const reasonFlag = Flag.String("reason").pipe(
  Flag.withDescription("Why, for the journal"),
  Flag.withMetavar("TEXT"),
  Flag.withDefault("")
)

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
    reason: reasonFlag,
    dryRun: dryRunFlag
  },
  Effect.fnUntraced(function* ({ node, voter, lifetime, reason, dryRun }) {
    const { newSecret, tokenHash, tokenText } = yield* Effect.promise(() => import("../live/ca/tokens.ts"))
    const to = yield* output
    const only = Option.getOrNull(node)
    // Drawn here: whom it is made known to by its hash only can't use it.
    const secret = newSecret()
    const payload = { token: tokenHash(secret), node: only, votes: voter, lifetimeMs: lifetime, reason }
    const made = yield* withApi((calls) =>
      Effect.zip(
        calls.authority.status({ query: {} }),
        calls.authority.makeToken({
          payload,
          query: dryRun ? { dryRun: "true" } : {},
          headers: { "idempotency-key": randomUUID() }
        })
      )
    )
    const [{ hash }, answer] = made
    if ("dryRun" in answer) {
      const what = `make a token for ${only ?? "any new node"}${voter ? ", which may vote" : ""}`
      return sayDryRun(to, what, { node: only, votes: voter, lifetimeMs: lifetime })
    }
    const text = tokenText(secret, hash)
    to.either({ token: text, expiresMs: answer.startedMs + lifetime }, () => to.line(text))
  })
).pipe(Command.withDescription("Make a token with which one node can join, once, at any node with a kernel"))

const timeOf = (ms: number) => new Date(ms).toISOString().slice(0, 19).replace("T", " ")

const names = Command.make(
  "names",
  {},
  Effect.fnUntraced(function* () {
    const to = yield* output
    const rows = yield* withApi((calls) =>
      allPages(
        (query) => calls.authority.names({ query }),
        ({ name }) => name
      )
    )
    to.either(rows, () =>
      to.table(rows, [
        { head: "NAME", of: ({ name }) => name },
        { head: "STATE", of: ({ state }) => state },
        { head: "ROLE", of: ({ votes }) => (votes ? "voter" : "host") },
        { head: "UNTIL", of: ({ notAfterMs }) => timeOf(notAfterMs) },
        { head: "SERIAL", of: ({ serial }) => serial },
        { head: "TOKEN", of: (row) => row.token?.slice(0, 12) ?? "-" }
      ])
    )
  })
).pipe(Command.withDescription("Show which name belongs to which certificate"))

const tokens = Command.make(
  "tokens",
  {},
  Effect.fnUntraced(function* () {
    const to = yield* output
    const rows = yield* withApi((calls) => calls.authority.tokens({ query: {} }))
    to.either(rows, () =>
      to.table(rows, [
        { head: "TOKEN", of: (row) => row.token.slice(0, 12) },
        { head: "STATE", of: ({ state }) => state },
        { head: "FOR", of: ({ node }) => node ?? "any" },
        { head: "ROLE", of: ({ votes }) => (votes ? "voter" : "host") },
        { head: "UNTIL", of: ({ expiresMs }) => timeOf(expiresMs) },
        { head: "USED BY", of: ({ usedBy }) => usedBy ?? "-" }
      ])
    )
  })
).pipe(Command.withDescription("Show the tokens that were made, by the first digits of their hashes"))

const revoke = Command.make(
  "revoke",
  {
    node: Argument.String("node").pipe(Argument.withDescription("Name of the node")),
    reason: reasonFlag,
    ...mutationFlags
  },
  Effect.fnUntraced(function* ({ node, reason, ...flags }) {
    yield* mutate(flags, `take back the certificate of ${node}`, (calls, request) =>
      calls.authority.revoke({ ...request, params: { name: node }, payload: { reason } })
    )
  })
).pipe(
  Command.withDescription(
    "Take a node's certificate back: nodes with a kernel speak with it no more, at once"
  )
)

export const ca = Command.make("ca").pipe(
  Command.withDescription("The authority of the nodes' certificates"),
  Command.withSubcommands([init, token, tokens, names, revoke])
)
