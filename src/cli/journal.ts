/** What happened and why: `why`, `history`, `replay` and `audit …` */
import { Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import type { Recorded } from "../events/envelope.ts"
import type { Candidate, Others } from "../events/placement.ts"
import { page_max, withApi } from "./connection.ts"
import { othersOf } from "./decision.ts"
import { failure } from "./exit.ts"
import { vmArgument } from "./mutate.ts"
import { withJournal } from "./offline.ts"
import { output } from "./output.ts"
import type { Output } from "./output.ts"

type Row = Readonly<Record<string, unknown>>

const time = (milliseconds: number) => new Date(milliseconds).toISOString()

const dataDirFlag = Flag.String("data-dir").pipe(
  Flag.withDescription("Read this data folder instead of asking a node; no node may run on it"),
  Flag.withMetavar("FOLDER"),
  Flag.optional
)

/** A stream's name, or a machine's. */
const streamOf = (text: string) => {
  const [kind = "", ...rest] = text.includes("/") ? text.split("/") : ["vm", text]
  const name = rest.join("/")
  return /^[a-z]{1,32}$/.test(kind) && /^[a-z0-9]([a-z0-9.-]{0,126}[a-z0-9])?$/.test(name)
    ? Effect.succeed({ kind, name })
    : Effect.fail(
        failure(
          "usage",
          `${JSON.stringify(text)} is no stream; allowed: a machine's name, web-1, or kind/name, host/a`
        )
      )
}

function showDecision(to: Output, decision: Row): void {
  const outcome = `${String(decision["outcome"] ?? "")} ${String(decision["host"] ?? "")}`.trim()
  to.line(
    to.paint(`${String(decision["decision"])}  ${String(decision["purpose"] ?? "")}  ${outcome}`, "bold")
  )
  if (decision["reason"]) to.line(`  ${String(decision["reason"])}`)
  const facts = (decision["facts"] ?? []) as ReadonlyArray<Recorded>
  for (const fact of facts) {
    const candidates = fact.data["candidates"] as ReadonlyArray<Candidate> | undefined
    if (candidates === undefined) continue
    to.line(`  at position ${fact.position}: ${String(fact.data["reason"])}`)
    for (const { host, excluded, scores, total } of candidates) {
      const said =
        excluded.length > 0
          ? `out, ${excluded.map((one) => `${one.filter}: ${one.reason}`).join("; ")}`
          : `${total} of ${Object.entries(scores)
              .map(([name, score]) => `${name} ${score}`)
              .join(", ")}`
      to.line(`    ${host}: ${said}`)
    }
    for (const line of othersOf(fact.data["others"] as Others | undefined)) to.line(`    ${line}`)
  }
}

export const why = Command.make(
  "why",
  { vm: vmArgument },
  Effect.fnUntraced(function* ({ vm }) {
    const to = yield* output
    const decisions = yield* withApi((calls) => calls.vms.why({ params: { name: vm }, query: {} }))
    to.either(decisions, () => {
      if (decisions.length === 0) to.note(`nothing was decided about vm ${vm} yet`)
      for (const decision of decisions) showDecision(to, decision)
    })
  })
).pipe(Command.withDescription("Say why a machine is where it is: hosts considered, left out, scored"))

const said = (fact: Recorded): string => {
  const reason = fact.data["reason"]
  if (typeof reason === "string" && reason !== "") return reason
  const text = JSON.stringify(fact.data)
  return text === "{}" ? "" : text.length > 100 ? `${text.slice(0, 99)}…` : text
}

/** The latest first; in as many pages as it takes. */
const latestFacts = Effect.fnUntraced(function* (params: { kind: string; name: string }, limit: number) {
  const facts: Array<Recorded> = []
  let from: number | null = null
  do {
    const query = { direction: "backwards" as const, limit: Math.min(page_max, limit - facts.length) }
    const begin: { from?: number } = from === null ? {} : { from }
    const page = yield* withApi((calls) => calls.journal.facts({ params, query: { ...query, ...begin } }))
    if (!("facts" in page)) break
    facts.push(...page.facts)
    from = page.next
  } while (from !== null && facts.length < limit)
  return facts
})

export const history = Command.make(
  "history",
  {
    stream: Argument.String("vm").pipe(
      Argument.withDescription("A machine's name, or a stream: migration/7f3c…, host/a, placement/web-1.1")
    ),
    limit: Flag.Int("limit").pipe(
      Flag.withDescription("At most so many facts, the latest ones; 100 unless told"),
      Flag.withMetavar("N"),
      Flag.withDefault(100)
    )
  },
  Effect.fnUntraced(function* ({ stream, limit }) {
    const to = yield* output
    const params = yield* streamOf(stream)
    const facts = (yield* latestFacts(params, limit)).toReversed()
    if (facts.length === 0) {
      return yield* failure("notFound", `nothing is recorded about ${params.kind} ${params.name}`)
    }
    to.either(facts, () =>
      to.table(facts, [
        { head: "POSITION", of: (fact) => fact.position },
        { head: "TIME", of: (fact) => time(fact.timeMs) },
        { head: "WHAT", of: (fact) => fact.type.slice("novacron.".length) },
        { head: "WHO", of: (fact) => `${fact.principal.kind} ${fact.principal.name}` },
        { head: "SAID", of: said }
      ])
    )
  })
).pipe(Command.withDescription("Show what happened to a machine, or in any stream"))

const replayHere = Effect.fnUntraced(function* (dataDir: string, at: string) {
  const { actorKinds } = yield* Effect.promise(() => import("../actors/kinds.ts"))
  const { head, parseAt, statesAt } = yield* Effect.promise(() => import("../live/api/history.ts"))
  const until = at === "" ? head : parseAt(at)
  if (until === null) {
    return yield* failure("usage", `--at ${at}: allowed: a position, 1234, or a time, 2026-05-01T12:00:00Z`)
  }
  return yield* withJournal(dataDir, (store) =>
    statesAt(store, actorKinds, until, { limit: Number.MAX_SAFE_INTEGER }).pipe(
      Effect.mapError(({ detail }) => failure("failure", String(detail)))
    )
  )
})

/** All pages of a node's replay; one that came to another end in between is not the same replay. */
const replayThere = Effect.fnUntraced(function* (at: string) {
  const ask = (query: { at?: string; after?: string }) => withApi((calls) => calls.journal.replay({ query }))
  const first = yield* ask(at === "" ? {} : { at })
  const actors = [...first.actors]
  for (let { next } = first; next !== null;) {
    const more = yield* ask({ at: String(first.at.position), after: next })
    actors.push(...more.actors)
    next = more.next
  }
  return { ...first, actors, next: null }
})

export const replay = Command.make(
  "replay",
  {
    stream: Argument.String("stream").pipe(
      Argument.withDescription("A machine's name or a stream; everything unless told"),
      Argument.optional
    ),
    at: Flag.String("at").pipe(
      Flag.withDescription("A position, 1234, or a time, 2026-05-01T12:00:00Z; the head unless told"),
      Flag.withMetavar("WHEN"),
      Flag.withDefault("")
    ),
    dataDir: dataDirFlag
  },
  Effect.fnUntraced(function* ({ stream, at, dataDir }) {
    const to = yield* output
    const params = Option.isSome(stream) ? yield* streamOf(stream.value) : null
    if (Option.isSome(dataDir) || params === null) {
      const replayed = Option.isSome(dataDir) ? yield* replayHere(dataDir.value, at) : yield* replayThere(at)
      const only = params === null ? null : `${params.kind}/${params.name}`
      const actors = replayed.actors.filter(({ stream }) => only === null || stream === only)
      return to.either({ at: replayed.at, actors, sha256: replayed.sha256 }, () => {
        to.table(actors, [
          { head: "STREAM", of: (row) => row.stream },
          { head: "REVISION", of: (row) => row.revision },
          { head: "STATE", of: (row) => row.state },
          { head: "SHA-256", of: (row) => row.sha256 }
        ])
        to.note(`${replayed.count} actors at position ${replayed.at.position}; all of it ${replayed.sha256}`)
      })
    }
    const end = String(Number.MAX_SAFE_INTEGER).slice(0, 15)
    const state = yield* withApi((calls) =>
      calls.journal.facts({ params, query: { at: at === "" ? end : at } })
    )
    if (!("state" in state) || state.revision < 0) {
      return yield* failure("notFound", `${params.kind} ${params.name} had no history then`)
    }
    to.either(state, () => {
      to.line(`${state.stream} at position ${state.at.position}: ${to.paint(state.state, "bold")}`)
      to.line(JSON.stringify(state.context, null, 2))
    })
  })
).pipe(Command.withDescription("Rebuild an actor, or all of them, as of any moment"))

const verify = Command.make(
  "verify",
  { dataDir: dataDirFlag },
  Effect.fnUntraced(function* ({ dataDir }) {
    const to = yield* output
    const result = Option.isSome(dataDir)
      ? yield* withJournal(dataDir.value, (store) =>
          store.verify.pipe(
            Effect.map((head) => ({ valid: true, head, damage: null })),
            Effect.catchTag("StoreDamaged", ({ position, reason }) =>
              Effect.succeed({ valid: false, head: null, damage: { position, reason } })
            ),
            Effect.mapError((error) => failure("failure", `${error.operation}: ${error.reason}`))
          )
        )
      : yield* withApi((calls) => calls.journal.verify())
    if (!result.valid) {
      const { position, reason } = result.damage ?? { position: 0, reason: "unknown" }
      return yield* failure(
        "failure",
        `the journal is damaged at position ${position}: ${reason}`,
        undefined,
        result
      )
    }
    to.either(result, () =>
      to.line(`${to.paint("valid", "green")}: ${result.head?.position} facts, head ${result.head?.hash}`)
    )
  })
).pipe(Command.withDescription("Recompute the hash chain of the journal"))

const list = Command.make(
  "list",
  {
    stream: Flag.String("stream").pipe(
      Flag.withDescription("Only this stream, vm/web-1"),
      Flag.withMetavar("STREAM"),
      Flag.optional
    ),
    principal: Flag.String("principal").pipe(
      Flag.withDescription("Only what this one did, by name"),
      Flag.withMetavar("NAME"),
      Flag.optional
    ),
    limit: Flag.Int("limit").pipe(
      Flag.withDescription("At most so many; 100 unless told"),
      Flag.withMetavar("N"),
      Flag.withDefault(100)
    ),
    before: Flag.Int("from").pipe(
      Flag.withDescription("Begin at this position and go back; at the latest unless told"),
      Flag.withMetavar("POSITION"),
      Flag.optional
    )
  },
  Effect.fnUntraced(function* ({ stream, principal, limit, before }) {
    const to = yield* output
    const filter = {
      ...(Option.isSome(stream) ? { stream: stream.value } : {}),
      ...(Option.isSome(principal) ? { principal: principal.value } : {})
    }
    const rows: Array<Row> = []
    let from = Option.getOrNull(before)
    do {
      const query = {
        ...filter,
        limit: Math.min(page_max, limit - rows.length),
        ...(from === null ? {} : { from })
      }
      const [entries, { headers }] = yield* withApi((calls) =>
        calls.journal.audit({ query, responseMode: "decoded-and-response" })
      )
      rows.push(...entries)
      const next = /[?&]from=(\d+)[^>]*>; rel="next"/.exec(headers["link"] ?? "")?.[1]
      from = next === undefined ? null : Number(next)
    } while (from !== null && rows.length < limit)
    to.either(rows, () =>
      to.table(rows, [
        { head: "POSITION", of: (row) => row["position"] as number },
        { head: "TIME", of: (row) => time(Number(row["timeMs"] ?? 0)) },
        { head: "WHO", of: (row) => (row["who"] as { name?: string } | undefined)?.name },
        { head: "WHAT", of: (row) => row["what"] as string },
        { head: "STREAM", of: (row) => row["stream"] as string },
        { head: "RESULT", of: (row) => row["result"] as string },
        { head: "WHY", of: (row) => row["why"] as string | null }
      ])
    )
  })
).pipe(Command.withDescription("Who did what, to what, and with which result; the latest first"))

export const audit = Command.make("audit").pipe(
  Command.withDescription("Read and verify the audit trail"),
  Command.withSubcommands([list, verify])
)
