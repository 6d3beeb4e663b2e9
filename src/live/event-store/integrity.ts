/**
 * Is what is stored what was written? Which guarantee comes from what:
 *
 * - A transaction is whole or absent, after any crash: SQLite's write-ahead log.
 * - An acknowledged append survives `kill -9` (page cache) and, with durability `full`, power failure (the log
 *   is synced after each commit and before its answer, as far as the disk honours it). When that sync fails, the
 *   append failed and nothing more is written; a later opening may find its facts, as after a crash before an answer.
 * - No acknowledged fact disappears unseen, though SQLite ends its log silently at the first bad frame: the
 *   head file. Without it (a copied or restored store) a shortened store is a valid, older store.
 * - No stored fact is altered unseen: the hash chain. At opening only its tail and the acknowledged head are
 *   looked at; `verify` looks at all of it.
 * - The B-trees are whole: SQLite's own checks, quick at opening (for files that are not too large), complete in `verify`.
 * - The index of streams says what the facts say (`stream-index.ts`): at opening its end and the facts behind it are looked
 *   at, in `verify` all of it, and at each read what it led to.
 *
 * The chain is not signed: who can write the file and the head file can also write a new history.
 */
import type { DatabaseSync, StatementSync } from "node:sqlite"
import { chainText, genesisHash } from "../../events/envelope.ts"
import type { Head } from "../../kernel/ports/event-store.ts"
import { StoreDamaged } from "../../kernel/ports/event-store.ts"
import { isDamage } from "./errors.ts"
import { columns } from "./rows.ts"
import type { Row } from "./rows.ts"

const chunkFacts = 1000

export interface IntegritySource {
  readonly path: string
  readonly database: DatabaseSync
  /** The table with the `columns` of the facts, or what stands for it in a file of an older version. */
  readonly facts: string
  readonly sha256: (text: string) => string
}

/** The text whose hash a snapshot's row carries. */
export const snapshotText = (
  stream: string,
  version: number,
  revision: number,
  position: number,
  state: string
): string => JSON.stringify([stream, version, revision, position, state])

/** Walks the chain in steps, so that a caller can let others run in between. */
export class ChainWalk {
  readonly #source: IntegritySource
  readonly #read: StatementSync
  readonly #name: StatementSync
  readonly #names = new Map<number, string | null>()
  position: number
  hash: string

  /** Begin behind `start`, whose hash is taken for granted. */
  constructor(source: IntegritySource, start: Head) {
    this.#source = source
    this.position = start.position
    this.hash = start.hash
    this.#read = source.database.prepare(
      `select ${columns.join(", ")} from ${source.facts} where position > ? order by position limit ?`
    )
    this.#read.setReturnArrays(true)
    this.#name = source.database.prepare("select name from streams where id = ?")
  }

  /** Verify the next chunk up to `last`: "more" when there is more to do. */
  step(last: number): "more" | "done" | StoreDamaged {
    if (this.position >= last) return "done"
    const limit = Math.min(chunkFacts, last - this.position)
    try {
      const rows = this.#read.all(this.position, limit) as unknown as ReadonlyArray<Row>
      for (const row of rows) {
        const reason = this.#problem(row)
        if (reason !== null) return this.#damaged(reason)
        this.position++
        this.hash = row[4] as string
      }
      if (rows.length < limit) return this.#damaged("the fact is missing")
    } catch (error) {
      if (isDamage(error)) return this.#narrow((error as Error).message)
      throw error
    }
    return this.position >= last ? "done" : "more"
  }

  /** A chunk could not be read: go on fact by fact to the first that can't. */
  #narrow(reason: string): StoreDamaged {
    for (let count = 0; count < chunkFacts; count++) {
      try {
        const row = (this.#read.all(this.position, 1) as unknown as ReadonlyArray<Row>)[0]
        if (row === undefined || this.#problem(row) !== null) break
        this.position++
        this.hash = row[4] as string
      } catch (error) {
        if (isDamage(error)) break
        throw error
      }
    }
    return this.#damaged(reason)
  }

  #problem(row: Row): string | null {
    if (row[0] !== this.position + 1) return `the fact is missing; the next one is ${String(row[0])}`
    const stream = this.#nameOf(row[1] as number)
    if (stream === null) return `its stream ${String(row[1])} has no name`
    const [, , , fact] = row as ReadonlyArray<unknown>
    // Its first letter is not in the text that is hashed; of a file that was cut short it may be no text at all.
    if (typeof fact !== "string" || !fact.startsWith("[")) return "its content is not a fact's"
    const text = chainText(this.hash, row[0], stream, row[2] as number, fact)
    return this.#source.sha256(text) === row[4] ? null : "its content does not match its hash"
  }

  #nameOf(id: number): string | null {
    let name = this.#names.get(id)
    if (name === undefined) {
      const found = this.#name.get(id)?.["name"]
      name = typeof found === "string" ? found : null
      if (this.#names.size >= 100_000) this.#names.clear()
      this.#names.set(id, name)
    }
    return name
  }

  #damaged(reason: string): StoreDamaged {
    return new StoreDamaged({ path: this.#source.path, position: this.position + 1, reason })
  }
}

