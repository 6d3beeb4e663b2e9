/**
 * Nodes without a kernel are told which certificates were taken back: they ask a node that has one, and remember it over a restart, so
 * that hosts among themselves refuse them too. What was taken back stays so until it ends: a node that is behind takes nothing out again.
 */
import { createHash } from "node:crypto"
import { Clock, Effect, Schema, Stream } from "effect"
import { authorityStream, revoked_max, Serial } from "../../events/authority.ts"
import type { AuthorityState } from "../../events/authority.ts"
import type { Kernel } from "../../kernel/kernel.ts"
import { HandlerFailed, Link } from "../../kernel/ports/link.ts"
import { Endpoint } from "../link/endpoint.ts"
import { readText, replaceFile } from "./files.ts"

const revokedKind = "authority.revoked"
const page_max = 500
/** A name that moves adds a few to the limit. */
const pages_max = 2 * Math.ceil(revoked_max / page_max)
/** More than all nodes together can have. */
const known_max = 2 * pages_max * page_max
const askEveryMs = 2000
const answerTimeoutMs = 10_000

const Digest = Schema.String.check(Schema.isMaxLength(64))
/** The digest of what was heard last; "" for nothing. */
const Ask = Schema.Struct({ known: Digest })
const Revoked = Schema.Struct({
  serial: Serial,
  /** When its certificate ends, in ms since 1970. */
  endsMs: Schema.Int
})
const Page = Schema.Struct({
  digest: Digest,
  revoked: Schema.Array(Revoked).check(Schema.isMaxLength(page_max))
})
type Page = typeof Page.Type
const decodeAsk = Schema.decodeUnknownEffect(Ask)
const decodePage = Schema.decodeUnknownEffect(Page)
const decodeFile = Schema.decodeUnknownEffect(Schema.fromJsonString(Schema.Array(Revoked)))

export const revokedBy = (kernel: Kernel["Service"]): AuthorityState["revoked"] | null =>
  (kernel.resident().get(authorityStream)?.chart.context as AuthorityState | undefined)?.revoked ?? null

function pagesOf(revoked: AuthorityState["revoked"]): ReadonlyArray<Page> {
  const all = Object.entries(revoked).map(([serial, endsMs]) => ({ serial, endsMs }))
  const digest = createHash("sha256").update(JSON.stringify(all)).digest("hex")
  const pages: Array<Page> = []
  for (let from = 0; from < all.length; from += page_max)
    pages.push({ digest, revoked: all.slice(from, from + page_max) })
  return pages.length === 0 ? [{ digest, revoked: [] }] : pages
}

/** At every node with a kernel: tell what was taken back, in pages; one empty page to who knows it. */
export const serveRevoked = Effect.fn("ca.serveRevoked")(function* (kernel: Kernel["Service"]) {
  const link = yield* Link
  // Every host asks again and again, and it changes seldom.
  let told: { readonly of: AuthorityState["revoked"]; readonly pages: ReadonlyArray<Page> } | null = null
  yield* link.serve(revokedKind, (_peer, payload) =>
    Stream.unwrap(
      Effect.map(decodeAsk(payload), ({ known }) => {
        const revoked = revokedBy(kernel) ?? {}
        if (told?.of !== revoked) told = { of: revoked, pages: pagesOf(revoked) }
        const { pages } = told
        const digest = pages[0]?.digest ?? ""
        return Stream.fromIterable(digest === known ? [{ digest, revoked: [] }] : pages)
      }).pipe(Effect.mapError((error) => new HandlerFailed({ reason: error.message.slice(0, 2000) })))
    )
  )
})

/** What was heard before the last start; none where that can't be read: it is heard again. */
const remembered = (path: string): Effect.Effect<Map<string, number>> =>
  readText(path).pipe(
    Effect.flatMap((text) => decodeFile(text)),
    Effect.map((all) => new Map(all.map(({ serial, endsMs }) => [serial, endsMs]))),
    Effect.catch((error) =>
      Effect.as(
        error._tag === "CaError" && error.code === "missing"
          ? Effect.void
          : Effect.logWarning(
              `what was taken back is not known until a kernel's node says it: ${path}: ${error}`
            ),
        new Map<string, number>()
      )
    )
  )

/** At a node without one: refuse what is remembered, and what those in `kernels` say, for as long as the scope lives. */
export const followRevoked = Effect.fn("ca.followRevoked")(function* (
  kernels: () => ReadonlyArray<string>,
  path: string
) {
  const link = yield* Link
  const endpoint = yield* Endpoint
  const known = yield* remembered(path)
  let digest = ""
  let isSaved = true
  const refuse = Effect.suspend(() => endpoint.refuse(new Set(known.keys())))
  yield* refuse
  const learn = Effect.fnUntraced(function* (pages: ReadonlyArray<Page>) {
    const nowMs = yield* Clock.currentTimeMillis
    for (const [serial, endsMs] of known) if (endsMs < nowMs) known.delete(serial)
    const heard = pages.flatMap(({ revoked }) => revoked).filter(({ serial }) => !known.has(serial))
    for (const { serial, endsMs } of heard.slice(0, known_max - known.size)) known.set(serial, endsMs)
    if (heard.length > 0) {
      isSaved = false
      yield* refuse
      yield* Effect.logWarning(`${heard.length} more certificates were taken back, and are refused here too`)
    }
    // Until it is on the disk it is asked for again.
    if (!isSaved)
      yield* replaceFile(path, JSON.stringify([...known].map(([serial, endsMs]) => ({ serial, endsMs }))))
    isSaved = true
    digest = pages[0]?.digest ?? ""
  })
  const ask = (node: string) =>
    link.call(node, revokedKind, { known: digest }).pipe(
      Stream.take(pages_max),
      Stream.mapEffect((page) => decodePage(page)),
      Stream.runCollect,
      Effect.timeout(answerTimeoutMs),
      Effect.flatMap((pages) => learn(pages))
    )
  let told = ""
  const look = Effect.gen(function* () {
    const peers = yield* link.peers
    let problem = ""
    // One after the other: one of an earlier release has no answer, and one that is slow is not the only one.
    for (const { node, state } of peers) {
      if (state !== "connected" || !kernels().includes(node)) continue
      const asked = yield* Effect.result(ask(node))
      problem = asked._tag === "Success" ? "" : `${node}: ${asked.failure}`
      if (problem === "") break
    }
    if (problem !== "" && problem !== told)
      yield* Effect.logWarning(`what was taken back was not learned: ${problem}`)
    told = problem
    yield* Effect.sleep(askEveryMs)
  })
  yield* Effect.forkScoped(Effect.forever(look))
})