const damagedAt = (source: IntegritySource, position: number, reason: string): StoreDamaged =>
  new StoreDamaged({ path: source.path, position, reason })

/** SQLite's own check; `quick` leaves out whether the indexes say the same as the tables. */
export function checkPages(source: IntegritySource, kind: "quick" | "full"): StoreDamaged | null {
  const statement = `pragma ${kind === "quick" ? "quick_check" : "integrity_check"}(1)`
  try {
    const found = Object.values(source.database.prepare(statement).get() ?? {})[0]
    return found === "ok" ? null : damagedAt(source, 0, String(found))
  } catch (error) {
    if (isDamage(error)) return damagedAt(source, 0, (error as Error).message)
    throw error
  }
}

function readHead(database: DatabaseSync): Head {
  const row = database.prepare("select position, hash from events order by position desc limit 1").get()
  if (row === undefined) return { position: 0, hash: genesisHash }
  return { position: Number(row["position"]), hash: String(row["hash"]) }
}

/** The acknowledged head must be there: the last fact, or one behind which others were committed. */
export function checkAcknowledged(
  source: IntegritySource,
  acknowledged: Head | null,
  head: Head
): StoreDamaged | null {
  if (acknowledged === null || acknowledged.position === 0) return null
  if (acknowledged.position > head.position)
    return damagedAt(
      source,
      head.position + 1,
      `facts up to ${acknowledged.position} were acknowledged, says ${source.path}.head`
    )
  const hash = source.database
    .prepare("select hash from events where position = ?")
    .get(acknowledged.position)?.["hash"]
  if (hash === acknowledged.hash) return null
  return damagedAt(source, acknowledged.position, "its hash is not the one that was acknowledged")
}

/** The checks at opening; returns the head. The cost is bounded by `tailFacts` and `quickCheckBytesMax`. */
export function checkTail(
  source: IntegritySource,
  acknowledged: Head | null,
  limits: { readonly tailFacts: number; readonly quickCheckBytesMax: number }
): Head | StoreDamaged {
  const size = source.database.prepare("select * from pragma_page_count, pragma_page_size").get()
  const sizeBytes = Number(size?.["page_count"]) * Number(size?.["page_size"])
  const pages = sizeBytes <= limits.quickCheckBytesMax ? checkPages(source, "quick") : null
  try {
    const head = readHead(source.database)
    const before = Math.max(0, head.position - limits.tailFacts)
    const start = source.database.prepare("select hash from events where position = ?").get(before)?.["hash"]
    if (before > 0 && typeof start !== "string") return damagedAt(source, before, "the fact is missing")
    const walk = new ChainWalk(source, { position: before, hash: before === 0 ? genesisHash : String(start) })
    let step = walk.step(head.position)
    while (step === "more") step = walk.step(head.position)
    if (step !== "done") return step
    return checkAcknowledged(source, acknowledged, head) ?? pages ?? head
  } catch (error) {
    if (isDamage(error)) return pages ?? damagedAt(source, 0, (error as Error).message)
    throw error
  }
}

/** Snapshots are not in the chain; the first whose own hash is wrong is reported. */
export function checkSnapshots(source: IntegritySource): StoreDamaged | null {
  try {
    const rows = source.database.prepare("select * from snapshots order by stream, version").iterate()
    for (const row of rows) {
      const { stream, version, revision, position, state, hash } = row
      const text = snapshotText(
        stream as string,
        version as number,
        revision as number,
        position as number,
        state as string
      )
      if (source.sha256(text) !== hash)
        return damagedAt(source, 0, `the snapshot of ${String(stream)} does not match its hash`)
    }
    return null
  } catch (error) {
    if (isDamage(error)) return damagedAt(source, 0, (error as Error).message)
    throw error
  }
}
